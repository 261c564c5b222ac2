import json
from pathlib import Path
from typing import Any

import pytest

from agentrl.cli.single_call import call_once
from agentrl.config.load import load_config
from agentrl.contracts.sandbox import RunRequest
from agentrl.data.task import load_task
from agentrl.errors import ConfigError
from agentrl.plugins.registry import load_interactions, load_tools
from agentrl.rewards.gsm8k import extract_answer, parse_number, response_is_correct
from agentrl.rollout.services import RunServices


@pytest.mark.parametrize(
    ("response", "truth", "right"),
    [
        ("so\n#### 72", "72", True),
        ("#### 1,080", "1080", True),
        ("#### $1,080.00", "1080", True),
        ("#### -3", "-3", True),
        ("#### 0.5", ".5", True),
        ("#### 72.0", "72", True),
        ("#### 12 apples", "12", True),
        ("#### 50%", "50", True),
        ("#### 5\n#### 72", "72", True),
        ("#### 72\n#### 5", "72", False),
        ("72", "72", False),
        ("####", "72", False),
        ("#### 72 or 73", "72", False),
        ("#### 7 2", "72", False),
        ("#### 1,08", "108", False),
        ("#### 720", "72", False),
        ("#### seventy-two", "72", False),
        ("the answer is 72 #### ", "72", False),
    ],
)
def test_answers_are_read_strictly_and_compared_as_numbers(
    response: str, truth: str, right: bool
) -> None:
    assert response_is_correct(response, truth) is right


def test_every_answer_of_the_data_is_a_number(gsm8k_data: Path) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        for line in (gsm8k_data / name).read_text().split("\n"):
            if line:
                solution = json.loads(line)["answer"]
                answer = extract_answer(solution)
                assert answer is not None
                assert parse_number(answer) is not None
                assert response_is_correct(solution, answer)


async def test_the_tool_keeps_the_best_of_a_trajectory(services: RunServices) -> None:
    (tool,) = load_tools("tools/gsm8k.yaml").values()
    await tool.create("a", ground_truth="72")
    await tool.create("b", ground_truth="5")
    _, step, _ = await tool.execute("a", {"answer": "71"})
    assert step == -0.05
    assert await tool.calc_reward("a") == 0.0
    _, step, _ = await tool.execute("a", {"answer": "72"})
    assert step == 0.0
    assert await tool.calc_reward("a") == 1.0
    assert await tool.calc_reward("b") == 0.0
    await tool.release("a")
    await tool.release("a")


async def test_the_interaction_gives_feedback_until_right_or_out_of_attempts() -> None:
    (teacher,) = load_interactions("interactions/gsm8k.yaml").values()

    async def say(instance: str, text: str) -> tuple[bool, str]:
        messages = [{"role": "assistant", "content": text}]
        end, answer, _, _ = await teacher.generate_response(instance, messages)
        return end, answer

    await teacher.start_interaction("a", ground_truth="72")
    assert await say("a", "#### 71") == (False, "Incorrect! Try again.")
    assert (await say("a", "seventy two"))[0] is False
    assert (await say("a", "#### 72"))[0] is True
    assert await teacher.calculate_score("a") == 1.0
    await teacher.finalize_interaction("a")
    await teacher.start_interaction("b", ground_truth="72")
    ends = [(await say("b", "#### 1"))[0] for _ in range(4)]
    assert ends == [False, False, False, True]
    assert await teacher.calculate_score("b") == 0.0


def gsm8k_task(data: Path, **config: Any) -> Any:
    words = [f"task.train={data}/train.jsonl", f"task.test={data}/test.jsonl"]
    loaded = load_config("tasks/gsm8k/train.yaml", words)
    settings = loaded.task.model_copy(update={"config": config})
    return load_task(settings, base=loaded.base_dir, seed=0)


def test_most_solutions_become_demonstrations_with_the_right_answer(gsm8k_data: Path) -> None:
    demonstrations = gsm8k_task(gsm8k_data, demonstrations=10_000).demonstrations()
    assert len(demonstrations) > 6500
    samples = {
        s.prompt[0]["content"]: s.ground_truth for s in gsm8k_task(gsm8k_data).samples("train")
    }
    for demonstration in demonstrations:
        question, _, _, answer = demonstration.messages
        assert response_is_correct(answer["content"], samples[question["content"]])


async def test_a_demonstrations_program_prints_what_it_says(
    gsm8k_data: Path, services: RunServices
) -> None:
    sandbox = await services.sandbox()
    try:
        for demonstration in gsm8k_task(gsm8k_data, demonstrations=40).demonstrations():
            _, call, printed, _ = demonstration.messages
            code = call["tool_calls"][0]["function"]["arguments"]["code"]
            result = await sandbox.run(RunRequest(code=code))
            assert result.stdout.strip() == printed["content"]
    finally:
        await services.close()


def test_test_questions_are_not_among_the_training_ones(gsm8k_data: Path) -> None:
    task = gsm8k_task(gsm8k_data)
    train, test = ({s.prompt[0]["content"] for s in task.samples(x)} for x in ("train", "test"))
    assert not train & test
    assert len(test) > 600


def test_a_row_without_an_answer_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(
        '{"question": "q", "answer": "#### 1"}\n{"answer": "2"}\n'
    )
    with pytest.raises(ConfigError, match="row 2"):
        gsm8k_task(tmp_path).samples("train")


async def test_a_stateful_interpreter_keeps_a_session_per_trajectory(
    services: RunServices,
) -> None:
    entry = {
        "class_name": "tools.code_interpreter.CodeInterpreter",
        "config": {"stateful": True},
        "tool_schema": {"name": "python", "parameters": {"type": "object"}},
    }
    (tool,) = load_tools([entry]).values()
    await tool.open(services)
    try:
        await tool.create("a")
        await tool.create("b")
        await tool.execute("a", {"code": "x = 41"})
        response, _, metrics = await tool.execute("a", {"code": "x + 1"})
        assert (response.text, metrics["status"]) == ("42", "ok")
        response, _, _ = await tool.execute("b", {"code": "x"})
        assert "NameError" in str(response.text)
        await tool.release("a")
        await tool.release("b")
        assert vars(tool)["_sessions"] == {}
    finally:
        await services.close()


async def test_the_interpreter_shows_output_errors_and_limits(services: RunServices) -> None:
    (tool,) = load_tools("tools/code_interpreter.yaml").values()

    async def run(code: str) -> str:
        record, _ = await call_once(tool, {"code": code}, services, create_kwargs={})
        assert record.outcome == "ok"
        return record.response

    try:
        assert await run("print(6 * 7)") == "42"
        assert (await run("1 / 0")).endswith("ZeroDivisionError: division by zero")
        assert await run("x = 1") == "[no output]"
        assert "time limit of 5 s" in await run("while True: pass")
        assert "memory limit" in await run("x = bytearray(10**9)")
    finally:
        await services.close()
