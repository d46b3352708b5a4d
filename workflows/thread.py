"""``AgentThread``: the workflow of one thread. It interprets a specification; nobody's code but ours runs in it.

Long, because Temporal wants every handler of a workflow in its class; what they do is in the modules beside it.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from perdure.approvals import Verdict
from perdure.approvals.book import undecodable
from perdure.budget import Budget, extended
from perdure.contracts import (
    CLOSE_THREAD,
    SETTLE_EFFECT,
    WORKFLOW,
    Accepted,
    Answer,
    ApprovalsAnswer,
    CancelTurn,
    CheckpointAnswer,
    CloseThread,
    Committed,
    Compensate,
    Decide,
    EffectsAnswer,
    ExtendBudget,
    LeaseRequest,
    Origin,
    Promote,
    ResolveEffect,
    Resume,
    Rewind,
    Rewound,
    Send,
    Settle,
    StatusAnswer,
    ThreadInput,
    ThreadResult,
    TurnResult,
    UpdateState,
)
from perdure.effects import OPEN, Effect, Residue, to_ask, to_undo
from perdure.errors import (
    Conflict,
    DecisionRefused,
    EffectNotFound,
    InvalidInput,
    Refused,
)
from perdure.failures import to_failure
from perdure.lease import Lease, acquire, renew
from perdure.workflows import answers
from perdure.workflows.asking import check_answer, take_answer
from perdure.workflows.calls import store_call
from perdure.workflows.deciding import decide, refuse
from perdure.workflows.display import Display, details
from perdure.workflows.inbox import Inbox
from perdure.workflows.record import Record, Stop
from perdure.workflows.saga import load_saga, reconciled, roll_back, rollback_message
from perdure.workflows.travel import Travels
from perdure.workflows.turn import Refusal, TurnRunner, commit_note, history_is_long, look_up, open_turn, resume_turn

T = TypeVar("T")


@dataclass
class _Opening:
    """How opening the turn of a message went."""

    done: bool = False
    repeated: bool = False
    failure: ApplicationError | None = None


@workflow.defn(name=WORKFLOW)
class AgentThread:
    """One thread: takes messages, runs a turn for each, waits for people, completes when idle."""

    @workflow.init
    def __init__(self, given: ThreadInput) -> None:
        self._record = Record.restore(given)
        self._display = Display(self._record)
        self._writer = asyncio.Lock()  # a turn and an operation between turns exclude each other
        self._inbox = Inbox(self._record, lambda compensate: self._stop("another message came", compensate=compensate))
        self._opening: dict[str, _Opening] = {}  # messages whose senders wait for their turn to begin
        self._ready = not (given.resume or given.origin) or given.carry is not None
        self._travels = Travels(self._record, self._display, self._writer)
        self._refused: Refusal | None = None  # why the thread can't be taken up
        self._settling: set[str] = set()  # effects that a person settles right now

    @workflow.run
    async def run(self, given: ThreadInput) -> ThreadResult:
        """Serve the thread until it is idle for long, closed, or cancelled."""
        try:
            return await self._serve(given)
        except asyncio.CancelledError:
            self._turn_away()
            await workflow.wait_condition(lambda: workflow.all_handlers_finished() and self._record.journal.is_written)
            raise

    async def _serve(self, given: ThreadInput) -> ThreadResult:
        self._record.journal.resume()
        if not self._ready:
            await self._take_up(given.origin)
        while True:
            if self._record.turn is not None:
                await self._run_turn()
            elif self._record.leaving:
                raise asyncio.CancelledError
            elif self._travels.waiting:  # it goes before the next turn: it may have stopped the last one for it
                await self._to_the_end(workflow.wait_condition(lambda: not self._travels.waiting))
            elif self._record.go_on:
                await self._go_on()
            elif self._record.queue:
                await self._next_turn()
            elif self._record.closing:
                return await self._close()
            elif not await self._wait_for_work():
                return self._result()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _take_up(self, origin: Origin | None) -> None:
        """Find the thread in the store, or fork it; where that can't be, this workflow ends with the reason."""
        self._refused = await self._to_the_end(self._look_up() if origin is None else self._travels.fork(origin))
        self._ready = True
        if self._refused is not None:
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise self._refused.failure() from self._refused

    async def _look_up(self) -> Refusal | None:
        try:
            for message in await look_up(self._record):
                if opening := self._opening.get(message.id):
                    opening.done = opening.repeated = True
        except Refusal as refusal:
            return refusal
        return None

    async def _next_turn(self) -> None:
        """Open a turn for the oldest message."""
        message = self._record.queue.popleft()
        self._record.opening = True
        refusal = await self._to_the_end(self._open(message))
        self._record.opening = False
        if opening := self._opening.get(message.id):
            opening.done, opening.failure = True, refusal.failure() if refusal is not None else None
        if refusal is not None:
            self._record.stop = None
            await self._turn_refused(message, refusal)

    async def _open(self, message: Send) -> Refusal | None:
        record = self._record
        async with self._writer:
            refusal = await self._open_turn(message)
            if refusal is not None and refusal.kind == "ConcurrentModification":
                # Temporal's reset took the workflow back behind what is stored: it is taken up where it stands there.
                record.queue.appendleft(message)
                refusal = await self._look_up()
                if message not in record.queue:
                    return None  # it was the message of a turn that is stored
                record.queue.remove(message)
                if refusal is None:
                    refusal = await self._open_turn(message)
        if refusal is None:
            record.note(f"message: {message.content[:80]}")
        return refusal

    async def _open_turn(self, message: Send) -> Refusal | None:
        try:
            await open_turn(self._record, message)
        except Refusal as refusal:
            return refusal
        return None

    async def _turn_refused(self, message: Send, refusal: Refusal) -> None:
        """Tell why; a thread that could not even begin fails, and leaves nothing behind."""
        record = self._record
        record.note(f"message refused: {refusal.message}")
        result = TurnResult(
            turn=record.turn_number, outcome="refused", error=refusal.message, error_type=refusal.kind,
            message_ids=(message.id,),
        )  # fmt: skip
        record.keep(result)
        self._display.refresh()
        if record.head is None and not record.queue:
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise refusal.failure() from refusal

    async def _go_on(self) -> None:
        """Run what follows the head, though no message came."""
        record = self._record
        record.opening = True
        async with self._writer:
            try:
                await self._to_the_end(resume_turn(record))
            except Refusal as refusal:
                record.note(f"can't go on: {refusal.message}")
                result = TurnResult(
                    turn=record.turn_number, outcome="refused", error=refusal.message, error_type=refusal.kind
                )
                record.keep(result)
        record.opening = record.go_on = False
        self._display.refresh()

    async def _run_turn(self) -> None:
        turn = self._record.turn
        assert turn is not None, "the loop looked"
        async with self._writer:
            result = await self._to_the_end(TurnRunner(self._record, turn, self._display).run())
            self._record.finish(result)
        self._display.refresh()

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something as a task of its own: a cancelled workflow stops its turn in good order, it doesn't tear it."""
        task = asyncio.create_task(work)
        try:
            await workflow.wait_condition(task.done)
        except asyncio.CancelledError:
            self._record.leaving = True
            self._stop("the workflow was cancelled", compensate=True)
            await workflow.wait_condition(task.done)
        return task.result()

    def _turn_away(self) -> None:
        """The workflow was cancelled: messages that wait get no turn, and their senders learn it."""
        record = self._record
        record.leaving = True
        refusal = to_failure(Refused("The workflow of this thread was cancelled.", hint="Send the message again."))
        for message in record.queue:
            record.note(f"message refused: {refusal.message}")
            record.keep(
                TurnResult(turn=record.turn_number, outcome="refused", error=refusal.message, message_ids=(message.id,))
            )
            if opening := self._opening.get(message.id):
                opening.done, opening.failure = True, refusal
        record.queue.clear()
        self._display.refresh()

    async def _wait_for_work(self) -> bool:
        """Wait for something to do; False when the thread has been idle for long and may complete."""
        self._display.refresh()
        record = self._record
        if history_is_long(record.limits.history_events):
            await workflow.wait_condition(lambda: workflow.all_handlers_finished() and record.journal.is_written)
            if record.go_on or record.turn is not None:  # said by a handler just now, and not carried
                return True
            workflow.continue_as_new(record.carry())
        try:
            await workflow.wait_condition(
                self._has_work, timeout=record.limits.idle, timeout_summary="idle: waits for a message"
            )
            return True
        except TimeoutError:
            await workflow.wait_condition(
                lambda: self._has_work() or (workflow.all_handlers_finished() and record.journal.is_told)
            )
            return self._has_work()

    def _has_work(self) -> bool:
        record = self._record
        asked = bool(record.queue) or record.closing or record.go_on or record.turn is not None
        return asked or self._travels.waiting > 0

    async def _close(self) -> ThreadResult:
        record = self._record
        task = CloseThread(thread_id=record.thread_id)
        await self._to_the_end(store_call(CLOSE_THREAD, task, summary="close the thread", limits=record.limits))
        record.closed = True
        record.note("closed")
        self._display.refresh()
        await workflow.wait_condition(lambda: workflow.all_handlers_finished() and record.journal.is_told)
        return self._result()

    def _result(self) -> ThreadResult:
        return ThreadResult(status=self._record.status(), head=self._record.head, turn=self._record.turn_number)

    def _stop(self, reason: str, *, compensate: bool) -> None:
        record = self._record
        if (record.turn is not None or record.opening) and record.stop is None:
            record.stop = Stop(kind="cancelled", reason=reason, compensate=compensate)

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    @workflow.update(name="send", description="Send a message; acknowledged once its turn has begun or is queued.")
    async def send(self, message: Send) -> Accepted:
        """Take a message. Rejected without a trace where the thread doesn't take it."""
        if self._inbox.seen(message):
            return Accepted(message_id=message.id, repeated=True)
        busy = self._record.turn is not None or self._writer.locked() or bool(self._record.queue)
        self._inbox.take(message)
        if busy:
            return Accepted(message_id=message.id, queued=len(self._record.queue))
        opening = self._opening[message.id] = _Opening()
        await workflow.wait_condition(lambda: opening.done or self._refused is not None)
        del self._opening[message.id]
        if opening.failure is not None:
            raise opening.failure
        if self._refused is not None:
            raise self._refused.failure()
        return Accepted(message_id=message.id, repeated=opening.repeated)

    @send.validator
    def check_send(self, message: Send) -> None:
        """Raise where the message is refused."""
        if not self._inbox.seen(message) and (problem := self._inbox.why_not(message)):
            raise to_failure(problem)

    @workflow.signal(name="send", description='Send a message: {"content": "…"} or just a text.')
    def send_signal(self, *args: Any) -> None:
        """The unacknowledged form. What can't be taken is noted in the thread's log."""
        try:
            self._inbox.take_signal(_decoded(args))
        except (ValueError, TypeError) as error:
            self._record.note(f"message refused: it doesn't fit: {str(error)[:200]}")
        self._display.refresh()

    # ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────

    @workflow.signal(
        name="approve", description='Approve a call: {"request_id", "approver", "digest", "reason"}; see the details.'
    )
    async def approve(self, *args: Any) -> None:
        """Count a yes, or keep it among the refused decisions."""
        await self._decided("approve", args)

    @workflow.signal(
        name="reject", description='Reject a call: {"request_id", "approver", "digest", "reason"}; see the details.'
    )
    async def reject(self, *args: Any) -> None:
        """Count a no, or keep it among the refused decisions."""
        await self._decided("reject", args)

    async def _decided(self, verdict: Verdict, args: tuple[Any, ...]) -> None:
        try:
            said = _decoded(args)
        except (ValueError, TypeError) as error:
            refuse(self._record, verdict, args, undecodable(f"The payload can't be read: {error}."))
        else:
            with suppress(DecisionRefused):  # it is kept with its reason
                await decide(self._record, verdict, said)
        self._display.refresh()

    @workflow.update(name="decide", description="Approve or reject a call; the answer tells whether it counts.")
    async def decide(self, said: Decide) -> ApprovalsAnswer:
        """The acknowledged form of the signals. One that doesn't count is kept with its reason too: in an audit nothing
        that people tried may be missing."""
        await self._known()
        try:
            await decide(self._record, said.verdict, said.decision)
        except DecisionRefused as refusal:
            raise to_failure(refusal) from refusal
        finally:
            self._display.refresh()
        return answers.approvals(self._record)

    @decide.validator
    def check_decide(self, said: Decide) -> None:
        """Only that it is one: without a validator, an update that can't be read would fail the workflow's task."""

    # ── operations ───────────────────────────────────────────────────────────────────────────────────────────────

    @workflow.signal(name="cancel_turn", description='Stop the turn: {"by", "reason", "compensate": true}.')
    def cancel_turn(self, *args: Any) -> None:
        """Stop the turn that is running and, unless told otherwise, undo what it did outside."""
        try:
            given = _decoded(args) if args else None
            said = CancelTurn.model_validate({} if given is None else given)
        except (ValueError, TypeError) as error:
            self._record.note(f"cancel refused: it doesn't fit: {str(error)[:200]}")
            self._display.refresh()
            return
        if self._record.turn is None and not self._record.opening:
            self._record.note("cancel: no turn is running")
        by = f" by {said.by}" if said.by else ""
        self._stop(f"cancelled{by}" + (f": {said.reason}" if said.reason else ""), compensate=said.compensate)
        self._display.refresh()

    @workflow.update(name="compensate", description="Undo the effects of a turn.")
    async def compensate(self, task: Compensate) -> Residue:
        """Undo a turn. The running one is stopped for it; an earlier one is undone between turns."""
        await self._known()
        running = self._record.turn
        if running and not task.saga and task.turn in (None, running.number):
            self._stop(_because(task), compensate=True)
            await workflow.wait_condition(lambda: self._record.turn is not running)
            return next(r.residue for r in reversed(self._record.results) if r.turn == running.number)
        async with self._writer:
            saga = await load_saga(self._record, task.turn, task.saga)
            if not to_undo(saga.effects) and not to_ask(saga.effects):
                raise to_failure(Refused(f"Thread {self._record.thread_id} has nothing to undo."))
            what = f"saga {task.saga}" if task.saga else f"turn {saga.turn}"
            left = await roll_back(self._record, self._display, saga, None, f"{what} {_because(task)}")
            self._record.note(f"{what} compensated: {_because(task)}")
            await commit_note(self._record, rollback_message(f"{what} {_because(task)}", left), "rolled_back")
        self._display.refresh()
        return left

    @compensate.validator
    def check_compensate(self, task: Compensate) -> None:
        """Only that it is one: without a validator, an update that can't be read would fail the workflow's task."""

    @workflow.update(name="resolve_effect", description="Settle an effect that is in doubt or could not be undone.")
    async def resolve_effect(self, task: ResolveEffect) -> Effect:
        """Write down what a person found out: the effect stands outside (``done``), or it doesn't."""
        await self._known()
        self.check_resolve(task)
        record = self._record
        effect = record.effects[task.key]
        if task.done is None:
            return await self._ask_hook(effect, task.by)
        not_done: Literal["undone", "failed"] = "undone" if effect.status == "needs_attention" else "failed"
        status: Literal["done", "undone", "failed"] = "done" if task.done else not_done
        said = f"{task.by}: {task.reason}" if task.reason else task.by
        settle = Settle(thread_id=record.thread_id, key=task.key, status=status, error=task.reason, by=task.by)
        summary = f"{effect.label()} is {status}, says {task.by}"
        self._settling.add(task.key)
        try:
            settled = await store_call(SETTLE_EFFECT, settle, summary=summary, limits=record.limits)
        finally:
            self._settling.discard(task.key)
        record.enter(settled)
        agreed = settled.status == status
        record.settled[task.key] = (task.done, said) if agreed else (settled.status == "done", "the ledger")
        record.note(f"{effect.label()} is {status}, says {said}" + ("" if agreed else f"; it is {settled.status}"))
        record.journal.write_of(
            "effect.settled", effect, status=settled.status, by=task.by, why=task.reason, agreed=agreed
        )
        self._display.refresh()
        if not agreed:  # a late attempt was quicker, and left its receipt
            raise to_failure(Conflict(f"{effect.label()} is {settled.status}, says the ledger."))
        return settled

    async def _ask_hook(self, effect: Effect, by: str) -> Effect:
        """Settle an effect by what its tool's own hook tells. Raises Refused where that can't tell."""
        record = self._record
        self._settling.add(effect.key)
        try:
            saga = await load_saga(record, effect.turn)
            settled = await reconciled(record, effect, saga.tools, asked_by=by)
        finally:
            self._settling.discard(effect.key)
        if settled.status in OPEN or settled.status == "attempted":
            raise to_failure(Refused(f"{effect.reconcile} can't tell how {effect.label()} ended."))
        record.settled[effect.key] = (settled.status == "done", settled.settled_by or "the ledger")
        self._display.refresh()
        return settled

    @resolve_effect.validator
    def check_resolve(self, task: ResolveEffect) -> None:
        """Raise where there is nothing to settle; a thread that was just woken is asked again when it knows."""
        if not self._ready:
            return
        effect = self._record.effects.get(task.key)
        if effect is None:
            raise to_failure(EffectNotFound(f"Thread {self._record.thread_id} has no open effect {task.key}."))
        if effect not in self._record.attention():
            raise to_failure(Refused(f"{effect.label()} is {effect.status}; there is nothing to settle."))
        if task.done is None and not effect.reconcile:
            raise to_failure(Refused(f"{effect.tool} has no hook that tells how it ended.", hint="Say what holds."))
        if task.done is None and effect.status != "in_doubt":
            raise to_failure(Refused(f"{effect.label()} was done; its compensation failed.", hint="Say what holds."))
        if task.key in self._settling or self._record.compensating:
            raise to_failure(
                Refused(f"{effect.label()} is being dealt with right now.", hint="Look again in a moment.")
            )

    @workflow.update(name="extend_budget", description="Give the running turn more steps or tokens.")
    def extend_budget(self, task: ExtendBudget) -> Budget:
        """More room; a turn that waits for it goes on."""
        turn = self._record.turn
        assert turn is not None, "the validator checked it"
        turn.budget = extended(turn.budget, steps=task.steps, tokens=task.tokens)
        self._record.note(
            f"budget extended by {task.steps} steps, {task.tokens} tokens" + (f" by {task.by}" if task.by else "")
        )
        return turn.budget

    @extend_budget.validator
    def check_extend(self, task: ExtendBudget) -> None:
        """Raise where there is nothing to extend."""
        if self._record.turn is None:
            raise to_failure(Refused("No turn is running."))
        if task.steps < 0 or task.tokens < 0 or task.steps + task.tokens == 0:
            raise to_failure(InvalidInput("Give more steps or more tokens."))

    # ── time travel ──────────────────────────────────────────────────────────────────────────────────────────────

    @workflow.update(name="update_state", description="Write to the state between turns.")
    async def update_state(self, task: UpdateState) -> Committed:
        """Commit an update. A turn that runs, a lease, or another head than the writer knows refuse it."""
        await self._known()
        return await self._travels.write_state(task)

    @update_state.validator
    def check_update_state(self, task: UpdateState) -> None:
        """Raise where it is refused without a look at the state."""
        if self._ready:
            self._travels.check_update(task)

    @workflow.update(name="rewind", description="Move the head back to a checkpoint and undo what was done since.")
    async def rewind(self, task: Rewind) -> Rewound:
        """Undo, then move the head; a turn that runs is stopped for it once nothing speaks against the rewind."""
        await self._known()
        return await self._travels.rewind(task, self._stop_for_rewind)

    @rewind.validator
    def check_rewind(self, task: Rewind) -> None:
        """Raise where it is refused without a look at the ledger."""
        if self._ready:
            self._travels.check_rewind(task)

    async def _stop_for_rewind(self, reason: str) -> None:
        running = self._record.turn
        self._stop(reason, compensate=False)
        await workflow.wait_condition(lambda: self._record.turn is None or self._record.turn is not running)

    @workflow.update(name="resume", description="Go on with what follows the head.")
    async def resume(self, task: Resume) -> StatusAnswer:
        """Let the thread go on; answered once it does."""
        await self._known()
        self._travels.check_resume(task)
        self._record.go_on, self._record.asked_by = True, task.by
        self._record.note("goes on" + (f", says {task.by}" if task.by else ""))
        await workflow.wait_condition(lambda: not self._record.go_on)
        return answers.status(self._record)

    @resume.validator
    def check_resume(self, task: Resume) -> None:
        """Raise where nothing waits to go on."""
        if self._ready:
            self._travels.check_resume(task)

    @workflow.update(name="promote", description="Make the plan of a dry run the thread's next turn.")
    async def promote(self, task: Promote) -> StatusAnswer:
        """Begin the turn; its calls ask for their approvals anew."""
        await self._known()
        await self._travels.promote(task)
        self._display.refresh()
        return answers.status(self._record)

    @promote.validator
    def check_promote(self, task: Promote) -> None:
        """Raise where no turn can begin now."""
        if self._ready:
            self._travels.check_promote(task)

    @workflow.update(name="answer", description="Answer the question of a human node.")
    async def answer(self, said: Answer) -> StatusAnswer:
        """Take an answer that fits; one that doesn't changes nothing."""
        await take_answer(self._record, said)
        self._display.refresh()
        return answers.status(self._record)

    @answer.validator
    def check_answer(self, said: Answer) -> None:
        """Raise where nobody asks."""
        check_answer(self._record, said)

    @workflow.signal(name="answer", description='Answer a question: {"question_id", "by", "value"}; see the details.')
    async def answer_signal(self, *args: Any) -> None:
        """The unacknowledged form. What doesn't fit is noted in the thread's log."""
        try:
            said = Answer.model_validate(_decoded(args))
            check_answer(self._record, said)
            await take_answer(self._record, said)
        except (ValueError, TypeError, ApplicationError) as error:
            self._record.note(f"answer refused: {str(error)[:200]}")
        self._display.refresh()

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────

    @workflow.update(name="acquire_lease", description="Get the exclusive right to write to the thread for a while.")
    async def acquire_lease(self, task: LeaseRequest) -> Lease:
        """A lease with its token. Refused while somebody else holds one."""
        await self._known()
        return await self._travels.lease(acquire, task.holder or "somebody", str(workflow.uuid4()), task.seconds)

    @acquire_lease.validator
    def check_acquire_lease(self, task: LeaseRequest) -> None:
        """Only that it is one: without a validator, an update that can't be read would fail the workflow's task."""

    @workflow.update(name="renew_lease", description="Hold the lease for longer.")
    async def renew_lease(self, task: LeaseRequest) -> Lease:
        """The same lease, for longer. Refused if it has run out."""
        await self._known()
        return await self._travels.lease(renew, task.token, task.seconds)

    @renew_lease.validator
    def check_renew_lease(self, task: LeaseRequest) -> None:
        """Only that it is one: without a validator, an update that can't be read would fail the workflow's task."""

    @workflow.update(name="release_lease", description="Give the lease back.")
    async def release_lease(self, task: LeaseRequest) -> bool:
        """Whether it was held."""
        await self._known()
        return await self._travels.release(task.token)

    @release_lease.validator
    def check_release_lease(self, task: LeaseRequest) -> None:
        """Only that it is one: without a validator, an update that can't be read would fail the workflow's task."""

    @workflow.update(name="close", description="Take no more messages; the running turn is finished first.")
    async def close(self) -> None:
        """Close the thread for good."""
        await self._known()
        self._record.closing = True

    async def _known(self) -> None:
        """Wait until the workflow knows where its thread stands. Raises where it can't be taken up."""
        await workflow.wait_condition(lambda: self._ready)
        if self._refused is not None:
            raise self._refused.failure()

    def details(self) -> str:
        """What Temporal's UI shows as current details (see ``perdure.workflows.looking``)."""
        return details(self._record)

    # ── queries ──────────────────────────────────────────────────────────────────────────────────────────────────

    @workflow.query(name="checkpoint", description="The current checkpoint, with the state while it is small.")
    def checkpoint(self) -> CheckpointAnswer:
        """Where the thread stands. Never asks a database."""
        return answers.checkpoint(self._record)

    @workflow.query(name="status", description="What the thread does, what it waits for, what happened lately.")
    def status(self) -> StatusAnswer:
        """The thread for people."""
        return answers.status(self._record)

    @workflow.query(name="approvals", description="Approval requests, and decisions that were refused.")
    def approvals(self) -> ApprovalsAnswer:
        """Open requests, those closed lately, refused decisions with their reasons."""
        return answers.approvals(self._record)

    @workflow.query(name="effects", description="The ledger: what was done outside, under which key.")
    def effects(self) -> EffectsAnswer:
        """The newest entries; the store has all."""
        return EffectsAnswer(effects=tuple(self._record.effects.values()))


def _decoded(args: tuple[Any, ...]) -> Any:
    """The one value of a signal, whatever was sent (see ``perdure.wire``). Raises ValueError."""
    if len(args) != 1:
        raise ValueError(f"one value is expected, not {len(args)}")
    if isinstance(args[0], RawValue):
        raise ValueError(f"not JSON: {args[0].payload.data[:100]!r}")
    return args[0]


def _because(task: Compensate) -> str:
    by = f" by {task.by}" if task.by else ""
    return f"compensated{by}" + (f": {task.reason}" if task.reason else "")
