import pytest

from agentrl.contracts.reward import RewardEntry, weigh
from agentrl.contracts.sample import Sample
from agentrl.contracts.seed import derive_seed
from agentrl.contracts.trajectory import Turn, TurnKind
from agentrl.errors import (
    ConfigError,
    InfraError,
    PluginError,
    RolloutError,
    ToolError,
    ToolTimeoutError,
    boundary,
)


@pytest.mark.parametrize(
    ("raised", "becomes"),
    [
        (TimeoutError(), ToolTimeoutError),
        (ConnectionRefusedError("x"), InfraError),
        (KeyError("x"), PluginError),
        (ToolError("x"), ToolError),
        (InfraError("x"), InfraError),
    ],
)
def test_what_a_plugin_raises_is_classified_once(
    raised: Exception, becomes: type[RolloutError]
) -> None:
    with pytest.raises(RolloutError) as caught, boundary("tool 't'"):
        raise raised
    assert type(caught.value) is becomes


def test_a_reward_takes_the_weight_of_its_nearest_source() -> None:
    entries = [
        RewardEntry(source=s, value=1.0)
        for s in ("task", "tool/a", "tool/b", "tool_step/a", "interaction")
    ]
    ledger = weigh(entries, {"tool": 0.5, "tool/b": 0.1, "task": 2.0})
    assert [e.weight for e in ledger] == [2.0, 0.5, 0.1, 1.0, 1.0]
    assert ledger.total == pytest.approx(4.6)
    assert ledger.of("tool") == 2.0


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"mask": (1,)}, "mask has 1 of 2"),
        ({"logprobs": (-1.0,)}, "expected 2 logprobs"),
        ({"mask": (1, 2)}, "mask must be 0"),
        ({"policy_version": None}, "policy_version"),
        ({"kind": TurnKind.TOOL}, "expected 0 logprobs"),
        ({"kind": TurnKind.TOOL, "logprobs": ()}, "mask must be 0"),
    ],
)
def test_a_turn_checks_its_invariants(fields: dict[str, object], why: str) -> None:
    sound: dict[str, object] = {
        "kind": TurnKind.POLICY,
        "messages": (),
        "token_ids": (1, 2),
        "mask": (1, 1),
        "logprobs": (-1.0, -2.0),
        "policy_version": 0,
    }
    Turn(**sound)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=why):
        Turn(**(sound | fields))  # type: ignore[arg-type]


def test_a_row_of_verl_is_read_with_all_its_columns() -> None:
    row = {
        "data_source": "openai/gsm8k",
        "prompt": [{"role": "user", "content": "q"}],
        "reward_model": {"style": "rule", "ground_truth": "72"},
        "extra_info": {
            "index": 7,
            "split": "train",
            "tools_kwargs": {"t": {"create_kwargs": {"a": 1, "b": None}}, "u": None},
            "interaction_kwargs": {"name": "gsm8k", "query": "q", "other": None},
            "tool_selection": ["t"],
        },
    }
    sample = Sample.from_row(row, index=0)
    assert (sample.index, sample.ground_truth, sample.data_source) == (7, "72", "openai/gsm8k")
    assert sample.tools_kwargs == {"t": {"create_kwargs": {"a": 1}}}
    assert sample.interaction_kwargs == {"name": "gsm8k", "query": "q"}
    assert sample.tool_selection == ["t"]
    assert sample.extra_info == {"index": 7, "split": "train"}


def test_a_row_of_trl_is_read() -> None:
    sample = Sample.from_row({"prompt": "q", "answer": 4}, index=3, source="x.jsonl")
    assert sample.prompt == [{"role": "user", "content": "q"}]
    assert (sample.index, sample.ground_truth, sample.data_source) == (3, 4, "x.jsonl")


@pytest.mark.parametrize(
    "row", [{}, {"prompt": []}, {"prompt": " "}, {"prompt": [{"role": "user"}]}]
)
def test_a_row_without_a_prompt_is_named(row: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"x\.jsonl, row 5"):
        Sample.from_row(row, index=4, source="x.jsonl")


def test_seeds_depend_on_their_parts_alone() -> None:
    assert derive_seed(1, "a") == derive_seed(1, "a") != derive_seed(1, "b")
    assert derive_seed(1, 23) != derive_seed(12, 3)
