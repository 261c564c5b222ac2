"""A graph of nodes: put together, changed, checked, drawn.

A parameter is bound to the nearest node upstream that makes its type; `connect` binds it by hand.
What does not work out is said before anything runs, with both sides and the remedy.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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
        self.nodes: dict[str, Node] = {}
        self._before: dict[str, set[str]] = {}
        self._wires: dict[Port, str] = {}
        stages = chain.stages if chain else []
        for before, stage in zip([[], *stages], stages, strict=False):
            for part in stage:
                self._add(part, {node.name for node in before})

    def add_node(self, name: str, fn: Any) -> Node:
        """Add a function that is joined to nothing yet; a `Batch` is always called "batch"."""
        return self._add(fn if isinstance(fn, Batch) else Node(fn, name), set())

    def connect(self, output: Port | Node, into: Port | Node) -> None:
        """Put a node behind another; a parameter's port is bound to the output as well."""
        maker, reader = self._known(output.name), self._known(into.name)
        self._before[reader.name].add(maker.name)
        if isinstance(into, Port) and into.parameter and not isinstance(maker, Batch):
            self._wires[into] = maker.name

    def replace(self, name: str, fn: Any) -> None:
        """Put another function in a node's place; it makes what the old one made.

        Raises:
            ConfigError: there is no such node, or what it makes does not fit.
        """
        old, new = self._known(name), Node(fn, name)
        if old.makes is not None and not fits(new.makes, old.makes):
            raise ConfigError(
                f"flow: node {name!r} makes {label(old.makes)}, and {fn!r} makes "
                f"{label(new.makes)}; a replacement makes the same: declare `-> {label(old.makes)}`"
            )
        self.nodes[name] = new

    def insert(self, after: str, part: Node) -> None:
        """Put a node between another and all that stands behind that."""
        self._known(after)
        followers = [before for before in self._before.values() if after in before]
        self._add(part, {after})
        for before in followers:
            before.remove(after)
            before.add(part.name)

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
        if circle := [name for name in self.nodes if name in self._upstream(name)]:
            raise ConfigError(f"flow: {' > '.join(circle)} is a circle; leave a connection out")
        above = self._upstream("batch")
        behind = [name for name in self.nodes if "batch" in self._upstream(name)]
        for name, part in self.nodes.items():
            if part not in batches and name not in above and (part.is_filter or name not in behind):
                raise ConfigError(
                    f"flow: {name!r} stands on no way to Batch; put it between two of {list(above)}"
                )
        sources = {
            name: {p: source for p in part.reads if (source := self._bind(part, p, behind))}
            for name, part in self.nodes.items()
        }
        return Plan(batches[0], list(self._stages(above)), list(self._stages(behind)), sources)

    def mermaid(self) -> str:
        """Draw what comes from where, as Mermaid's source."""
        sources, lines = self.plan().sources, ["flowchart TD"]
        for name, part in self.nodes.items():
            shape = f"{{{name}}}" if part.is_filter else f"[{name}]"
            if isinstance(part, Batch):
                shape = f'{{{{"Batch {part.n}, ahead {part.ahead}"}}}}'
            lines.append(f"    {name}{shape}")
            given = [source for source in sources[name].values() if source.maker in self.nodes]
            for maker, each in given:
                made = label(self.nodes[maker].makes) + " of each group" * each
                lines.append(f'    {maker} -->|"{made}"| {name}')
            others = sorted(self._before[name] - dict(given).keys())
            lines += [f"    {before} -.-> {name}" for before in others]
        return "\n".join(lines)

    def _bind(self, reader: Node, parameter: str, behind: Collection[str]) -> Source | None:
        """Find what makes a parameter's value; None when the parameter does without."""
        read, late = reader.reads[parameter], reader.name in behind
        if read is Step and late:
            return Source(STEP)
        if (element(read) if late else read) is Ticket:
            return Source(TICKET, each=late)
        wired = self._wires.get(reader.inputs[parameter])
        before = {wired: 0} if wired else self._upstream(reader.name)
        made = {n: label(part.makes) for n in before if (part := self.nodes[n]).makes is not None}
        each = [n for n in made if late and n not in behind]
        found = [n for n in made if fits(self.nodes[n].makes, element(read) if n in each else read)]
        nearest = [n for n in found if before[n] == before[found[0]]]
        what = f"flow: {parameter!r} of {reader.name!r} reads {label(read)}, "
        if len(nearest) > 1:
            raise ConfigError(
                f"{what}which both {' and '.join(map(repr, nearest))} make; say which: "
                f"connect({nearest[0]}.output, {reader.name}.inputs[{parameter!r}])"
            )
        if nearest:
            return Source(nearest[0], nearest[0] in each)
        if parameter in reader.optional and not wired:
            return None
        raise ConfigError(
            f"{what}and {'what is connected to it' if wired else 'what stands before it'} makes "
            f"{made}; put a node `-> {label(element(read) or read)}` before it, or change the "
            f"parameter's type (behind Batch, what is made of each group is read as a list)"
        )

    def _upstream(self, name: str) -> dict[str, int]:
        """Return what stands before a node, nearest first, each with how many stand nearer."""
        nearer: dict[str, int] = {}
        level = self._before[name]
        while level:
            nearer |= dict.fromkeys(sorted(level), len(nearer))
            level = {before for at in level for before in self._before[at]} - nearer.keys()
        return nearer

    def _stages(self, names: Iterable[str]) -> Iterator[list[Node]]:
        """Yield nodes stage by stage: each as soon as what stands before it has run."""
        left = set(names)
        while left:
            ready = [n for n in self.nodes if n in left and not self._before[n] & left]
            yield [self.nodes[name] for name in ready]
            left.difference_update(ready)

    def _add(self, part: Node, before: set[str]) -> Node:
        if part.name in self.nodes:
            raise ConfigError(f"flow: two nodes are called {part.name!r}; give one another name")
        self.nodes[part.name], self._before[part.name] = part, before
        return part

    def _known(self, name: str) -> Node:
        if name not in self.nodes:
            raise ConfigError(f"flow: there is no node {name!r}; the nodes are {list(self.nodes)}")
        return self.nodes[name]
