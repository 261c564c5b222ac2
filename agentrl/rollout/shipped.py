"""Chat templates for training that come with agentrl, by the short name of their model family.

The models' own templates drop the thinking of earlier turns, keep no generation prompt or close
turns by changing tokens, so each turn branches. These say the same in the same tokens and only
append: one row a dialogue instead of one a turn. Serve a model with the template it was trained
with.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent / "templates"

SHIPPED = ("deepseek_r1", "glm45", "gpt_oss", "qwen3")


def shipped_template(name: str) -> str:
    """Return the Jinja text of a shipped template."""
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
