"""Cutting an over-long tool response, keeping the part that was asked for."""

from agentrl.config.rollout import Keep


def showable(text: str) -> str:
    """Return `text` with a mark for each lone surrogate, which no tokenizer and no file takes."""
    return text.encode(errors="replace").decode()


def truncate(text: str, limit: int, keep: Keep) -> str:
    """Return at most about `limit` characters of `text`, with a mark where something is missing.

    `keep` names the part that stays: `left` the beginning, `right` the end, `middle` the middle.
    """
    if len(text) <= limit:
        return text
    missing = len(text) - limit
    if keep is Keep.LEFT:
        return f"{text[:limit]}\n[... {missing} characters cut]"
    if keep is Keep.RIGHT:
        return f"[{missing} characters cut ...]\n{text[missing:]}"
    start = missing // 2
    return (
        f"[{start} characters cut ...]\n{text[start : start + limit]}"
        f"\n[... {missing - start} characters cut]"
    )
