"""What goes to a thread and what it answers: its input, messages, updates, queries."""

from typing import Any, Literal

from pydantic import Field

from perdure.approvals import MAX_NAME, MAX_REASON, ApprovalBook, ApprovalRequest, RefusedDecision
from perdure.audit import AuditEntry, AuditHead
from perdure.budget import Budget, Usage
from perdure.checkpoint import Ref
from perdure.contracts.base import MAX_MESSAGE, Status, Wire
from perdure.contracts.spec import AgentSpec, Limits
from perdure.effects import Effect, Residue
from perdure.errors import InvalidInput
from perdure.lease import Lease
from perdure.questions import Question, QuestionBook
from perdure.view import StateView


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


class Plan(Wire):
    """The plan of a dry run that a turn follows: the checkpoints of the fork in which its models asked for calls."""

    fork: str
    answers: tuple[str, ...]


class RunningTurn(Wire):
    """A turn in the middle: what is carried over continue-as-new."""

    number: int
    steps: int
    usage: Usage
    budget: Budget
    message_ids: tuple[str, ...]
    spec: AgentSpec
    requesters: tuple[str, ...] = ()
    plan: Plan | None = None


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
    dry_run: bool = False
    audit: AuditHead = AuditHead()
    notices: tuple[AuditEntry, ...] = ()  # those that the webhook has not taken yet


class Origin(Wire):
    """Where a fork comes from, what is different in it, and whether it goes on by itself.

    ``dry_run``: it never does anything outside.
    """

    thread_id: str
    checkpoint_id: str
    state: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    by: str = ""
    go_on: bool = True
    dry_run: bool = False

    def facts(self) -> dict[str, Any]:
        """What the first checkpoint of the fork keeps of how it was made."""
        return {name: value for name, value in (("by", self.by), ("dry_run", self.dry_run)) if value}


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
    """Undo the effects of a turn with the sagas it took part in, or of one saga; without either: of the latest turn
    that has something to undo."""

    turn: int | None = None
    saga: str = Field(default="", max_length=MAX_NAME)
    by: str = Field(default="", max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)


class ResolveEffect(Wire):
    """A person settles an effect that is in doubt, or whose compensation failed; without ``done`` the tool's own hook
    is asked."""

    key: str
    done: bool | None
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


class Promote(Wire):
    """Make the plan of a dry run the thread's next turn: its calls are made for real, each behind its gate anew."""

    fork: str
    by: str = Field(default="", max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)
    expected_version: str = ""
    token: str = ""


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
    """Answer of the query ``status``. ``next`` are the nodes that follow the head, also where no turn runs."""

    thread_id: str
    agent: str
    status: Status
    turn: int
    step: int
    node: str = ""
    next: tuple[str, ...] = ()
    waiting_for: tuple[str, ...] = ()
    queued: int = 0
    usage: Usage = Usage()
    steps_used: int = 0
    budget: Budget = Budget()
    results: tuple[TurnResult, ...] = ()
    attention: tuple[str, ...] = ()
    log: tuple[LogEntry, ...] = ()
    dry_run: bool = False
    audit: AuditHead = AuditHead()


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
