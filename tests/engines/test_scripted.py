"""The scripted engine, as users' tests lean on it."""

import asyncio

import pytest
from engines_support import ask, published

from agentrl.contracts.engine import Sampling
from agentrl.engines.scripted import ScriptedEngine
from agentrl.errors import EngineError

LONG = Sampling(max_tokens=100)


class Letters:
    """Encodes each character as its code point."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]


async def test_every_session_plays_the_list_from_its_start():
    engine = ScriptedEngine([[1, 2], [3]])
    first = await ask(engine, [9], LONG, session="a")
    other = await ask(engine, [9], LONG, session="b")
    second = await ask(engine, [9], LONG, session="a")
    assert [first.token_ids, other.token_ids, second.token_ids] == [[1, 2], [1, 2], [3]]


async def test_a_mapping_gives_each_session_its_own_script():
    engine = ScriptedEngine({"a": [[1]], "b": [[2]]})
    assert (await ask(engine, [9], LONG, session="b")).token_ids == [2]


async def test_a_function_sees_session_turn_and_prompt():
    engine = ScriptedEngine(lambda session, turn, prompt: [turn, len(prompt), len(session)])
    await ask(engine, [5], LONG, session="abc")
    assert (await ask(engine, [5, 6], LONG, session="abc")).token_ids == [1, 2, 3]


async def test_text_is_encoded_and_ended_with_the_stop_token():
    engine = ScriptedEngine(["hi"], tokenizer=Letters(), stop_token_id=0)
    done = await ask(engine, [9], Sampling(max_tokens=9, stop_token_ids=(0,)), session="a")
    assert (done.token_ids, done.finish_reason) == ([104, 105, 0], "stop")


async def test_text_without_a_tokenizer_is_an_error_that_says_what_to_pass():
    with pytest.raises(EngineError, match="pass `tokenizer`"):
        await ask(ScriptedEngine(["hi"]), [9], LONG, session="a")


async def test_max_tokens_cuts_a_reply_and_says_length():
    engine = ScriptedEngine([[1, 2, 3]])
    done = await ask(engine, [9], Sampling(max_tokens=2), session="a")
    assert (done.token_ids, done.finish_reason) == ([1, 2], "length")


async def test_a_reply_ends_after_its_first_stop_token():
    engine = ScriptedEngine([[1, 7, 3]])
    done = await ask(engine, [9], Sampling(max_tokens=9, stop_token_ids=(7,)), session="a")
    assert (done.token_ids, done.finish_reason) == ([1, 7], "stop")


async def test_every_token_has_the_given_logprob():
    engine = ScriptedEngine([[1, 2]], logprob=-0.5)
    assert (await ask(engine, [9], LONG, session="a")).logprobs == [-0.5, -0.5]


async def test_a_script_that_runs_out_names_session_and_turn():
    engine = ScriptedEngine([[1]])
    await ask(engine, [9], LONG, session="a")
    with pytest.raises(EngineError, match=r"'a' has 1 replies and was asked for turn 1"):
        await ask(engine, [9], LONG, session="a")


async def test_an_unknown_session_is_an_error():
    with pytest.raises(EngineError, match="no script for session 'b'"):
        await ask(ScriptedEngine({"a": [[1]]}), [9], LONG, session="b")


async def test_requests_are_recorded_in_order():
    engine = ScriptedEngine([[1], [2]])
    await ask(engine, [9], LONG, session="a")
    await ask(engine, [9, 1, 8], LONG, session="a")
    assert [(r.turn, r.prompt_ids) for r in engine.requests] == [(0, [9]), (1, [9, 1, 8])]


async def test_delayed_calls_do_not_wait_for_each_other():
    engine = ScriptedEngine([[1]], delay_s=0.2)
    async with asyncio.timeout(10):
        requests = (ask(engine, [9], LONG, session=str(i)) for i in range(500))
        done = await asyncio.gather(*requests)
    assert [one.token_ids for one in done] == [[1]] * 500


async def test_later_completions_carry_the_new_version(model):
    engine = ScriptedEngine([[1], [2]])
    before = await ask(engine, [9], LONG, session="a")
    await engine.update_weights(published(model, 3))
    after = await ask(engine, [9], LONG, session="a")
    assert (set(before.versions), set(after.versions)) == ({0}, {3})


async def test_a_closed_engine_refuses():
    engine = ScriptedEngine([[1]])
    await engine.close()
    with pytest.raises(EngineError, match="closed"):
        await ask(engine, [9], LONG, session="a")
