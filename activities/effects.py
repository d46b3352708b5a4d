"""Activities on the ledger: what is known of an effect, what a turn did, and undoing it."""

import json

from temporalio import activity

from perdure.activities.invoke import invoke
from perdure.activities.records import Record
from perdure.activities.runtime import Runtime
from perdure.contracts import (
    INSPECT_EFFECT,
    LOAD_SAGA,
    SETTLE_EFFECT,
    InspectEffect,
    Known,
    Saga,
    SagaQuery,
    Settle,
    Undo,
)
from perdure.effects import Effect, to_undo, undo_key
from perdure.errors import EffectNotFound, InvalidInput
from perdure.stores.base import EffectRow
from perdure.tool import Tool, ToolContext
from perdure.travel import gone_on_from, line


class EffectActivities:
    """The ledger as the workflow uses it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=INSPECT_EFFECT.name)
    async def inspect_effect(self, task: InspectEffect) -> Known:
        """What the ledger knows of an effect whose attempts ended without a clear answer."""
        row = await self._runtime.store.effect(task.thread_id, task.key)
        return Known(status=row.entry.status, error=row.entry.error) if row else Known(status="registered")

    @activity.defn(name=LOAD_SAGA.name)
    async def load_saga(self, task: SagaQuery) -> Saga:
        """The effects of a turn; without a number, of the latest turn that has something to undo.

        What a rewind has left behind is not among them: it was undone then, or kept on purpose.
        """
        rows = await self._runtime.store.effects(task.thread_id, task.turn)
        on_line = await self._on_line(task.thread_id, {row.entry.checkpoint_id: row.entry.step for row in rows})
        rows = [row for row in rows if row.entry.checkpoint_id in on_line]
        undoable = to_undo(row.entry for row in rows)
        turn = task.turn if task.turn is not None else max((entry.turn for entry in undoable), default=0)
        known = self._runtime.app.tools
        wanted = sorted({entry.compensation for entry in undoable if entry.turn == turn} & known.keys())
        return Saga(
            turn=turn, effects=tuple(row.entry for row in rows if row.entry.turn == turn),
            tools={name: known[name].spec for name in wanted},
        )  # fmt: skip

    async def _on_line(self, thread_id: str, made_at: dict[str, int]) -> set[str]:
        """Those of the checkpoints (id -> step) that the thread has gone on from."""
        store = self._runtime.store
        row = await store.thread(thread_id)
        if row is None or row.branch == 0:  # never rewound: there is one line only
            return set(made_at)
        oldest = min(made_at.values(), default=0)
        return gone_on_from([step async for step in line(store, thread_id, row.head_id, down_to=oldest)])

    @activity.defn(name=SETTLE_EFFECT.name)
    async def settle_effect(self, task: Settle) -> Effect:
        """Write down what is known of an effect. Raises EffectNotFound."""
        await self._row(task.thread_id, task.key)
        await self._runtime.store.settle(task.thread_id, task.key, task.status, error=task.error, by=task.by)
        return (await self._row(task.thread_id, task.key)).entry

    async def undo(self, task: Undo) -> Effect:
        """Compensate one effect, once: a compensation that is recorded as done doesn't run again."""
        row = await self._row(task.thread_id, task.key)
        if row.entry.status == "undone":
            return row.entry
        tool = self._runtime.tool(task.compensation)
        context = ToolContext(
            thread_id=task.thread_id, turn=row.entry.turn, step=row.entry.step, idempotency_key=undo_key(task.key),
            attempt=activity.info().attempt,
        )  # fmt: skip
        await invoke(tool, tool.bind(context, _arguments(tool, row)))
        await self._runtime.store.settle(task.thread_id, task.key, "undone")
        return (await self._row(task.thread_id, task.key)).entry

    async def _row(self, thread_id: str, key: str) -> EffectRow:
        row = await self._runtime.store.effect(thread_id, key)
        if row is None:
            raise EffectNotFound(f"Thread {thread_id} has no effect {key}.")
        return row


def _arguments(tool: Tool, row: EffectRow) -> dict[str, object]:
    """What a compensation takes, validated: of the call's own arguments and its receipt, whatever it asks for."""
    offered = json.loads(row.arguments) | {"receipt": Record.read(row.receipt).returned if row.receipt else None}
    wanted = {name: value for name, value in offered.items() if name in tool.parameters}
    try:
        arguments = tool.arguments.model_validate(wanted)
    except ValueError as error:
        raise InvalidInput(f"{tool.name} can't take what {row.entry.tool} left: {error}") from error
    return {name: getattr(arguments, name) for name in tool.parameters}
