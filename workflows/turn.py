"""One turn: the interpreter of an agent's graph, from a message to its answer or its rollback."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.workflow import ActivityHandle

from perdure.budget import exceeded
from perdure.contracts import (
    END,
    LOOK_UP,
    MERGE_STEP,
    NOT_EXECUTED,
    OPEN_TURN,
    CallModel,
    LookUp,
    MergeStep,
    ModelDone,
    OpenTurn,
    Part,
    Send,
    TurnResult,
)
from perdure.effects import Residue
from perdure.failures import describe, root
from perdure.workflows.batch import Batch
from perdure.workflows.calls import error_type, give_up, start_model, store_call
from perdure.workflows.display import Display
from perdure.workflows.record import Record, Stop, Stopped, Turn
from perdure.workflows.saga import load_saga, roll_back, rollback_message


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
        return record.found(await store_call(LOOK_UP, ask, summary="where does it stand?", limits=record.limits))
    except ActivityError as error:
        raise Refusal(error) from error


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
        number=record.turn_number, node=opened.spec.start, spec=opened.spec, budget=opened.spec.budget,
        message_ids=(message.id,),
    )  # fmt: skip


class TurnRunner:
    """Interprets the graph of a turn that was opened, or carried over."""

    def __init__(self, record: Record, turn: Turn, display: Display) -> None:
        self._record = record
        self._turn = turn
        self._display = display
        self._parts: tuple[Part, ...] = ()
        self._under_way = ""  # the checkpoint of the step under way: an attempt that was given up may still commit it

    async def run(self) -> TurnResult:
        """To the end of the turn; a stop on the way rolls back what it did outside."""
        self._display.refresh()
        try:
            while self._turn.node != END:
                await self._room()
                await self._boundary()
                await self._step()
        except Stopped:
            return await self._unwind()
        self._record.note("answered")
        return self._result("answered", answer=self._turn.answer, note=self._turn.note)

    async def _step(self) -> None:
        node = self._turn.spec.nodes[self._turn.node]
        route = await (self._call_model() if node.kind == "model" else self._call_tools())
        if route not in node.routes:
            self._stop("failed", f"node {self._turn.node} has no route {route!r}", "DefinitionError")
            raise Stopped
        self._turn.node = node.routes[route]
        self._turn.steps += 1
        self._display.refresh()

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _call_model(self) -> str:
        turn, record = self._turn, self._record
        task = CallModel(
            commit=record.commit(turn.node), agent=record.agent, spec=turn.spec.digest, branch=record.branch
        )
        self._under_way = task.commit.checkpoint_id
        summary = f"turn {turn.number}, step {turn.steps + 1}: ask {turn.spec.model}"
        handle = start_model(task, turn.spec.model_call, summary=summary, limits=turn.spec.limits)
        done = await self._unless_stopped(handle)
        record.advance(done.committed)
        turn.usage = turn.usage.plus(done.usage)
        turn.planned, turn.answer, turn.note = done.calls, done.answer, done.note
        self._parts = tuple(Part(call_id=c.call_id, tool=c.tool, content=NOT_EXECUTED) for c in done.calls)
        asked = ", ".join(call.summary for call in done.calls)
        record.note(f"model{' (cached)' if done.usage.cached else ''}: {asked or done.answer[:80]}")
        return "tool_calls" if done.calls else "answer"

    async def _call_tools(self) -> str:
        batch = Batch(self._record, self._turn, self._display, self._turn.node)
        self._under_way = batch.checkpoint_id
        try:
            await batch.run()
        except Stopped:
            self._parts = tuple(batch.parts.values())
            raise
        self._turn.planned = self._parts = ()
        return "done"

    async def _unless_stopped(self, handle: ActivityHandle[ModelDone]) -> ModelDone:
        await workflow.wait_condition(lambda: handle.done() or self._record.stop is not None)
        if not handle.done():
            give_up(handle)
            raise Stopped
        try:
            return await handle
        except ActivityError as error:
            self._stop("failed", f"the model call failed: {describe(root(error))}", error_type(error))
            raise Stopped from error

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
        if workflow.all_handlers_finished():
            workflow.continue_as_new(self._record.carry())

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _unwind(self) -> TurnResult:
        """Undo what the turn did, and leave a conversation in which every call has an answer."""
        record, stop = self._record, self._record.stop or Stop(kind="failed", reason="stopped")
        record.book.withdraw_all(workflow.now())
        record.note(f"turn {stop.kind}: {stop.reason}")
        left, incomplete = Residue(), ""
        try:
            if stop.compensate:
                saga = await load_saga(record, self._turn.number)
                left = await roll_back(record, self._display, saga, self._turn.spec)
            said = rollback_message(stop.reason, left) if stop.compensate else f"This turn was stopped: {stop.reason}."
            note = "rolled_back" if stop.compensate else "stopped"
            await commit_note(record, said, note, self._parts, after=self._under_way)
        except ActivityError as error:
            incomplete = f"; the rollback is incomplete: {describe(root(error))}"
            record.note(incomplete[2:])
        return self._result(stop.kind, error=stop.reason + incomplete, error_type=stop.error_type, residue=left)

    def _stop(self, kind: str, reason: str, error_type: str) -> None:
        if self._record.stop is None:
            self._record.stop = Stop(
                kind="failed" if kind == "failed" else "cancelled", reason=reason, error_type=error_type
            )

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
