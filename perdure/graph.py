"""Graphs: nodes, and what leads from one to the next, as a user writes them."""

import re
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeVar, Unpack, overload, runtime_checkable

from perdure.budget import Budget
from perdure.canonical import Json
from perdure.contracts import END, NODE_OUTCOMES, START, OnBusy
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError
from perdure.graphs.compiled import CompiledGraph, compile_graph
from perdure.graphs.definition import CacheScope
from perdure.graphs.fitting import literals
from perdure.graphs.functions import check_called, hints_of
from perdure.graphs.human import AsksFor, Into
from perdure.graphs.nodes import Node, NodeOptions, function_node, human_node, model_node, names, tools_node
from perdure.state import State, channels
from perdure.tool import Tool

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def named(name: object) -> bool:
    """Whether this is a name for a graph or a node."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Edge:
    """From one node to another after an outcome; ``on`` empty means the ordinary one."""

    source: str
    target: str
    on: str = ""


@dataclass(frozen=True)
class Join:
    """A node that waits for all of its sources."""

    sources: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class Choice:
    """What a router chooses by, and what it may choose."""

    pick: Callable[[Any], Any]
    targets: tuple[str, ...]


@runtime_checkable
class HasGraph(Protocol):
    """What is a graph at heart: an ``Agent``."""

    def graph(self) -> "Graph":
        """The graph."""
        ...


class Graph:
    """Nodes on one state, and the edges and routers between them.

    What is added is checked at once; the whole is checked when it is compiled, that is when an ``App`` takes it. Every
    mistake is a DefinitionError that names the graph and the place. ``budget.steps`` limits the steps of a turn.
    ``on_busy`` tells what a message does that arrives during a turn, ``idle`` how long a thread waits for a message
    before it completes. Those three count for the graph of the thread, and not for one that is a node of another.
    """

    def __init__(
        self, name: str, *, state: type[State] = State, budget: Budget | None = None, on_busy: OnBusy = "enqueue",
        idle: Duration = "1h", kind: str = "graph",
    ) -> None:  # fmt: skip
        if not named(name):
            raise DefinitionError(f"{name!r} is no {kind} name.", hint="Use letters, digits, '-' and '_'.")
        self.name = name
        self.title = f"{kind.capitalize()} {name}"
        self.state = state
        self.budget = Budget() if budget is None else budget
        self.on_busy: OnBusy = on_busy
        self.nodes: dict[str, Node | Graph] = {}
        self.edges: list[Edge] = []
        self.joins: list[Join] = []
        self.routers: dict[str, Choice] = {}
        self.in_use = False
        with self._at():
            self.idle = seconds(idle)
            self._check_settings()

    def _check_settings(self) -> None:
        state, budget = typing.cast(Any, self.state), typing.cast(Any, self.budget)
        if not isinstance(state, type) or not issubclass(state, State):
            raise DefinitionError(f"{state!r} is no State.", hint="Derive a class from perdure.State.")
        channels(state)
        if not isinstance(budget, Budget):
            raise DefinitionError(f"{budget!r} is no Budget.")
        if self.on_busy not in typing.get_args(OnBusy):
            raise DefinitionError(f"on_busy: {self.on_busy!r} is none of {', '.join(typing.get_args(OnBusy))}.")

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def node(self, name: str, /, **options: Unpack[NodeOptions]) -> Callable[[F], F]: ...
    @overload
    def node(self, name: str, function: F, /, **options: Unpack[NodeOptions]) -> F: ...
    @overload
    def node(self, name: str, function: "Graph | HasGraph", /) -> None: ...

    def node(self, name: str, function: Any = None, /, **options: Unpack[NodeOptions]) -> Any:
        """Add a function (or decorate it); or an ``Agent`` or another graph, like ``subgraph``.

        Args:
            name: letters, digits, '-' and '_'.
            function: sync or async. It may take the state, ``ctx: NodeContext``, and as ``arg`` what a ``Send`` gave.
                It returns a dict of updates by channel, a ``Command``, or None.
            options: ``retry`` (three attempts by default), ``timeout`` of one attempt (60 s), ``deadline`` of all
                (1 h, or what they may take), ``cache``, and ``goto``: the names that its ``Command`` may ask for.
        """
        if function is None:
            return lambda function: self.node(name, function, **options)
        if isinstance(function, Graph | HasGraph):
            self.subgraph(name, function)
            return None
        with self._at(name) as place:
            self._add(name, function_node(place, self.state, function, options))
        return function

    def model(
        self, name: str, /, *, model: str, instructions: str = "", tools: Sequence[Tool] = (),
        parameters: dict[str, Json] | None = None, channel: str = "messages", cache: CacheScope = "lineage",
        stream: bool = False, context_tokens: int = 100_000, timeout: Duration = "120s", deadline: Duration = "1h",
    ) -> None:  # fmt: skip
        """Add a model that goes on with a conversation. Its ordinary outcome is ``answer``; with ``tools`` it has
        another, ``tool_calls``, which leads to a node that runs them.

        ``parameters`` go to the model as they are. ``context_tokens`` bounds what it is shown of a long conversation.
        ``timeout`` is for one attempt, ``deadline`` for all.
        """
        with self._at(name) as place:
            node = model_node(
                place, self.state, model=model, instructions=instructions, tools=tools, parameters=parameters or {},
                channel=channel, cache=cache, stream=stream, context_tokens=context_tokens, timeout=timeout,
                deadline=deadline,
            )  # fmt: skip
            self._add(name, node)

    def tools(self, name: str, /, *, tools: Sequence[Tool], channel: str = "messages") -> None:
        """Add a node that runs the calls of the latest answer in a conversation."""
        with self._at(name) as place:
            self._add(name, tools_node(place, self.state, tools=tools, channel=channel))

    def human(
        self, name: str, question: AsksFor, /, *, into: Into, answer: Any = str, expires: Duration = "24h"
    ) -> None:
        """Add a question to a person. Nothing is run again when the answer comes.

        Args:
            name: letters, digits, '-' and '_'.
            question: a text, or a function of the state that returns a text or an ``Ask``.
            into: the channel that takes the answer (a list takes one more item, a conversation a user's message), or a
                function of state and answer that returns updates by channel.
            answer: the type of the answer.
            expires: how long the question stands. Then the route ``expired`` is taken; without one the turn fails.
        """
        with self._at(name) as place:
            node = human_node(place, self.state, question, answer=answer, into=into, expires=expires)
            self._add(name, node)

    def subgraph(self, name: str, graph: "Graph | HasGraph", /) -> None:
        """Add a graph or an agent as a node: its nodes become ``NAME/…``, its channels must be channels of this one."""
        inner: object = graph.graph() if isinstance(graph, HasGraph) else graph
        with self._at(name):
            if not isinstance(inner, Graph):
                raise DefinitionError(f"{graph!r} is no graph and no agent.")
            own = typing.get_type_hints(self.state, include_extras=True)
            theirs = typing.get_type_hints(inner.state, include_extras=True)
            for channel in channels(inner.state):
                if own.get(channel) != theirs[channel]:
                    raise DefinitionError(
                        f"{inner.state.__name__}.{channel} is no channel of {self.state.__name__}, "
                        "or not with the same type and reducer."
                    )
            self._add(name, inner)

    # ── what leads from one to the next ──────────────────────────────────────────────────────────────────────────

    def edge(self, source: str | Sequence[str], target: str, *, on: str = "") -> None:
        """Lead from a node (or START) to another (or END). From several: the target waits for all of them.

        ``on`` names another outcome than the ordinary one: ``tool_calls`` of a model, ``expired`` of a human node, or
        ``error``, whose target is given a ``NodeFailure`` as its ``arg``.
        """
        self._check_open()
        if isinstance(source, str):
            self.edges.append(Edge(source, target, on))
            return
        with self._at(target):
            sources = names("sources", source)
            if on or len(sources) < 2:
                raise DefinitionError("a join is an edge from two nodes or more, without `on`.")
        self.joins.append(Join(sources, target))

    @overload
    def router(self, source: str, pick: F, targets: Sequence[str] | None = None) -> F: ...
    @overload
    def router(self, source: str, pick: None = None, targets: Sequence[str] | None = None) -> Callable[[F], F]: ...

    def router(self, source: str, pick: Any = None, targets: Sequence[str] | None = None) -> Any:
        """Let a function (or decorate it) choose what follows a node, or START.

        ``pick`` is given the state and returns a name, a ``Send``, or a list of those, all of them ``targets``. Where
        none are given, they are those of a ``Literal`` in what it is annotated to return.
        """
        if pick is None:
            return lambda pick: self.router(source, pick, targets)
        self._check_open()
        with self._at(source):
            check_called(pick, "state", state=self.state)
            found = literals(hints_of(pick).get("return")) if targets is None else names("targets", targets)
            if not found:
                raise DefinitionError(
                    f"its router {pick.__name__} has no targets.",
                    hint='List them, or let it return a Literal["…", …] of their names.',
                )
            if source in self.routers:
                raise DefinitionError("it has two routers.")
        self.routers[source] = Choice(pick, found)
        return pick

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def compiled(self) -> CompiledGraph:
        """The graph checked and ready to run; nothing can be added to it any more. Raises DefinitionError."""
        return compile_graph(self)

    def routes(self, source: str) -> dict[str, tuple[str, ...]]:
        """Where the outcomes of a node lead by edges and joins, by its own names."""
        usual = self.outcomes(source)[0]
        found: dict[str, dict[str, None]] = {}
        for edge in self.edges:
            if edge.source == source:
                found.setdefault(edge.on or usual, {})[edge.target] = None
        for join in self.joins:
            if source in join.sources and source not in self.routers:
                found.setdefault(usual, {})[join.target] = None
        return {on: tuple(targets) for on, targets in found.items()}

    def outcomes(self, source: str) -> tuple[str, ...]:
        """How a node can end, the ordinary way first."""
        if source == START:
            return ("done",)
        node = self.nodes[source]
        return NODE_OUTCOMES[node.kind] if isinstance(node, Node) else ("done", "error")

    def _add(self, name: str, node: "Node | Graph") -> None:
        self._check_open()
        if not named(name) or name in (START, END):
            raise DefinitionError(
                f"{name!r} is no name for a node.",
                hint=f"Use letters, digits, '-' and '_'; {START!r}, {END!r} and what has a '/' are taken.",
            )
        if name in self.nodes:
            raise DefinitionError("there are two nodes of this name.")
        self.nodes[name] = node

    def _check_open(self) -> None:
        if self.in_use:
            raise DefinitionError(f"{self.title} is in use already.", hint="Finish it before an App takes it.")

    @contextmanager
    def _at(self, node: str = "") -> Iterator[str]:
        """Tells where a mistake is."""
        place = f"{self.title}: node {node}" if node else self.title
        try:
            yield place
        except DefinitionError as error:
            raise DefinitionError(f"{place}: {error.message}", hint=error.hint) from error
