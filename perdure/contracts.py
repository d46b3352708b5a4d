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
from perdure.lease import Lease
from perdure.questions import Question, QuestionBook
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
NODE_PREFIX = "node:"
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
    """How the workflow runs a tool; the code itself stays with the activities. Times in seconds."""

    effect: EffectClass = "read"
    timeout: float = 60.0
    attempts: int = 3
    deadline: float = 600.0
    on_error: Literal["return", "rollback"] = "return"
    compensation: str = ""


class Limits(Wire):
    """Settings of the worker that shape commands; recorded, so that a replay sees the same ones."""

    heartbeat: float = 10.0  # seconds without a sign of life after which an attempt is given up
    idle: float = 3600.0  # seconds after which an idle thread completes; the next send starts it again
    history_events: int = 8_000  # continue as new beyond this, also where the server doesn't suggest it


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
    """A message to a thread. ``id`` makes a repeated send harmless; ``state`` sets channels along with it.

    ``metadata`` is kept with the checkpoint that takes the message in, and can be searched. ``token`` is that of the
    sender's lease, where it holds one.
    """

    id: str = Field(min_length=1, max_length=MAX_NAME)
    content: str = ""
    sender: str = Field(default="", max_length=MAX_NAME)
    state: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    token: str = ""

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
    next: tuple[str, ...] = ()
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
    lease: Lease | None = None
    questions: QuestionBook = QuestionBook()


class Origin(Wire):
    """Where a fork comes from, what is different in it, and whether it goes on by itself."""

    thread_id: str
    checkpoint_id: str
    state: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    by: str = ""
    go_on: bool = True


class ThreadInput(Wire):
    """Input of the workflow. ``resume``: the thread exists in the store, which knows its agent and its head.

    ``origin``: it is new, and forked from another.
    """

    agent: str
    tenant: str = ""
    resume: bool = False
    origin: Origin | None = None
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


class UpdateState(Wire):
    """Write to channels of the state between turns. ``overwrite`` names those that replace instead of being reduced.

    ``expected_version`` is the id of the checkpoint that the writer has seen: where the head is another, the update is
    refused with ``ConcurrentModification``. ``as_node``: it counts as what this node came to, and what follows the node
    is what follows the update.
    """

    state: dict[str, Any] = {}
    overwrite: tuple[str, ...] = ()
    expected_version: str = ""
    as_node: str = ""
    metadata: dict[str, Any] = {}
    by: str = Field(default="", max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)
    token: str = ""  # of the writer's lease, where it holds one


class Rewind(Wire):
    """Move the head back to an earlier checkpoint, and undo what was done outside since.

    ``keep_effects`` keeps what can't be undone, which is refused otherwise. ``go_on``: what follows then runs.
    """

    to: str
    keep_effects: bool = False
    go_on: bool = False
    expected_version: str = ""
    metadata: dict[str, Any] = {}
    by: str = Field(default="", max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)
    token: str = ""


class Rewound(Wire):
    """A rewind: the new head, and what is left outside of what was done since its parent."""

    head: Ref
    to: str
    next: tuple[str, ...] = ()
    residue: Residue = Residue()


class Resume(Wire):
    """Let a thread go on with what follows its head: after a fork, a rewind or an update that left it standing."""

    by: str = Field(default="", max_length=MAX_NAME)
    token: str = ""


class Answer(Wire):
    """A person's answer to the question of a human node."""

    question_id: str
    value: Any = None
    by: str = Field(min_length=1, max_length=MAX_NAME)


class LeaseRequest(Wire):
    """Acquire, renew or release a lease. ``seconds`` is how long it holds; ``token`` proves whose it is."""

    holder: str = Field(default="", max_length=MAX_NAME)
    seconds: float = Field(default=60.0, gt=0, le=86_400.0)
    token: str = ""


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
    """Answer of the query ``approvals``: open requests, those closed lately, and what was refused.

    ``questions`` are those of human nodes that wait for an answer.
    """

    open: tuple[ApprovalRequest, ...] = ()
    closed: tuple[ApprovalRequest, ...] = ()
    refused_decisions: tuple[RefusedDecision, ...] = ()
    questions: tuple[Question, ...] = ()


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


class Committed(Wire):
    """A checkpoint was committed. ``delta`` is left out beyond ``INLINE`` bytes: then the store has it.

    ``next`` are the nodes of the step that follows; what a ``Send`` gave them stands in the checkpoint. ``parent_id``
    is set where the head had moved on, to a step whose attempt had been given up.
    """

    head: Ref
    parent_id: str | None = None
    next: tuple[str, ...] = ()
    schema_version: int = 1
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


class ResumeTurn(Wire):
    """Take up what follows a head: the agent as it is now, and the plans of calls that its conversation leaves open."""

    thread_id: str
    agent: str
    head: Ref
    branch: int = 0


class ForkThread(Wire):
    """Make a thread from a checkpoint of another."""

    commit: Commit
    origin: Origin
    agent: str = ""
    tenant: str = ""


class WriteState(Wire):
    """Commit an update of the state that no turn makes. ``branch`` is for the keys of calls that follow it."""

    commit: Commit
    agent: str
    update: UpdateState


class PlanRewind(Wire):
    """Ask what a rewind would undo, keep, or can't undo."""

    thread_id: str
    head: Ref
    to: str


class RewindHead(Wire):
    """Commit the checkpoint that moves the head back."""

    commit: Commit
    agent: str
    branch: int
    rewind: Rewind


class LookUp(Wire):
    """Find a thread in the store."""

    thread_id: str


