"""Graphs: nodes and what leads from one to the next, as a user writes them."""

import re
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload, runtime_checkable

from pydantic import ValidationError

from perdure.budget import Budget
from perdure.cache import Cache
from perdure.canonical import Json, canonical
from perdure.compiled import CompiledGraph
from perdure.contracts import END, NODE_OUTCOMES, START, OnBusy
from perdure.definition import CacheScope, ModelDefinition
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError, InvalidInput
from perdure.fitting import fits, literals
from perdure.nodes import Ask, FunctionNode, HumanNode, ModelNode, Node, Retry, ToolsNode
from perdure.questions import MAX_QUESTION
from perdure.signature import check_called, check_function, check_state, hints_of, json_type, signature_of
from perdure.state import State, channels
from perdure.state import messages as conversation
from perdure.tool import Tool

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OURS = frozenset({"messages", "model", "stream", "stream_options", "tools"})
F = TypeVar("F", bound=Callable[..., Any])


class NodeOptions(TypedDict, total=False):
    """How a function is run; see ``Graph.node``."""

    retry: Retry
    timeout: Duration
    deadline: Duration
    cache: Cache | None
    goto: Sequence[str]


@runtime_checkable
class HasGraph(Protocol):
    """What is a graph at heart: an Agent."""

    def graph(self) -> "Graph":
        """The graph."""
        ...


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
    """A router: its function, and the names it may choose."""

    pick: Callable[[Any], Any]
    targets: tuple[str, ...]


