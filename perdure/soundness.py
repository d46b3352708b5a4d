"""Whether a graph is sound: every mistake that can be seen before anything runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from perdure.contracts import END, START, NodeSpec
from perdure.errors import DefinitionError
from perdure.nodes import FunctionNode, ModelNode, ToolsNode

if TYPE_CHECKING:
    from perdure.compiled import CompiledGraph
    from perdure.graph import Graph

Routes = Mapping[str, Mapping[str, tuple[str, ...]]]


# ── one graph by its own names ───────────────────────────────────────────────────────────────────────────────────


def check_names(graph: "Graph", place: str) -> None:
    """Edges, joins and routers name what there is, and don't contradict one another. Raises DefinitionError."""
    for source, target in _mentions(graph):
        for name in (source, target):
            if name not in graph.nodes and name not in (START, END):
                what = f"{source} leads to {name!r}" if name == target else f"something leads away from {name!r}"
                raise DefinitionError(
                    f"{place}: {what}, and there is no such node.", hint=f"Nodes: {', '.join(graph.nodes) or 'none'}."
                )
        if source == END or target == START:
            raise DefinitionError(f"{place}: nothing leads away from END, or to START.")
    _check_edges(graph, place)
    _check_start(graph, place)
    _check_joins(graph, place)


def _mentions(graph: "Graph") -> Iterator[tuple[str, str]]:
    yield from ((edge.source, edge.target) for edge in graph.edges)
    yield from ((source, join.target) for join in graph.joins for source in join.sources)
    yield from ((source, target) for source, choice in graph.routers.items() for target in choice.targets)
    for name, node in graph.nodes.items():
        if isinstance(node, FunctionNode):
            yield from ((name, target) for target in node.goto)


def _check_edges(graph: "Graph", place: str) -> None:
    for edge in graph.edges:
        known = graph.outcomes(edge.source)
        if edge.on and edge.on not in known:
            raise DefinitionError(
                f"{place}: node {edge.source} has no outcome {edge.on!r}.", hint=f"Outcomes: {', '.join(known)}."
            )
    for source in graph.routers:
        if source != START and graph.outcomes(source)[0] in graph.routes(source):
            raise DefinitionError(f"{place}: node {source} has a router and an edge.", hint="Let the router choose both.")
        node = graph.nodes.get(source)
        if isinstance(node, FunctionNode) and node.goto:
            raise DefinitionError(f"{place}: node {source} has a router and `goto`.", hint="One of them can choose.")


def _check_start(graph: "Graph", place: str) -> None:
    targets = graph.routes(START).get("done", ())
    if START in graph.routers and targets:
        raise DefinitionError(f"{place}: START has a router and an edge.", hint="Let the router choose both.")
    if END in targets:
        raise DefinitionError(f"{place}: START leads to END.")
    if START not in graph.routers and not targets:
        raise DefinitionError(f"{place} has no edge from START.", hint='Begin with edge(START, "…").')


def _check_joins(graph: "Graph", place: str) -> None:
    seen: set[str] = set()
    for join in graph.joins:
        if join.target in seen:
            raise DefinitionError(f"{place}: node {join.target} is two joins.", hint="List all of its sources in one.")
        seen.add(join.target)
        if join.target == END or START in join.sources or join.target in join.sources:
            raise DefinitionError(f"{place}: a join is a node that waits for other nodes.")
        for source in join.sources:
            if source in graph.routers and join.target not in graph.routers[source].targets:
                raise DefinitionError(
                    f"{place}: node {join.target} waits for {source}, whose router never leads there."
                )


# ── the compiled graph ───────────────────────────────────────────────────────────────────────────────────────────


def check_flow(graph: "CompiledGraph") -> None:
    """Every node can be reached and leads to an end, and what one gives the next can take. Raises DefinitionError."""
    first = graph.chosen_by(START) or graph.start
    reached = _reachable(graph.specs, first)
    for name in graph.specs:
        if name not in reached:
            raise DefinitionError(f"{graph.title}: nothing leads to node {name}.")
    for name, spec in graph.specs.items():
        usual = "answer" if spec.kind == "model" else "done"
        if usual not in spec.routes and not spec.chooses:
            raise DefinitionError(
                f"{graph.title}: node {name} leads nowhere.", hint=f'Where a turn ends there: edge("{name}", END).'
            )
        if END not in _reachable(graph.specs, [name]):
            raise DefinitionError(f"{graph.title}: no way leads from node {name} to END.")
    _check_arguments(graph)
    _check_calls(graph)


def _follows(spec: NodeSpec) -> Iterator[str]:
    """What may follow a node where nothing fails."""
    yield from spec.chooses
    for outcome, targets in spec.routes.items():
        if outcome != "error":
            yield from targets


def _reachable(specs: Mapping[str, NodeSpec], first: Iterable[str], stops: Collection[str] = ()) -> set[str]:
    """Everything on the ways from these nodes on; ``stops`` are not passed.

    An error route leads to what it repairs with, but that is no way to an end: where nothing fails it isn't taken.
    """
    found: set[str] = set()
    ahead = list(first)
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            if name in specs and name not in stops:
                ahead += _follows(specs[name])
    return found