class Found(Wire):
    """Where a thread stands, for a workflow that takes it up again."""

    agent: str
    tenant: str
    head: Ref
    parent_id: str | None = None
    next: tuple[str, ...] = ()
    turn: int
    branch: int
    view: StateView
    lease: Lease | None = None
    attention: tuple[Effect, ...] = ()
    seen: tuple[str, ...] = ()  # ids of the latest messages
    delta: Delta | None = None  # of the head, where this activity committed it; left out beyond ``INLINE`` bytes
    schema_version: int = 1


class CallModel(Wire):
    """Call the model of a node on the state at the head. A reference, not the messages.

    ``task`` is the number of the node's task in the step. With ``alone`` the call commits the step itself.
    """

    commit: Commit
    agent: str
    spec: str
    node: str
    task: int = 0
    alone: bool = True
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


class ResumedTurn(Wire):
    """The specification for what follows, and by conversation (channel) the calls that wait to be made."""

    spec: AgentSpec
    calls: dict[str, tuple[ToolPlan, ...]] = {}


class ModelDone(Wire):
    """The model's answer is in the checkpoint, or recorded under ``key`` for the merge of its step.

    ``note``: length, refusal, content_filter, or empty.
    """

    committed: Committed | None = None
    key: str = ""
    calls: tuple[ToolPlan, ...] = ()
    usage: Usage
    answer: str = ""
    note: str = ""


class CallTool(Wire):
    """Run one planned call. With ``alone`` it commits the step itself, in one transaction with the receipt."""

    commit: Commit
    agent: str
    spec: str
    node: str
    call_id: str
    tool: str
    index: int
    key: str
    digest: str
    alone: bool
    branch: int = 0
    approved_by: tuple[str, ...] = ()


class ToolDone(Wire):
    """A call ended clearly: ``ok``, or an error that is the model's to read."""

    ok: bool
    error: str = ""
    committed: Committed | None = None


class RunNode(Wire):
    """Run the function of a node, or (``ASK``) make the question of a human one."""

    commit: Commit
    agent: str
    spec: str
    node: str
    task: int = 0
    alone: bool = True
    branch: int = 0


class NodeDone(Wire):
    """A node's function has returned: its step is committed, or what it returned is recorded under ``key``."""

    committed: Committed | None = None
    key: str = ""
    cached: bool = False


class TakeAnswer(Wire):
    """Check a person's answer by the type that its node declares, and record it for the merge of the step."""

    commit: Commit
    agent: str
    spec: str
    node: str
    task: int = 0
    branch: int = 0
    answer: Answer


class Part(Wire):
    """What one writer of a merged step brings: a recorded result by key, or a message made by the workflow.

    ``task`` is the number of the task in the step. ``call_id`` is set for a tool call; then ``content`` answers it
    where nothing is recorded.
    """

    task: int = 0
    node: str = ""
    call_id: str = ""
    tool: str = ""
    key: str = ""
    content: str = ""


class Ended(Wire):
    """How a task of the step ended: its outcome (``NODE_OUTCOMES``), and what went wrong where it failed."""

    node: str
    outcome: str
    error: str = ""
    error_type: str = ""


class MergeStep(Wire):
    """Merge the results of a step into one checkpoint. ``say`` adds an assistant message, with its note.

    ``ended`` are the tasks of the step in their order: what follows is found from them. ``after`` is a checkpoint whose
    attempt was given up. If it was committed all the same, this one extends it.
    """

    commit: Commit
    source: Source = "step"
    agent: str
    spec: str = ""
    ended: tuple[Ended, ...] = ()
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


class RewindPlan(Wire):
    """What a rewind would do to the effects that were made on the way from its target to the head.

    ``undo`` is in the order in which it runs. ``keep`` needs no undoing (idempotent), ``impossible`` can't be undone,
    and ``unsettled`` is in doubt or under way: a person settles it first.
    """

    undo: tuple[Effect, ...] = ()
    keep: tuple[Effect, ...] = ()
    impossible: tuple[Effect, ...] = ()
    unsettled: tuple[Effect, ...] = ()
    steps: int = 0
    tools: dict[str, ToolSpec] = {}


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


class KeepLease(Wire):
    """Keep the thread's lease in the store too; None: it has none."""

    thread_id: str
    lease: Lease | None = None


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
RESUME_TURN = Stub("resume_turn", ResumeTurn, ResumedTurn)
FORK_THREAD = Stub("fork_thread", ForkThread, Found)
WRITE_STATE = Stub("write_state", WriteState, Committed)
PLAN_REWIND = Stub("plan_rewind", PlanRewind, RewindPlan)
REWIND_HEAD = Stub("rewind_head", RewindHead, Found)
TAKE_ANSWER = Stub("take_answer", TakeAnswer, NodeDone)
ASK = Stub("ask", RunNode, Question)
KEEP_LEASE = Stub("keep_lease", KeepLease, bool)


def tool_stub(tool: str) -> Stub[CallTool, ToolDone]:
    """The activity that runs a tool; its type carries the tool's name."""
    return Stub(TOOL_PREFIX + tool, CallTool, ToolDone)


def node_stub(node: str) -> Stub[RunNode, NodeDone]:
    """The activity that runs the function of a node; its type carries the node's name."""
    return Stub(NODE_PREFIX + node, RunNode, NodeDone)


def undo_stub(compensation: str) -> Stub[Undo, Effect]:
    """The activity that compensates an effect; its type carries the compensation's name."""
    return Stub(UNDO_PREFIX + compensation, Undo, Effect)