class Graph:
    """Nodes, and the edges and routers between them, on one state.

    Names and functions are checked as they are added, the whole is checked where it is compiled: when an ``App`` takes
    it. Every mistake is a DefinitionError that names the graph and the place. ``on_busy`` tells what a message does that
    arrives during a turn, ``idle`` how long a thread waits for a message before it completes. ``budget.steps`` is the
    step limit of a turn.
    """

    def __init__(
        self, name: str, *, state: type[State] = State, budget: Budget | None = None, on_busy: OnBusy = "enqueue",
        idle: Duration = "1h", kind: str = "graph",
    ) -> None:  # fmt: skip
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise DefinitionError(f"{name!r} is no {kind} name.", hint="Use letters, digits, '-' and '_'.")
        self.name = name
        self.title = f"{kind.capitalize()} {name}"
        self.nodes: dict[str, Node | Graph] = {}
        self.edges: list[Edge] = []
        self.joins: list[Join] = []
        self.routers: dict[str, Choice] = {}
        with self._at():
            if not isinstance(state, type) or not issubclass(state, State):
                raise DefinitionError(f"{state!r} is no State.", hint="Derive a class from perdure.State.")
            channels(state)
            if on_busy not in typing.get_args(OnBusy):
                raise DefinitionError(f"on_busy: {on_busy!r} is none of {', '.join(typing.get_args(OnBusy))}.")
            if budget is not None and not isinstance(budget, Budget):
                raise DefinitionError(f"{budget!r} is no Budget.")
            self.idle = seconds(idle)
        self.state = state
        self.budget = budget or Budget()
        self.on_busy: OnBusy = on_busy

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────

    @overload
    def node(self, name: str, /, **options: Unpack[NodeOptions]) -> Callable[[F], F]: ...
    @overload
    def node(self, name: str, function: F, /, **options: Unpack[NodeOptions]) -> F: ...

    def node(self, name: str, function: Any = None, /, **options: Unpack[NodeOptions]) -> Any:
        """Add a function (or decorate it), an Agent, or another Graph.

        Args:
            name: letters, digits, '-' and '_'.
            function: sync or async. It may take the state, ``ctx: NodeContext`` and what a ``Send`` gave (``arg``), and
                returns a dict of updates by channel, a ``Command``, or None.
            options: ``retry`` (three attempts by default), ``timeout`` of one attempt (60 s), ``deadline`` of all (1 h, or
                as long as all attempts may take), ``cache``, and ``goto``: the nodes that a ``Command`` may ask for.
        """
        if function is None:
            return lambda function: self.node(name, function, **options)
        if isinstance(function, Graph | HasGraph):
            if options:
                raise DefinitionError(f"{self.title}: node {name}: {next(iter(options))!r} is for functions.")
            self.subgraph(name, function)
        else:
            with self._at(name) as place:
                self._add(name, self._function(place, function, options))
        return function

    def _function(self, place: str, function: Callable[..., Any], options: NodeOptions) -> FunctionNode:
        retry, cache = options.get("retry", Retry()), options.get("cache")
        timeout = seconds(options.get("timeout", "60s"))
        signature = signature_of(function, self.state)
        room = max(3600.0, retry.attempts * timeout + seconds(retry.backoff) * 2 ** min(retry.attempts, 10))
        return FunctionNode(
            place=place, function=function, signature=signature, state=self.state, retry=retry, timeout=timeout,
            deadline=seconds(options["deadline"]) if "deadline" in options else room,
            cache=cache.of(function, self.state) if cache else None, goto=_names("goto", options.get("goto", ())),
        )  # fmt: skip

    def model(
        self, name: str, /, *, model: str, instructions: str = "", tools: Sequence[Tool] = (),
        parameters: dict[str, Json] | None = None, channel: str = "messages", cache: CacheScope = "lineage",
        stream: bool = False, context_tokens: int = 100_000, timeout: Duration = "120s", deadline: Duration = "1h",
    ) -> None:  # fmt: skip
        """Add a model that answers a conversation, or calls ``tools``: lead ``on="tool_calls"`` to a node that runs them.

        ``parameters`` go to the model as they are. ``context_tokens`` bounds what it is shown of a long conversation.
        ``timeout`` is for one attempt, ``deadline`` for all.
        """
        with self._at(name) as place:
            self._check_conversation(channel)
            definition = _model_definition(
                model=model, instructions=instructions, parameters=parameters or {}, context_tokens=context_tokens,
                tools=tuple(tool.schema() for tool in _tools(tools) if not tool.hidden), cache=cache, stream=stream,
                channel=channel,
            )  # fmt: skip
            node = ModelNode(
                place=place, definition=definition, uses=tuple(tools), timeout=seconds(timeout),
                deadline=seconds(deadline),
            )  # fmt: skip
            self._add(name, node)

    def tools(self, name: str, /, *, tools: Sequence[Tool], channel: str = "messages") -> None:
        """Add a node that runs the calls of the latest answer in a conversation."""
        with self._at(name) as place:
            self._check_conversation(channel)
            if not _tools(tools):
                raise DefinitionError("it has no tools to run.")
            self._add(name, ToolsNode(place=place, channel=channel, uses=tuple(tools)))

    def human(
        self, name: str, question: str | Callable[[Any], Any], /, *, into: str | Callable[[Any, Any], Any],
        answer: Any = str, expires: Duration = "24h",
    ) -> None:  # fmt: skip
        """Add a question to a person. Nothing is run again when the answer comes.

        Args:
            name: letters, digits, '-' and '_'.
            question: a text, or a function of the state that returns a text or an ``Ask``.
            into: the channel that takes the answer (a conversation takes a text as a user's message; another list one
                more item), or a function of state and answer that returns updates by channel.
            answer: the type of the answer.
            expires: how long the question stands; then the route ``expired`` is taken, or the turn fails.
        """
        with self._at(name) as place:
            adapter = json_type(answer, "its answer")
            schema = adapter.json_schema()
            if len(canonical([schema, question if isinstance(question, str) else ""])) > MAX_QUESTION:
                raise DefinitionError(f"question and type of the answer have more than {MAX_QUESTION} bytes.")
            if isinstance(question, str):
                if not question.strip():
                    raise DefinitionError("it asks nothing.")
            else:
                check_called(question, "state")
                self._check_first(question)
            node = HumanNode(
                place=place, state=self.state, question=question, answer=adapter, schema=schema, into=into,
                adds=self._into(into, answer), expires=seconds(expires),
            )  # fmt: skip
            self._add(name, node)

    def subgraph(self, name: str, graph: "Graph | HasGraph", /) -> None:
        """Add a graph (or an agent) as a node: its nodes become ``NAME/…``, on the channels that both states have."""
        inner = graph if isinstance(graph, Graph) else graph.graph()
        with self._at(name):
            own = typing.get_type_hints(self.state, include_extras=True)
            for channel, annotation in typing.get_type_hints(inner.state, include_extras=True).items():
                if channel in channels(inner.state) and own.get(channel) != annotation:
                    raise DefinitionError(
                        f"{inner.state.__name__}.{channel} is no channel of {self.state.__name__}, or of another type or "
                        "reducer."
                    )
            self._add(name, inner)

    # ── what leads from one to the next ──────────────────────────────────────────────────────────────────────────

    def edge(self, source: str | Sequence[str], target: str, *, on: str = "") -> None:
        """Lead from a node (or START) to another (or END); from several: the target waits for all of them.

        ``on`` names another outcome than the ordinary one: ``tool_calls`` of a model, ``expired`` of a human node,
        ``error`` of either or of a function: the target is given a ``NodeFailure``.
        """
        if isinstance(source, str):
            self._edges_may_change()
            self.edges.append(Edge(source, target, on))
            return
        sources = _names("sources", source)
        if on or len(set(sources)) < 2:
            with self._at(target):
                raise DefinitionError("a join is an edge from two nodes or more, without `on`.")
        self._edges_may_change()
        self.joins.append(Join(sources, target))

    @overload
    def router(self, source: str, pick: F, targets: Sequence[str] | None = None) -> F: ...
    @overload
    def router(self, source: str, pick: None = None, targets: Sequence[str] | None = None) -> Callable[[F], F]: ...

    def router(self, source: str, pick: Any = None, targets: Sequence[str] | None = None) -> Any:
        """Let a function (or decorate it) choose what follows a node, or START.

        ``pick`` is given the state and returns a name, a ``Send``, or a list of those, among the ``targets``; where none
        are given, they are read from a ``Literal`` in what it is annotated to return.
        """
        if pick is None:
            return lambda pick: self.router(source, pick, targets)
        with self._at(source):
            check_called(pick, "state")
            self._check_first(pick)
            names = literals(hints_of(pick).get("return")) if targets is None else _names("targets", targets)
            if not names:
                raise DefinitionError(
                    f"its router {pick.__name__} names no targets.", hint="List them, or annotate it with a Literal."
                )
            if source in self.routers:
                raise DefinitionError("it has two routers.")
            self._edges_may_change()
            self.routers[source] = Choice(pick, names)
        return pick

    # ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def compiled(self) -> CompiledGraph:
        """The graph, checked and ready to run; nothing can be added any more. Raises DefinitionError."""
        return CompiledGraph(self)

    def routes(self, source: str) -> dict[str, tuple[str, ...]]:
        """Where the outcomes of a node lead by edges and joins, by its own names. Raises DefinitionError."""
        found: dict[str, dict[str, None]] = {}
        usual = self.outcomes(source)[0]
        for edge in self.edges:
            if edge.source == source:
                if (on := edge.on or usual) not in self.outcomes(source):
                    raise DefinitionError(
                        f"{self.title}: node {source} has no outcome {edge.on!r}.",
                        hint=f"Its outcomes: {', '.join(self.outcomes(source))}.",
                    )
                found.setdefault(on, {})[edge.target] = None
        for join in self.joins:
            if source in join.sources and source not in self.routers:
                found.setdefault(usual, {})[join.target] = None
        return {on: tuple(targets) for on, targets in found.items()}

    def outcomes(self, source: str) -> tuple[str, ...]:
        """How a node can end, the ordinary way first."""
        if source == START:
            return ("done",)
        node = self.nodes[source]
        return ("done", "error") if isinstance(node, Graph) else NODE_OUTCOMES[node.kind]

    # ── checks of what is added ──────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _at(self, node: str = "") -> Iterator[str]:
        """Says where a mistake is."""
        place = f"{self.title}: node {node}" if node else self.title
        try:
            yield place
        except DefinitionError as error:
            raise DefinitionError(f"{place}: {error.message}", hint=error.hint) from error

    def _add(self, name: str, node: "Node | Graph") -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in (START, END):
            raise DefinitionError(
                f"{name!r} is no name for a node.",
                hint="Use letters, digits, '-' and '_'; 'start', 'end' and what has a '/' are taken.",
            )
        if name in self.nodes:
            raise DefinitionError("there are two nodes of this name.")
        self._edges_may_change()
        self.nodes[name] = node

    def _edges_may_change(self) -> None:
        if "compiled" in vars(self):
            raise DefinitionError(f"{self.title} is in use already.", hint="Finish it before an App takes it.")

    def _check_conversation(self, channel: str) -> None:
        known = channels(self.state)
        if channel not in known:
            raise DefinitionError(f"{self.state.__name__} has no channel {channel!r}.")
        if known[channel].reducer is not conversation:
            raise DefinitionError(f"{known[channel].place} is no conversation.", hint="Its reducer must be `messages`.")

    def _check_first(self, function: Callable[..., Any]) -> None:
        """The first parameter takes the state."""
        name = next(iter(__import__("inspect").signature(function).parameters))
        check_state(name, hints_of(function).get(name), self.state)

    def _into(self, into: Any, answer: Any) -> bool:
        """Whether an answer is one more item of the list that takes it. Raises DefinitionError where it doesn't fit."""
        if not isinstance(into, str):
            return False
