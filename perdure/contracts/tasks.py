"""What goes to activities and what comes back.

Long, because both sides of the wire are read together: a list of types, no logic.
"""

from typing import Any, Literal

from perdure.approvals import ApprovalPolicy, ApprovalRequest, Edited, Evidence, Verdict
from perdure.audit import AuditEntry, AuditHead
from perdure.checkpoint import Ref, Source
from perdure.contracts.base import Wire
from perdure.contracts.short import ShortDigest, ShortRef, ShortUsage
from perdure.contracts.spec import MODEL_NODE, TOOLS_NODE, AgentSpec, ToolSpec
from perdure.contracts.thread import Answer, Origin, Promote, Rewind, Send, UpdateState
from perdure.delta import Delta
from perdure.effects import Effect, EffectStatus
from perdure.lease import Lease
from perdure.view import StateView


class Commit(Wire):
    """Where a new checkpoint goes: the id it gets and the head it extends. None as head: the thread is new.

    Written short, since each activity has one: ``thread_id`` is left out where it is the workflow's own, and of the
    head's digest goes as much as tells a wrong head from the right one.
    """

    thread_id: str = ""
    id: str
    head: ShortRef | None = None
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


class Brief(Wire):
    """A step that one task has committed, without what follows from the task: see ``perdure.contracts.brief``.

    ``put`` is the one message that it put into its conversation, without id and role; ``delta`` what it changed where
    that is more than a message. Without either the delta was longer than ``INLINE``. ``next`` and ``digest``: where
    they are others than follow from these. ``id``: of the checkpoint, where the history has no task that tells it.
    """

    id: str = ""
    put: dict[str, Any] | None = None
    delta: Delta | None = None
    next: tuple[str, ...] | None = None
    schema_version: int = 1
    digest: str = ""


INLINE = 24_576  # bytes of a delta that travel in history, where they also serve `db repair`: the longest tool result


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
    """Where a thread stands, for a workflow that takes it up again.

    ``attention`` are the effects that a person has to settle; ``orphaned`` the keys of those that were under way when
    the workflow before ended, as was found just now.
    """

    agent: str
    tenant: str
    head: Ref
    parent_id: str | None = None
    next: tuple[str, ...] = ()
    turn: int
    branch: int
    view: StateView
    lease: Lease | None = None
    dry_run: bool = False
    attention: tuple[Effect, ...] = ()
    orphaned: tuple[str, ...] = ()
    audit: AuditHead = AuditHead()
    seen: tuple[str, ...] = ()  # ids of the latest messages
    delta: Delta | None = None  # of the head, where this activity committed it; left out beyond ``INLINE`` bytes
    going_on: "ResumedTurn | None" = None  # of a fork: what follows, where that is to run and can
    schema_version: int = 1
    notify: bool = False  # there is a webhook to be told of what is found, before any turn says so


class Recorded(Wire):
    """A model's answer that stands in a checkpoint of a thread."""

    thread_id: str
    checkpoint_id: str


class CallModel(Wire):
    """Call the model of a node on the state at the head. A reference, not the messages.

    ``task`` is the number of the node's task in the step. With ``alone`` the call commits the step itself.
    ``recorded``: the answer is known, from a plan that is being followed, and nobody is asked. ``node``: an agent's.
    """

    commit: Commit
    spec: ShortDigest
    node: str = MODEL_NODE
    task: int = 0
    alone: bool = True
    branch: int = 0
    recorded: Recorded | None = None


class ToolPlan(Wire):
    """A call the model asks for, resolved: what will run, under which key, behind which gate; or why it can't."""

    call_id: str
    tool: str
    index: int
    channel: str = "messages"  # the conversation in which it was asked for
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
    requesters: tuple[str, ...] = ()  # people who asked for the turn


class ModelDone(Wire):
    """The model's answer is in the checkpoint, or recorded under ``key`` for the merge of its step.

    ``calls``, ``answer`` and ``note`` (length, refusal, content_filter) tell what doesn't follow from the message that
    is committed: of each plan the fields that are others.
    """

    committed: Brief | None = None
    key: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    usage: ShortUsage
    answer: str = ""
    note: str = ""


