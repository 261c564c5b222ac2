import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from flow_support import Credit, Learnt, Loop, Rolled, State, settle

from agentrl.errors import ConfigError, RunError
from agentrl.flow.graph import DataflowGraph
from agentrl.flow.node import Batch, Node, Refuse
from agentrl.flow.run import Flow, running
from agentrl.flow.tickets import Ticket


@pytest.fixture
def loop() -> Loop:
    return Loop()


@asynccontextmanager
async def stepping(flow: Flow) -> AsyncIterator[asyncio.Task[Any]]:
    """Run a step beside the test until it waits for groups; it must end within the block."""
    task = asyncio.create_task(flow.step())
    await settle()
    try:
        yield task
        await settle()
        assert task.done(), "the step still waits for groups"
        task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def positions(tickets: Any) -> list[int]:
    return sorted(ticket.position for ticket in tickets)


async def test_on_policy_nothing_runs_between_steps(loop: Loop) -> None:
    state = State()
    async with running(loop.graph(Batch(2)), state, told=loop.tell) as flow:
        for step in range(3):
            async with stepping(flow) as task:
                assert positions(loop.live) == [2 * step, 2 * step + 1]
                loop.finish(2 * step + 1, 2 * step)
            assert task.result()["update"] == [step + 1, 2 * step, 2 * step + 1]
            assert not loop.live
            assert state == State(position=2 * step + 2, pending=[])


async def test_groups_of_later_steps_run_on_and_the_oldest_are_waited_for(loop: Loop) -> None:
    state = State()
    async with running(loop.graph(Batch(2, ahead=1)), state, told=loop.tell) as flow:
        async with stepping(flow):
            assert positions(loop.live) == [0, 1, 2, 3]
            loop.finish(3, 2)  # late ones are waited for by the next step, not by this one
        assert loop.learnt == [[2, 3]]
        assert state.pending == [0, 1]
        async with stepping(flow) as step:
            loop.finish(4, 5)
            await settle()
            assert not step.done(), "0 and 1 would be too old for the step after this"
            loop.finish(0)
            await settle()
            assert not step.done()
            loop.finish(1)
        assert loop.learnt == [[2, 3], [0, 1]]
        async with stepping(flow):
            pass  # 4 and 5 are complete already
        assert loop.learnt[2] == [4, 5]
    assert not [fate for _, fate in loop.fates if fate], "nothing begun was wasted"


async def test_with_two_steps_ahead_places_are_kept_for_what_falls_due_later(loop: Loop) -> None:
    state = State()
    async with running(loop.graph(Batch(1, ahead=2)), state, told=loop.tell) as flow:
        async with stepping(flow):
            loop.finish(2)
        async with stepping(flow) as step:
            loop.finish(3)  # begun last; were it taken, 0 and 1 would both fall due at step 3
            await settle()
            assert not step.done()
            loop.finish(1)
        async with stepping(flow):
            loop.finish(0)
        assert loop.learnt == [[2], [1], [0]]


