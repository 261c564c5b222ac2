"""The languages that sandboxes run, as a table that a configuration extends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentrl.config.sandbox import LanguageConfig
from agentrl.contracts.sandbox import RunRequest
from agentrl.errors import ToolError


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """How one language is run. In command lines `{file}` is the source, `{dir}` its folder.

    `run` of None means the fork server's own warm interpreter. `bounded` says whether the memory
    limit may be set on the address space as well.
    """

    file: str
    compile: tuple[str, ...] | None = None
    run: tuple[str, ...] | None = None
    bounded: bool = True

    @property
    def commands(self) -> tuple[str, ...]:
        """The programs that an image needs for this language."""
        lines = (self.compile, self.run)
        return tuple(line[0] for line in lines if line and not line[0].startswith("{"))


LANGUAGES: dict[str, Language] = {
    "python": Language(file="main.py"),
    "bash": Language(file="main.sh", run=("bash", "{file}")),
    "javascript": Language(file="main.js", run=("node", "{file}"), bounded=False),
    "cpp": Language(
        file="main.cpp",
        compile=("g++", "-O2", "-std=c++17", "-o", "{dir}/main", "{file}"),
        run=("{dir}/main",),
    ),
}
ALIASES = {"py": "python", "python3": "python", "sh": "bash", "js": "javascript"}
ALIASES |= {"node": "javascript", "nodejs": "javascript", "c++": "cpp"}


def language_table(extra: Mapping[str, LanguageConfig]) -> dict[str, Language]:
    """Return the built-in languages overlaid with configured ones."""
    configured = {
        name: Language(
            file=entry.file,
            compile=tuple(entry.compile) if entry.compile else None,
            run=tuple(entry.run),
            bounded=entry.bounded_address_space,
        )
        for name, entry in extra.items()
    }
    return LANGUAGES | configured


def find_language(table: Mapping[str, Language], name: str) -> Language:
    """Look a language up by its name or alias.

    Raises:
        ToolError: no such language.
    """
    language = table.get(name) or table.get(ALIASES.get(name.lower(), name.lower()))
    if language is None:
        raise ToolError(f"language {name!r} is not known; expected one of {sorted(table)}")
    return language


def steps(language: Language, request: RunRequest) -> list[dict[str, Any]]:
    """Return the steps (compile, run) that the guest is to take."""
    run = {
        "name": "run",
        "argv": list(language.run) if language.run else None,
        "timeout_s": request.run_timeout_s,
        "bounded": language.bounded,
    }
    if language.compile is None:
        return [run]
    compiling = {
        "name": "compile",
        "argv": list(language.compile),
        "timeout_s": request.compile_timeout_s,
        "bounded": False,
    }
    return [compiling, run]
