import json
import re
import sys
import zlib
from dataclasses import replace
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import pytest
from rewards_support import a_call, a_group, a_sample, a_trajectory, policy_turn

from agentrl.contracts.failure import Failure
from agentrl.contracts.media import Media
from agentrl.contracts.reward import RewardEntry
from agentrl.contracts.tool import ToolCall, ToolOutcome, ToolRecord
from agentrl.contracts.trajectory import Group, Termination, Trajectory, Turn, TurnKind
from agentrl.errors import PluginError
from agentrl.traces.record import Trace, from_json, to_json
from agentrl.traces.store import append_trace


def traced(group: Group, **fields: Any) -> Trace:
    return Trace(**{"step": 3, "split": "train", "fate": "trained", "group": group, **fields})


def there_and_back(group: Group) -> Group:
    return from_json(to_json(traced(group))).group


def failure() -> Failure:
    try:
        try:
            {}["key"]
        except KeyError as error:
            raise PluginError("tool 'add': KeyError: 'key'") from error
    except PluginError as error:
        return Failure.of(error)


def test_everything_about_a_group_comes_back() -> None:
    group = a_group(
        "5",
        "fünf ✓",
        entries=[RewardEntry(source="task", value=0.1 + 0.2, weight=0.5, turn=1)],
        calls=[a_call(), replace(a_call(ToolOutcome.INFRA_ERROR), failure=failure())],
        termination=Termination.INFRA_ERROR,
        failure=failure(),
        dropped=True,
        seed=(1 << 63) - 1,
        duration_s=1 / 3,
        tool_schemas=({"type": "function", "function": {"name": "add"}},),
    )
    group = replace(group, sampling={"temperature": 0.7}, template="sha256:ab")
    trace = traced(group, step=12, split="eval", fate="eval")
    assert from_json(to_json(trace)) == trace
    read = from_json(to_json(trace)).group
    assert "KeyError: 'key'" in (read.trajectories[0].failure or failure()).traceback
    assert read.trajectories[0].sample is read.trajectories[1].sample is read.sample


def test_streams_keep_every_bit() -> None:
    logprobs = np.array([-0.0, np.nextafter(np.float32(-1), np.float32(0)), -1e-45], np.float32)
    versions = np.array([2**31 - 1, 0, 0], np.int32)
    turn = replace(
        policy_turn({"role": "assistant", "content": "x"}, parent=0, kept=1),
        logprobs=logprobs, versions=versions, mask=[1, 0, 1], token_ids=[0, 2**31 - 1, 7],
    )  # fmt: skip
    group = a_group("5")
    (member,) = group.trajectories
    turns = (member.turns[0], turn)
    read = there_and_back(replace(group, trajectories=(replace(member, turns=turns),)))
    back = read.trajectories[0].turns[1]
    for name in ("token_ids", "mask", "logprobs", "versions"):
        ours, theirs = getattr(turn, name), getattr(back, name)
        assert (ours.tobytes(), ours.dtype) == (theirs.tobytes(), theirs.dtype)
        assert not theirs.flags.writeable


def test_a_tree_comes_back_as_a_tree() -> None:
    member = a_trajectory()
    branch = policy_turn({"role": "assistant", "content": "6"}, parent=1, kept=3)
    group = Group(
        id="g", sample=member.sample, trajectories=(replace(member, turns=(*member.turns, branch)),)
    )
    read = there_and_back(group)
    assert read == group
    assert read.trajectories[0].leaves == group.trajectories[0].leaves


def test_turns_without_tokens_and_groups_without_members_come_back() -> None:
    member = a_trajectory()
    empty = Turn(kind=TurnKind.POLICY, messages=(), token_ids=[], parent=0, kept=2)
    group = Group(
        id="g",
        sample=member.sample,
        trajectories=(replace(member, turns=(member.turns[0], empty)),),
    )
    assert there_and_back(group) == group
    assert there_and_back(replace(group, trajectories=())) == replace(group, trajectories=())


def test_media_are_recorded_by_their_digest() -> None:
    picture = Media.of("image", b"\x89PNG" * 1000)
    parts = [{"type": "text", "text": "see"}, {"type": "image", "image": picture}]
    sample = a_sample(prompt=[{"role": "user", "content": parts}])
    group = a_group("5", sample=sample)
    (member,) = group.trajectories
    turns = (replace(member.turns[0], media=(picture,)), *member.turns[1:])
    group = replace(group, trajectories=(replace(member, turns=turns),))
    line = to_json(traced(group))
    assert b"PNG" not in line
    read = from_json(line).group.trajectories[0]
    assert read.turns[0].media == (picture,)
    assert read.messages[0]["content"][1]["image"] == picture
    assert read.sample.prompt == sample.prompt


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    ("held", "becomes"),
    [
        (b"\x00" * 10, "10 bytes, sha256:"),
        (Rude(), "<"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (10**6000, "0x"),
        (np.arange(3), "[0 1 2]"),
        ({1, }, "{1}"),
        (Rude, "<class"),
    ],
    ids=range(8),
)  # fmt: skip
def test_what_json_cannot_hold_becomes_text(held: Any, becomes: str) -> None:
    read = there_and_back(a_group("5", sample=a_sample(image=held)))
    assert read.sample.columns["image"].startswith(becomes)


