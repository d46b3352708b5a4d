"""The specification that a turn is interpreted from: plain data, recorded in its history."""

from typing import Any, Literal

from perdure.budget import Budget
from perdure.contracts.base import OnBusy, Wire
from perdure.effects import EffectClass

NodeKind = Literal["function", "model", "tools", "human"]
NODE_OUTCOMES: dict[NodeKind, tuple[str, ...]] = {
    "function": ("done", "error"),
    "model": ("answer", "tool_calls", "error"),
    "tools": ("done",),  # a failed call is an answer for the model, or ends the turn
    "human": ("done", "expired", "error"),
}


class NodeSpec(Wire):
    """A node: what kind it is, how it is run, and where each of its outcomes leads. Times in seconds.

    ``routes`` maps an outcome to the nodes that follow (``END`` ends this branch of the turn). Where the node has a
    router, or says itself where to go on, ``chooses`` are the nodes that may be chosen in place of the route ``done``
    (or ``answer``). ``joins``: it runs when all of these have finished. ``model`` is for people.
    """

    kind: NodeKind
    routes: dict[str, tuple[str, ...]] = {}
    chooses: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    timeout: float = 120.0  # for one attempt
    deadline: float = 3600.0  # for all of them; of a human node: until its question expires
    attempts: int = 0  # 0: as many as fit into the deadline
    backoff: float = 1.0  # before the second attempt; doubled from one to the next
    model: str = ""
    channel: str = "messages"  # of a model or a tools node: its conversation
    question: str = ""  # of a human node, where it doesn't depend on the state
    asks: bool = False  # of a human node: its question is made from the state, by an activity
    answer_schema: dict[str, Any] | None = None  # of a human node: JSON schema of a fitting answer


class ToolSpec(Wire):
    """How the workflow runs a tool; the code itself stays with the activities. Times in seconds.

    ``compensation`` undoes it, ``reconcile`` tells whether it was done: both are tools. ``saga`` is what it is undone
    with: empty for the turn. ``undo_after``: its compensation waits for those of these tools, and for no others; None:
    for those of all that were done after it. ``beside``: it runs beside the workflow, as a local activity.
    """

    effect: EffectClass = "read"
    timeout: float = 60.0
    attempts: int = 3
    deadline: float = 600.0
    on_error: Literal["return", "rollback"] = "return"
    compensation: str = ""
    reconcile: str = ""
    saga: str = ""
    undo_after: tuple[str, ...] | None = None
    beside: bool = False


class Limits(Wire):
    """Settings of the worker that shape commands; recorded, so that a replay sees the same ones."""

    heartbeat: float = 10.0  # seconds without a sign of life after which an attempt is given up
    idle: float = 3600.0  # seconds after which an idle thread completes; the next send starts it again
    notify: bool = False  # tell a webhook what people should know
    # Continue as new beyond this: a worker that takes the thread over replays no more, a tenth of a second; and what a
    # new run costs, about 6 KB of history, is four per cent of what its 55 steps cost.
    history_events: int = 700


class AgentSpec(Wire):
    """What the workflow interprets: the graph of an agent, or of a ``Graph``.

    ``digest`` names the whole definition in the store, prompts and tools included. ``start`` are the nodes of a turn's
    first step; ``starts`` those that a router at the start may choose, in their place.
    """

    name: str
    digest: str
    start: tuple[str, ...]
    starts: tuple[str, ...] = ()
    nodes: dict[str, NodeSpec]
    tools: dict[str, ToolSpec] = {}
    budget: Budget = Budget()
    on_busy: OnBusy = "enqueue"
    limits: Limits = Limits()


START = "start"
MODEL_NODE = "model"  # the two nodes of an agent
TOOLS_NODE = "tools"
END = "end"
NOT_EXECUTED = "Not executed: the turn was stopped."
