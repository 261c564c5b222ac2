"""Rolling out groups: every episode is its own task and waits for no other's tools.

    sample -> `group_size` episodes -> Group -> scorers fill the ledgers -> failure policy

A `Rollout` owns the run's open tools between `__aenter__` and `__aexit__`. Seeds derive from the
group's and member's place, so results do not depend on scheduling.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Self

from agentrl.config.rollout import RolloutConfig, SamplingConfig
from agentrl.contracts.interaction import BaseInteraction
from agentrl.contracts.sample import Sample
from agentrl.contracts.tool import BaseTool, Services
from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.places import Places
from agentrl.plugins.check import check_samples, choose_interaction, offered_tools
from agentrl.rewards.scoring import Scoring
from agentrl.rollout.actor import Actor
from agentrl.rollout.episode import Episode, EpisodeContext
from agentrl.rollout.opening import Opening
from agentrl.rollout.partner import Partner
from agentrl.seed import derive_seed
from agentrl.shield import together
from agentrl.templates.render import Renderer
from agentrl.turnstile import Turnstile
from agentrl.waits import within

_UNBOUNDED = 1 << 40
_OPEN_DEADLINE_S = 1800.0
"""Of a tool's `open`, which may load models or start servers."""
_CLEAN_UP_S = 60.0
"""After its deadline, an episode gives its place back within as long again and this."""


class Rollout:
    """Rolls out samples with one policy and one set of tools.

    Args:
        config: budgets.
        actor: writes the policy's turns.
        renderer: the model's chat template.
        tools: by name, as `load_tools` returns them.
        interactions: by name, as `load_interactions` returns them.
        scoring: scores complete groups and applies the failure policy.
        services: lent to the tools.
        model_max_tokens: the model's own context limit, if it has one.
    """

    def __init__(
        self,
        *,
        config: RolloutConfig,
        actor: Actor,
        renderer: Renderer,
        tools: Mapping[str, BaseTool],
        interactions: Mapping[str, BaseInteraction],
        scoring: Scoring,
        services: Services,
        model_max_tokens: int | None = None,
    ) -> None:
        limits = [config.max_context_tokens, model_max_tokens]
        self.config = config
        self.tools = dict(tools)
        self._interactions = dict(interactions)
        self._scoring = scoring
        self._services = services
        self._template = renderer.template_digest
        self._stack = AsyncExitStack()
        self._places = Places(
            config.max_concurrent_episodes,
            "queue: a place among rollout.max_concurrent_episodes",
            remedy="look at what the running episodes wait for, or raise the limit",
            held_s=2 * config.episode_timeout_s + _CLEAN_UP_S,
        )
        self._context = EpisodeContext(
            config=config,
            actor=actor,
            renderer=renderer,
            context_limit=min((limit for limit in limits if limit), default=_UNBOUNDED),
            turnstile=Turnstile(),
        )

    async def __aenter__(self) -> Self:
        """Open every tool.

        Raises:
            NotReadyError: a tool needs something that is not there.
        """
        try:
            for tool in self.tools.values():
                self._stack.push_async_callback(tool.close)  # one whose opening fails is closed too
                await within(
                    tool.open(self._services),
                    f"tool {tool.name!r}: open",
                    "the run",
                    remedy="look at what the tool starts or loads",
                    deadline_s=_OPEN_DEADLINE_S,
                )
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Close every tool, the rest too when one fails to."""
        await self._stack.aclose()

    async def run_group(self, sample: Sample, **place: Any) -> Group:
        """Roll out one sample as `play_group` does, and score it."""
        return await self.score_group(await self.play_group(sample, **place))

    async def score_group(self, group: Group) -> Group:
        """Fill the ledgers of a complete group, and apply the failure policy."""
        return await self._scoring.score(group)

    async def play_group(
        self,
        sample: Sample,
        *,
        group_id: str,
        size: int,
        seed: int,
        sampling: SamplingConfig | None = None,
    ) -> Group:
        """Roll out one sample `size` times, unscored; a member's failure is its own."""
        sampling = sampling or self.config.sampling
        await self._context.turnstile.enter()
        tools = offered_tools(sample, self.tools)
        opening = await Opening.render(sample, tools, self._context.renderer)
        # A wrong configuration fails every member alike: one of the errors says it all.
        members: list[Trajectory] = await together(
            self._run_member(opening, f"{group_id}-{i}", derive_seed(seed, i), sampling)
            for i in range(size)
        )
        return Group(
            id=group_id,
            sample=sample,
            trajectories=tuple(members),
            sampling=sampling.model_dump(),
            template=self._template,
        )

    async def run_groups(
        self,
        samples: Iterable[Sample],
        *,
        name: str,
        size: int,
        seed: int,
        sampling: SamplingConfig | None = None,
    ) -> AsyncGenerator[tuple[int, Group], None]:
        """Roll out many samples; yield `(position, group)` as groups complete.

        Group ids are `{name}-{position}`. Leaving the iteration early cancels the rest; close
        the iterator (`contextlib.aclosing`) to wait for their clean-up.
        """

        async def run(position: int, sample: Sample) -> tuple[int, Group]:
            group = await self.run_group(
                sample,
                group_id=f"{name}-{position}",
                size=size,
                seed=derive_seed(seed, position),
                sampling=sampling,
            )
            return position, group

        tasks = [asyncio.create_task(run(i, sample)) for i, sample in enumerate(samples)]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def check(self, samples: Iterable[Sample]) -> None:
        """Check that samples can be rolled out.

        Raises:
            ConfigError: one asks for what is not there.
        """
        check_samples(samples, self.tools, self._interactions)

    async def _run_member(
        self, opening: Opening, episode_id: str, seed: int, sampling: SamplingConfig
    ) -> Trajectory:
        await self._context.turnstile.enter()
        async with self._places.place(f"episode {episode_id}"):
            return await Episode(
                self._context,
                opening,
                self._partner(opening.sample, episode_id),
                episode_id=episode_id,
                seed=seed,
                sampling=sampling,
            ).run()

    def _partner(self, sample: Sample, episode_id: str) -> Partner | None:
        interaction = choose_interaction(sample, self._interactions)
        if interaction is None:
            return None
        return Partner(
            interaction=interaction,
            kwargs={k: v for k, v in sample.interaction_kwargs.items() if k != "name"},
            episode_id=episode_id,
            timeout_s=self.config.tool_timeout_s,
        )
