"""Activities on the ledger: what is known of an effect, what a turn did, and undoing it."""

import json
from datetime import UTC, datetime

from temporalio import activity

from perdure.activities.invoke import invoke
from perdure.activities.records import Record, text_of
from perdure.activities.runtime import Runtime
from perdure.approvals import stamp
from perdure.audit import AuditEntry
from perdure.canonical import Json
from perdure.context import ToolContext
from perdure.contracts import (
    INSPECT_EFFECT,
    LOAD_SAGA,
    SETTLE_EFFECT,
    InspectEffect,
    Known,
    Reconcile,
    Saga,
    SagaQuery,
    Settle,
    Undo,
)
from perdure.effects import Effect, together, undo_key
from perdure.errors import EffectNotFound, InvalidInput
from perdure.outcome import Outcome
from perdure.stores.base import EffectRow, Receipt
from perdure.tool import MAX_OUTPUT, Tool
from perdure.travel import still_held


class EffectActivities:
    """The ledger as the workflow uses it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=INSPECT_EFFECT.name)
    async def inspect_effect(self, task: InspectEffect) -> Known:
        """What the ledger knows of an effect whose attempts ended without a clear answer."""
        row = await self._runtime.store.effect(task.thread_id, task.key)
        return _known(row) if row else Known(status="registered")

    @activity.defn(name=LOAD_SAGA.name)
    async def load_saga(self, task: SagaQuery) -> Saga:
        """The effects of a turn and of the sagas that it took part in, or of one saga (of the whole thread: all).

        Without either, of the latest turn that has something to undo.

        What a rewind has left behind is not among them: it was undone then, or kept on purpose.
        """
        rows = await self._runtime.store.effects(task.thread_id)
        held = await still_held(self._runtime.store, task.thread_id, [row.entry for row in rows])
        turn, effects = together(held, task.turn, task.saga)
        known = self._runtime.app.tools
        named = {name for e in effects for name in (e.tool, e.compensation, e.reconcile)}
        return Saga(turn=turn, effects=effects, tools={name: known[name].spec for name in sorted(named & known.keys())})

    @activity.defn(name=SETTLE_EFFECT.name)
    async def settle_effect(self, task: Settle) -> Effect:
        """Write down what is known of an effect. Raises EffectNotFound."""
        await self._row(task.thread_id, task.key)
        await self._runtime.store.settle(task.thread_id, task.key, task.status, error=task.error, by=task.by)
        return (await self._row(task.thread_id, task.key)).entry

    async def undo(self, task: Undo) -> Effect:
        """Compensate one effect, once: a compensation that is recorded as done doesn't run again, and what is not
        known to be done is not undone, whoever asks."""
        row = await self._row(task.thread_id, task.key)
        if row.entry.status not in ("done", "needs_attention"):
            return row.entry
        tool = self._runtime.tool(row.entry.compensation)  # not as the task names it: it could name any tool
        await _invoke(tool, row, _context(row, undo_key(task.key)))
        await self._runtime.store.settle(task.thread_id, task.key, "undone")
        return (await self._row(task.thread_id, task.key)).entry

    async def reconcile(self, task: Reconcile) -> Known:
        """Ask a tool's hook how a call ended, and write that down. Raises InvalidInput where it returns no Outcome."""
        row = await self._row(task.thread_id, task.key)
        if row.entry.status not in ("attempted", "in_doubt"):
            return _known(row)
        hook, made = self._runtime.tool(row.entry.reconcile), self._runtime.tool(row.entry.tool)
        context = _context(row, task.key)
        outcome = await _invoke(hook, row, context)
        if not isinstance(outcome, Outcome):
            raise InvalidInput(f"{hook.name} returned {type(outcome).__name__}, and must return an Outcome.")
        store = self._runtime.store
        if context.joined:  # the call may not have come to say it
            await store.join_saga(task.thread_id, task.key, context.joined)
        if outcome.known == "done":
            returned = json.loads(made.dump(outcome.result))
            record = Record(ok=True, content=text_of(returned)[:MAX_OUTPUT], returned=returned)
            await store.finish(task.thread_id, Receipt(key=task.key, result=record.dump()), by=hook.name)
        elif outcome.known == "not_done":
            await store.settle(task.thread_id, task.key, "failed", error="It was not done.", by=hook.name)
        return _known(await self._row(task.thread_id, task.key), by=hook.name)

    async def finish_late(self, thread_id: str, receipt: Receipt) -> None:
        """A call has returned, be it after its step was over or somebody had said how it ended: the ledger must know,
        and the audit where that contradicts what was taken for true."""
        store = self._runtime.store
        row = await store.effect(thread_id, receipt.key)
        if row is None or row.entry.status not in ("attempted", "failed", "in_doubt"):
            return
        await store.finish(thread_id, receipt)
        if row.entry.status == "attempted":
            return
        body: dict[str, Json] = {
            "key": receipt.key, "tool": row.entry.tool, "summary": row.entry.label(), "status": "done",
            "taken_for": row.entry.status, "contradicts": row.entry.settled_by,
        }  # fmt: skip
        line = AuditEntry(id=f"late-{receipt.key}", at=stamp(datetime.now(UTC)), kind="effect.late", body=body)
        await store.append_audit(thread_id, [line])

    async def _row(self, thread_id: str, key: str) -> EffectRow:
        row = await self._runtime.store.effect(thread_id, key)
        if row is None:
            raise EffectNotFound(f"Thread {thread_id} has no effect {key}.")
        return row


def _known(row: EffectRow, *, by: str = "") -> Known:
    return Known(status=row.entry.status, error=row.entry.error, by=by, answered=row.receipt is not None)


def _context(row: EffectRow, key: str) -> ToolContext:
    entry, attempt = row.entry, activity.info().attempt
    return ToolContext(
        thread_id=row.thread_id, turn=entry.turn, step=entry.step, idempotency_key=key, attempt=attempt
    )  # fmt: skip


async def _invoke(tool: Tool, row: EffectRow, context: ToolContext) -> object:
    """Call a compensation or a hook with what the effect left."""
    return await invoke(tool.function, tool.bind(context, _arguments(tool, row)), tool.spec.timeout)


def _arguments(tool: Tool, row: EffectRow) -> dict[str, object]:
    """What a compensation takes, validated: of the call's own arguments and its receipt, whatever it asks for."""
    offered = json.loads(row.arguments) | {"receipt": Record.read(row.receipt).returned if row.receipt else None}
    wanted = {name: value for name, value in offered.items() if name in tool.parameters}
    try:
        arguments = tool.arguments.model_validate(wanted)
    except ValueError as error:
        raise InvalidInput(f"{tool.name} can't take what {row.entry.tool} left: {error}") from error
    return {name: getattr(arguments, name) for name in tool.parameters}
