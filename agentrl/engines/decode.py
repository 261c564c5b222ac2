"""Continuous batching without the concurrency: rows join, step together, leave.

`DecodeBatch` is plain synchronous code, driven by one worker thread of the transformers engine.
Joiners are prefilled together in one left-padded pass and merged into the running batch.

Shapes: B rows, T prompt columns, V tokens of the vocabulary.
"""

import random
from dataclasses import dataclass, field
from typing import Self

import torch
from transformers import DynamicCache, PreTrainedModel

from agentrl.contracts.engine import Sampling
from agentrl.engines.kv_cache import WindowCache, fill_gaps
from agentrl.engines.sampling import SamplingPlan, sample


@dataclass(slots=True)
class EngineStats:
    """What an engine has done since it was made."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    """Decode steps."""
    stepped_rows: int = 0
    """Rows summed over the decode steps."""

    @property
    def mean_batch(self) -> float:
        """Rows that shared a decode step, on average."""
        return self.stepped_rows / self.steps if self.steps else 0.0


@dataclass(eq=False, kw_only=True, slots=True)
class Row:
    """One request and what has been written for it so far.

    `limit` is the number of tokens after which it ends, `abandoned` is set when nobody waits for
    it any more.
    """

    prompt_ids: list[int]
    sampling: Sampling
    limit: int
    policy_version: int
    draws: random.Random
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False
    abandoned: bool = False

    @property
    def num_cached(self) -> int:
        """Tokens whose keys and values are in the cache: all but the last one sampled."""
        return len(self.prompt_ids) + len(self.token_ids) - 1

    @property
    def done(self) -> bool:
        """Whether nothing more is to be written."""
        return self.stopped or self.abandoned or len(self.token_ids) >= self.limit

    def accept(self, token: int, logprob: float) -> bool:
        """Append a sampled token; return whether the row is done."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.stopped = token in self.sampling.stop_token_ids
        return self.done


@dataclass(kw_only=True, slots=True)
class StepInputs:
    """The running rows as tensors: kept on the device between steps, rebuilt when rows change.

    `pad_B1` counts the window's columns left of each row; None when no row has any.
    """

    last_B1: torch.Tensor
    position_B1: torch.Tensor
    pad_B1: torch.Tensor | None
    plan: SamplingPlan

    @classmethod
    def of(cls, rows: list[Row], *, width: int, device: torch.device) -> Self:
        """Gather the rows' state; `width` is the cache's window."""
        lengths = [row.num_cached for row in rows]
        pads = [[width - length] for length in lengths]
        return cls(
            last_B1=torch.tensor([[row.token_ids[-1]] for row in rows], device=device),
            position_B1=torch.tensor(lengths, device=device)[:, None],
            pad_B1=torch.tensor(pads, device=device) if min(lengths) < width else None,
            plan=SamplingPlan.of([row.sampling for row in rows], device),
        )


