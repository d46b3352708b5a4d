"""The wire types: what crosses Temporal. Workflow, activities and clients meet only here.

Wire types ignore fields they don't know, so that an older worker can serve a thread that a newer client started.
What goes to activities and comes back is written ``lean``: an optional field costs history only where it is used.

Long, because it is the one place where both sides of the wire can be read together: a list of types, no logic.
"""

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from perdure.approvals import MAX_NAME, MAX_REASON, ApprovalBook, ApprovalPolicy, ApprovalRequest, RefusedDecision
from perdure.budget import Budget, Usage
from perdure.checkpoint import Ref, Source
from perdure.delta import Delta
from perdure.effects import Effect, EffectClass, EffectStatus, Residue
from perdure.errors import InvalidInput
from perdure.view import StateView

WORKFLOW = "AgentThread"
TASK_QUEUE = "perdure"
THREAD_ID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}"
SEARCH_ATTRIBUTES = {
    "PerdureAgent": "Keyword",
    "PerdureStatus": "Keyword",
    "PerdureTenant": "Keyword",
    "PerdureStep": "Int",
    "PerdurePending": "Int",
}
TOOL_PREFIX = "tool:"  # activity types: the UI's timeline then names the tool itself
UNDO_PREFIX = "undo:"
MAX_MESSAGE = 256_000  # bytes of one message with its state
MAX_QUEUE = 1_000_000  # bytes of all that wait: they are carried when a thread continues as new, within 2 MB a payload

Status = Literal[
    "idle", "running", "awaiting_approval", "awaiting_input", "compensating", "in_doubt", "needs_attention",
    "out_of_budget", "failed", "closed",
]  # fmt: skip
OnBusy = Literal["enqueue", "reject", "interrupt", "rollback"]


