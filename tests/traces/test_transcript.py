from dataclasses import replace

from rewards_support import a_call, a_trajectory, policy_turn

from agentrl.contracts.media import Media
from agentrl.contracts.reward import RewardEntry
from agentrl.traces.transcript import transcript


def test_a_transcript_tells_the_whole_dialogue() -> None:
    entries = [
        RewardEntry(source="tool_step/add", value=0.5, turn=2),
        RewardEntry(source="task", value=1.0),
    ]
    assert transcript(a_trajectory(entries=entries, calls=[a_call()], dropped=True)) == (
        "[user] 2+3?\n"
        "[assistant] I add.\n"
        "[assistant calls add] {'a': 2, 'b': 3}\n"
        "[tool add: ok, 0 ms] 5\n"
        "    reward tool_step/add: +0.5 (weight 1)\n"
        "[assistant] 5\n"
        "-- answered: reward 1.5 (task +1), 7 tokens, 0.00 s, dropped"
    )


def test_a_branch_says_where_it_goes_on() -> None:
    member = a_trajectory()
    branch = policy_turn({"role": "assistant", "content": "6"}, parent=1, kept=3)
    text = transcript(replace(member, turns=(*member.turns, branch)))
    assert "[assistant] 5\n-- goes on from turn 1\n[assistant] 6\n" in text


def test_a_picture_is_shown_by_its_digest() -> None:
    member = a_trajectory()
    parts = [{"type": "text", "text": "see"}, {"type": "image", "image": Media.of("image", b"x")}]
    prompt = replace(member.turns[0], messages=({"role": "user", "content": parts},))
    text = transcript(replace(member, turns=(prompt, *member.turns[1:])))
    assert text.startswith("[user] see <image sha256:2d711642>\n")
