"""What the phases of a run work with: everything open, everything where the run left it.

policy loaded > samples and template checked > tools and engine open > parts restored
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch

from agentrl.algorithms.registry import build_algorithm
from agentrl.config.run import RunConfig
from agentrl.contracts.engine import Engine
from agentrl.contracts.sample import Sample
from agentrl.engines.parity import ParityProbe
from agentrl.engines.score import score_tokens
from agentrl.engines.served import parity_config
from agentrl.learner.optimizer import Optimizer
from agentrl.rollout.tally import Tally
from agentrl.runs.folder import TRACES
from agentrl.runs.run import Run
from agentrl.traces.writer import TraceWriter
from agentrl.trainer.content import Plugins
from agentrl.trainer.evaluate import Evaluator
from agentrl.trainer.recording import FailureNotes, Recorder
from agentrl.trainer.runtime import PolicyHost, RolloutHost, host_rollout
from agentrl.trainer.sync import WeightSync
from agentrl.watch.watch import Watch


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """The open parts of a run."""

    config: RunConfig
    run: Run
    policy: PolicyHost
    host: RolloutHost
    engine: Engine
    sync: WeightSync
    recorder: Recorder
    evaluator: Evaluator
    tally: Tally
    samples: Sequence[Sample]
    watch: Watch

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the phase under way."""
        return cast(Optimizer, self.run.parts["optimizer"])

    def begin_phase(self) -> None:
        """Make the optimizer of the phase under way; checkpoints hold it from now on."""
        model, progress, train = self.policy.model.model, self.run.progress, self.config.train
        if progress.phase == "sft":
            optimizer = Optimizer(model, self.config.sft.optimizer, self.config.sft.steps)
        else:
            updates = train.steps * train.epochs_per_step * train.minibatches_per_epoch
            optimizer = Optimizer(model, self.config.optimizer, updates)
        self.run.parts["optimizer"] = optimizer


@asynccontextmanager
async def open_session(
    config: RunConfig,
    run: Run,
    tally: Tally,
    plugins: Plugins,
    watch: Watch,
    *,
    train: Sequence[Sample],
    test: Sequence[Sample],
) -> AsyncIterator[Session]:
    """Open everything that training needs, with the run's folder open already."""
    states = run.load()
    algorithm = build_algorithm(config.algorithm, base=config.base_dir)
    policy = await run.compute.run(partial(PolicyHost.load, config, algorithm, run.origin))
    async with host_rollout(config, plugins, policy.served(), [*train, *test]) as host:
        run.model = policy.model
        run.parts |= {"algorithm": algorithm, "tally": tally}
        engine = cast(Engine, host.engine)
        traces = TraceWriter(run.folder.path / TRACES)
        recorder = Recorder(traces, run.folder, FailureNotes(run.reporter))
        session = Session(
            config=config,
            run=run,
            policy=policy,
            host=host,
            engine=engine,
            sync=_sync(config, run, policy, host, engine, train[0]),
            recorder=recorder,
            evaluator=Evaluator(config, run, host, recorder, tally, test),
            tally=tally,
            samples=train,
            watch=watch,
        )
        run.progress.phase = "sft" if run.progress.sft_step < config.sft.steps else "step"
        session.begin_phase()
        run.restore(states)
        policy.weights.version = run.progress.step
        async with traces:
            run.settle = traces.flush
            yield session


def _sync(
    config: RunConfig,
    run: Run,
    policy: PolicyHost,
    host: RolloutHost,
    engine: Engine,
    sample: Sample,
) -> WeightSync:
    """Sync, and probe with a prompt of the task's: text of the kind that the policy will see."""
    model, tools = policy.model.model, list(host.plugins.schemas.values())

    async def score(token_ids: list[int]) -> list[float]:
        return await run.compute.run(partial(score_tokens, model, token_ids))

    text, exact = host.renderer.prompt(sample.prompt, tools).tolist(), model.dtype == torch.float32
    probe = ParityProbe(text, parity_config(config), score=score, exact=exact)
    pause = config.rollout.max_staleness == 0
    return WeightSync(run, engine, policy.weights, probe, pause=pause)
