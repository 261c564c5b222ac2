"""Writes docs/templates.md: what the renderer makes of public chat templates.

    python tests/bench/templates.py [SOURCE=FOLDER ...] > docs/templates.md

The packages' templates are those that tests/rollout/test_public_templates.py runs over; further
folders of `*.jinja` files are added by name. Tokenizers are byte-level with each template's special
tokens (the models' own are not in the packages), so the figures are of templates, not of models.
"""

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from public_templates import installed_templates, templates_in, tokenizer_for
from tests_support import SCHEMAS

from agentrl.errors import TemplateError
from agentrl.rollout.render import Renderer
from agentrl.rollout.template_check import verify_template

_HEAD = Path(__file__).with_name("templates_head.md")


def row(name: str, text: str) -> tuple[str, str]:
    """Return a line of the table, and what it counts as."""
    try:
        report = verify_template(Renderer(tokenizer_for(text)), SCHEMAS)
    except TemplateError as error:
        reason = str(error).partition(": ")[2].partition("; name another")[0]
        return f"| {name} | refused | | | {reason} |", "refused"
    calls = report.tool_format if report.native else "in words"
    how = ["extends" if reply.extends else "branches" for reply in report.replies]
    notes = "; ".join(h for h in report.habits if "calls stand in" not in h)
    return f"| {name} | {calls} | {how[0]} | {how[1]} | {notes} |", f"{calls != 'in words'} {how}"


def main() -> None:
    """Print the page."""
    templates = installed_templates()
    for argument in sys.argv[1:]:
        source, _, folder = argument.partition("=")
        templates |= {f"{source}/{k}": text for k, text in templates_in(Path(folder)).items()}
    lines = {name: row(name.partition("/")[2], text) for name, text in sorted(templates.items())}
    print(_HEAD.read_text())
    sources = sorted({name.partition("/")[0] for name in templates})
    print("| source | templates | accepted | native calls | tool extends | user extends |")
    print("| --- | --- | --- | --- | --- | --- |")
    for source in sources:
        kinds = [kind for name, (_, kind) in lines.items() if name.startswith(f"{source}/")]
        counts = Counter[str]()
        for kind in kinds:
            counts["accepted"] += kind != "refused"
            counts["native"] += kind.startswith("True")
            counts["tool"] += "['extends'" in kind
            counts["user"] += "'extends']" in kind
        figures = (len(kinds), *(counts[key] for key in ("accepted", "native", "tool", "user")))
        print(f"| {source} | {' | '.join(map(str, figures))} |")
    for source in sources:
        print(f"\n## {source}\n")
        print("| template | calls | tool reply | user reply | notes |")
        print("| --- | --- | --- | --- | --- |")
        print("\n".join(line for name, (line, _) in lines.items() if name.startswith(f"{source}/")))


if __name__ == "__main__":
    main()