class Wire(BaseModel):
    """Base of the wire types."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def lean(value: BaseModel) -> dict[str, Any]:
    """A wire type as it is written into history: without what equals its default, which reading restores."""
    return value.model_dump(mode="json", exclude_defaults=True)


# ── the specification an agent is interpreted from ───────────────────────────────────────────────────────────────


class NodeSpec(Wire):
    """A node: what kind it is, and where its outcome leads (route name -> node, ``END`` ends the turn)."""

    kind: Literal["model", "tools"]
    routes: dict[str, str]


class ToolSpec(Wire):
    """How the workflow runs a tool; the code itself stays with the activities. Times in seconds."""

    effect: EffectClass = "read"
    timeout: float = 60.0
    attempts: int = 3
    deadline: float = 600.0
    on_error: Literal["return", "rollback"] = "return"
    compensation: str = ""


class ModelSpec(Wire):
    """How the workflow calls the model: seconds for one attempt, and for all of them."""

    timeout: float = 120.0
    deadline: float = 3600.0


class Limits(Wire):
    """Settings of the worker that shape commands; recorded, so that a replay sees the same ones."""

    heartbeat: float = 10.0  # seconds without a sign of life after which an attempt is given up
    idle: float = 3600.0  # seconds after which an idle thread completes; the next send starts it again
    history_events: int = 8_000  # continue as new beyond this, also where the server doesn't suggest it


class AgentSpec(Wire):
    """What the workflow interprets. ``digest`` names the whole definition in the store, prompt and tools included."""

    name: str
    digest: str
    model: str
    start: str = "model"
    nodes: dict[str, NodeSpec]
    tools: dict[str, ToolSpec] = {}
    model_call: ModelSpec = ModelSpec()
    budget: Budget = Budget()
    on_busy: OnBusy = "enqueue"
    limits: Limits = Limits()


END = "end"
NOT_EXECUTED = "Not executed: the turn was stopped."


# ── the thread: input, messages, answers ─────────────────────────────────────────────────────────────────────────


class TurnResult(Wire):
    """How a turn ended. ``answer`` is bounded; the whole message is in the state."""

    turn: int
    outcome: Literal["answered", "failed", "cancelled", "refused"]
    answer: str = ""
    error: str = ""
    error_type: str = ""
    note: str = ""
    message_ids: tuple[str, ...] = ()
    steps: int = 0
    usage: Usage = Usage()
    residue: Residue = Residue()


class Send(Wire):
    """A message to a thread. ``id`` makes a repeated send harmless; ``state`` sets channels along with it."""

    id: str = Field(min_length=1, max_length=MAX_NAME)
    content: str = ""
    sender: str = Field(default="", max_length=MAX_NAME)
    state: dict[str, Any] = {}

    def size(self) -> int:
        """Its bytes."""
        return len(self.model_dump_json().encode())

    def fault(self) -> InvalidInput | None:
        """Why no thread would take it: so a client refuses it before anything is sent."""
        if (size := self.size()) > MAX_MESSAGE:
            return InvalidInput(f"The message has {size} bytes, more than {MAX_MESSAGE}.")
        if not self.content.strip() and not self.state:
            return InvalidInput("The message is empty.", hint="Give a text or an input.")
        return None


class Accepted(Wire):
    """A message was taken; ``queued`` tells how many turns come before its own."""

    message_id: str
    queued: int = 0
    repeated: bool = False


class RunningTurn(Wire):
    """A turn in the middle: what is carried over continue-as-new."""

    number: int
    node: str
    steps: int
    usage: Usage
    budget: Budget
    message_ids: tuple[str, ...]
    spec: AgentSpec


class LogEntry(Wire):
    """One line of what happened lately, for people."""

    at: str
    text: str


class Carry(Wire):
    """What a thread takes along when it continues as new: references and bounded records, never the state."""

    head: Ref | None = None
    turn: int = 0
    branch: int = 0
    running: RunningTurn | None = None
    queue: tuple[Send, ...] = ()
    seen: tuple[str, ...] = ()
    results: tuple[TurnResult, ...] = ()
    book: ApprovalBook = ApprovalBook()
    effects: tuple[Effect, ...] = ()
    view: StateView = StateView()
    log: tuple[LogEntry, ...] = ()
    failed: bool = False
    limits: Limits = Limits()
    closing: bool = False
    parent_id: str | None = None


class ThreadInput(Wire):
    """Input of the workflow. ``resume``: the thread exists in the store, which knows its agent and its head."""

    agent: str
    tenant: str = ""
    resume: bool = False
    carry: Carry | None = None


class ThreadResult(Wire):
    """Result of the workflow: why it completed, and where the thread stands."""

    status: Status
    head: Ref | None = None
    turn: int = 0


class CancelTurn(Wire):
    """Stop the turn; ``compensate`` undoes what it did outside."""

    by: str = Field(default="", max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)
    compensate: bool = True


class Compensate(Wire):
    """Undo the effects of a turn; without a number: of the latest turn that has something to undo."""

    turn: int | None = None
    by: str = Field(default="", max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)


class ResolveEffect(Wire):
    """A person settles an effect that is in doubt, or whose compensation failed."""

    key: str
    done: bool
    by: str = Field(min_length=1, max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)


class ExtendBudget(Wire):
    """More room for the turn that ran out of budget."""

    steps: int = 0
    tokens: int = 0
    by: str = Field(default="", max_length=MAX_NAME)


class Decide(Wire):
    """The acknowledged form of the signals ``approve`` and ``reject``."""

    verdict: Literal["approve", "reject"]
    decision: dict[str, Any]


class CheckpointAnswer(Wire):
    """Answer of the query ``checkpoint``. ``state`` is whole unless ``truncated``; then the store has the rest."""

    thread_id: str
    agent: str
    status: Status
    turn: int
    head: Ref | None = None
    parent_id: str | None = None
    next: tuple[str, ...] = ()
    state: dict[str, Any] = {}
    truncated: bool = False
    omitted: dict[str, int] = {}


class StatusAnswer(Wire):
    """Answer of the query ``status``."""

    thread_id: str
    agent: str
    status: Status
    turn: int
    step: int
    node: str = ""
    waiting_for: tuple[str, ...] = ()
    queued: int = 0
    usage: Usage = Usage()
    steps_used: int = 0
    budget: Budget = Budget()
    results: tuple[TurnResult, ...] = ()
    attention: tuple[str, ...] = ()
    log: tuple[LogEntry, ...] = ()


class ApprovalsAnswer(Wire):
    """Answer of the query ``approvals``: open requests, those closed lately, and what was refused."""

    open: tuple[ApprovalRequest, ...] = ()
    closed: tuple[ApprovalRequest, ...] = ()
    refused_decisions: tuple[RefusedDecision, ...] = ()


class EffectsAnswer(Wire):
    """Answer of the query ``effects``: the newest entries; the store has all."""

    effects: tuple[Effect, ...] = ()


# ── activities: what goes in and what comes back ─────────────────────────────────────────────────────────────────


class Commit(Wire):
    """Where a new checkpoint goes: the id it gets and the head it extends. None as head: the thread is new."""

    thread_id: str
    checkpoint_id: str
    head: Ref | None = None
    turn: int
    node: str = ""


class Committed(Wire):
    """A checkpoint was committed. ``delta`` is left out beyond ``INLINE`` bytes: then the store has it.

    ``parent_id`` is set where the head had moved on, to a step whose attempt had been given up.
    """

    head: Ref
    parent_id: str | None = None
    delta: Delta | None = None
    size: int


INLINE = 16_384  # bytes of a delta that travel in history, where they also serve `db repair`


class OpenTurn(Wire):
    """Begin a turn: read the agent's specification, commit the message."""

    commit: Commit
    agent: str
    tenant: str = ""
    message: Send


