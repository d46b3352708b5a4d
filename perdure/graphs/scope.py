"""Scopes: a graph in its place, at the top or as a node of another, and what its names stand for there.

A subgraph has no step of its own: what leads to it leads to what its START leads to, and what leads to its END leads
to where the node leads. Only where that can't be said of single nodes does an empty one stand for its beginning or its
end: it has a router at START, a join leads into it, or a join or a router comes after it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.contracts import END, START
from perdure.errors import DefinitionError
from perdure.graphs.choice import Router, Target, Targets
from perdure.graphs.nodes import FunctionNode, Node, function_node
from perdure.state import State

if TYPE_CHECKING:
    from perdure.graph import Graph

Routes = dict[str, tuple[str, ...]]


class Scope:
    """A graph in its place. ``name`` is that of its node in the parent, ``prefix`` is before the names of its nodes."""

    def __init__(self, graph: "Graph", parent: "Scope | None" = None, name: str = "") -> None:
        """Raises DefinitionError where a graph is inside of itself."""
        self.graph = graph
        self.parent = parent
        self.name = name
        self.prefix: str = f"{parent.prefix}{name}/" if parent else ""
        self.title: str = parent.title if parent else graph.title
        self.place = f"{self.title}: {self.prefix[:-1]}" if parent else self.title
        if any(outer.graph is graph for outer in self._outside()):
            raise DefinitionError(f"{self.place} is a graph inside of itself.")
        self.inner = {n: Scope(part, self, n) for n, part in graph.nodes.items() if not isinstance(part, Node)}

    def _outside(self) -> "Iterator[Scope]":
        if self.parent:
            yield self.parent
            yield from self.parent._outside()

    def all(self) -> "Iterator[Scope]":
        """This one, and those inside of it."""
        yield self
        for inner in self.inner.values():
            yield from inner.all()

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────────────

    @property
    def begins(self) -> bool:
        """Whether an empty node stands for the beginning."""
        return self.parent is not None and (
            START in self.graph.routers or any(join.target == self.name for join in self.parent.graph.joins)
        )

    @property
    def ends(self) -> bool:
        """Whether an empty node stands for the end."""
        return self.parent is not None and (
            self.name in self.parent.graph.routers or any(self.name in j.sources for j in self.parent.graph.joins)
        )

    def at(self, name: str) -> tuple[str, ...]:
        """The nodes of the compiled graph that a name as a target stands for; END where the turn ends there."""
        if name == END:
            return self._end()
        inner = self.inner.get(name)
        return (self.prefix + name,) if inner is None else inner.start()

    def start(self) -> tuple[str, ...]:
        """The nodes that begin it."""
        return (self.prefix + START,) if self.begins else self.every(self.graph.routes(START).get("done", ()))

    def _end(self) -> tuple[str, ...]:
        if self.parent is None:
            return (END,)
        return (self.prefix + END,) if self.ends else self._after()

    def _after(self) -> tuple[str, ...]:
        """What comes after it in its parent."""
        assert self.parent is not None, "nothing comes after the whole"
        return self.parent.every(self.parent.graph.routes(self.name).get("done", ()))

    def every(self, names: Iterable[str]) -> tuple[str, ...]:
        """The nodes that several names stand for, each once."""
        return tuple(dict.fromkeys(node for name in names for node in self.at(name)))

    def source(self, name: str) -> str:
        """The node of the compiled graph that a name as the source of a join or a router stands for."""
        return self.prefix + name + (f"/{END}" if name in self.inner else "")

    # ── what the compiled graph is made of ───────────────────────────────────────────────────────────────────────

    def nodes(self) -> Iterator[tuple[str, Node]]:
        """Its nodes and those inside, under their names in the compiled graph."""
        if self.begins:
            yield self._placed(START, _EMPTY)
        for name, part in self.graph.nodes.items():
            if isinstance(part, Node):
                yield self._placed(name, part)
            else:
                yield from self.inner[name].nodes()
        if self.ends:
            yield self._placed(END, _EMPTY)

    def _placed(self, name: str, node: Node) -> tuple[str, Node]:
        return self.prefix + name, replace(node, place=f"{self.title}: node {self.prefix}{name}")

    def routes(self) -> Iterator[tuple[str, Routes]]:
        """Where the outcomes of its own nodes lead. An error that has no route inside takes that of the subgraph."""
        rescue = self._rescue()
        if self.begins:
            yield self.prefix + START, _done(self.every(self.graph.routes(START).get("done", ())))
        for name, part in self.graph.nodes.items():
            if isinstance(part, Node):
                routes = {on: self.every(targets) for on, targets in self.graph.routes(name).items()}
                if rescue and "error" in self.graph.outcomes(name):
                    routes.setdefault("error", rescue)
                yield self.prefix + name, routes
        if self.ends:
            yield self.prefix + END, _done(self._after())

    def _rescue(self) -> tuple[str, ...]:
        if self.parent is None:
            return ()
        own = self.parent.every(self.parent.graph.routes(self.name).get("error", ()))
        return own or self.parent._rescue()

    def joins(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Nodes that wait, and for which others."""
        for join in self.graph.joins:
            yield self.at(join.target)[0], tuple(self.source(name) for name in join.sources)

    def routers(self, nodes: Mapping[str, Node]) -> Iterator[tuple[str, Router]]:
        """Its routers, by the node that each follows (START for the one at the start of the whole)."""
        for source, choice in self.graph.routers.items():
            where = self.source(source)
            yield where, Router(
                place=f"{self.title}: the router of {where}", pick=choice.pick, state=self.graph.state,
                targets=self._targets(choice.targets, nodes),
            )  # fmt: skip

    def asking(self, nodes: Mapping[str, Node]) -> Iterator[tuple[str, Targets]]:
        """What those of its own nodes that say themselves where to go on may ask for."""
        for name, part in self.graph.nodes.items():
            if isinstance(part, FunctionNode) and part.goto:
                yield self.prefix + name, self._targets(part.goto, nodes)

    def _targets(self, names: Iterable[str], nodes: Mapping[str, Node]) -> Targets:
        """What may be chosen by its own names."""

        def reads(name: str) -> bool:
            node = nodes.get(name)
            return isinstance(node, FunctionNode) and node.signature.takes_arg

        stand_for = {name: self.at(name) for name in names}
        return {name: Target(found, all(map(reads, found))) for name, found in stand_for.items()}


def _done(nodes: tuple[str, ...]) -> Routes:
    return {"done": nodes} if nodes else {}


def _pass() -> None:
    """Nothing is to do at the beginning or the end of a subgraph."""


_EMPTY = function_node("", State, _pass, {})
