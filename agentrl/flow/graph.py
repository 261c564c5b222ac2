"""A graph of nodes: put together, changed, checked, drawn.

A parameter is bound to the nearest node upstream that makes its type; `connect` binds it by hand.
What does not work out is said before anything runs, with both sides and the remedy.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from agentrl.errors import ConfigError
from agentrl.flow.node import Batch, Chain, Node, Port, Step, element, fits, label
from agentrl.flow.tickets import Ticket

TICKET, STEP = "(ticket)", "(step)"
"""Values that the flow itself makes."""


class Source(NamedTuple):
    """What makes a parameter's value; `each`: a list, with the value of each group."""

    maker: str
    each: bool = False


class Plan(NamedTuple):
    """A checked graph: what runs when, stage by stage, and what each parameter is given."""

    batch: Batch
    per_group: list[list[Node]]
    per_step: list[list[Node]]
    sources: Mapping[str, Mapping[str, Source]]


class DataflowGraph:
    """Nodes by name, and what stands behind what.

    Args:
        chain: nodes joined by `>>`; the nodes of a list run at once.
    """

    def __init__(self, chain: Chain | None = None) -> None:
        self.nodes: dict[str, Node | Batch] = {}
        self._before: dict[str, set[str]] = {}
        self._wires: dict[tuple[str, str | None], str] = {}
        before: set[str] = set()
        for stage in chain.stages if chain else ():
            for part in stage:
                self._add(part, before)
            before = {part.name for part in stage}

    def add_node(self, name: str, fn: object) -> Node:
        """Add a function that is joined to nothing yet; a `Batch` is always called "batch"."""
        part = fn if isinstance(fn, Batch) else Node(fn, name)  # type: ignore[arg-type]
        self._add(part, set())
        return part  # type: ignore[return-value]

    def connect(self, output: Port | Batch, into: Port | Batch) -> None:
        """Put a node behind another; a parameter's port is bound to the output as well."""
        (start, _), (end, parameter) = (
            side if isinstance(side, Port) else Port(side.name) for side in (output, into)
        )
        self._known(start)
        self._known(end)
        self._before[end].add(start)
        if parameter is not None and start != "batch":
            self._wires[end, parameter] = start

    def replace(self, name: str, fn: object) -> None:
        """Put another function in a node's place; it makes what the old one made.

        Raises:
            ConfigError: there is no such node, or what it makes does not fit.
        """
        old, new = self._known(name), Node(fn, name)  # type: ignore[arg-type]
        made = "Batch" if isinstance(old, Batch) else label(old.makes)
        if isinstance(old, Batch) or not (old.makes is None or fits(new.makes, old.makes)):
            raise ConfigError(
                f"flow: node {name!r} makes {made}, and {new.fn!r} makes {label(new.makes)}; a "
                f"replacement makes the same: declare `-> {made}`"
            )
        self.nodes[name] = new

    def insert(self, after: str, part: Node) -> None:
        """Put a node between another and all that stands behind that."""
        self._known(after)
        followers = [name for name, before in self._before.items() if after in before]
        self._add(part, {after})
        for name in followers:
            self._before[name] = self._before[name] - {after} | {part.name}

    def plan(self) -> Plan:
        """Check the graph and bind every parameter.

        Raises:
            ConfigError: something does not work out.
        """
        batches = [part for part in self.nodes.values() if isinstance(part, Batch)]
        if len(batches) != 1:
            raise ConfigError(
                f"flow: expected one Batch, which divides what runs once a group from what runs "
                f"once a step, got {len(batches)} among {list(self.nodes)}; write `>> Batch(n) >>`"
            )
        try:
            stages = [[n for n in self.nodes if n in stage] for stage in _stages(self._before)]
        except CycleError as error:
            raise ConfigError(
                f"flow: {' > '.join(error.args[1])} is a circle; leave a connection out"
            ) from None
        above = {at for level in self._nearest("batch") for at in level}
        behind = [n for n in self.nodes if any("batch" in level for level in self._nearest(n))]
        nodes = {n: part for n, part in self.nodes.items() if isinstance(part, Node)}
        for name, part in nodes.items():
            if name not in above and (name not in behind or part.is_filter):
                raise ConfigError(
                    f"flow: {name!r} stands on no way to Batch, so nothing would come of it; put "
                    f"it between two of {list(above)}"
                )
        bound = {n: self._given(part, n in behind) for n, part in nodes.items()}
        return Plan(
            batches[0],
            [[nodes[n] for n in stage if n in above] for stage in stages if above & set(stage)],
            [
                [nodes[n] for n in stage if n in behind]
                for stage in stages
                if set(behind) & set(stage)
            ],
            bound,
        )

    def mermaid(self) -> str:
        """Draw what comes from where, as Mermaid's source."""
        plan, lines = self.plan(), ["flowchart TD"]
        for name, part in self.nodes.items():
            if isinstance(part, Batch):
                lines.append(f'    batch{{{{"Batch {part.n}, ahead {part.ahead}"}}}}')
            else:
                lines.append(f"    {name}{{{name}}}" if part.is_filter else f"    {name}[{name}]")
            given = [s for s in plan.sources.get(name, {}).values() if s.maker in self.nodes]
            for maker, each in given:
                made = label(self.nodes[maker].makes)  # type: ignore[union-attr]
                lines.append(f'    {maker} -->|"{made}{" of each group" * each}"| {name}')
            makers = {maker for maker, _ in given}
            lines += [f"    {before} -.-> {name}" for before in sorted(self._before[name] - makers)]
        return "\n".join(lines)

    def _given(self, reader: Node, late: bool) -> dict[str, Source]:
        return {p: s for p in reader.reads if (s := self._bind(reader, p, late))}

    def _bind(self, reader: Node, parameter: str, late: bool) -> Source | None:
        """Find what makes a parameter's value; None when the parameter does without."""
        read = reader.reads[parameter]
        if (read is Step and late) or (element(read) if late else read) is Ticket:
            return Source(STEP if read is Step else TICKET, late and read is not Step)
        wired = self._wires.get((reader.name, parameter))
        for level in [[wired]] if wired else self._nearest(reader.name):
            found = [s for maker in level if (s := self._serves(maker, read, late))]
            if len(found) > 1:
                raise ConfigError(
                    f"flow: {parameter!r} of {reader.name!r} reads {label(read)}, which both "
                    f"{' and '.join(repr(s.maker) for s in found)} make; say which: "
                    f"connect({found[0].maker}.output, {reader.name}.inputs[{parameter!r}])"
                )
            if found:
                return found[0]
        if parameter in reader.optional and not wired:
            return None
        before = [wired] if wired else [at for level in self._nearest(reader.name) for at in level]
        made = {n: label(p.makes) for n in before if isinstance(p := self.nodes[n], Node)}
        raise ConfigError(
            f"flow: {parameter!r} of {reader.name!r} reads {label(read)}, and "
            f"{'what is connected to it' if wired else 'what stands before it'} makes {made}; put "
            f"a node `-> {label(element(read) or read)}` before it, or change the parameter's type "
            f"(behind Batch, what is made of each group is read as a list)"
        )

    def _serves(self, maker: str, read: object, late: bool) -> Source | None:
        part, makes = self.nodes[maker], getattr(self.nodes[maker], "makes", None)
        if makes is None or isinstance(part, Batch):
            return None
        each = late and not any("batch" in level for level in self._nearest(maker))
        return Source(maker, each) if fits(makes, element(read) if each else read) else None

    def _nearest(self, name: str) -> Iterator[list[str]]:
        """Yield what stands before a node, nearest first, each node once."""
        seen, level = {name}, sorted(self._before[name])
        while level:
            yield level
            seen |= set(level)
            level = sorted({b for at in level for b in self._before[at]} - seen)

    def _add(self, part: Node | Batch, before: set[str]) -> None:
        if part.name in self.nodes:
            raise ConfigError(f"flow: two nodes are called {part.name!r}; give one another name")
        self.nodes[part.name], self._before[part.name] = part, set(before)

    def _known(self, name: str) -> Node | Batch:
        if name not in self.nodes:
            close = difflib.get_close_matches(name, self.nodes, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"flow: there is no node {name!r} among {list(self.nodes)}{hint}")
        return self.nodes[name]


def _stages(before: Mapping[str, Iterable[str]]) -> Iterator[tuple[str, ...]]:
    order = TopologicalSorter(before)
    order.prepare()
    while order.is_active():
        yield (stage := order.get_ready())
        order.done(*stage)