@pytest.mark.parametrize(
    "held",
    [circle(), {("a", 1): Rude()}, {None: {2.5: "x"}}, Media.of("image", b"x")],
    ids=range(4),
)
def test_no_object_breaks_a_record(held: Any) -> None:
    call = ToolCall(id="c", name="add", arguments={"a": held})
    record = ToolRecord(call=call, outcome=ToolOutcome.OK, response="x", metrics={"m": held})
    group = a_group("5", sample=a_sample(image=held), calls=[record])
    assert there_and_back(group).trajectories[0].answer == "5"


def test_half_a_surrogate_pair_comes_back() -> None:
    assert there_and_back(a_group("\ud83d")) == a_group("\ud83d")


def test_numbers_of_numpy_come_back_as_numbers() -> None:
    numbers = {"x": np.float32(0.1), "n": np.int64(3), "long": int("9" * 4000)}
    read = there_and_back(a_group("5", sample=a_sample(**numbers)))
    assert read.sample.columns["long"] == int("9" * 4000)
    assert read.sample.columns["x"] == np.float32(0.1)
    assert read.sample.columns["n"] == 3


def test_the_record_is_json_that_others_can_read() -> None:
    tree = json.loads(to_json(traced(a_group("5", "6"))))
    assert tree["version"] == 2
    assert [m["termination"] for m in tree["group"]["trajectories"]] == ["answered", "answered"]
    assert tree["group"]["trajectories"][0]["turns"][1]["versions"] == [[7, 2], [8, 1]]
    assert "sample" not in tree["group"]["trajectories"][0]


def realistic(size: int, tokens: int) -> Group:
    """Dialogues of English prose, half of it the policy's; tokens of some three letters."""
    text = "\n".join(topics.values())
    pieces = re.findall(r"\s*[A-Za-z]{1,5}|\s*[0-9]+|\s*[^\w]|_", text)
    ids = np.array([zlib.crc32(piece.encode()) % 150_000 for piece in pieces], np.int32)
    rng = np.random.default_rng(0)
    sample = a_sample(prompt=[{"role": "user", "content": "".join(pieces[:200])}])
    members = []
    for member in range(size):
        turns = [Turn(kind=TurnKind.PROMPT, messages=tuple(sample.prompt), token_ids=ids[:200])]
        for index in range(8):
            begin, num = 200 + (member * 8 + index) * tokens // 8, tokens // 8
            said, policy = "".join(pieces[begin : begin + num]), index % 2 == 0
            record = replace(a_call(), response=said)
            turns.append(
                Turn(
                    kind=TurnKind.POLICY if policy else TurnKind.TOOL,
                    messages=({"role": "assistant" if policy else "tool", "content": said},),
                    token_ids=ids[begin : begin + num],
                    mask=np.ones(num) if policy else np.zeros(num),
                    logprobs=np.log(rng.beta(5, 0.5, num)) if policy else [],
                    versions=np.full(num, 40) if policy else [],
                    tool_records=() if policy else (record,),
                    parent=index,
                    kept=200 + index * num,
                    started_s=rng.random(),
                    duration_s=rng.random(),
                )
            )
        members.append(
            Trajectory(
                id=f"g-{member}",
                sample=sample,
                turns=tuple(turns),
                rewards=a_trajectory(entries=[RewardEntry(source="task", value=1.0)]).rewards,
                termination=Termination.ANSWERED,
            )
        )
    return Group(id="g", sample=sample, trajectories=tuple(members))


def test_a_record_takes_at_most_ten_bytes_a_token(tmp_path: Any) -> None:
    group = realistic(8, 2048)
    size = append_trace(tmp_path / "t.jsonl.gz", traced(group))
    per_token = size / sum(len(t.token_ids) for t in group.trajectories)
    print(f"{per_token:.2f} bytes a token")
    # Of a token there remain some 2 bytes of id and 1 of text; of one that the policy wrote
    # 3.5 more of its log-probability, for half of them here.
    assert 4 < per_token < 6
    assert from_json(to_json(traced(group))).group == group


def test_no_step_of_python_is_taken_for_each_token() -> None:
    def steps(tokens: int) -> int:
        count = 0

        def seen(*event: Any) -> None:
            nonlocal count
            count += 1

        trace = traced(realistic(2, tokens))
        sys.setprofile(seen)
        try:
            from_json(to_json(trace))
        finally:
            sys.setprofile(None)
        return count

    assert abs(steps(8192) - steps(64)) < 50
