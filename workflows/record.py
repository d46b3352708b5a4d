"""What a thread remembers while its workflow runs: references and bounded records, never the whole state."""

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from temporalio import workflow

from perdure.approvals import ApprovalBook, stamp
from perdure.audit import AuditHead
from perdure.budget import Budget, Usage
from perdure.checkpoint import Ref, id_after, new_id
from perdure.contracts import (
    DRY_RUN,
    AgentSpec,
    Carry,
    Commit,
    Committed,
    Found,
    Limits,
    LogEntry,
    Plan,
    RunningTurn,
    Send,
    Status,
    ThreadInput,
    ToolPlan,
    TurnResult,
    lean,
)
from perdure.effects import OPEN, Effect
from perdure.failures import bounded
from perdure.lease import Lease
from perdure.questions import QuestionBook
from perdure.view import Following, StateView
from perdure.workflows.journal import Journal

if TYPE_CHECKING:
    from perdure.workflows.tasks import HumanTask

KEPT_LOG = 30
MAX_NOTE = 500  # characters of a line of the log
KEPT_RESULTS = 10  # more than a client can miss between two looks
KEPT_SEEN = 200
KEPT_EFFECTS = 50
CARRIED_LOG, CARRIED_EFFECTS = 3, 5  # of them, into the next run: its history keeps what is carried twice


@dataclass
class Stop:
    """Why the turn must end early, and whether what it did outside is undone."""

    kind: Literal["cancelled", "failed"]
    reason: str
    compensate: bool = True
    error_type: str = ""


class Stopped(Exception):
    """Unwinds the turn; the reason stands in ``Record.stop``."""


@dataclass
class Turn:
    """The turn that is running."""

    number: int
    spec: AgentSpec
    budget: Budget
    message_ids: tuple[str, ...] = ()
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    planned: dict[str, tuple[ToolPlan, ...]] = field(default_factory=dict)  # by conversation: calls to be made
    requesters: tuple[str, ...] = ()  # people who asked for it
    plan: Plan | None = None  # of a dry run, which it follows
    answer: str = ""
    note: str = ""