class DecodeBatch:
    """The rows that decode together, and their cache."""

    def __init__(self, model: PreTrainedModel, *, max_prefill_tokens: int) -> None:
        self.rows: list[Row] = []
        self.stats = EngineStats()
        self.interrupted = False
        """Set from outside to make `advance` return after the step in progress."""
        self._model = model
        self._max_prefill_tokens = max_prefill_tokens
        self._cache = WindowCache()
        self._inputs: StepInputs | None = None

    @property
    def device(self) -> torch.device:
        """Where the input embeddings are."""
        weight = self._model.get_input_embeddings().weight
        assert isinstance(weight, torch.Tensor)
        return weight.device

    def clear(self) -> None:
        """Forget all rows and free their cache."""
        self.rows = []
        self._cache = WindowCache()
        self._inputs = None

    @torch.no_grad()
    def advance(self, joining: list[Row]) -> list[Row]:
        """Prefill `joining`, then step until a row ends or `interrupted` is set.

        Returns:
            The rows that ended, in no particular order.
        """
        finished = self._settle()
        while joining:
            joining = self._prefill(joining, finished)
        while self.rows:
            self._step()
            finished += self._settle()
            if finished or self.interrupted:
                break
        return finished

    def _prefill(self, joining: list[Row], finished: list[Row]) -> list[Row]:
        """Take as many joiners as fit one pass, sample their first tokens; return the others."""
        count, width = 0, 0
        for row in joining:
            wider = max(width, len(row.prompt_ids))
            if count and wider * (count + 1) > self._max_prefill_tokens:
                break
            count, width = count + 1, wider
        joined, rest = joining[:count], joining[count:]
        # A group's rollouts share their prompt: it is computed once.
        unique = list(dict.fromkeys(tuple(row.prompt_ids) for row in joined))
        place = {prompt: i for i, prompt in enumerate(unique)}
        origin = [place[tuple(row.prompt_ids)] for row in joined]
        logits_BV, prefilled = self._forward_prompts(unique, width)
        plan = SamplingPlan.of([row.sampling for row in joined], self.device)
        self._sample(joined, plan, logits_BV[torch.tensor(origin, device=logits_BV.device)])
        alive = [i for i, row in enumerate(joined) if not row.done]
        finished += [row for row in joined if row.done and not row.abandoned]
        if alive:
            self._cache.append(prefilled, [origin[i] for i in alive], width)
            self.rows += [joined[i] for i in alive]
            self._inputs = None
        self.stats.prompt_tokens += sum(len(row.prompt_ids) for row in joined)
        return rest

    def _forward_prompts(
        self, prompts: list[tuple[int, ...]], width: int
    ) -> tuple[torch.Tensor, DynamicCache]:
        """Run left-padded prompts; return the last position's logits and the cache."""
        device = self.device
        pads = [width - len(prompt) for prompt in prompts]
        padded = [[0] * pad + list(prompt) for pad, prompt in zip(pads, prompts, strict=True)]
        pad_B1 = torch.tensor(pads, device=device)[:, None]
        column_T = torch.arange(width, device=device)
        # Without a configuration the cache keeps every position of sliding layers too; their
        # masks limit what is seen.
        cache = DynamicCache()
        logits_BV = self._forward(
            cache,
            input_ids=torch.tensor(padded, device=device),
            position_ids=(column_T - pad_B1).clamp_(min=0),
            attention_mask=column_T >= pad_B1 if any(pads) else None,
        )
        return logits_BV, cache

    def _step(self) -> None:
        """Write one token to every row."""
        width = self._cache.window.width
        if self._inputs is None:
            self._inputs = StepInputs.of(self.rows, width=width, device=self.device)
        inputs, mask = self._inputs, None
        if inputs.pad_B1 is not None:
            mask = torch.arange(width + 1, device=self.device) >= inputs.pad_B1
        self._cache.reserve_column()
        logits_BV = self._forward(
            self._cache,
            input_ids=inputs.last_B1,
            position_ids=inputs.position_B1,
            attention_mask=mask,
        )
        self._cache.commit_column()
        inputs.last_B1 = self._sample(self.rows, inputs.plan, logits_BV)[:, None]
        inputs.position_B1 = inputs.position_B1 + 1
        self.stats.steps += 1
        self.stats.stepped_rows += len(self.rows)

    def _forward(
        self,
        cache: DynamicCache | WindowCache,
        *,
        input_ids: torch.Tensor,
        position_ids: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        output = self._model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=attention_mask,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits_BTV: torch.Tensor = output.logits
        return logits_BTV[:, -1]

    def _sample(self, rows: list[Row], plan: SamplingPlan, logits_BV: torch.Tensor) -> torch.Tensor:
        """Sample every row's next token and append it; return the tokens."""
        tokens_B, logprobs_B = sample(logits_BV, plan, [row.draws.random() for row in rows])
        for row, token, logprob in zip(rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
            row.accept(token, logprob)
        self.stats.generated_tokens += len(rows)
        return tokens_B

    def _settle(self) -> list[Row]:
        """Let rows that are done leave; return those that somebody waits for."""
        kept = [not row.done for row in self.rows]
        if all(kept):
            return []
        finished = [row for row in self.rows if row.done and not row.abandoned]
        if not any(kept):
            self.clear()
            return finished
        order = fill_gaps(kept)
        self.rows = [self.rows[i] for i in order]
        self._cache.keep_rows(order, max(row.num_cached for row in self.rows))
        self._inputs = None
        return finished