class CallTool(Wire):
    """Run one planned call. With ``alone`` it commits the step itself, in one transaction with the receipt.

    ``index`` is its place in the model's latest answer. ``key`` and ``digest`` are those that were planned, and bind
    the call to them; a call that only reads and stands alone has neither. ``arguments``: where a person changed
    them; else they stand in the conversation. ``dry_run``: answer it from what is recorded, or simulate it.
    ``tool``: the activity's type names it. ``lines``: what the audit must have before the call is made.
    """

    commit: Commit
    spec: ShortDigest
    node: str = TOOLS_NODE
    tool: str = ""
    index: int = 0
    key: str = ""
    digest: str = ""
    alone: bool = True
    branch: int = 0
    approval: Evidence | None = None
    lines: tuple[AuditEntry, ...] = ()
    arguments: dict[str, Any] | None = None
    dry_run: bool = False


class ToolDone(Wire):
    """A call ended clearly: ``ok``, or an error that is the model's to read.

    ``audit``: where the thread's audit ends, if the call had lines to write.
    """

    ok: bool = True
    error: str = ""
    committed: Brief | None = None
    audit: AuditHead | None = None


class RunNode(Wire):
    """Run the function of a node, or (``ASK``) make the question of a human one.

    ``dry_run``: the function is told, and what it comes to isn't kept for others.
    """

    commit: Commit
    agent: str
    spec: ShortDigest
    node: str
    task: int = 0
    alone: bool = True
    branch: int = 0
    dry_run: bool = False


class NodeDone(Wire):
    """A node's function has returned: its step is committed, or what it returned is recorded under ``key``."""

    committed: Brief | None = None
    key: str = ""
    cached: bool = False


class TakeAnswer(Wire):
    """Check a person's answer by the type that its node declares, and record it for the merge of the step."""

    commit: Commit
    agent: str
    spec: ShortDigest
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
    """What the ledger knows of an effect; ``registered`` where no attempt ever began.

    ``by`` is the hook that told it just now. ``answered``: what the call returned is recorded too.
    """

    status: EffectStatus
    error: str = ""
    by: str = ""
    answered: bool = False


class Reconcile(Wire):
    """Ask a tool's own hook how an effect ended."""

    thread_id: str
    agent: str
    key: str
    tool: str
    reconcile: str


class SagaQuery(Wire):
    """Ask the ledger what belongs together: a saga by its name, or all that a turn took part in; without either: the
    latest turn with something to undo."""

    thread_id: str
    turn: int | None = None
    saga: str = ""


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
    tools: dict[str, ToolSpec] = {}  # as in a saga


class Saga(Wire):
    """The effects of a turn and of the sagas it took part in, from the ledger."""

    turn: int
    effects: tuple[Effect, ...] = ()
    tools: dict[str, ToolSpec] = {}  # those that made them, compensate and reconcile them, as the app has them now


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


class CheckDecision(Wire):
    """Look at what the workflow can't see of a decision: its signature, and whether other arguments fit.

    ``now`` is the workflow's time (ISO 8601, UTC).
    """

    thread_id: str
    agent: str
    request: ApprovalRequest
    verdict: Verdict
    decision: dict[str, Any]
    now: str


class CheckedDecision(Wire):
    """The decision is right; ``edited`` where it asks for other arguments."""

    edited: Edited | None = None


class AppendAudit(Wire):
    """Write lines to the thread's audit."""

    thread_id: str
    entries: tuple[AuditEntry, ...]


class Notify(Wire):
    """Tell the webhook of something that people should know. The id of the entry is that of the delivery."""

    thread_id: str
    agent: str
    tenant: str = ""
    entry: AuditEntry


class PromoteFork(Wire):
    """Commit what a dry run was given, as the beginning of the thread's next turn."""

    commit: Commit
    agent: str
    branch: int = 0
    promote: Promote


class Promotion(Wire):
    """The turn that follows the plan of a dry run: its specification, its first checkpoint with what that is marked
    with, and the checkpoints of the fork with the answers of its models, in their order, up to the last that asked for
    calls. ``requesters``: people who asked for it, there or here."""

    spec: AgentSpec
    committed: Committed
    turn: int
    begins: bool = False  # with a message; else it goes on with the turn in which the thread stands
    answers: tuple[str, ...] = ()
    calls: dict[str, tuple[ToolPlan, ...]] = {}
    requesters: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}


class KeepLease(Wire):
    """Keep the thread's lease in the store too; None: it has none."""

    thread_id: str
    lease: Lease | None = None


class CloseThread(Wire):
    """Mark the thread as closed in the store."""

    thread_id: str
