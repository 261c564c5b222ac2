from collections.abc import Callable
from functools import partial

import pytest
from flow_support import Credit, Learnt, Loop, Rolled

from agentrl.errors import ConfigError
from agentrl.flow.graph import DataflowGraph, Source
from agentrl.flow.node import Batch, Node, Refuse, Step
from agentrl.flow.tickets import Ticket


class Values(list[float]):
    """What a critic says."""


def rollout(ticket: Ticket) -> Rolled:
    return Rolled(ticket.position)


def credit(groups: list[Rolled]) -> Credit:
    return Credit(groups)


def reference(credit: Credit) -> Values:
    return Values()


def critic(credit: Credit) -> Values:
    return Values()


def update(credit: Credit, step: Step) -> Learnt:
    return Learnt()


def compliant(rolled: Rolled, words: float = 3) -> Refuse | None:
    return Refuse("too few") if rolled < words else None


def compare(values: Values, other: Values) -> Learnt:
    return Learnt()


def test_the_operators_and_the_explicit_spelling_make_the_same_plan() -> None:
    chain = Node(rollout) >> compliant >> Batch(2) >> credit >> update
    graph = DataflowGraph()
    parts = [graph.add_node(f.__name__, f) for f in (rollout, compliant)]
    divide, last = (
        graph.add_node("batch", Batch(2)),
        [graph.add_node(f.__name__, f) for f in (credit, update)],
    )
    graph.connect(parts[0].output, parts[1].input)
    graph.connect(parts[1].output, divide)
    graph.connect(divide, last[0].input)
    graph.connect(last[0].output, last[1].inputs["credit"])
    one, other = DataflowGraph(chain).plan(), graph.plan()
    assert one.sources == other.sources
    assert one.sources["credit"] == {"groups": Source("rollout", each=True)}
    assert one.sources["compliant"] == {"rolled": Source("rollout")}
    for plan in (one, other):
        assert [[node.name for node in stage] for stage in plan.per_group] == [
            ["rollout"],
            ["compliant"],
        ]
        assert [[node.name for node in stage] for stage in plan.per_step] == [
            ["credit"],
            ["update"],
        ]


def test_the_nearest_maker_is_bound() -> None:
    def shaped(rolled: Rolled) -> Rolled:
        return rolled

    graph = DataflowGraph(Node(rollout) >> shaped >> Batch(2) >> credit)
    assert graph.plan().sources["credit"]["groups"].maker == "shaped"


def test_a_node_is_inserted_between_its_neighbours() -> None:
    graph = DataflowGraph(Node(rollout) >> Batch(2) >> credit >> update)
    graph.insert("rollout", Node(partial(compliant, words=5), "words"))
    assert [stage[0].name for stage in graph.plan().per_group] == ["rollout", "words"]
    assert "words{words}" in graph.mermaid()
    assert '    rollout -->|"Rolled of each group"| credit' in graph.mermaid()


def test_two_makers_of_one_type_are_told_apart_by_hand() -> None:
    graph = DataflowGraph(Node(rollout) >> Batch(2) >> credit >> [reference, critic] >> compare)
    with pytest.raises(
        ConfigError,
        match=r"'values' of 'compare' reads Values, which both 'critic' and 'reference' make; "
        r"say which: connect\(critic.output, compare.inputs\['values'\]\)",
    ):
        graph.plan()
    nodes = graph.nodes
    graph.connect(nodes["critic"].output, nodes["compare"].inputs["values"])
    graph.connect(nodes["reference"].output, nodes["compare"].inputs["other"])
    assert graph.plan().sources["compare"] == {
        "values": Source("critic"),
        "other": Source("reference"),
    }


def unmade(words: str) -> None:
    return None


def mixed(rolled: Rolled) -> Refuse | int:
    return 3


def untyped(rolled) -> None:  # type: ignore[no-untyped-def]
    return None


def circle() -> DataflowGraph:
    graph = DataflowGraph(Node(rollout) >> Batch(2) >> credit >> update)
    graph.connect(graph.nodes["update"].output, graph.nodes["credit"].inputs["groups"])
    return graph


def replaced() -> None:
    DataflowGraph(Node(rollout) >> Batch(2) >> credit >> update).replace("credit", critic)


UNMADE = (
    r"'words' of 'unmade' reads str, and what stands before it makes \{'rollout': 'Rolled'\}; "
    r"put a node `-> str` before it"
)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Node(rollout) >> Batch(2) >> unmade, UNMADE),
        (lambda: Node(rollout) >> credit >> Batch(2), r"'groups' of 'credit' reads list\[Rolled\]"),
        (lambda: Node(rollout) >> Batch(2) >> update, r"'credit' of 'update' reads Credit"),
        (lambda: Node(rollout) >> credit, "expected one Batch, .* got 0 among .*; write"),
        (lambda: Node(rollout) >> Batch(2) >> credit >> Batch(3), "nodes are called 'batch'"),
        (lambda: Node(rollout) >> Batch(2) >> credit >> credit, "two nodes are called 'credit'"),
        (lambda: Node(rollout) >> Batch(2) >> compliant, "'compliant' stands on no way to Batch"),
        (lambda: Node(rollout) >> Batch(2) >> untyped, "no type; .* write .* `rolled: Group`"),
        (lambda: Node(rollout) >> mixed >> Batch(2), r"'mixed' .* returns `Refuse \| None`"),
        (lambda: Batch(2, ahead=1, oversample=1.5), "oversample=1.5 with rollout.max_staleness=1"),
        (circle, "is a circle; leave a connection out"),
        (replaced, r"'credit' makes Credit, and .* makes Values; a replacement makes the same"),
    ],
)
def test_what_does_not_work_out_is_said_before_anything_runs(
    build: Callable[[], object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        made = build()
        (made if isinstance(made, DataflowGraph) else DataflowGraph(made)).plan()  # type: ignore[arg-type]


def test_a_misspelt_name_is_answered_with_the_nodes() -> None:
    graph = Loop().graph(Batch(2))
    with pytest.raises(ConfigError, match=r"no node 'credits'; the nodes are .*'credit'"):
        graph.replace("credits", credit)


async def test_a_node_runs_alone() -> None:
    assert await Node(credit).run(groups=[1, 2]) == [1, 2]
    assert await Node(Loop().update).run(credit=Credit([3]), step=Step(4)) == [4, 3]