@dataclass
class Record:
    """The thread's memory. Handlers and the turn change it; everything a person sees is derived from it."""

    thread_id: str
    agent: str
    tenant: str
    head: Ref | None = None
    parent_id: str | None = None
    next: tuple[str, ...] = ()  # what follows the head: the nodes of the next step, whether or not a turn runs
    go_on: bool = False  # what follows the head is to run, though no message came
    asked_by: str = ""  # who wants that
    turn_number: int = 0
    branch: int = 0
    limits: Limits = field(default_factory=Limits)  # of the latest turn
    opening: bool = False  # the turn of a message that has left the queue
    turn: Turn | None = None
    stop: Stop | None = None
    closing: bool = False
    leaving: bool = False  # the workflow was cancelled and ends when its handlers have finished
    closed: bool = False
    failed: bool = False
    compensating: bool = False
    out_of_budget: str = ""
    queue: deque[Send] = field(default_factory=deque)
    seen: list[str] = field(default_factory=list)
    results: list[TurnResult] = field(default_factory=list)
    book: ApprovalBook = field(default_factory=ApprovalBook)
    questions: QuestionBook = field(default_factory=QuestionBook)
    asking: "dict[str, HumanTask]" = field(default_factory=dict)  # by question: who takes the answer
    lease: Lease | None = None
    dry_run: bool = False  # a fork that does nothing outside
    effects: dict[str, Effect] = field(default_factory=dict)
    settled: dict[str, tuple[bool, str]] = field(default_factory=dict)
    view: Following = field(default_factory=lambda: Following(StateView()))
    log: list[LogEntry] = field(default_factory=list)
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self, AuditHead(), ())

    @staticmethod
    def restore(given: ThreadInput) -> "Record":
        """From the workflow's input."""
        record = Record(thread_id=workflow.info().workflow_id, agent=given.agent, tenant=given.tenant)
        carry = given.carry
        if carry is None:
            return record
        record.head, record.turn_number, record.branch = carry.head, carry.turn, carry.branch
        record.queue, record.seen, record.results = deque(carry.queue), list(carry.seen), list(carry.results)
        record.book, record.view, record.log = carry.book, Following(carry.view), list(carry.log)
        record.effects = {effect.key: effect for effect in carry.effects}
        record.failed, record.limits, record.closing = carry.failed, carry.limits, carry.closing
        record.parent_id, record.next = carry.parent_id, carry.next
        record.lease, record.questions, record.dry_run = carry.lease, carry.questions, carry.dry_run
        record.journal = Journal(record, carry.audit, carry.notices)
        if running := carry.running:
            record.turn = Turn(
                number=running.number, spec=running.spec, budget=running.budget,
                message_ids=running.message_ids, steps=running.steps, usage=running.usage,
                requesters=running.requesters, plan=running.plan,
            )  # fmt: skip
        return record

    def carry(self) -> Any:
        """As the input of the next run. Only called between steps: nothing is pending then."""
        turn = self.turn
        running = turn and RunningTurn(
            number=turn.number, steps=turn.steps, usage=turn.usage, budget=turn.budget,
            message_ids=turn.message_ids, spec=turn.spec, requesters=turn.requesters, plan=turn.plan,
        )  # fmt: skip
        carry = Carry(
            head=self.head, turn=self.turn_number, branch=self.branch, running=running or None, queue=tuple(self.queue),
            seen=tuple(self.seen), results=tuple(self.results), book=self.book, effects=self._carried_effects(),
            view=self.view.now().carried(), log=tuple(self.log[-CARRIED_LOG:]), failed=self.failed, limits=self.limits,
            closing=self.closing, parent_id=self.parent_id, next=self.next, lease=self.lease,
            questions=self.questions, dry_run=self.dry_run, audit=self.journal.head,
            notices=tuple(self.journal.notices.values()),
        )  # fmt: skip
        return lean(ThreadInput(agent=self.agent, tenant=self.tenant, carry=carry))

    def _carried_effects(self) -> tuple[Effect, ...]:
        """The latest, and all that a person has to settle; the store has the others."""
        latest = list(self.effects.values())[-CARRIED_EFFECTS:]
        return (*(effect for effect in self.attention() if effect not in latest), *latest)

    def found(self, found: Found) -> list[Send]:
        """The thread was there before this workflow: take it up where it stands.

        Messages that wait here but came before are dropped, and returned.
        """
        self.agent, self.tenant, self.branch, self.turn_number = found.agent, found.tenant, found.branch, found.turn
        self.lease, self.dry_run = found.lease, found.dry_run
        self.limits = self.limits.model_copy(update={"notify": found.notify})
        if found.dry_run:
            workflow.upsert_memo({DRY_RUN: True})
        self.stand(found)
        self.effects = {effect.key: effect for effect in found.attention}
        if found.audit.number > self.journal.head.number:
            self.journal.head = found.audit
        # Each request has a line in the audit: so no id of a request is ever used for another one.
        self.book.counter = max(self.book.counter, found.audit.number)
        self.seen = [*found.seen, *self.seen]
        repeated = [message for message in self.queue if message.id in found.seen]
        self.queue = deque(message for message in self.queue if message.id not in found.seen)
        return repeated

    def stand(self, found: Found) -> None:
        """The head is another than the last step's: the thread was taken up, forked or rewound."""
        self.head, self.parent_id, self.next, self.view = found.head, found.parent_id, found.next, Following(found.view)
        self.turn_number, self.branch = found.turn, found.branch

    # ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────

    def note(self, text: str) -> None:
        """One line for people about what happened."""
        self.log.append(LogEntry(at=stamp(workflow.now()), text=bounded(text, MAX_NOTE)))
        del self.log[:-KEPT_LOG]

    def commit(self, *, beside: bool = False) -> Commit:
        """Where the next checkpoint goes. Its id is made here, so that every attempt uses the same one.

        ``beside``: it may be committed before this workflow task is recorded, and then the task is lived through again,
        at another time.
        """
        if beside and self.head is not None:
            id = id_after(self.head.id, workflow.random())
        else:
            id = new_id(workflow.time_ns() // 1_000_000, workflow.random())
        return Commit(id=id, head=self.head, turn=self.turn.number if self.turn else self.turn_number)

    def advance(self, done: Committed) -> None:
        """A checkpoint was committed."""
        self.parent_id = done.parent_id or (self.head.id if self.head else None)
        self.head, self.next = done.head, done.next
        self.view.follow(done.delta)

    def finish(self, result: TurnResult) -> None:
        """The turn has ended."""
        self.keep(result)
        self.failed = result.outcome == "failed"
        self.turn = self.stop = None
        self.out_of_budget = ""

    def keep(self, result: TurnResult) -> None:
        """Keep a result for whoever waits for it."""
        self.results.append(result)
        del self.results[:-KEPT_RESULTS]

    def enter(self, effect: Effect) -> None:
        """Put an effect into the ledger, or what is new about it. Settled ones make room when it is full."""
        self.effects[effect.key] = effect
        surplus = len(self.effects) - KEPT_EFFECTS
        turn = self.turn.number if self.turn else -1
        settled = [
            key
            for key, e in self.effects.items()
            if e.status not in (*OPEN, "registered", "attempted") and e.turn != turn
        ]
        settled += [
            key
            for key, e in self.effects.items()
            if e.turn == turn and e.status in ("done", "failed", "undone", "simulated")
        ]
        for key in settled[: max(surplus, 0)]:
            del self.effects[key]

    # ── what follows from it ─────────────────────────────────────────────────────────────────────────────────────

    def attention(self) -> list[Effect]:
        """Effects that a person has to settle."""
        return [effect for effect in self.effects.values() if effect.status in OPEN]

    def status(self) -> Status:
        """The thread's status. What needs a person comes before what doesn't, and first of all what is in doubt: it
        must not be hidden by requests that can be answered all the same."""
        if self.closed:
            return "closed"
        if self.compensating:
            return "compensating"
        if self.opening:
            return "running"
        doubt = [effect for effect in self.attention() if effect.status == "in_doubt"]
        if doubt:
            return "in_doubt"
        if self.turn is not None:
            if self.book.pending():
                return "awaiting_approval"
            if self.questions.open():
                return "awaiting_input"
            return "out_of_budget" if self.out_of_budget else "running"
        if self.attention():
            return "needs_attention"
        return "failed" if self.failed else "idle"
