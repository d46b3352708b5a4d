"""One turn: the interpreter of an agent's graph, from a message to its answer or its rollback."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from perdure.budget import exceeded
from perdure.contracts import (
    LOOK_UP,
    MERGE_STEP,
    OPEN_TURN,
    RESUME_TURN,
    LookUp,
    MergeStep,
    OpenTurn,
    Part,
    ResumedTurn,
    ResumeTurn,
    Send,
    TurnResult,
)
from perdure.effects import Residue
from perdure.failures import describe, root
from perdure.workflows.calls import error_type, store_call
from perdure.workflows.display import Display
from perdure.workflows.record import Record, Stop, Stopped, Turn
from perdure.workflows.saga import left_open, load_saga, roll_back, rollback_message
from perdure.workflows.step import Step


class Refusal(Exception):
    """The thread can't be taken up, or the turn can't be opened; nothing was written."""

    def __init__(self, error: ActivityError) -> None:
        cause = root(error)
        super().__init__(str(error))
        self.kind = error_type(error) or "Failed"
        self.message = describe(cause)
        self.hint = str(next(iter(getattr(cause, "details", ())), ""))

    def failure(self) -> ApplicationError:
        """As the caller gets it."""
        return ApplicationError(self.message, self.hint, type=self.kind, non_retryable=True)


async def look_up(record: Record) -> list[Send]:
    """Take a thread up where the store has it; the waiting messages that it knew. Raises Refusal."""
    try:
        ask = LookUp(thread_id=record.thread_id)
        found = await store_call(LOOK_UP, ask, summary="where does it stand?", limits=record.limits)
        repeated = record.found(found)
        await left_open(record, found.orphaned)
    except ActivityError as error:
        raise Refusal(error) from error
    return repeated


async def open_turn(record: Record, message: Send) -> None:
    """Commit the message and take the agent's specification as it is now. Raises Refusal."""
    record.turn_number += 1
    task = OpenTurn(commit=record.commit(), agent=record.agent, tenant=record.tenant, message=message)
    try:
        opened = await store_call(OPEN_TURN, task, summary=f"open turn: {message.content[:80]}", limits=record.limits)
    except ActivityError as error:
        record.turn_number -= 1
        raise Refusal(error) from error
    record.advance(opened.committed)
    record.failed, record.limits = False, opened.spec.limits
    record.turn = Turn(
        number=record.turn_number,
        spec=opened.spec,
        budget=opened.spec.budget,
        message_ids=(message.id,),
        requesters=(message.sender,) if message.sender else (),
    )


async def resume_turn(record: Record) -> None:
    """Take up what follows the head, with the agent as it is now. Raises Refusal."""
    assert record.head is not None, "something follows it"
    task = ResumeTurn(thread_id=record.thread_id, agent=record.agent, head=record.head, branch=record.branch)
    summary = f"go on with {', '.join(record.next)}"
    try:
        resumed = await store_call(RESUME_TURN, task, summary=summary, limits=record.limits)
    except ActivityError as error:
        raise Refusal(error) from error
    begin(record, resumed)


def begin(record: Record, resumed: ResumedTurn) -> None:
    """Begin the turn of what follows the head."""
    record.failed, record.limits = False, resumed.spec.limits
    asked_by = (*resumed.requesters, *((record.asked_by,) if record.asked_by else ()))
    record.turn = Turn(
        number=record.turn_number,
        spec=resumed.spec,
        budget=resumed.spec.budget,
        planned=dict(resumed.calls),
        requesters=tuple(dict.fromkeys(asked_by)),
    )
    record.asked_by = ""


