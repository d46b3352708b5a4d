"""Agents: a model, its instructions, its tools and its state. An agent is a graph of one model and its tools."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from perdure.budget import Budget
from perdure.canonical import Json
from perdure.contracts import END, START, OnBusy
from perdure.duration import Duration
from perdure.graph import Graph
from perdure.graphs.definition import CacheScope
from perdure.state import State
from perdure.tool import Tool


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
        self.graph()

    def graph(self) -> Graph:
        """Its graph: the model answers or calls tools; after the tools it is the model's turn again."""
        graph = Graph(
            self.name, state=self.state, budget=self.budget, on_busy=self.on_busy, idle=self.idle, kind="agent"
        )
        graph.model(
            "model", model=self.model, instructions=self.instructions, tools=self.tools, parameters=self.parameters,
            cache=self.cache, stream=self.stream, context_tokens=self.context_tokens, timeout=self.model_timeout,
            deadline=self.model_deadline,
        )  # fmt: skip
        graph.edge(START, "model")
        graph.edge("model", END)
        if any(not tool.hidden for tool in self.tools):
            graph.tools("tools", tools=self.tools)
            graph.edge("model", "tools", on="tool_calls")
            graph.edge("tools", "model")
        return graph
