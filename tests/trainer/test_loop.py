import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agentrl.algorithms.grpo import GRPO, GRPOConfig
from agentrl.algorithms.samples import TrainSample
from agentrl.cli.main import app
from agentrl.contracts.trajectory import Group
from agentrl.errors import ConfigError
from agentrl.flow.node import Node
from agentrl.traces.store import read_traces
from agentrl.trainer.trainer import Trainer

NODES = """
from agentrl import Group, Refuse, Ticket, TrainSample
from agentrl.algorithms.rloo import RLOO, RLOOConfig

class Compliant:
    def __init__(self, attempts: int) -> None:
        self.attempts = attempts
    async def __call__(self, group: Group, ticket: Ticket) -> Refuse | None:
        refused = ticket.attempt < self.attempts
        return Refuse("not compliant", again=True) if refused else None

def rloo(groups: list[Group]) -> list[TrainSample]:
    return list(RLOO(RLOOConfig()).credit(groups))

def wrong(groups: list[Group]) -> list[str]:
    return []
"""


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    path = tmp_path / "nodes.py"
    path.write_text(NODES)
    return str(path)


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["phase"] == "train"]


def test_a_filter_of_the_users_samples_prompts_again_and_what_it_refused_is_recorded(
    make_config: Any, nodes: str
) -> None:
    inserted = {"after": "rollout", "node": f"{nodes}:Compliant", "config": {"attempts": 1}}
    config = make_config(train={"steps": 2, "prompts_per_step": 2}, flow={"insert": inserted})
    Trainer(config).train()
    for row in metrics(config.run_dir):
        assert row["flow/compliant/refused"] == row["rollout/groups_refused"] == 2
        assert row["flow/rollout/count"] == 4
        assert row["flow/score/count"] == 2
        assert row["timing_s/node/rollout"] > 0
        assert row["perf/slow_share/begun"] > 0
    traces = [*read_traces(config.run_dir / "traces" / "train.jsonl.gz")]
    fates = {(trace.group.id, trace.fate) for trace in traces}
    assert {("step1-0", "refused"), ("step1-0-again1", "trained")} <= fates
    assert len(traces) == 8


def test_rloo_by_replacing_a_node_credits_as_the_algorithm_does(
    make_config: Any, nodes: str
) -> None:
    train = {"steps": 1}
    one = make_config(name="one", train=train, algorithm={"type": "rloo"})
    other = make_config(name="two", train=train, flow={"replace": {"credit": f"{nodes}:rloo"}})
    plain = make_config(name="three", train=train)
    for config in (one, other, plain):
        Trainer(config).train()
    (a,), (b,), (c,) = (metrics(config.run_dir) for config in (one, other, plain))
    names = [name for name in a if name.startswith("critic/advantages")]
    assert len(names) == 3
    assert {name: a[name] for name in names} == {name: b[name] for name in names}
    assert {name: a[name] for name in names} != {name: c[name] for name in names}


async def test_a_node_runs_alone_on_a_recorded_group(make_config: Any) -> None:
    async def credit(groups: list[Group]) -> list[TrainSample]:
        return list(GRPO(GRPOConfig()).credit(groups))

    config = make_config(train={"steps": 1})
    await Trainer(config).run()
    traces = read_traces(config.run_dir / "traces" / "train.jsonl.gz")
    samples = await Node(credit).run(groups=[trace.group for trace in traces])
    recorded = metrics(config.run_dir)[0]["train/sequences"]
    assert len([s for s in samples if s.loss_mask.any()]) == recorded > 0


@pytest.mark.parametrize(
    ("flow", "said"),
    [
        ({"replace": {"credits": "{}:rloo"}}, "no node 'credits'; the nodes are .*'credit'"),
        ({"replace": {"credit": "{}:wrong"}}, r"makes list\[TrainSample\], and .* list\[str\]"),
        ({"replace": {"credit": "{}:missing"}}, "missing"),
        ({"insert": {"after": "rollout", "node": "{}:Compliant"}}, "does not take its config"),
        ({"insert": {"after": "sample", "node": "{}:rloo"}}, "'groups' of 'rloo' reads list"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_opened(
    make_config: Any, nodes: str, flow: dict[str, Any], said: str
) -> None:
    config = make_config(flow=json.loads(json.dumps(flow).replace("{}", nodes)))
    with pytest.raises(ConfigError, match=said):
        Trainer(config)
    assert not config.run_dir.exists()


def test_the_loop_is_shown_as_a_table_and_as_mermaid(nodes: str) -> None:
    words = ["flow", "show", "tasks/calculator/train.yaml", f"flow.replace.credit={nodes}:rloo"]
    table = CliRunner().invoke(app, words)
    assert table.exit_code == 0, table.output
    assert "list[Group] of score" in " ".join(table.output.split())
    drawn = CliRunner().invoke(app, [*words, "--mermaid"])
    assert '    score -->|"Group of each group"| credit' in drawn.output