class TurnRunner:
    """Interprets the graph of a turn that was opened, taken up, or carried over."""

    def __init__(self, record: Record, turn: Turn, display: Display) -> None:
        self._record = record
        self._turn = turn
        self._display = display
        self._step: Step | None = None

    async def run(self) -> TurnResult:
        """To the end of the turn; a stop on the way rolls back what it did outside."""
        self._display.refresh()
        try:
            while self._record.next:
                await self._room()
                await self._boundary()
                self._step = Step(self._record, self._turn, self._display)
                await self._step.run()
                self._turn.steps += 1
                self._display.refresh()
        except Stopped:
            return await self._unwind(self._step)
        self._record.note("answered")
        return self._result("answered", answer=self._turn.answer, note=self._turn.note)

    # ── between steps ────────────────────────────────────────────────────────────────────────────────────────────

    async def _room(self) -> None:
        """Wait for more budget where it is used up. Raises Stopped if the turn is to end."""
        record, turn = self._record, self._turn
        while not record.stop and (limit := exceeded(turn.budget, turn.steps, turn.usage)):
            record.out_of_budget = limit
            record.note(f"out of budget: {limit}")
            self._display.refresh()
            await workflow.wait_condition(
                lambda: record.stop is not None or not exceeded(turn.budget, turn.steps, turn.usage)
            )
        record.out_of_budget = ""
        if record.stop:
            raise Stopped

    async def _boundary(self) -> None:
        """Continue as new where the history has grown long. Only before a model call: nothing is pending then."""
        if self._turn.planned or not history_is_long(self._turn.spec.limits.history_events):
            return
        # A handler may wait for the end of this very turn (`compensate` of an earlier one): then not now.
        if workflow.all_handlers_finished() and self._record.journal.is_written:
            workflow.continue_as_new(self._record.carry())

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _unwind(self, step: Step | None) -> TurnResult:
        """Undo what the turn did, and leave a conversation in which every call has an answer."""
        record, stop = self._record, self._record.stop or Stop(kind="failed", reason="stopped")
        record.book.withdraw_all(workflow.now())
        record.journal.take()
        record.note(f"turn {stop.kind}: {stop.reason}")
        left, incomplete = Residue(), ""
        try:
            if stop.compensate:
                saga = await load_saga(record, self._turn.number)
                left = await roll_back(record, self._display, saga, self._turn.spec, stop.reason)
            said = rollback_message(stop.reason, left) if stop.compensate else f"This turn was stopped: {stop.reason}."
            note = "rolled_back" if stop.compensate else "stopped"
            parts = tuple(part for part in step.parts if part.call_id) if step else ()
            # An attempt of the step under way that was given up may commit it all the same.
            await commit_note(record, said, note, parts, after=step.checkpoint_id if step else "")
        except ActivityError as error:
            incomplete = f"; the rollback is incomplete: {describe(root(error))}"
            record.note(incomplete[2:])
        return self._result(stop.kind, error=stop.reason + incomplete, error_type=stop.error_type, residue=left)

    def _result(self, outcome: str, **more: object) -> TurnResult:
        turn = self._turn
        return TurnResult.model_validate(
            {
                "turn": turn.number,
                "outcome": outcome,
                "message_ids": turn.message_ids,
                "steps": turn.steps,
                "usage": turn.usage,
            }
            | {name: value for name, value in more.items() if value}
        )


async def commit_note(record: Record, said: str, note: str, parts: tuple[Part, ...] = (), *, after: str = "") -> None:
    """A checkpoint of source ``compensation``: answers for calls that have none, and what the model should know."""
    merge = MergeStep(
        commit=record.commit(), source="compensation", agent=record.agent, parts=parts, say=said, note=note, after=after
    )
    try:
        done = await store_call(MERGE_STEP, merge, summary="note the rollback", limits=record.limits)
    except ActivityError as error:
        if error_type(error) != "ConcurrentModification":
            raise
        # Temporal's reset took the workflow back behind what is stored: the note goes on top of that.
        ask = LookUp(thread_id=record.thread_id)
        record.found(await store_call(LOOK_UP, ask, summary="where does it stand?", limits=record.limits))
        merge = merge.model_copy(update={"commit": record.commit(), "parts": ()})
        done = await store_call(MERGE_STEP, merge, summary="note the rollback", limits=record.limits)
    record.advance(done)


def history_is_long(limit: int) -> bool:
    """Whether this run should give way to a new one."""
    info = workflow.info()
    return info.is_continue_as_new_suggested() or info.get_current_history_length() >= limit