async def test_the_biased_mode_takes_the_first_and_throws_late_ones_away(loop: Loop) -> None:
    state = State()
    async with running(loop.graph(Batch(2, ahead=1, first=True)), state, told=loop.tell) as flow:
        async with stepping(flow):
            loop.finish(2, 3)
        async with stepping(flow):
            loop.finish(4, 5)
        async with stepping(flow):
            loop.finish(0)
            await settle()
            assert (0, "stale") in loop.fates
            assert 0 not in state.pending
            loop.finish(6, 7)
        assert loop.learnt == [[2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize("first", [False, True])
async def test_spares_stand_in_for_the_refused_and_only_the_biased_mode_for_the_slow(
    loop: Loop, first: bool
) -> None:
    state = State()
    batch = Batch(2, oversample=1.5, first=first)
    async with running(loop.graph(batch), state, told=loop.tell) as flow:
        async with stepping(flow) as step:
            assert positions(loop.live) == [0, 1, 2]
            loop.finish(1, 2)
            await settle()
            assert step.done() is first
            if not first:
                loop.finish(0)
        assert loop.learnt == [[1, 2] if first else [0, 1]]
        assert loop.fates[0] == (0 if first else 2, "surplus")
        # The prompt of a spare that was not needed opens the next step.
        assert state.pending == ([] if first else [2])
        async with stepping(flow):
            loop.finish(3, 4 if first else 2)


async def test_a_filter_samples_the_same_prompt_again_or_goes_on(loop: Loop) -> None:
    state = State()

    def fussy(rolled: Rolled, ticket: Ticket) -> Refuse | None:
        if ticket.attempt < 2 and rolled == 0:
            return Refuse("once more", again=True)
        return Refuse("never") if rolled == 1 else None

    graph = loop.graph(Batch(2))
    graph.insert("rollout", Node(fussy))
    async with running(graph, state, told=loop.tell) as flow:
        async with stepping(flow):
            loop.finish(0, 1)
            await settle()
            assert state.pending == [0, 2]
            loop.finish(0)
            await settle()
            loop.finish(0, 2)
        assert loop.learnt == [[0, 2]]
        assert [t.attempt for t in loop.begun if t.position == 0] == [0, 1, 2]
        assert loop.fates[:3] == [(0, "once more"), (1, "never"), (0, "once more")]
        counts = flow.drain_metrics()
        assert counts["flow/fussy/refused"] == 3
        assert counts["flow/rollout/count"] == 5
        assert counts["timing_s/node/update"] > 0
        assert flow.drain_metrics() == {}


@pytest.mark.parametrize("again", [False, True])
async def test_on_policy_a_refused_group_whose_record_is_slow_begins_nothing_during_the_update(
    loop: Loop, again: bool
) -> None:
    state, written = State(), asyncio.Event()

    def fussy(rolled: Rolled, ticket: Ticket) -> Refuse | None:
        return Refuse("no", again=again) if rolled == 0 else None

    async def slow(passed: Any) -> None:
        if passed.refused == "no":
            await written.wait()

    graph = loop.graph(Batch(1, oversample=2, first=True))
    graph.insert("rollout", Node(fussy))
    async with running(graph, state, told=slow) as flow:
        async with stepping(flow):
            loop.finish(0)
            await settle()
            loop.finish(1)
        written.set()
        await settle()
        assert not loop.live
        assert len(loop.begun) == 2
        assert state.pending == []


async def test_a_filter_that_refuses_everything_ends_the_run(loop: Loop) -> None:
    def nothing(ticket: Ticket) -> Refuse | None:
        return Refuse("no", again=True)

    graph = DataflowGraph(Node(nothing) >> loop.rollout >> Batch(2) >> loop.credit)
    said = r"\d groups in a row were refused, the last by 'nothing' \(no\); .* flow.max_refusals=6"
    with pytest.raises(RunError, match=said):
        async with running(graph, State(), told=loop.tell, max_refusals=6) as flow:
            await flow.step()


async def test_what_an_interruption_left_is_begun_first(loop: Loop) -> None:
    state = State(position=7, pending=[5, 3])
    async with running(loop.graph(Batch(3)), state, version=2, told=loop.tell) as flow:
        async with stepping(flow) as task:
            assert positions(loop.live) == [3, 5, 7]
            loop.finish(3, 5, 7)
        assert task.result()["update"] == [3, 3, 5, 7]
    assert state == State(position=8, pending=[])


async def test_a_node_that_fails_cancels_its_siblings_and_the_step(loop: Loop) -> None:
    with pytest.raises(ConfigError, match="a bad row"):
        async with running(loop.graph(Batch(3)), State(), told=loop.tell) as flow:
            step = asyncio.create_task(flow.step())
            await settle()
            loop.fail(1, ConfigError("a bad row"))
            await step
    assert not loop.live


async def test_in_a_fan_out_the_first_to_fail_cancels_the_other(loop: Loop) -> None:
    ended: list[str] = []

    async def slow(groups: list[Rolled]) -> Credit:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("slow")
        return Credit()

    async def broken(groups: list[Rolled]) -> Learnt:
        raise RunError("no critic")

    graph = DataflowGraph(Node(loop.rollout) >> Batch(1) >> [slow, broken])
    with pytest.raises(RunError, match="no critic"):
        async with running(graph, State(), told=loop.tell) as flow, stepping(flow):
            loop.finish(0)
    assert ended == ["slow"]


@pytest.mark.parametrize("fan_out", [False, True])
async def test_what_a_node_raised_keeps_its_cause(loop: Loop, fan_out: bool) -> None:
    async def broken(groups: list[Rolled]) -> Learnt:
        raise RunError("no critic") from OSError("refused")

    graph = DataflowGraph(Node(loop.rollout) >> Batch(1) >> [broken, loop.credit][: 1 + fan_out])
    with pytest.raises(RunError, match="no critic") as raised:
        async with running(graph, State(), told=loop.tell) as flow, stepping(flow):
            loop.finish(0)
    assert isinstance(raised.value.__cause__, OSError)


async def test_what_a_node_raised_says_which_node_it_was(loop: Loop) -> None:
    def inverse(rolled: Rolled) -> Learnt:
        return Learnt([1 // rolled])

    graph = loop.graph(Batch(1))
    graph.insert("rollout", Node(inverse))
    with pytest.raises(ZeroDivisionError) as raised:
        async with running(graph, State(), told=loop.tell) as flow, stepping(flow):
            loop.finish(0)
    assert raised.value.__notes__ == ["raised by flow node 'inverse'"]


async def test_a_fan_out_runs_at_once_and_is_joined(loop: Loop) -> None:
    meeting = asyncio.Barrier(2)

    async def left(rolled: Rolled) -> Credit:
        await meeting.wait()
        return Credit([rolled])

    async def right(rolled: Rolled) -> Learnt:
        await meeting.wait()
        return Learnt([-rolled])

    def join(lefts: list[Credit], rights: list[Learnt]) -> str:
        return f"{lefts} {rights}"

    graph = DataflowGraph(Node(loop.rollout) >> [left, right] >> Batch(2) >> join)
    async with running(graph, State(), told=loop.tell) as flow:
        async with stepping(flow) as step:
            loop.finish(0)
            await settle()
            loop.finish(1)
        assert step.result()["join"] == "[[0], [1]] [[0], [-1]]"


@pytest.mark.parametrize("ahead", [0, 1])
async def test_a_cancellation_at_any_await_lands_before_or_after_a_step(ahead: int) -> None:
    """Cancel after 0, 1, 2, ... turns of the event loop: nothing is lost, or learnt twice."""
    for turns in range(60):
        loop, state, version = Loop(), State(), 0
        learnt: list[int] = []

        async def finished(credit: Credit) -> Learnt:
            await asyncio.sleep(0)
            learnt.extend(credit)  # noqa: B023
            await asyncio.sleep(0)
            return Learnt()

        async def rollout(ticket: Ticket) -> Rolled:
            await asyncio.sleep(0)
            return Rolled(ticket.position)

        def graph() -> DataflowGraph:
            return DataflowGraph(Node(rollout) >> Batch(2, ahead=ahead) >> loop.credit >> finished)  # noqa: B023

        async def work(steps: int) -> None:
            nonlocal version
            async with running(graph(), state, version=version, told=loop.tell) as flow:  # noqa: B023
                while version < steps:
                    await flow.step()
                    version = flow.version

        task = asyncio.create_task(work(3))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        version = len(learnt) // 2
        assert sorted(learnt + state.pending) == list(range(state.position))
        await work(3)
        assert len(learnt) == len(set(learnt)) == 6
