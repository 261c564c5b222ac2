"""The probe that every weight update has to pass: trainer and engine must agree on a text.

An engine that kept some old weights still generates fluent text with plausible log-probabilities,
so nothing else would notice. The probe scores one fixed text with both.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from agentrl.config.engine import ParityConfig
from agentrl.contracts.engine import Engine
from agentrl.errors import RunError

logger = logging.getLogger(__name__)

PROBE_TOKENS = 256
"""Of the probe's text, no more is scored."""
EXACT_TOLERANCE, ROUNDED_TOLERANCE = 1e-3, 0.3
"""Where both compute in float32, and where kernels round to 16 bits at different places."""

Score = Callable[[list[int]], Awaitable[Sequence[float]]]


class ParityProbe:
    """Compares an engine with weights of its own to the trainer.

    Args:
        token_ids: the text.
        config: when and how; None for an engine that generates with the trainer's module, which
            cannot differ from it.
        score: the trainer's log-probability of every token but the first.
        exact: whether both compute in float32.
    """

    def __init__(
        self, token_ids: Sequence[int], config: ParityConfig | None, *, score: Score, exact: bool
    ) -> None:
        self._token_ids = [int(token) for token in token_ids[:PROBE_TOKENS]]
        self._config = config
        self._score = score
        self._exact = exact
        self._syncs = 0

    async def check(self, engine: Engine, version: int) -> dict[str, float]:
        """Probe if it is due; return the metric.

        Raises:
            RunError: they differ by more than the tolerance.
        """
        self._syncs += 1
        every = self._config.every if self._config is not None else 0
        if self._config is None or not every or (self._syncs - 1) % every:
            return {}
        ours = await self._score(self._token_ids)
        theirs = await engine.score(self._token_ids)
        # One by one: `max` of a NaN and a number is whichever comes first.
        gaps = [abs(a - b) for copy in theirs for a, b in zip(ours, copy, strict=True)]
        tolerance = self._config.tolerance or (
            EXACT_TOLERANCE if self._exact else ROUNDED_TOLERANCE
        )
        wrong = [gap for gap in gaps if not gap <= tolerance]
        gap = max(wrong or gaps)
        logger.debug("parity of version %d: %g", version, gap)
        if wrong:
            raise RunError(
                f"parity probe: after the weight update to version {version}, the engine's "
                f"log-probabilities of a fixed text differ from the trainer's by up to {gap:.2g}, "
                f"more than engine.parity.tolerance={tolerance:g}; the engine does not compute "
                f"with the trainer's weights, so nothing sampled from it can be learnt from. Use "
                f"another release of it, or engine.type=transformers; where both only round "
                f"differently, raise engine.parity.tolerance"
            )
        return {"engine/parity": gap}
