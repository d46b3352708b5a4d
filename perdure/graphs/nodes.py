"""Nodes: what a graph is made of. Each knows how it is run, what its function is given, and what that may return."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypedDict

from pydantic import ValidationError

from perdure.canonical import Json, canonical
from perdure.checkpoint import Task
from perdure.contracts import NodeKind, NodeSpec
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError, InvalidInput
from perdure.graphs.cache import Cache
from perdure.graphs.choice import Command, Send, Targets, tasks_of
from perdure.graphs.definition import CacheScope, ModelDefinition
from perdure.graphs.functions import NodeContext, Signature, seen_as, signature_of, updates_of
from perdure.graphs.human import Ask, HumanNode, human_node
from perdure.state import State, channels
from perdure.state import messages as conversation
from perdure.tool import Tool

__all__ = [
    "Ask", "Cache", "Command", "FunctionNode", "HumanNode", "ModelNode", "Node", "NodeContext", "NodeFailure",
    "NodeOptions", "Retry", "Returned", "Send", "ToolsNode", "function_node", "human_node", "model_node", "tools_node",
]  # fmt: skip

_OURS = frozenset({"messages", "model", "stream", "stream_options", "tools"})
_PATIENCE = 3600.0  # seconds for all attempts of a function: a deploy, or a worker that is down, lies within


@dataclass(frozen=True, kw_only=True)
class NodeFailure:
    """What a node at the end of an error route is given: which node failed, the type of its error, and what it said."""

    node: str
    type: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How often the function of a node is tried; ``backoff`` is before the second attempt, and doubles.

    ``attempts`` 0 means as often as fits into the node's deadline. Raises DefinitionError.
    """

    attempts: int = 3
    backoff: Duration = "1s"

    def __post_init__(self) -> None:
        if self.attempts < 0:
            raise DefinitionError("`attempts` can't be less than 0.")
        seconds(self.backoff)


