"""Where shipped files lie, and how a path in a YAML file is found."""

from functools import cache
from pathlib import Path


@cache
def shipped_root() -> Path:
    """Return the folder that holds `tools/ interactions/ sandbox/ tasks/`.

    In a checkout that is the repository's root, in an installed wheel `agentrl/_shipped`.
    """
    package = Path(__file__).resolve().parent
    shipped = package / "_shipped"
    return shipped if shipped.is_dir() else package.parent


def resolve_path(path: str | Path, base: Path | None) -> Path:
    """Find a file: absolute, else beside the YAML in `base`, else under the shipped root.

    Returns the first that exists; when none does, the first candidate (for the error message).
    """
    path = Path(path).expanduser()
    if path.is_absolute():
        return path
    candidates = [(base or Path.cwd()) / path, shipped_root() / path]
    return next((c for c in candidates if c.exists()), candidates[0])
