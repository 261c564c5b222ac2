"""The loop of reinforcement, as a graph; `agentrl flow show CONFIG` draws it."""

from typing import cast

from agentrl.config.run import RunConfig
from agentrl.flow.graph import DataflowGraph
from agentrl.flow.node import Batch, Node
from agentrl.learner.learner import Learner
from agentrl.plugins.registry import load_callable
from agentrl.trainer.loop import Loop
from agentrl.trainer.session import Session


def grpo(config: RunConfig, loop: Loop | None = None) -> DataflowGraph:
    """Return the loop, with the user's changes; without nodes, to be checked or drawn only.

    Raises:
        ConfigError: a change does not work out.
    """
    loop = loop or Loop(cast(Session, None), cast(Learner, None))
    rollout, base = config.rollout, config.base_dir
    batch = Batch(
        config.train.prompts_per_step,
        ahead=rollout.max_staleness,
        oversample=rollout.oversample,
        first=rollout.take == "first",
    )
    graph = DataflowGraph(
        Node(loop.sample)
        >> loop.rollout
        >> loop.score
        >> loop.has_signal
        >> batch
        >> loop.record
        >> loop.credit
        >> loop.update
        >> loop.finish
        >> loop.sync
    )
    for name, change in config.flow.replace.items():
        graph.replace(name, load_callable(change.node, change.config, f"flow.replace.{name}", base))
    for added in config.flow.insert:
        where = f"flow.insert after {added.after!r}"
        graph.insert(added.after, Node(load_callable(added.node, added.config, where, base)))
    graph.plan()
    return graph
