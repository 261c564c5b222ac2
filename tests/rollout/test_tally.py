from learner_support import make_trajectory, make_turn

from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import ToolCall, ToolOutcome, ToolRecord
from agentrl.contracts.trajectory import Group, TurnKind
from agentrl.rollout.tally import Tally


def group(*outcomes: ToolOutcome, reward: float = 1.0, dropped: bool = False) -> Group:
    call = ToolCall(id="call00000", name="add")
    records = tuple(ToolRecord(call=call, outcome=outcome, response="") for outcome in outcomes)
    turn = make_turn(TurnKind.TOOL, [4], 0, 3, tool_records=records)
    one = make_trajectory(turn, reward=reward, dropped=dropped)
    return Group(id="g", sample=Sample(prompt=[]), trajectories=(one,))


def test_a_reward_through_an_executed_call_is_told_from_others() -> None:
    tally = Tally()
    tally.count(
        [
            group(ToolOutcome.OK),
            group(ToolOutcome.MODEL_ERROR),
            group(ToolOutcome.OK, reward=0.0),
            group(ToolOutcome.OK, dropped=True),
        ],
        executions=7,
    )
    assert (tally.rewarded, tally.rewarded_by_execution, tally.executions) == (2, 1, 7)


def test_a_resumed_run_adds_to_what_its_earlier_processes_counted() -> None:
    tally = Tally()
    tally.count([group(ToolOutcome.OK)], executions=7)
    again = Tally()
    again.load_state_dict(tally.state_dict())
    again.count([group(ToolOutcome.OK)], executions=2)
    assert (again.rewarded, again.rewarded_by_execution, again.executions) == (2, 2, 9)
