"""What moves a thread without a turn: a fork at its beginning, a rewind, an update of its state; and who may."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from perdure.contracts import (
    FORK_THREAD,
    KEEP_LEASE,
    PLAN_REWIND,
    PROMOTE_FORK,
    REWIND_HEAD,
    WRITE_STATE,
    Committed,
    ForkThread,
    Found,
    KeepLease,
    Origin,
    Plan,
    PlanRewind,
    Promote,
    PromoteFork,
    Promotion,
    Resume,
    Rewind,
    RewindHead,
    RewindPlan,
    Rewound,
    Saga,
    UpdateState,
    WriteState,
)
from perdure.effects import Residue, residue, to_ask
from perdure.errors import ConcurrentModification, Failed, Irrevocable, PerdureError, Refused, ThreadBusy, ThreadClosed
from perdure.failures import describe, root, to_failure
from perdure.lease import Lease, check_writer
from perdure.workflows.calls import error_type, store_call
from perdure.workflows.display import Display
from perdure.workflows.record import Record, Turn
from perdure.workflows.saga import reconciled, roll_back
from perdure.workflows.turn import Refusal, begin, look_up

T = TypeVar("T")


class Travels:
    """The operations of one thread. ``waiting`` counts those that want the thread between two turns."""

    def __init__(self, record: Record, display: Display, writer: asyncio.Lock) -> None:
        self._record = record
        self._display = display
        self._writer = writer
        self.waiting = 0

    # ── fork ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def fork(self, origin: Origin) -> Refusal | None:
        """Make this thread from a checkpoint of another; the reason where that can't be."""
        record = self._record
        task = ForkThread(commit=record.commit(), origin=origin)
        summary = f"fork {origin.thread_id} at {origin.checkpoint_id}"
        try:
            found = await store_call(FORK_THREAD, task, summary=summary, limits=record.limits)
        except ActivityError as error:
            return Refusal(error)
        record.found(found)
        record.asked_by = origin.by
        if found.going_on is not None and not record.leaving:
            begin(record, found.going_on)
        else:
            record.go_on = origin.go_on and bool(record.next)
        kind = "a dry run of" if origin.dry_run else "forked from"
        record.note(f"{kind} {origin.thread_id} at {origin.checkpoint_id}")
        return None

    # ── update ───────────────────────────────────────────────────────────────────────────────────────────────────

    def check_update(self, task: UpdateState) -> None:
        """Raise where the update is refused."""
        self._check(task.token, task.expected_version)
        record = self._record
        if record.turn is not None or record.opening or record.queue or record.go_on:
            raise to_failure(
                ThreadBusy(f"A turn of {record.thread_id} is running.", hint="Wait for its end, or cancel it.")
            )
        if not (task.state or task.as_node or task.metadata):
            raise to_failure(Refused("The update is empty.", hint="Give a channel, a node or metadata."))

    async def write_state(self, task: UpdateState) -> Committed:
        """Commit an update. Several that come at once are made one after the other; each sees the head of its own."""
        record = self._record
        async with self._alone():
            self.check_update(task)  # whoever was first may have moved the head
            summary = f"update {', '.join(task.state) or 'nothing'}" + (f" as {task.as_node}" if task.as_node else "")

            def write() -> Awaitable[Committed]:
                given = WriteState(commit=record.commit(), agent=record.agent, update=task)
                return store_call(WRITE_STATE, given, summary=summary, limits=record.limits)

            done = await self._on_head(write, task.expected_version)
            record.advance(done)
            record.note(summary + (f", by {task.by}" if task.by else ""))
        return done

    # ── rewind ───────────────────────────────────────────────────────────────────────────────────────────────────

    def check_rewind(self, task: Rewind) -> None:
        """Raise where the rewind is refused without a look at the ledger."""
        self._check(task.token, task.expected_version)
        if self._record.compensating:
            raise to_failure(ThreadBusy("Effects of this thread are being undone.", hint="Try again in a moment."))

    async def rewind(self, task: Rewind, stop: Callable[[str], Awaitable[None]]) -> Rewound:
        """Undo what was done outside since a checkpoint, then move the head back to it.

        Refused where that is impossible, before anything is stopped or undone. Where something could not be undone
        after all, the head stays.
        """
        record, why = self._record, _because(task)
        self.waiting += 1
        try:
            self._permit(await self._settled_plan(task), task)
            if record.turn is not None:
                await stop(why)
            async with self._writer:
                self._check(task.token, "")
                plan = await self._settled_plan(task)
                self._permit(plan, task)
                left = await self._undo(plan, why)
                return await self._move(task, left, why)
        finally:
            self.waiting -= 1
            self._display.refresh()

    async def _plan(self, task: Rewind) -> RewindPlan:
        record = self._record
        if record.head is None:
            raise to_failure(Refused(f"Thread {record.thread_id} has no checkpoint yet."))
        ask = PlanRewind(thread_id=record.thread_id, head=record.head, to=task.to)
        summary = f"what lies between {task.to} and the head?"
        return await self._done(store_call(PLAN_REWIND, ask, summary=summary, limits=record.limits))

    async def _settled_plan(self, task: Rewind) -> RewindPlan:
        """The plan, after those tools were asked that can tell themselves how their calls ended."""
        plan = await self._plan(task)
        doubted = to_ask(plan.unsettled)
        if self._record.turn is not None or not doubted:
            return plan
        for effect in doubted:
            await reconciled(self._record, effect, plan.tools)
        return await self._plan(task)

    def _permit(self, plan: RewindPlan, task: Rewind) -> None:
        labels = ", ".join(effect.label() for effect in plan.unsettled)
        if labels and self._record.turn is None:  # of a running turn it is known once that has stopped
            raise to_failure(Refused(f"Not settled yet: {labels}.", hint="Settle it with `perdure resolve` first."))
        if plan.impossible and not task.keep_effects:
            labels = ", ".join(effect.label() for effect in plan.impossible)
            raise to_failure(
                Irrevocable(f"Can't be undone: {labels}.", hint="--keep-effects rewinds all the same and keeps it.")
            )

    async def _undo(self, plan: RewindPlan, why: str) -> Residue:
        """Compensate. Raises Failed where something could not be undone: the head stays."""
        saga = Saga(turn=self._record.turn_number, effects=plan.undo, tools=plan.tools)
        undone = await roll_back(self._record, self._display, saga, None, why)
        if undone.needs_attention:
            raise to_failure(
                Failed(
                    f"Could not be undone: {', '.join(undone.needs_attention)}. The head stays where it is.",
                    hint=f"`perdure status {self._record.thread_id}` tells what to do; then rewind again.",
                )
            )
        kept = residue([*plan.keep, *plan.impossible])
        return undone.model_copy(update={"still_done": (*undone.still_done, *kept.still_done)})

    async def _move(self, task: Rewind, left: Residue, why: str) -> Rewound:
        record = self._record

        def move() -> Awaitable[Found]:
            branch = record.branch + 1
            given = RewindHead(commit=record.commit(), agent=record.agent, branch=branch, rewind=task)
            return store_call(REWIND_HEAD, given, summary=f"rewind to {task.to}", limits=record.limits)

        found = await self._on_head(move, task.expected_version)
        record.book.withdraw_all(workflow.now())
        record.stand(found)
        record.book.go_back(turn=found.turn, branch=found.branch, step=found.head.step - 1)
        record.failed, record.go_on, record.asked_by = False, task.go_on and bool(found.next), task.by
        record.journal.take()
        record.journal.write(
            "thread.rewound", to=task.to, head=found.head.id, by=task.by, why=task.reason, kept=task.keep_effects,
            **left.model_dump(mode="json"),
        )  # fmt: skip
        record.note(f"{why}; {' '.join(left.lines())}".rstrip("; "))
        return Rewound(head=found.head, to=task.to, next=found.next, residue=left)

    # ── promote ──────────────────────────────────────────────────────────────────────────────────────────────────

    def check_promote(self, task: Promote) -> None:
        """Raise where no turn can begin now."""
        record = self._record
        self._check(task.token, task.expected_version)
        if record.dry_run:
            raise to_failure(Refused(f"{record.thread_id} is a dry run itself.", hint="Promote it to its origin."))
        if record.turn is not None or record.opening or record.queue or record.go_on:
            raise to_failure(
                ThreadBusy(f"A turn of {record.thread_id} is running.", hint="Wait for its end, or cancel it.")
            )

    async def promote(self, task: Promote) -> None:
        """Begin a turn that follows the plan of a dry run. Refused where the thread is not where the dry run began."""
        record = self._record
        async with self._alone():
            self.check_promote(task)

            def begin() -> Awaitable[Promotion]:
                given = PromoteFork(commit=record.commit(), agent=record.agent, branch=record.branch, promote=task)
                return store_call(PROMOTE_FORK, given, summary=f"promote {task.fork}", limits=record.limits)

            begun = await self._on_head(begin, task.expected_version)
            record.turn_number, record.failed, record.limits = begun.turn, False, begun.spec.limits
            record.advance(begun.committed)
            record.turn = Turn(
                number=begun.turn, spec=begun.spec, budget=begun.spec.budget, planned=dict(begun.calls),
                requesters=begun.requesters, plan=Plan(fork=task.fork, answers=begun.answers),
            )  # fmt: skip
            record.note(f"follows the plan of {task.fork}" + (f", says {task.by}" if task.by else ""))
            record.journal.write("thread.promoted", fork=task.fork, by=task.by, why=task.reason, turn=begun.turn)

    # ── resume, leases ───────────────────────────────────────────────────────────────────────────────────────────

    def check_resume(self, task: Resume) -> None:
        """Raise where nothing waits to go on."""
        record = self._record
        self._check(task.token, "")
        if record.turn is not None or record.opening or record.go_on:
            raise to_failure(ThreadBusy(f"A turn of {record.thread_id} is running."))
        if not record.next:
            raise to_failure(Refused(f"Nothing follows the head of {record.thread_id}.", hint="Send a message."))

    async def lease(self, change: Callable[..., Lease], *what: Any) -> Lease:
        """Acquire or renew: decided here, kept in the store too."""
        try:
            lease = change(self._record.lease, *what, workflow.now())
        except PerdureError as error:
            raise to_failure(error) from error
        self._record.lease = lease
        await self._keep(lease)
        return lease

    async def release(self, token: str) -> bool:
        """Give a lease back; whether it was held. Raises LeaseHeld where it is somebody else's."""
        held = self._record.lease
        self._check(token, "")
        if held is None or held.token != token:
            return False
        self._record.lease = None
        await self._keep(None)
        return True

    async def _keep(self, lease: Lease | None) -> None:
        record = self._record
        task = KeepLease(thread_id=record.thread_id, lease=lease)
        holder = lease.holder if lease else "nobody"
        await self._done(store_call(KEEP_LEASE, task, summary=f"the lease is {holder}'s", limits=record.limits))

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────────────

    def _check(self, token: str, expected: str) -> None:
        """Raise where somebody else writes alone, the thread is closed, or the head is not the one that is expected."""
        record = self._record
        try:
            check_writer(record.lease, token, workflow.now())
            if record.closing or record.closed:
                raise ThreadClosed(f"Thread {record.thread_id} is closed.", hint="Fork it to go on from it.")
            actual = record.head.id if record.head else ""
            if expected and expected != actual:
                raise ConcurrentModification(
                    f"The head of {record.thread_id} is {actual}, not {expected}.",
                    hint="Read the state again, and decide anew.", expected=expected, actual=actual,
                )  # fmt: skip
        except PerdureError as error:
            raise to_failure(error) from error

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Between two turns, with nobody else."""
        self.waiting += 1
        try:
            async with self._writer:
                yield
        finally:
            self.waiting -= 1
            self._display.refresh()

    async def _on_head(self, commit: Callable[[], Awaitable[T]], expected: str) -> T:
        """Commit something. Where the head had moved without this workflow (a store that was upgraded in bulk), and the
        caller didn't insist on the head that it has seen, it is committed on what stands there now."""
        try:
            return await self._done(commit())
        except ApplicationError as error:
            if error.type != ConcurrentModification.__name__ or expected:
                raise
            await look_up(self._record)
            return await self._done(commit())

    async def _done(self, call: Awaitable[T]) -> T:
        """The result of an activity; its error as the caller of an update gets it."""
        try:
            return await call
        except ActivityError as error:
            cause = root(error)
            details = tuple(getattr(cause, "details", ()))
            kind = error_type(error) or "Failed"
            raise ApplicationError(describe(cause), *details, type=kind, non_retryable=True) from error


def _because(task: Rewind) -> str:
    by = f" by {task.by}" if task.by else ""
    return f"rewound to {task.to}{by}" + (f": {task.reason}" if task.reason else "")
