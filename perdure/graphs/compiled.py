"""Compiled graphs: flat, checked, and ready to be interpreted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from perdure.budget import Budget
from perdure.canonical import canonical, digest
from perdure.checkpoint import Task
from perdure.contracts import START, AgentSpec, Limits, NodeSpec, OnBusy
from perdure.errors import NodeGone
from perdure.graphs.choice import Router
from perdure.graphs.definition import Definition
from perdure.graphs.nodes import FunctionNode, ModelNode, Node
from perdure.graphs.scope import Scope
from perdure.graphs.soundness import check_flow, check_names
from perdure.state import State
from perdure.tool import Tool

if TYPE_CHECKING:
    from perdure.graph import Graph


@dataclass(frozen=True, kw_only=True)
class CompiledGraph:
    """A graph as it is run: the nodes of subgraphs are its own, under names like ``research/think``.

    ``specs`` are the nodes as the workflow knows them. ``start`` is what a turn begins with; where START has a router
    it chooses among its targets instead. ``idle`` is in seconds.
    """

    name: str
    title: str
    state: type[State]
    budget: Budget
    on_busy: OnBusy
    idle: float
    nodes: Mapping[str, Node]
    specs: Mapping[str, NodeSpec]
    routers: Mapping[str, Router]
    start: tuple[str, ...]

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools of its models and of the nodes that run calls, hidden ones too."""
        return tuple({id(tool): tool for node in self.nodes.values() for tool in getattr(node, "uses", ())}.values())

    def node(self, name: str) -> Node:
        """The node of this name. Raises NodeGone."""
        if name not in self.nodes:
            raise NodeGone(f"{self.title} has no node {name!r}.", hint=f"Nodes: {', '.join(self.nodes)}.")
        return self.nodes[name]

    async def choose(self, source: str, state: State) -> tuple[Task, ...] | None:
        """What the router of a node, or of START, chooses; None where there is no router.

        Raises InvalidInput where the router fails, or chose what isn't among its targets.
        """
        router = self.routers.get(source)
        return None if router is None else await router.choose(state)

    def definition(self, known: Mapping[str, Tool], limits: Limits) -> Definition:
        """The graph as data, named by its content. ``known`` are all tools of the app, hidden ones too."""
        beside = {name for tool in self.tools for name in (tool.spec.compensation, tool.spec.reconcile)} - {""}
        names = {tool.name for tool in self.tools} | beside
        spec = AgentSpec(
            name=self.name, digest="", start=self.start, starts=self.chosen_by(START), nodes=dict(self.specs),
            tools={name: known[name].spec for name in sorted(names)}, budget=self.budget, on_busy=self.on_busy,
            limits=limits.model_copy(update={"idle": self.idle}),
        )  # fmt: skip
        models = {name: node.definition for name, node in self.nodes.items() if isinstance(node, ModelNode)}
        definition = Definition(spec=spec, models=models)
        name = digest(canonical(definition.model_dump(mode="json")))
        return definition.model_copy(update={"spec": spec.model_copy(update={"digest": name})})

    def chosen_by(self, source: str) -> tuple[str, ...]:
        """What the router of a node, or the node itself, may choose."""
        router, node = self.routers.get(source), self.nodes.get(source)
        targets = router.targets if router else node.targets if isinstance(node, FunctionNode) else {}
        return tuple(dict.fromkeys(name for target in targets.values() for name in target.nodes))


def compile_graph(graph: "Graph") -> CompiledGraph:
    """Flatten a graph and check it; it is in use from then on. Raises DefinitionError."""
    scopes = list(Scope(graph).all())
    for scope in scopes:
        check_names(scope.graph, scope.place)
    nodes = dict(scopes[0].nodes())
    routes = {name: found for scope in scopes for name, found in scope.routes()}
    joins = {name: sources for scope in scopes for name, sources in scope.joins()}
    for name, targets in [asking for scope in scopes for asking in scope.asking(nodes)]:
        node = nodes[name]
        assert isinstance(node, FunctionNode), "only functions ask"
        nodes[name] = replace(node, targets=targets, leads_on="done" in routes[name])
    flat = CompiledGraph(
        name=graph.name, title=graph.title, state=graph.state, budget=graph.budget, on_busy=graph.on_busy,
        idle=graph.idle, nodes=nodes, specs={}, start=scopes[0].start(),
        routers={name: router for scope in scopes for name, router in scope.routers(nodes)},
    )  # fmt: skip
    specs = {
        name: node.spec().model_copy(
            update={"routes": routes[name], "chooses": flat.chosen_by(name), "joins": joins.get(name, ())}
        )
        for name, node in nodes.items()
    }
    flat = replace(flat, specs=specs)
    check_flow(flat)
    for scope in scopes:
        scope.graph.in_use = True
    return flat
