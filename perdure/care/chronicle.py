"""A chronicle: what the history of a thread's workflow tells of the checkpoints that were committed.

The history has what went into each activity and what came back: where a checkpoint was to go, and the reference,
the delta and the next nodes of what was committed. What it leaves out (the arguments of a ``Send``, a delta beyond
``INLINE`` bytes) only the store has. Pure: who reads the history stands in ``perdure.starters``.
"""

from collections.abc import Callable, Iterable
from typing import Any

from perdure.audit import AuditEntry
from perdure.budget import Usage
from perdure.canonical import Json
from perdure.checkpoint import Ref, Source
from perdure.contracts import (
    APPEND_AUDIT,
    CALL_MODEL,
    CLOSE_THREAD,
    FORK_THREAD,
    LOOK_UP,
    MERGE_STEP,
    NODE_PREFIX,
    OPEN_TURN,
    PROMOTE_FORK,
    RESUME_TURN,
    REWIND_HEAD,
    TAKE_ANSWER,
    TOOL_PREFIX,
    WRITE_STATE,
    AgentSpec,
    AppendAudit,
    Brief,
    CallModel,
    CallTool,
    Commit,
    Committed,
    Common,
    Ended,
    ForkThread,
    Found,
    MergeStep,
    ModelDone,
    NodeDone,
    OpenedTurn,
    OpenTurn,
    PromoteFork,
    Promotion,
    ResumedTurn,
    RewindHead,
    RunNode,
    TakeAnswer,
    ThreadInput,
    ToolDone,
    ToolPlan,
    WriteState,
    whole,
    whole_answer,
)
from perdure.delta import Delta
from perdure.values import Value


class Call(Value):
    """An activity that has ended, as the history has it.

    ``task`` is what it was given; None for a local one, of which only the result is recorded. ``error`` and
    ``error_type`` are set where it failed. ``at`` is when it ended (ISO 8601, UTC).
    """

    activity: str
    at: str
    task: Json = None
    result: Json = None
    error: str = ""
    error_type: str = ""


class Run(Value):
    """One run of the workflow: what it began with, and its activities in the order in which they ended."""

    given: ThreadInput
    calls: tuple[Call, ...] = ()


class Written(Value):
    """A checkpoint that was committed. ``delta`` is None where it was too long for the history.

    ``next`` are the nodes of the step that follows. ``ended`` tells by number of the task how the tasks of the step
    ended, as far as the history tells. ``spec`` is what the turn was interpreted from. ``branch`` is set where a rewind
    began one.
    """

    ref: Ref
    parent: str | None
    parent_thread: str = ""
    source: Source
    turn: int
    schema_version: int
    next: tuple[str, ...]
    delta: Delta | None
    as_node: str = ""
    ended: dict[int, Ended] = {}
    spec: AgentSpec | None = None
    metadata: dict[str, Json] = {}
    facts: dict[str, Json] = {}
    branch: int | None = None
    at: str


class Chronicle(Value):
    """All that the runs of a workflow tell. ``written`` is in the order of the commits.

    ``refs`` are all references by id, also of checkpoints that runs wrote which Temporal has forgotten.
    """

    thread_id: str
    agent: str = ""
    tenant: str = ""
    branch: int = 0
    closed: bool = False
    dry_run: bool = False
    written: tuple[Written, ...] = ()
    audit: tuple[AuditEntry, ...] = ()
    refs: dict[str, Ref] = {}


def chronicle(thread_id: str, runs: Iterable[Run]) -> Chronicle:
    """What the runs tell, the oldest first."""
    teller = _Teller(thread_id)
    for run in runs:
        teller.tell(run)
    return Chronicle(
        thread_id=thread_id, agent=teller.agent, tenant=teller.tenant, branch=teller.branch, closed=teller.closed,
        dry_run=teller.dry_run, written=tuple(teller.written.values()), refs=teller.refs,
        audit=tuple(teller.audit.values()),
    )  # fmt: skip


