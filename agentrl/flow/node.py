"""Nodes: functions that read their parameters' types and make their return type.

def credit(groups: list[Group]) -> list[TrainSample]: ...      reads groups, makes samples
async def compliant(group: Group) -> Refuse | None: ...        a filter: makes nothing
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from inspect import isawaitable, isclass, isroutine, signature
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from agentrl.errors import ConfigError, noted


class Step(int):
    """The number of the step under way, from 1; nodes behind `Batch` may read it."""


class Refuse(NamedTuple):
    """A filter's no. With `again` the same prompt is sampled anew, otherwise the next one."""

    reason: str
    again: bool = False


class Port(NamedTuple):
    """One end of an explicit edge: a node's output, or one of its parameters."""

    name: str
    parameter: str | None = None


class Chain:
    """What `>>` builds: stages, one behind the other; the nodes of a stage run at once."""

    def __init__(self, *links: Any) -> None:
        self.stages = [stage for link in links for stage in _stages(link)]

    def __rshift__(self, after: Any) -> "Chain":
        return Chain(self, after)

    def __rrshift__(self, before: Any) -> "Chain":
        return Chain(before, self)


class Node(Chain):
    """A named function, or an object that can be called. Its types are read once, here.

    `reads` are the parameters' types by name, `optional` those with a default, `makes` is the
    type of the result: None of a filter, and of a function that returns nothing.

    Raises:
        ConfigError: a parameter has no type, or a filter returns something else besides.
    """

    def __init__(self, fn: Callable[..., Any], name: str | None = None) -> None:
        self.stages = [[self]]
        plain, fixed = (fn.func, fn.keywords) if isinstance(fn, partial) else (fn, {})
        self.fn, self.name = fn, name or _snake(getattr(plain, "__name__", type(plain).__name__))
        try:
            hints = get_type_hints(plain if isroutine(plain) else type(plain).__call__)
        except NameError as error:
            raise ConfigError(f"node {self.name!r}: unknown type: {error}") from None
        free = [p for p in signature(fn).parameters.values() if p.name not in fixed]
        free = [p for p in free if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if untyped := [p.name for p in free if p.name not in hints]:
            raise ConfigError(
                f"node {self.name!r}: parameter {untyped[0]!r} has no type; a node reads by its "
                f"parameters' types, so write for example `{untyped[0]}: Group`"
            )
        self.reads = {p.name: hints[p.name] for p in free}
        self.optional = {p.name for p in free if p.default is not p.empty}
        made = hints.get("return", NoneType)
        self.is_filter = made is Refuse or Refuse in get_args(made)
        if self.is_filter and set(get_args(made)) - {Refuse, NoneType}:
            raise ConfigError(
                f"node {self.name!r} returns {label(made)}; a filter returns `Refuse | None`: make "
                f"the rest in a node of its own"
            )
        self.makes = None if self.is_filter or made is NoneType else made
        self.output = Port(self.name)
        self.inputs = {parameter: Port(self.name, parameter) for parameter in self.reads}
        self.input = next(iter(self.inputs.values()), self.output)  # the first parameter's

    async def run(self, **values: Any) -> Any:
        """Run it alone, on recorded data say. What it raises has a note that names it."""
        with noted(f"raised by flow node {self.name!r}"):
            result = self.fn(**values)
            return await result if isawaitable(result) else result


class Batch(Node):
    """Divides a graph: before it nodes run once a group, behind it once a step of `n` groups.

    Args:
        n: groups that a step learns from.
        ahead: steps that a group may be older than the weights that it updates.
        oversample: groups begun for each that an on-policy step needs: spares for the refused.
        first: take the first to complete, and throw away the rest: shorter steps, trained on
            short groups. By default a group that would be too old next time is waited for, and
            spares stand in for the refused alone.

    Raises:
        ConfigError: spares and `ahead` are asked for together, without `first`.
    """

    def __init__(self, n: int, ahead: int = 0, oversample: float = 1, first: bool = False) -> None:
        super().__init__(lambda: None, "batch")
        self.n, self.ahead, self.oversample, self.first = n, ahead, oversample, first
        if ahead and oversample > 1 and not first:
            raise ConfigError(
                f"rollout.oversample={oversample} with rollout.max_staleness={ahead}: groups of "
                f"later steps stand in for the refused already; leave oversample at 1, or set "
                f"rollout.take=first, which trains on short episodes"
            )


def label(of: Any) -> str:
    """Write a type as people write it."""
    return of.__name__ if isclass(of) else re.sub(r"\b\w+\.", "", str(of))


def fits(made: Any, read: Any) -> bool:
    """Whether what is made can be read as `read`."""
    return made == read or (isclass(made) and isclass(read) and issubclass(made, read))


def element(read: Any) -> Any:
    """Return T of `list[T]` or `Sequence[T]`; None of anything else."""
    return get_args(read)[0] if get_origin(read) in (list, Sequence) else None


def _stages(of: Any) -> list[list[Node]]:
    if isinstance(of, Chain):
        return of.stages
    parts = of if isinstance(of, list) else [of]
    return [[part if isinstance(part, Node) else Node(part) for part in parts]]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_")
