"""One episode: policy turns, tool calls and user turns, until exactly one reason to end.

    prompt -> policy turn -> tool calls? -> run them, append the delta, again
                          -> none: the interaction answers, or the dialogue is over

The episode's tools and interaction are released whatever happens. Failures of plugins and of
the engine end the episode as data; only cancellation and our own bugs leave this module as
exceptions.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agentrl.config.rollout import FailureAction, RolloutConfig, SamplingConfig
from agentrl.contracts.call import ParsedTurn, Schemas
from agentrl.contracts.engine import ChatBackend, Completion, Engine, Sampling
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardEntry, finite, weigh
from agentrl.contracts.sample import Sample
from agentrl.contracts.task import BaseTask
from agentrl.contracts.tool import BaseTool, Services, ToolOutcome, ToolRecord
from agentrl.contracts.trajectory import Termination, Trajectory, Turn, TurnKind
from agentrl.errors import RenderError, RolloutError, ToolTimeoutError, boundary
from agentrl.rollout.formats.turn import ToolFormat
from agentrl.rollout.partner import Partner
from agentrl.rollout.record import Record
from agentrl.rollout.render import Renderer
from agentrl.rollout.schemas import schema_dict
from agentrl.rollout.toolset import Toolset
from agentrl.seed import derive_seed

_TRUNCATED = (Termination.MAX_TOKENS, Termination.MAX_CONTEXT, Termination.MAX_TURNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeContext:
    """What all episodes of a run share."""

    config: RolloutConfig
    engine: Engine
    renderer: Renderer
    tool_format: ToolFormat
    task: BaseTask
    services: Services
    reward_weights: Mapping[str, float]
    context_limit: int


class Episode:
    """One rollout of one sample. Call `run` once.

    `tools` are those offered to this sample; `partner` is None where nobody answers the policy.
    """

    def __init__(
        self,
        context: EpisodeContext,
        sample: Sample,
        tools: Mapping[str, BaseTool],
        partner: Partner | None,
        *,
        episode_id: str,
        seed: int,
        sampling: SamplingConfig,
    ) -> None:
        self._context = context
        self._config = context.config
        self._sample = sample
        self._partner = partner
        self._id = episode_id
        self._seed = seed
        self._sampling = sampling
        self._schemas = [schema_dict(tool) for tool in tools.values()]
        self._parameters: Schemas = {
            name: schema["function"].get("parameters", {})
            for name, schema in zip(tools, self._schemas, strict=True)
        }
        self._record = Record(
            config=self._config,
            prompt_ids=context.renderer.prompt(sample.prompt, self._schemas).tolist(),
            prompt=sample.prompt,
            context_limit=context.context_limit,
        )
        self._tools = Toolset(
            tools=tools,
            config=self._config,
            episode_id=episode_id,
            kwargs=sample.tools_kwargs,
            started=self._record.started,
        )

    async def run(self) -> Trajectory:
        """Run to the end and score it. Never raises for what a plugin or the engine did."""
        started_at = time.time()
        error: str | None = None
        try:
            try:
                async with asyncio.timeout(self._config.episode_timeout_s):
                    termination = await self._dialogue()
            except TimeoutError:
                self._keep(self._tools.interrupted, ())
                termination = Termination.TIMEOUT
                error = f"the episode passed {self._config.episode_timeout_s:g} s"
            except ToolTimeoutError as failure:
                termination, error = Termination.TIMEOUT, str(failure)
            except RolloutError as failure:
                termination, error = Termination.INFRA_ERROR, str(failure)
            return await self._finish(termination, error or self._tool_error(), started_at)
        finally:
            try:
                await self._tools.release()
            finally:
                if self._partner is not None:
                    await self._partner.finalize()

    async def _dialogue(self) -> Termination:
        """Alternate turns until a reason to end."""
        await self._tools.create()
        if self._partner is not None:
            await self._partner.start()
        record, config = self._record, self._config
        while True:
            if record.room <= 0:
                return record.full
            if record.count(TurnKind.POLICY) >= config.max_assistant_turns:
                return Termination.MAX_TURNS
            parsed, finished = await self._policy_turn()
            if not finished:
                # With room left, it was the limit of one turn that cut it.
                return record.full if record.room <= 0 else Termination.MAX_TOKENS
            end = await self._tool_turn(parsed) if parsed.calls else await self._user_turn()
            if end is not None:
                return end

    async def _policy_turn(self) -> tuple[ParsedTurn, bool]:
        """Let the policy write; return what it said and whether it closed its turn."""
        record = self._record
        turn = record.count(TurnKind.POLICY)
        began_s = record.elapsed()
        sampling = Sampling(
            max_tokens=min(record.room, self._config.max_turn_tokens or record.room),
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            top_k=self._sampling.top_k,
            seed=derive_seed(self._seed, turn),
            stop_token_ids=self._context.renderer.stop_token_ids,
        )
        engine = self._context.engine
        if isinstance(engine, ChatBackend):
            parsed, completion = await self._ask_chat(engine, sampling)
        else:
            completion = await engine.generate(record.token_ids, sampling, session=self._id)
            parsed = self._context.tool_format.parse(
                self._context.renderer.decode(completion.token_ids),
                turn=turn,
                schemas=self._parameters,
            )
        record.add_policy(completion, parsed.message(), began_s=began_s)
        return parsed, completion.finish_reason == "stop"

    async def _ask_chat(
        self, engine: ChatBackend, sampling: Sampling
    ) -> tuple[ParsedTurn, Completion]:
        """Let a chat endpoint write; its tokens are what our tokenizer makes of the text."""
        parsed = await engine.reply(
            self._record.messages, self._schemas, sampling, session=self._id
        )
        token_ids = self._context.renderer.assistant(parsed.message(), self._schemas).tolist()
        fits = len(token_ids) <= sampling.max_tokens
        token_ids = token_ids[: sampling.max_tokens]
        return parsed, Completion(
            token_ids=token_ids,
            logprobs=[0.0] * len(token_ids),
            finish_reason="stop" if fits else "length",
            policy_versions=[0] * len(token_ids),
        )

    async def _tool_turn(self, parsed: ParsedTurn) -> Termination | None:
        """Run the turn's calls and append what they returned."""
        record, began_s = self._record, self._record.elapsed()
        records = await self._tools.execute(parsed.calls)
        delta = self._delta(_tool_messages(records))
        fits = self._keep(records, delta, began_s=began_s)
        if any(r.outcome is ToolOutcome.INFRA_ERROR for r in records):
            return Termination.INFRA_ERROR
        last = record.count(TurnKind.POLICY) >= self._config.max_assistant_turns
        if last and all(r.outcome is ToolOutcome.MODEL_ERROR for r in records):
            return Termination.MODEL_ERROR
        return None if fits else record.full

    def _keep(
        self, records: list[ToolRecord], delta: Sequence[int], *, began_s: float | None = None
    ) -> bool:
        """Append a tool turn and its rewards; return whether its tokens fit."""
        if not records:
            return True
        fits = self._record.add_reply(
            TurnKind.TOOL,
            _tool_messages(records),
            delta,
            began_s=records[0].started_s if began_s is None else began_s,
            records=records,
        )
        for r in records:
            if r.outcome is ToolOutcome.OK:
                self._record.reward(f"tool_step/{r.call.name}", r.reward)
        return fits

    def _delta(self, new: list[Message]) -> list[int]:
        """Return the tokens of a reply; a branch has no place in this record yet."""
        record = self._record
        context = np.array(record.token_ids, dtype=np.int32)
        more = self._context.renderer.reply(context, record.messages, new, self._schemas)
        if more.kept < len(context):
            raise RenderError(
                f"the chat template of {self._context.renderer.name!r} rewrites earlier turns when "
                f"a {new[0]['role']} message follows; name one that only appends as "
                f"`model.chat_template`"
            )
        return [int(i) for i in more.token_ids]

    async def _user_turn(self) -> Termination | None:
        """Let the interaction answer; without one, the policy has had the last word."""
        if self._partner is None:
            return Termination.ANSWERED
        record, began_s = self._record, self._record.elapsed()
        answer = await self._partner.answer(record.messages)
        record.reward("interaction_turn", answer.reward)
        message = {"role": "user", "content": answer.content}
        if answer.end:
            # Nobody reads it any more: kept in the record, without tokens.
            record.add_reply(TurnKind.USER, [message], (), began_s=began_s)
            return Termination.INTERACTION_END
        if record.count(TurnKind.USER) >= self._config.max_user_turns:
            return Termination.MAX_TURNS
        delta = self._delta([message])
        fits = record.add_reply(TurnKind.USER, [message], delta, began_s=began_s)
        return None if fits else record.full

    async def _finish(
        self, termination: Termination, error: str | None, started_at: float
    ) -> Trajectory:
        """Score the dialogue and apply the failure policy."""
        entries = list(self._record.entries)
        trajectory = self._trajectory(termination, error, entries, started_at)
        if termination is not Termination.INFRA_ERROR:
            try:
                entries += await self._score(trajectory)
            except RolloutError as failure:
                termination, error = Termination.INFRA_ERROR, str(failure)
        actions = self._actions(termination)
        config = self._config.failures
        entries += [
            RewardEntry(source=f"penalty/{kind}", value=config.penalty)
            for kind, action in actions.items()
            if action is FailureAction.PENALISE
        ]
        trajectory = self._trajectory(termination, error, entries, started_at)
        if FailureAction.MASK in actions.values():
            trajectory = replace(trajectory, turns=tuple(map(_masked, trajectory.turns)))
        return replace(trajectory, dropped=FailureAction.DROP in actions.values())

    async def _score(self, trajectory: Trajectory) -> list[RewardEntry]:
        entries = await self._tools.rewards()
        if self._partner is not None:
            entries += await self._partner.rewards()
        with boundary(f"task {type(self._context.task).__name__} score"):
            async with asyncio.timeout(self._config.tool_timeout_s):
                score = await self._context.task.score(trajectory, self._context.services)
            return [*entries, RewardEntry(source="task", value=finite(score))]

    def _actions(self, termination: Termination) -> dict[str, FailureAction]:
        """Name the failures of this episode and what the configuration does about each."""
        record, failures = self._record, self._config.failures
        happened = {
            "infra_error": termination is Termination.INFRA_ERROR,
            "timeout": termination is Termination.TIMEOUT
            or record.has_outcome(ToolOutcome.TIMEOUT),
            "model_error": termination is Termination.MODEL_ERROR
            or record.has_outcome(ToolOutcome.MODEL_ERROR),
            "truncated": termination in _TRUNCATED,
        }
        return {kind: getattr(failures, kind) for kind, did in happened.items() if did}

    def _tool_error(self) -> str | None:
        errors = [r.error for turn in self._record.turns for r in turn.tool_records if r.error]
        return errors[-1] if errors else None

    def _trajectory(
        self,
        termination: Termination,
        error: str | None,
        entries: list[RewardEntry],
        started_at: float,
    ) -> Trajectory:
        record = self._record
        return Trajectory(
            id=self._id,
            sample=self._sample,
            prompt_ids=tuple(record.prompt_ids),
            turns=tuple(record.turns),
            rewards=weigh(entries, self._context.reward_weights),
            termination=termination,
            tools=tuple(self._tools.tools),
            error=error,
            started_at=started_at,
            duration_s=record.elapsed(),
            metrics=_timings(record.turns),
        )


def _tool_messages(records: Sequence[ToolRecord]) -> list[Message]:
    return [
        {"role": "tool", "name": r.call.name, "tool_call_id": r.call.id, "content": r.response}
        for r in records
    ]


def _masked(turn: Turn) -> Turn:
    return replace(turn, mask=(0,) * len(turn.mask))


def _timings(turns: list[Turn]) -> dict[str, float]:
    return {
        f"{kind.value}_s": sum(turn.duration_s for turn in turns if turn.kind is kind)
        for kind in TurnKind
    }