class OpenedTurn(Wire):
    """The turn's specification, recorded for the turn, and its input checkpoint."""

    spec: AgentSpec
    committed: Committed


class LookUp(Wire):
    """Find a thread in the store."""

    thread_id: str


class Found(Wire):
    """Where a thread stands, for a workflow that takes it up again."""

    agent: str
    tenant: str
    head: Ref
    parent_id: str | None = None
    turn: int
    branch: int
    view: StateView
    attention: tuple[Effect, ...] = ()
    seen: tuple[str, ...] = ()  # ids of the latest messages


class CallModel(Wire):
    """Call the model on the state at the head. A reference, not the messages."""

    commit: Commit
    agent: str
    spec: str
    branch: int = 0


class ToolPlan(Wire):
    """A call the model asks for, resolved: what will run, under which key, behind which gate; or why it can't."""

    call_id: str
    tool: str
    index: int
    summary: str
    key: str = ""
    digest: str = ""
    error: str = ""
    approval: ApprovalPolicy | None = None
    arguments: dict[str, Any] | None = None  # only for a gated call: what the approver is shown


class ModelDone(Wire):
    """The model's answer is in the checkpoint. ``note``: length, refusal, content_filter, or empty."""

    committed: Committed
    calls: tuple[ToolPlan, ...] = ()
    usage: Usage
    answer: str = ""
    note: str = ""


class CallTool(Wire):
    """Run one planned call. With ``alone`` it commits the step itself, in one transaction with the receipt."""

    commit: Commit
    agent: str
    spec: str
    call_id: str
    tool: str
    index: int
    key: str
    digest: str
    alone: bool
    approved_by: tuple[str, ...] = ()


class ToolDone(Wire):
    """A call ended clearly: ``ok``, or an error that is the model's to read."""

    ok: bool
    error: str = ""
    committed: Committed | None = None


class Part(Wire):
    """One writer of a merged step: a recorded result by key, or a message made by the workflow."""

    call_id: str
    tool: str
    key: str = ""
    content: str = ""


class MergeStep(Wire):
    """Merge the results of several calls into one checkpoint. ``say`` adds an assistant message, with its note.

    ``after`` is a checkpoint whose attempt was given up. If it was committed all the same, this one extends it.
    """

    commit: Commit
    source: Source = "step"
    agent: str
    parts: tuple[Part, ...] = ()
    say: str = ""
    note: str = ""
    after: str = ""


class InspectEffect(Wire):
    """Ask the ledger what is known of an effect."""

    thread_id: str
    key: str


class Known(Wire):
    """What the ledger knows of an effect; ``registered`` where no attempt ever began."""

    status: EffectStatus
    error: str = ""


class SagaQuery(Wire):
    """Ask the ledger for the effects of a turn; without a number: of the latest turn with something to undo."""

    thread_id: str
    turn: int | None = None


class Saga(Wire):
    """The effects of one turn, from the ledger."""

    turn: int
    effects: tuple[Effect, ...] = ()
    tools: dict[str, ToolSpec] = {}  # the compensations, as the app has them now


class Undo(Wire):
    """Compensate one effect."""

    thread_id: str
    agent: str
    key: str
    tool: str
    compensation: str


class Settle(Wire):
    """Write down what is now known of an effect without running anything."""

    thread_id: str
    key: str
    status: Literal["done", "failed", "undone", "in_doubt", "needs_attention"]
    error: str = ""
    by: str = ""


class CloseThread(Wire):
    """Mark the thread as closed in the store."""

    thread_id: str


In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out")


@dataclass(frozen=True)
class Stub(Generic[In, Out]):
    """An activity as the workflow knows it: its name and its types."""

    name: str
    takes: type[In]
    gives: type[Out]


LOOK_UP = Stub("look_up", LookUp, Found)
OPEN_TURN = Stub("open_turn", OpenTurn, OpenedTurn)
CALL_MODEL = Stub("call_model", CallModel, ModelDone)
MERGE_STEP = Stub("merge_step", MergeStep, Committed)
INSPECT_EFFECT = Stub("inspect_effect", InspectEffect, Known)
LOAD_SAGA = Stub("load_saga", SagaQuery, Saga)
SETTLE_EFFECT = Stub("settle_effect", Settle, Effect)
CLOSE_THREAD = Stub("close_thread", CloseThread, bool)


def tool_stub(tool: str) -> Stub[CallTool, ToolDone]:
    """The activity that runs a tool; its type carries the tool's name."""
    return Stub(TOOL_PREFIX + tool, CallTool, ToolDone)


def undo_stub(compensation: str) -> Stub[Undo, Effect]:
    """The activity that compensates an effect; its type carries the compensation's name."""
    return Stub(UNDO_PREFIX + compensation, Undo, Effect)