class NodeOptions(TypedDict, total=False):
    """How a function is run; see ``Graph.node``."""

    retry: Retry
    timeout: Duration
    deadline: Duration
    cache: Cache | None
    goto: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Returned:
    """What a function came to: its updates by channel, and the tasks it asked for; None: its edges say what follows."""

    updates: dict[str, Any]
    goto: tuple[Task, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class FunctionNode:
    """A function of the user. Times in seconds.

    ``goto`` are the names it may ask for; what they stand for (``targets``) is known once the graph is compiled, and so
    is whether it ``leads_on`` by edges where it asks for nothing.
    """

    kind: ClassVar[NodeKind] = "function"
    tools: ClassVar[tuple[str, ...]] = ()

    place: str
    function: Callable[..., Any]
    signature: Signature
    state: type[State]
    retry: Retry
    timeout: float
    deadline: float
    cache: Cache | None = None
    goto: tuple[str, ...] = ()
    targets: Targets = field(default_factory=dict)
    leads_on: bool = True

    @property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function; others run in a thread."""
        return inspect.iscoroutinefunction(self.function)

    def spec(self) -> NodeSpec:
        """How it is run."""
        return NodeSpec(
            kind=self.kind, timeout=self.timeout, deadline=self.deadline, attempts=self.retry.attempts,
            backoff=seconds(self.retry.backoff),
        )  # fmt: skip

    def bind(self, state: State, context: NodeContext) -> dict[str, Any]:
        """Keyword arguments for the function. Raises InvalidInput where ``arg`` isn't of the type that it declares."""
        return self.signature.bind(seen_as(self.state, state), context, self.place)

    def returned(self, value: Any) -> Returned:
        """What the function came to. Raises InvalidInput for anything but a dict of known channels, a Command, None."""
        command = value if isinstance(value, Command) else Command(update=value)
        updates = updates_of(self.place, self.state, command.update)
        if command.goto is not None:
            return Returned(updates=updates, goto=tasks_of(command.goto, self.targets, self.place))
        if not self.leads_on:
            raise InvalidInput(f"{self.place} didn't say where to go on, and has no edge.", hint="Return a Command.")
        return Returned(updates=updates)


@dataclass(frozen=True, kw_only=True)
class ModelNode:
    """A model and what it is told. ``uses`` are its tools, hidden ones too. Times in seconds."""

    kind: ClassVar[NodeKind] = "model"

    place: str
    definition: ModelDefinition
    uses: tuple[Tool, ...]
    timeout: float
    deadline: float

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that the model is shown."""
        return tuple(tool.name for tool in self.uses if not tool.hidden)

    @property
    def channel(self) -> str:
        """Its conversation."""
        return self.definition.channel

    def spec(self) -> NodeSpec:
        """How it is run."""
        return NodeSpec(
            kind=self.kind, timeout=self.timeout, deadline=self.deadline, model=self.definition.model,
            channel=self.channel,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ToolsNode:
    """Runs the calls of a model's answer in a conversation; ``uses`` are the tools it runs."""

    kind: ClassVar[NodeKind] = "tools"

    place: str
    channel: str
    uses: tuple[Tool, ...]

    @property
    def tools(self) -> tuple[str, ...]:
        """The names of the tools that it runs."""
        return tuple(tool.name for tool in self.uses if not tool.hidden)

    def spec(self) -> NodeSpec:
        """How it is run: each tool by its own specification."""
        return NodeSpec(kind=self.kind, channel=self.channel)


Node = FunctionNode | ModelNode | ToolsNode | HumanNode


# ── making them, checked ─────────────────────────────────────────────────────────────────────────────────────────


def function_node(place: str, state: type[State], function: Callable[..., Any], options: NodeOptions) -> FunctionNode:
    """A function as a node. Raises DefinitionError."""
    retry, cache = options.get("retry", Retry()), options.get("cache")
    timeout = seconds(options.get("timeout", "60s"))
    return FunctionNode(
        place=place, function=function, signature=signature_of(function, state), state=state, retry=retry,
        timeout=timeout, cache=cache.of(function, state) if cache else None,
        goto=names("goto", options.get("goto", ())),
        deadline=seconds(options["deadline"]) if "deadline" in options else max(_PATIENCE, _room(retry, timeout)),
    )  # fmt: skip


def _room(retry: Retry, timeout: float) -> float:
    """Seconds for every attempt and every wait between them; Temporal waits for a minute, or the backoff, at most."""
    first = seconds(retry.backoff)
    return sum(timeout + min(first * 2.0**number, max(first, 60.0)) for number in range(min(retry.attempts, 1000)))


def model_node(
    place: str, state: type[State], *, model: str, instructions: str, tools: Sequence[Tool],
    parameters: dict[str, Json], channel: str, cache: CacheScope, stream: bool, context_tokens: int, timeout: Duration,
    deadline: Duration,
) -> ModelNode:  # fmt: skip
    """A model as a node. Raises DefinitionError."""
    _check_conversation(state, channel)
    uses = _tools(tools)
    if taken := _OURS & parameters.keys():
        raise DefinitionError(f"`parameters` can't set {', '.join(sorted(taken))}: the engine does.")
    try:
        canonical(parameters)
        definition = ModelDefinition(
            model=model, instructions=instructions, parameters=parameters, context_tokens=context_tokens, cache=cache,
            tools=tuple(tool.schema() for tool in uses if not tool.hidden), stream=stream, channel=channel,
        )  # fmt: skip
    except InvalidInput as error:
        raise DefinitionError(f"`parameters` is no JSON: {error.message}") from error
    except ValidationError as error:
        raise DefinitionError(
            "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        ) from error
    return ModelNode(
        place=place, definition=definition, uses=uses, timeout=seconds(timeout), deadline=seconds(deadline)
    )


def tools_node(place: str, state: type[State], *, tools: Sequence[Tool], channel: str) -> ToolsNode:
    """A node that runs calls. Raises DefinitionError."""
    _check_conversation(state, channel)
    node = ToolsNode(place=place, channel=channel, uses=_tools(tools))
    if not node.tools:
        raise DefinitionError("it has no tools to run.")
    return node


def names(what: str, given: Sequence[str]) -> tuple[str, ...]:
    """A list of names. Raises DefinitionError for anything else; a text is a sequence of texts too."""
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise DefinitionError(f"`{what}` is a list of names, not {given!r}.")
    return tuple(dict.fromkeys(given))


def _tools(tools: Sequence[Tool]) -> tuple[Tool, ...]:
    seen: set[str] = set()
    for item in tools:
        if not isinstance(item, Tool):
            raise DefinitionError(f"{item!r} is no tool.", hint="Decorate it with @tool.")
        if item.name in seen:
            raise DefinitionError(f"it lists tool {item.name!r} twice.")
        seen.add(item.name)
    return tuple(tools)


def _check_conversation(state: type[State], channel: str) -> None:
    known = channels(state)
    if channel not in known:
        raise DefinitionError(f"{state.__name__} has no channel {channel!r}.", hint=f"Channels: {', '.join(known)}.")
    if known[channel].reducer is not conversation:
        raise DefinitionError(f"{known[channel].place} is no conversation.", hint="Its reducer must be `messages`.")
