"""Agents: a model, its instructions, its tools and its state; compiled to a specification that is plain data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from perdure.budget import Budget
from perdure.canonical import Json, canonical, digest
from perdure.contracts import AgentSpec, Limits, ModelSpec, OnBusy, Wire
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError, InvalidInput
from perdure.graph import agent_nodes
from perdure.state import State, channels
from perdure.tool import Tool

CacheScope = Literal["lineage", "global", "off"]
_OURS = frozenset({"messages", "model", "stream", "stream_options", "tools"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Definition(Wire):
    """Everything that a turn is interpreted from: the workflow's part, and what the model is told."""

    spec: AgentSpec
    instructions: str
    parameters: dict[str, Any]
    tools: tuple[dict[str, Any], ...]
    context_tokens: int
    cache: CacheScope
    stream: bool


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent.

    ``parameters`` go to the model as they are (temperature, reasoning effort, …). ``context_tokens`` bounds what
    the model is shown of a long conversation. ``model_timeout`` is for one attempt, ``model_deadline`` for all.
    ``on_busy`` tells what a message does that arrives during a turn. ``idle`` is how long a thread waits for a
    message before it completes; the next message starts it again.
    """

    name: str
    model: str
    instructions: str = ""
    state: type[State] = State
    tools: Sequence[Tool] = ()
    parameters: dict[str, Json] = field(default_factory=dict)
    context_tokens: int = 100_000
    budget: Budget = field(default_factory=Budget)
    cache: CacheScope = "lineage"
    stream: bool = False
    model_timeout: Duration = "120s"
    model_deadline: Duration = "1h"
    on_busy: OnBusy = "enqueue"
    idle: Duration = "1h"

    def __post_init__(self) -> None:
        """Raises DefinitionError that names the agent."""
        if not _NAME.fullmatch(self.name):
            raise DefinitionError(f"{self.name!r} is no agent name.", hint="Use letters, digits, '-' and '_'.")
        try:
            self._check()
        except DefinitionError as error:
            raise DefinitionError(f"Agent {self.name}: {error.message}", hint=error.hint) from error

    def _check(self) -> None:
        for item in self.tools:
            if not isinstance(item, Tool):
                raise DefinitionError(f"{item!r} is no tool.", hint="Decorate it with @tool.")
        state: object = self.state
        if not isinstance(state, type) or not issubclass(state, State):
            raise DefinitionError(f"{state!r} is no State.", hint="Derive a class from perdure.State.")
        channels(self.state)
        if taken := _OURS & self.parameters.keys():
            raise DefinitionError(f"`parameters` can't set {', '.join(sorted(taken))}: the engine does.")
        try:
            canonical(self.parameters)
        except InvalidInput as error:
            raise DefinitionError(f"`parameters` is no JSON: {error.message}") from error
        for duration in (self.idle, self.model_timeout, self.model_deadline):
            seconds(duration)
        if self.context_tokens < 1:
            raise DefinitionError("`context_tokens` must be at least 1.")

    def definition(self, known: dict[str, Tool], limits: Limits) -> Definition:
        """The agent as data. ``known`` are all tools of the app: compensations are among them."""
        visible = [item for item in self.tools if not item.hidden]
        names = {item.name for item in self.tools} | {item.spec.compensation for item in self.tools} - {""}
        spec = AgentSpec(
            name=self.name, digest="", model=self.model, nodes=agent_nodes(bool(visible)), budget=self.budget,
            tools={name: known[name].spec for name in sorted(names)}, on_busy=self.on_busy,
            model_call=ModelSpec(timeout=seconds(self.model_timeout), deadline=seconds(self.model_deadline)),
            limits=limits.model_copy(update={"idle": seconds(self.idle)}),
        )  # fmt: skip
        definition = Definition(
            spec=spec, instructions=self.instructions, parameters=dict(self.parameters),
            tools=tuple(item.schema() for item in visible), context_tokens=self.context_tokens, cache=self.cache,
            stream=self.stream,
        )  # fmt: skip
        name = digest(canonical(definition.model_dump(mode="json")))
        return definition.model_copy(update={"spec": spec.model_copy(update={"digest": name})})
