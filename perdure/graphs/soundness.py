"""Whether a graph is sound: every mistake that can be seen before anything runs."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from perdure.contracts import END, START, NodeSpec
from perdure.errors import DefinitionError
from perdure.graphs.nodes import FunctionNode, ModelNode, ToolsNode

if TYPE_CHECKING:
    from perdure.graph import Graph
    from perdure.graphs.compiled import CompiledGraph

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
    _check_start(graph, place)
    _check_edges(graph, place)
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
    for name, node in graph.nodes.items():
        leads, asks = graph.outcomes(name)[0] in graph.routes(name), isinstance(node, FunctionNode) and bool(node.goto)
        if name in graph.routers and leads:
            raise DefinitionError(f"{place}: node {name} has a router and an edge.", hint="Let the router choose both.")
        if name in graph.routers and asks:
            raise DefinitionError(f"{place}: node {name} has a router and `goto`.", hint="One of them can choose.")
        if not (leads or asks or name in graph.routers):
            raise DefinitionError(
                f"{place}: node {name} leads nowhere.", hint=f'Where the turn ends there: edge("{name}", END).'
            )


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
    everywhere = {name: set(spec.chooses).union(*spec.routes.values()) for name, spec in graph.specs.items()}
    # What only an error leads to is no way to the end: where nothing fails it isn't taken.
    usually = {name: set(_usual(spec)) for name, spec in graph.specs.items()}
    reached = _reachable(everywhere, graph.chosen_by(START) or graph.start)
    for name in graph.specs:
        if name not in reached:
            raise DefinitionError(f"{graph.title}: nothing leads to node {name}.")
        if END not in _reachable(usually, [name]):
            raise DefinitionError(f"{graph.title}: no way leads from node {name} to END.")
    _check_arguments(graph)
    _check_calls(graph, usually)


def _usual(spec: NodeSpec) -> Iterator[str]:
    """What follows a node where nothing fails."""
    yield from spec.chooses
    for outcome, targets in spec.routes.items():
        if outcome != "error":
            yield from targets


def _reachable(ways: Mapping[str, Collection[str]], first: Iterable[str], stops: Collection[str] = ()) -> set[str]:
    """Everything on the ways from these nodes on; ``stops`` are reached and not passed."""
    found: set[str] = set()
    ahead = list(first)
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += () if name in stops else ways.get(name, ())
    return found


def _check_arguments(graph: "CompiledGraph") -> None:
    """An edge gives no argument: only a ``Send`` and an error do."""
    edges = [(START, target) for target in graph.start]
    for name, spec in graph.specs.items():
        edges += [(name, to) for outcome, targets in spec.routes.items() if outcome != "error" for to in targets]
    for source, target in edges:
        node = graph.nodes.get(target)
        if isinstance(node, FunctionNode) and node.signature.requires_arg:
            raise DefinitionError(
                f"{graph.title}: node {target} needs {node.signature.arg!r}, and the edge from {source} gives none.",
                hint="Give the parameter a default, or let a router Send to it.",
            )


def _check_calls(graph: "CompiledGraph", ways: Mapping[str, Collection[str]]) -> None:
    """What a model calls is run, on its own conversation; and who runs calls is given some."""
    fed: set[str] = set()
    for name, model in graph.nodes.items():
        if not isinstance(model, ModelNode):
            continue
        first = graph.specs[name].routes.get("tool_calls", ())
        if bool(first) != bool(model.tools):
            why = "has tools, and its tool_calls lead nowhere" if model.tools else "has no tools to call"
            raise DefinitionError(
                f"{graph.title}: node {name} {why}.", hint=f'edge("{name}", "…", on="tool_calls") goes with its tools.'
            )
        runners = _runners(graph, ways, first, model.channel)
        run = {tool for runner in runners for tool in graph.nodes[runner].tools}
        if missing := [tool for tool in model.tools if tool not in run]:
            raise DefinitionError(
                f"{graph.title}: node {name} may call {missing[0]!r}, and no node that its tool_calls lead to "
                f"runs that on the channel {model.channel}."
            )
        fed |= runners
    for name, node in graph.nodes.items():
        if isinstance(node, ToolsNode) and name not in fed:
            raise DefinitionError(
                f"{graph.title}: node {name} runs calls, and no model on the channel {node.channel} leads its "
                "tool_calls there."
            )


def _runners(
    graph: "CompiledGraph", ways: Mapping[str, Collection[str]], first: Iterable[str], channel: str
) -> set[str]:
    """The nodes that run the calls of a conversation on the ways from here, before a model goes on with it."""
    mine = {name for name, spec in graph.specs.items() if spec.kind in ("model", "tools") and spec.channel == channel}
    reached = _reachable(ways, first, stops=mine)
    return {name for name in reached & mine if isinstance(graph.nodes[name], ToolsNode)}
