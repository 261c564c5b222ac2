"""Plain functions as scorers: in our signatures, in verl's and in TRL's.

The names of its parameters tell which signature a function has; it is given what it has
parameters for, and its entry's `config` as keyword arguments.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from typing_extensions import override

from agentrl.aside import call
from agentrl.contracts.message import text_of
from agentrl.contracts.reward import RewardEntry, finite
from agentrl.contracts.scorer import Scorer
from agentrl.contracts.tool import Services
from agentrl.contracts.trajectory import Group, Trajectory
from agentrl.errors import ConfigError, loading

_SIGNATURES = """
  (trajectory, sample) -> float, or (trajectories, sample) -> list of floats for a whole group
  (data_source, solution_str, ground_truth, extra_info) -> float or {"score": float}, as in verl
  (prompts, completions, **columns) -> list of floats for a whole group, as in TRL
where None is no reward, and the first two may take `services` (the sandbox) too"""


def _ours(group: Group) -> dict[str, Any]:
    members = group.trajectories
    return {"trajectory": members[0], "trajectories": members, "sample": group.sample}


def _verl(group: Group) -> dict[str, Any]:
    sample, columns = group.sample, dict(group.sample.columns)
    extra = columns.pop("extra_info", None) or sample.extra_info
    return {
        "data_source": sample.data_source,
        "solution_str": _written(group.trajectories[0]),
        "ground_truth": sample.ground_truth,
        "extra_info": {**columns, **extra},
    }


def _trl(group: Group) -> dict[str, Any]:
    """Return lists of one length; where the row's prompt is a string, completions are too."""
    sample, members = group.sample, group.trajectories
    row = {"ground_truth": sample.ground_truth, "data_source": sample.data_source, **sample.columns}
    prompt = row.pop("prompt", None)
    is_text = isinstance(prompt, str)
    return {name: [value] * len(members) for name, value in row.items()} | {
        "prompts": [prompt if is_text else copy.deepcopy(sample.prompt) for _ in members],
        "completions": [
            _written(t) if is_text else copy.deepcopy(t.messages[len(t.turns[0].messages) :])
            for t in members
        ],
        "completion_ids": [
            [token for turn in t.turns[1:] for token in turn.token_ids.tolist()] for t in members
        ],
    }


_FORMS: dict[str, tuple[Callable[[Group], dict[str, Any]], set[str]]] = {
    "trajectory": (_ours, {"sample", "services"}),
    "trajectories": (_ours, {"sample", "services"}),
    "solution_str": (_verl, {"data_source", "ground_truth", "extra_info"}),
    "completions": (_trl, set()),
    "completion_ids": (_trl, set()),
    "prompts": (_trl, set()),
}
"""By the parameter that tells a signature: its arguments, and the names of its other parameters."""


class RewardFunction(Scorer):
    """One function with its configuration. `alone`: it is given groups of one trajectory."""

    def __init__(
        self, function: Callable[..., Any], name: str, config: Mapping[str, Any], services: Services
    ) -> None:
        with loading(f"reward {name!r}"):
            parameters = inspect.signature(function).parameters.values()
        named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        self._takes = {p.name for p in named}
        self._takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        mark = next((mark for mark in _FORMS if mark in self._takes), None)
        if mark is None:
            raise ConfigError(
                f"reward {name!r}: its parameters {sorted(self._takes)} fit none of:{_SIGNATURES}"
            )
        self._arguments, others = _FORMS[mark]
        unknown = set() if self._takes_all else config.keys() - self._takes
        needed = {p.name for p in named if p.default is p.empty}
        missing = needed - {mark} - others - config.keys() if others else set()
        if unknown or missing:
            raise ConfigError(
                f"reward {name!r}: expected `config` to hold the arguments {sorted(missing)} and "
                f"none that the function does not take, got {sorted(config)}"
            )
        self.alone = mark in ("trajectory", "solution_str")
        self._name, self._function = name, function
        self._extra = dict(config) | ({"services": services} if "services" in others else {})

    @override
    async def score(self, group: Group) -> Sequence[Sequence[RewardEntry]]:
        given = self._arguments(group) | self._extra
        accepted = {k: v for k, v in given.items() if self._takes_all or k in self._takes}
        value = await call(self._function, **accepted)
        return [self._entries(v) for v in ([value] if self.alone else value)]

    def _entries(self, value: Any) -> list[RewardEntry]:
        """Read one result; numbers beside verl's score are recorded at weight 0."""
        if value is None:
            return []
        if not isinstance(value, Mapping):
            return [RewardEntry(source=self._name, value=finite(value))]
        if "score" not in value:
            raise ValueError(f"expected a number or a mapping with 'score', got {value!r}")
        return [RewardEntry(source=self._name, value=finite(value["score"]))] + [
            RewardEntry(source=f"{self._name}/{key}", value=finite(number), weight=0.0)
            for key, number in value.items()
            if key != "score" and isinstance(number, Real)
        ]


def _written(trajectory: Trajectory) -> str:
    """Return what the policy wrote, its tool calls left out."""
    texts = [text_of(m["content"]) for turn in trajectory.policy_turns for m in turn.messages]
    return "\n".join(text for text in texts if text)