class _Teller:
    """Follows runs as the workflow lived them: where the head was, and which turn ran."""

    def __init__(self, thread_id: str) -> None:
        self.agent = self.tenant = ""
        self.branch = 0
        self.closed = self.dry_run = False
        self.written: dict[str, Written] = {}
        self.audit: dict[str, AuditEntry] = {}
        self.refs: dict[str, Ref] = {}
        self._thread_id = thread_id
        self._head: Ref | None = None
        self._next: tuple[str, ...] = ()
        self._turn = 0
        self._spec: AgentSpec | None = None
        self._ended: dict[str, dict[int, Ended]] = {}  # by checkpoint of the step: how its tasks ended
        self._planned: dict[str, tuple[ToolPlan, ...]] = {}  # by conversation: the calls that were asked for last
        self._usage: dict[str, Usage] = {}  # by checkpoint of the step: what its models used
        self._tellers: dict[str, Callable[[Call], None]] = {
            LOOK_UP.name: self._looked_up, OPEN_TURN.name: self._opened, RESUME_TURN.name: self._resumed,
            CALL_MODEL.name: self._asked, MERGE_STEP.name: self._merged, TAKE_ANSWER.name: self._answered,
            FORK_THREAD.name: self._forked, WRITE_STATE.name: self._updated, REWIND_HEAD.name: self._rewound,
            PROMOTE_FORK.name: self._promoted, CLOSE_THREAD.name: self._was_closed,
            APPEND_AUDIT.name: self._audited,
        }  # fmt: skip

    def tell(self, run: Run) -> None:
        """One run from its beginning to its end."""
        given, carry = run.given, run.given.carry
        self.agent, self.tenant = given.agent or self.agent, given.tenant or self.tenant
        if carry is not None:
            self._head, self._turn, self.branch = carry.head, carry.turn, max(self.branch, carry.branch)
            self._next = carry.next
            self._spec = carry.running.spec if carry.running else None
            self.dry_run = self.dry_run or carry.dry_run
            self._know(carry.head)
        for call in run.calls:
            if call.activity.startswith(TOOL_PREFIX):
                self._called(call)
            elif call.activity.startswith(NODE_PREFIX):
                self._ran(call)
            elif tell := self._tellers.get(call.activity):
                tell(call)

    # ── where the thread stood ───────────────────────────────────────────────────────────────────────────────────

    def _looked_up(self, call: Call) -> None:
        if not call.error:
            self._stand(Found.model_validate(call.result))

    def _stand(self, found: Found) -> None:
        self.agent, self.tenant, self.dry_run = found.agent, found.tenant, found.dry_run
        self.branch = max(self.branch, found.branch)
        self._head, self._turn, self._next = found.head, found.turn, found.next
        self._know(found.head)

    def _know(self, ref: Ref | None) -> None:
        if ref is not None:
            self.refs[ref.id] = ref

    def _resumed(self, call: Call) -> None:
        if not call.error:
            self._goes_on(ResumedTurn.model_validate(call.result))

    def _goes_on(self, resumed: ResumedTurn) -> None:
        self._spec, self._planned = resumed.spec, dict(resumed.calls)

    def _was_closed(self, call: Call) -> None:
        self.closed = self.closed or not call.error

    def _audited(self, call: Call) -> None:
        if not call.error:
            self.audit |= {entry.id: entry for entry in AppendAudit.model_validate(call.task).entries}

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _opened(self, call: Call) -> None:
        if call.error:
            return
        task, done = OpenTurn.model_validate(call.task), OpenedTurn.model_validate(call.result)
        self._spec, self._turn = done.spec, task.commit.turn
        self.agent, self.tenant = task.agent, task.tenant
        self._wrote(
            call, task.commit, done.committed, source="input", metadata=task.message.metadata,
            facts={"message_id": task.message.id}
            | ({"sender": task.message.sender} if task.message.sender else {}),
        )  # fmt: skip

    def _asked(self, call: Call) -> None:
        task = CallModel.model_validate(call.task)
        if call.error:
            self._failed(call, task.commit, task.task, task.node)
            return
        channel = self._channel(task.node)
        common = self._common(task.commit, task.node, channel)
        done = whole_answer(ModelDone.model_validate(call.result), common)
        self._planned |= {channel: done.calls} if done.calls else {}
        outcome = "tool_calls" if done.calls else "answer"
        self._end(task.commit, task.task, Ended(node=task.node, outcome=outcome))
        if done.committed is None:
            used = self._usage.get(task.commit.id, Usage())
            self._usage[task.commit.id] = used.plus(done.usage)
            return
        facts: dict[str, Json] = {"usage": done.usage.model_dump(exclude_defaults=True)}
        if channel != "messages":
            facts["channel"] = channel
        self._wrote(call, task.commit, done.committed, source="step", facts=facts)

    def _called(self, call: Call) -> None:
        if call.error:
            return
        done = ToolDone.model_validate(call.result)
        if call.task:
            self.audit |= {line.id: line for line in CallTool.model_validate(call.task).lines}
        if done.committed is not None:
            task = CallTool.model_validate(call.task) if call.task else self._beside(done.committed)
            channel = self._channel(task.node)
            asked = next((plan.call_id for plan in self._planned.get(channel, ()) if plan.index == task.index), "")
            common = self._common(task.commit, task.node, channel, asked)
            self._end(task.commit, 0, Ended(node=task.node, outcome="done"))
            self._wrote(call, task.commit, whole(done.committed, common), source="step")

    def _beside(self, done: Brief) -> CallTool:
        """The task of a call beside the workflow, the only one of its step: the history has only what came of it."""
        assert self._head is not None and self._spec is not None, "a turn runs"
        (node,) = self._next
        index = self._planned[self._channel(node)][0].index
        commit = Commit(id=done.id, head=self._head, turn=self._turn)
        return CallTool(commit=commit, spec=self._spec.digest, node=node, index=index)

    def _ran(self, call: Call) -> None:
        task = RunNode.model_validate(call.task)
        if call.error:
            self._failed(call, task.commit, task.task, task.node)
            return
        done = NodeDone.model_validate(call.result)
        self._end(task.commit, task.task, Ended(node=task.node, outcome="done"))
        if done.committed is not None:
            facts: dict[str, Json] = {"cached": True} if done.cached else {}
            committed = whole(done.committed, self._common(task.commit, task.node))
            self._wrote(call, task.commit, committed, source="step", facts=facts)

    def _answered(self, call: Call) -> None:
        if not call.error:
            task = TakeAnswer.model_validate(call.task)
            self._end(task.commit, task.task, Ended(node=task.node, outcome="done"))

    def _merged(self, call: Call) -> None:
        """A local merge has left only its result: it was of the turn that ran, on the head that there was."""
        if call.error:
            return
        done = Committed.model_validate(call.result)
        commit = Commit(id=done.head.id, head=self._head, turn=self._turn)
        source: Source = "step"
        if call.task is not None:
            task = MergeStep.model_validate(call.task)
            commit, source = task.commit, task.source
            for number, end in enumerate(task.ended):
                self._end(commit, number, end)
        usage = self._usage.get(commit.id, Usage()) if source == "step" else Usage()
        facts: dict[str, Json] = {"usage": usage.model_dump(exclude_defaults=True)} if usage != Usage() else {}
        self._wrote(call, commit, done, source=source, facts=facts)

    def _channel(self, node: str) -> str:
        """The conversation of a model, or of the calls that it asks for."""
        return self._spec.nodes[node].channel if self._spec and node in self._spec.nodes else "messages"

    def _common(self, commit: Commit, node: str, channel: str = "", call_id: str = "") -> Common:
        """What workflow and activity both knew of a step; the task names only the beginning of its head's digest."""
        assert commit.head is not None, "a task runs on a head"
        head = self.refs.get(commit.head.id, commit.head)
        routes = self._spec.nodes[node].routes if self._spec and node in self._spec.nodes else {}
        return Common(
            head=head, id=commit.id, node=node, turn=commit.turn, routes=routes, channel=channel, call_id=call_id
        )

    def _failed(self, call: Call, commit: Commit, number: int, node: str) -> None:
        self._end(
            commit, number, Ended(node=node, outcome="error", error=call.error, error_type=call.error_type)
        )  # fmt: skip

    def _end(self, commit: Commit, number: int, ended: Ended) -> None:
        self._ended.setdefault(commit.id, {})[number] = ended

    # ── between turns ────────────────────────────────────────────────────────────────────────────────────────────

    def _updated(self, call: Call) -> None:
        if call.error:
            return
        task, done = WriteState.model_validate(call.task), Committed.model_validate(call.result)
        update = task.update
        self._wrote(
            call, task.commit, done, source="update", metadata=update.metadata, facts=_said(update.by, update.reason),
            as_node=update.as_node,
        )  # fmt: skip

    def _forked(self, call: Call) -> None:
        if call.error:
            return
        task, found = ForkThread.model_validate(call.task), Found.model_validate(call.result)
        origin = task.origin
        self._moved(
            call, found, source="fork", parent=origin.checkpoint_id, parent_thread=origin.thread_id,
            metadata=origin.metadata, facts=origin.facts(),
        )  # fmt: skip
        if found.going_on is not None:
            self._goes_on(found.going_on)

    def _promoted(self, call: Call) -> None:
        if call.error:
            return
        task, done = PromoteFork.model_validate(call.task), Promotion.model_validate(call.result)
        self._spec, self._turn, self._planned = done.spec, done.turn, dict(done.calls)
        commit = task.commit.model_copy(update={"turn": done.turn})
        source: Source = "input" if done.begins else "update"
        facts: dict[str, Json] = {"promoted": task.promote.fork, **_said(task.promote.by, task.promote.reason)}
        if done.requesters:
            facts["asked"] = list(done.requesters)
        self._wrote(call, commit, done.committed, source=source, metadata=done.metadata, facts=facts)

    def _rewound(self, call: Call) -> None:
        if call.error:
            return
        task, found = RewindHead.model_validate(call.task), Found.model_validate(call.result)
        rewind = task.rewind
        facts = {**({"from": task.commit.head.id} if task.commit.head else {}), **_said(rewind.by, rewind.reason)}
        self._moved(
            call, found, source="rewind", parent=rewind.to, branch=task.branch, metadata=rewind.metadata, facts=facts
        )

    def _moved(self, call: Call, found: Found, *, source: Source, parent: str, **more: Any) -> None:
        self._stand(found)
        written = Written(
            ref=found.head, parent=parent, source=source, turn=found.turn, schema_version=found.schema_version,
            next=found.next, delta=found.delta, at=call.at, **more,
        )  # fmt: skip
        self._add(written)

    # ── what was written ─────────────────────────────────────────────────────────────────────────────────────────

    def _wrote(self, call: Call, commit: Commit, done: Committed, *, source: Source, **more: Any) -> None:
        """A commit on the head; ``parent_id`` is told where the head was another."""
        self._know(done.head)
        written = Written(
            ref=done.head, parent=done.parent_id or (commit.head.id if commit.head else None), source=source,
            turn=commit.turn, schema_version=done.schema_version, next=done.next, delta=done.delta,
            ended=self._ended.pop(commit.id, {}), spec=self._spec, at=call.at, **more,
        )  # fmt: skip
        self._add(written)
        self._head, self._next = done.head, done.next

    def _add(self, written: Written) -> None:
        """The first to tell of a checkpoint is believed: a run that was reset tells the beginning once more."""
        self.written.setdefault(written.ref.id, written)


def _said(by: str, reason: str) -> dict[str, Json]:
    return {name: text for name, text in (("by", by), ("reason", reason)) if text}
