import re
from typing import Any

import pytest
import torch

from agentrl.config.load import load_config
from agentrl.config.sandbox import BubblewrapSandboxConfig
from agentrl.data.task import load_task
from agentrl.engines.scripted import ScriptedEngine
from agentrl.plugins.reference import load_plugin
from agentrl.plugins.registry import load_tools
from agentrl.rewards.scoring import load_scorers
from agentrl.rollout.actor import TokenActor
from agentrl.rollout.group import Rollout
from agentrl.rollout.services import RunServices
from agentrl.templates.check import verify_template
from agentrl.templates.render import Renderer
from agentrl.trainer.content import Plugins


@pytest.fixture(scope="module")
def task() -> Any:
    config = load_config("tasks/calculator/train.yaml")
    return load_task(config.task, base=config.base_dir, seed=0)


def skeleton(question: str) -> str:
    """The wording of a problem, without its numbers and names."""
    text = re.sub(r"\d+", "#", question)
    return re.sub(r"\b[A-Z][a-z]{2}\b", "N", text)


def test_problems_are_the_same_for_the_same_seed(task: Any) -> None:
    first, second = task.samples("test"), task.samples("test")
    assert [s.prompt for s in first] == [s.prompt for s in second]
    assert len({s.prompt[0]["content"] for s in first}) > 0.9 * len(first)


def test_numbers_of_the_test_split_never_occur_together_in_training(task: Any) -> None:
    def numbers(split: str) -> set[tuple[str, ...]]:
        return {tuple(re.findall(r"\d+", s.prompt[0]["content"])) for s in task.samples(split)}

    assert not numbers("train") & numbers("test")


def test_wordings_of_the_test_split_never_occur_in_training(task: Any) -> None:
    train = {skeleton(s.prompt[0]["content"]) for s in task.samples("train")}
    test = {skeleton(s.prompt[0]["content"]) for s in task.samples("test")}
    assert not train & test


def test_some_demonstrations_are_wrong_and_all_are_well_formed(task: Any) -> None:
    truths = {s.prompt[0]["content"]: s.ground_truth for s in task.samples("train")}
    demonstrations = task.demonstrations()
    right = [
        d.messages[-1]["content"] == truths[d.messages[0]["content"]]
        for d in demonstrations
        if d.messages[0]["content"] in truths
    ]
    assert 0.3 < sum(right) / len(right) < 0.8


def test_the_policy_is_the_same_for_the_same_seed_and_its_template_extends() -> None:
    build = load_plugin("tasks/calculator/policy.py:build")
    (one, tokenizer), (two, _), (three, _) = build(1), build(1), build(2)
    pairs = list(zip(one.parameters(), two.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(one.parameters()), next(three.parameters()))
    tool = {"type": "function", "function": {"name": "t", "parameters": {"properties": {"x": {}}}}}
    report = verify_template(Renderer(tokenizer), [tool])
    assert all(reply.extends for reply in report.replies)


@pytest.mark.parametrize(
    ("code", "answer", "reward"),
    [
        ("print({truth})", "{truth}", 1.0),
        ("print({truth})", "0.123", 0.0),
        ("print(0.123)", "{truth}", 0.0),
        ("raise SystemExit(1)", "{truth}", 0.0),
        (None, "{truth}", 0.0),
    ],
)
async def test_a_reward_needs_an_executed_program_and_its_answer(
    services: RunServices, code: str | None, answer: str, reward: float
) -> None:
    config = load_config("tasks/calculator/train.yaml", ["sandbox.type=bubblewrap"])
    plugins = Plugins.load(config)
    _, tokenizer = load_plugin("tasks/calculator/policy.py:build")(0)
    renderer = Renderer(tokenizer)
    sample = plugins.samples("test")[0]
    truth = str(sample.ground_truth)
    call = {"name": "code_interpreter", "arguments": {"code": (code or "").format(truth=truth)}}
    turns: list[dict[str, Any]] = [{"role": "assistant", "content": answer.format(truth=truth)}]
    if code is not None:
        calls = [{"id": "c", "type": "function", "function": call}]
        turns.insert(0, {"role": "assistant", "content": "", "tool_calls": calls})
    engine = ScriptedEngine([renderer.assistant(turn, []).tolist() for turn in turns])
    rollout = Rollout(
        config=config.rollout,
        actor=TokenActor(engine=engine, renderer=renderer, tool_format=renderer.tool_format),
        renderer=renderer,
        tools=plugins.tools,
        interactions={},
        scoring=load_scorers(config, plugins.task, services, base=config.base_dir),
        services=services,
    )
    try:
        async with rollout:
            group = await rollout.run_group(sample, group_id="g", size=1, seed=0)
        assert group.trajectories[0].reward == reward
        assert services.executions == (0 if code is None else 1)
    finally:
        await services.close()


async def test_the_whole_task_learns_a_little_for_real(tmp_path: Any, services: Any) -> None:
    from agentrl import Trainer

    assert isinstance(services, RunServices)
    config = load_config(
        "tasks/calculator/train.yaml",
        [
            f"output_dir={tmp_path}",
            "sandbox.type=bubblewrap",
            "sft.steps=3",
            "train.steps=1",
            "train.prompts_per_step=2",
            "eval.samples=4",
        ],
    )
    assert isinstance(config.sandbox, BubblewrapSandboxConfig)
    result = await Trainer(config).run()
    assert result.steps == 1


def test_the_policys_prompt_shows_the_tool_in_the_templates_own_short_words() -> None:
    _, tokenizer = load_plugin("tasks/calculator/policy.py:build")(0)
    renderer = Renderer(tokenizer)
    tools = load_tools("tools/code_interpreter.yaml")
    schemas = [tool.tool_schema.for_template() for tool in tools.values()]
    text = renderer.text([{"role": "user", "content": "1 + 1?"}], schemas)
    assert text.startswith("<|im_start|>system\ncode_interpreter(code)<|im_end|>\n")
    assert renderer.ways.native
