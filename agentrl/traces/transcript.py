"""A trajectory as plain text, turn by turn, for people to read."""

from collections.abc import Iterator

from agentrl.contracts.message import media_of, text_of
from agentrl.contracts.trajectory import Trajectory, Turn, TurnKind


def transcript(trajectory: Trajectory) -> str:
    """Return the whole dialogue with its outcomes and rewards."""
    lines: list[str] = []
    for index, turn in enumerate(trajectory.turns):
        if index and turn.parent != index - 1:
            lines.append(f"-- goes on from turn {turn.parent}")
        lines += _turn_lines(turn)
        lines += [
            f"    reward {e.source}: {e.value:+g} (weight {e.weight:g})"
            for e in trajectory.rewards
            if e.turn == index and e.value
        ]
    lines.append(_summary(trajectory))
    return "\n".join(lines)


def _turn_lines(turn: Turn) -> Iterator[str]:
    if turn.kind is TurnKind.TOOL:
        for record in turn.tool_records:
            yield (
                f"[tool {record.call.name}: {record.outcome}, {record.duration_s * 1000:.0f} ms] "
                f"{record.response}"
            )
        return
    for message in turn.messages:
        content = message["content"]
        shown = [text_of(content), *(f"<{m.kind} {m.digest[:15]}>" for m in media_of(content))]
        if any(shown):
            yield f"[{message['role']}] {' '.join(filter(None, shown))}"
        for call in message.get("tool_calls", []):
            yield f"[assistant calls {call['function']['name']}] {call['function']['arguments']}"


def _summary(trajectory: Trajectory) -> str:
    parts = [f"{e.source} {e.value:+g}" for e in trajectory.rewards if e.turn is None]
    text = (
        f"-- {trajectory.termination}: reward {trajectory.reward:g}"
        f" ({', '.join(parts) or 'no rewards'}), {trajectory.response_length} tokens,"
        f" {trajectory.duration_s:.2f} s"
    )
    if trajectory.dropped:
        text += ", dropped"
    return f"{text}\n-- {trajectory.error}" if trajectory.error else text
