"""One episode: policy turns, tool calls and user turns, until exactly one reason to end.

    prompt -> policy turn -> tool calls? -> run them, append the reply, again
                          -> none: the interaction answers, or the dialogue is over

The episode's tools and interaction are released whatever happens. Failures of plugins, of the
engine and of the chat template end the episode as data; only cancellation and our own bugs leave
this module as exceptions. What it leaves is scored when its group is complete.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from agentrl.config.rollout import RolloutConfig, SamplingConfig
from agentrl.contracts.call import ParsedTurn
from agentrl.contracts.engine import Sampling
from agentrl.contracts.failure import Failure
from agentrl.contracts.message import Message
from agentrl.contracts.reward import RewardLedger
from agentrl.contracts.tool import ToolOutcome, ToolRecord
from agentrl.contracts.trajectory import Termination, Trajectory, TurnKind
from agentrl.errors import RolloutError, ToolTimeoutError
from agentrl.rollout.actor import Actor
from agentrl.rollout.opening import LONG_CHARS, Opening, num_chars
from agentrl.rollout.partner import Partner
from agentrl.rollout.record import Record
from agentrl.rollout.toolset import Toolset
from agentrl.seed import derive_seed
from agentrl.templates.render import Renderer
from agentrl.turnstile import Turnstile
from agentrl.waits import waiting

_ENGINE_REMEDY = (
    "look at the engine: its process, its server's log, whether it is overloaded; the episode's "
    "deadline is rollout.episode_timeout_s"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeContext:
    """What all episodes of a run share."""

    config: RolloutConfig
    actor: Actor
    renderer: Renderer
    context_limit: int
    turnstile: Turnstile


class Episode:
    """One rollout of one sample. Call `run` once.

    `partner` is None where nobody answers the policy.
    """

    def __init__(
        self,
        context: EpisodeContext,
        opening: Opening,
        partner: Partner | None,
        *,
        episode_id: str,
        seed: int,
        sampling: SamplingConfig,
    ) -> None:
        self._context = context
        self._config = context.config
        self._opening = opening
        self._partner = partner
        self._id = episode_id
        self._seed = seed
        self._sampling = sampling
        self._schemas = opening.schemas
        self._record = Record.begin(
            opening.prompt, config=context.config, context_limit=context.context_limit
        )
        self._tools = Toolset(
            tools=opening.tools,
            config=self._config,
            episode_id=episode_id,
            kwargs=opening.sample.tools_kwargs,
            started=self._record.started,
        )

    async def run(self) -> Trajectory:
        """Run to the end. Never raises for what a plugin, the engine or the template did."""
        failure: Failure | None = None
        try:
            try:
                async with asyncio.timeout(self._config.episode_timeout_s):
                    termination = await self._dialogue()
            except TimeoutError as error:
                self._append_calls(self._tools.interrupted)
                termination, failure = Termination.TIMEOUT, self._too_late(error)
            except ToolTimeoutError as error:
                termination, failure = Termination.TIMEOUT, Failure.of(error)
            except RolloutError as error:
                termination, failure = Termination.INFRA_ERROR, Failure.of(error)
            return await self._finish(termination, failure)
        finally:
            try:
                await self._tools.release()
            finally:
                if self._partner is not None:
                    await self._partner.finalize()

    async def _dialogue(self) -> Termination:
        """Alternate turns until a reason to end."""
        record, config = self._record, self._config
        if self._opening.error is not None:
            raise self._opening.error
        await self._tools.create()
        if self._partner is not None:
            await self._partner.start()
        while True:
            if record.room <= 0:
                return record.full
            if record.count(TurnKind.POLICY) >= config.max_assistant_turns:
                return Termination.MAX_TURNS
            await self._context.turnstile.enter()
            parsed, finished = await self._policy_turn()
            if not finished:
                # With room left, it was the limit of one turn that cut it.
                return record.full if record.room <= 0 else Termination.MAX_TOKENS
            end = await self._tool_turn(parsed) if parsed.calls else await self._user_turn()
            if end is not None:
                return end

    async def _policy_turn(self) -> tuple[ParsedTurn, bool]:
        """Let the policy write; return what it said and whether it closed its turn."""
        record, began_s = self._record, self._record.elapsed()
        sampling = Sampling(
            max_tokens=min(record.room, self._config.max_turn_tokens or record.room),
            temperature=self._sampling.temperature,
            top_p=self._sampling.top_p,
            top_k=self._sampling.top_k,
            seed=derive_seed(self._seed, record.count(TurnKind.POLICY)),
            stop_token_ids=self._context.renderer.stop_token_ids,
        )
        with waiting(
            "engine: generate",
            f"episode {self._id}",
            remedy=_ENGINE_REMEDY,
            deadline_s=self._config.episode_timeout_s - began_s,
        ):
            parsed, completion = await self._context.actor.write(
                record, self._schemas, sampling, session=self._id
            )
        record.add_policy(completion, self._shown(parsed), began_s=began_s)
        return parsed, completion.finish_reason == "stop"

    async def _tool_turn(self, parsed: ParsedTurn) -> Termination | None:
        """Run the turn's calls and append what they returned."""
        record, began_s = self._record, self._record.elapsed()
        records = await self._tools.execute(parsed.calls, limit=self._max_calls)
        await self._context.turnstile.enter()
        if any(r.outcome is ToolOutcome.INFRA_ERROR for r in records):
            self._append_calls(records)
            return Termination.INFRA_ERROR
        messages = self._tool_messages(records)
        fits = await self._answer(TurnKind.TOOL, messages, began_s=began_s, records=records)
        last = record.count(TurnKind.POLICY) >= self._config.max_assistant_turns
        if last and all(r.outcome is ToolOutcome.MODEL_ERROR for r in records):
            return Termination.MODEL_ERROR
        return None if fits else record.full

    async def _user_turn(self) -> Termination | None:
        """Let the interaction answer; without one, the policy has had the last word."""
        if self._partner is None:
            return Termination.ANSWERED
        record, began_s = self._record, self._record.elapsed()
        answer = await self._partner.answer(record.messages)
        record.reward("interaction_turn", answer.reward)
        message: Message = {"role": "user", "content": answer.content}
        if answer.end:
            # Nobody reads it any more: kept in the record, without tokens.
            record.add_reply(TurnKind.USER, [message], None, began_s=began_s)
            return Termination.INTERACTION_END
        if record.count(TurnKind.USER) >= self._config.max_user_turns:
            return Termination.MAX_TURNS
        fits = await self._answer(TurnKind.USER, [message], began_s=began_s)
        return None if fits else record.full

    async def _answer(
        self,
        kind: TurnKind,
        messages: Sequence[Message],
        *,
        began_s: float,
        records: Sequence[ToolRecord] = (),
    ) -> bool:
        """Append a reply to the policy as the template renders it; return whether it fits."""
        record = self._record
        try:
            render = partial(
                self._context.renderer.reply,
                record.context,
                record.messages,
                messages,
                self._schemas,
            )
            is_long = num_chars(messages) > LONG_CHARS
            continuation = await asyncio.to_thread(render) if is_long else render()
        except RolloutError:
            self._append_calls(records)
            raise
        fits = record.add_reply(kind, messages, continuation, began_s=began_s, records=records)
        self._enter_step_rewards(records)
        return fits

    def _append_calls(self, records: Sequence[ToolRecord]) -> None:
        """Append a tool turn that the policy will not see."""
        if records:
            messages, began_s = self._tool_messages(records), records[0].started_s
            self._record.add_reply(TurnKind.TOOL, messages, None, began_s=began_s, records=records)
            self._enter_step_rewards(records)

    def _enter_step_rewards(self, records: Sequence[ToolRecord]) -> None:
        for r in records:
            if r.outcome is ToolOutcome.OK:
                self._record.reward(f"tool_step/{r.call.name}", r.reward)

    async def _finish(self, termination: Termination, failure: Failure | None) -> Trajectory:
        """Ask those for their rewards who must be alive to give them."""
        record, entries = self._record, list(self._record.entries)
        if termination is not Termination.INFRA_ERROR:
            try:
                entries += await self._tools.rewards()
                if self._partner is not None:
                    entries += await self._partner.rewards()
            except RolloutError as error:
                termination, failure = Termination.INFRA_ERROR, Failure.of(error)
        failures = [r.failure for turn in record.turns for r in turn.tool_records if r.failure]
        return Trajectory(
            id=self._id,
            sample=self._opening.sample,
            turns=tuple(record.turns),
            rewards=RewardLedger(tuple(entries)),
            termination=termination,
            failure=failure or (failures[-1] if failures else None),
            seed=self._seed,
            duration_s=record.elapsed(),
            tool_schemas=self._schemas,
        )

    @property
    def _max_calls(self) -> int:
        limit = self._config.max_parallel_calls
        return min(limit, self._context.renderer.max_calls or limit)

    def _shown(self, parsed: ParsedTurn) -> Message:
        """Return the policy's message with as many calls as the template can show."""
        message, limit = parsed.message(), self._context.renderer.max_calls
        if limit is not None and "tool_calls" in message:
            message["tool_calls"] = message["tool_calls"][:limit]
        return message

    def _tool_messages(self, records: Sequence[ToolRecord]) -> list[Message]:
        """Return what the calls returned; what the template has no place for joins the last."""
        messages: list[Message] = [
            {"role": "tool", "name": r.call.name, "tool_call_id": r.call.id, "content": r.response}
            for r in records
        ]
        limit = self._context.renderer.max_calls or len(messages)
        if len(messages) <= limit:
            return messages
        # Those that answer a call which the template was shown come first.
        order = sorted(range(len(records)), key=lambda i: records[i].call.error is not None)
        shown, rest = order[:limit], order[limit:]
        told = [str(messages[i]["content"]) for i in (shown[-1], *rest)]
        messages[shown[-1]]["content"] = "\n".join(dict.fromkeys(told))
        return [messages[i] for i in shown]

    def _too_late(self, error: TimeoutError) -> Failure:
        why = ToolTimeoutError(f"the episode passed {self._config.episode_timeout_s:g} s")
        why.__cause__ = error
        return Failure.of(why)
