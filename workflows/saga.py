"""Rollback: compensating what a turn did outside, in reverse order of completion."""

import asyncio
from collections.abc import Mapping

from temporalio import workflow
from temporalio.exceptions import ActivityError

from perdure.approvals import stamp
from perdure.contracts import (
    LOAD_SAGA,
    SETTLE_EFFECT,
    AgentSpec,
    Reconcile,
    Saga,
    SagaQuery,
    Settle,
    ToolSpec,
    Undo,
    reconcile_stub,
    undo_stub,
)
from perdure.effects import THREAD, Effect, Residue, residue, to_ask, to_undo, undo_order
from perdure.failures import describe, root
from perdure.workflows.calls import start_tool, store_call
from perdure.workflows.display import Display
from perdure.workflows.record import Record


async def load_saga(record: Record, turn: int | None, saga: str = "") -> Saga:
    """What belongs together, from the ledger in the store: it knows also what earlier runs of the workflow did."""
    query = SagaQuery(thread_id=record.thread_id, turn=turn, saga=saga)
    return await store_call(LOAD_SAGA, query, summary="what is there to undo?", limits=record.limits)


async def roll_back(record: Record, display: Display, saga: Saga, spec: AgentSpec | None, why: str) -> Residue:
    """Undo the saga and report what is left. One failed compensation doesn't stop the others.

    What is in doubt is reconciled first: only what is known to be done is undone.
    """
    record.compensating = True
    _follow(record, saga)
    display.refresh()
    tools = saga.tools | (dict(spec.tools) if spec else {})
    try:
        left = {effect.key: effect for effect in saga.effects}
        for effect in to_ask(saga.effects):
            left[effect.key] = await reconciled(record, effect, tools)
        left |= await _undo_all(record, display, to_undo(left.values()), tools)
        found = residue(left.values())
        if left:
            record.journal.write("saga.rolled_back", turn=saga.turn, why=why, **found.model_dump(mode="json"))
        return found
    finally:
        record.compensating = False


def _follow(record: Record, saga: Saga) -> None:
    """The ledger knows better: an attempt that was given up may have come to its end since."""
    for effect in saga.effects:
        if effect.key in record.effects and effect.status != "attempted":
            record.enter(effect)


async def _undo_all(
    record: Record, display: Display, effects: list[Effect], tools: Mapping[str, ToolSpec]
) -> dict[str, Effect]:
    """Each as soon as those are through that it waits for."""
    waits = undo_order(effects, {name: spec.undo_after for name, spec in tools.items()})
    through: dict[str, Effect] = {}

    async def undo(effect: Effect) -> None:
        await workflow.wait_condition(lambda: waits[effect.key] <= through.keys())
        through[effect.key] = await _undo(record, effect, tools)
        record.enter(through[effect.key])
        display.refresh()

    await asyncio.gather(*(undo(effect) for effect in effects))
    return through


async def left_open(record: Record, keys: tuple[str, ...]) -> None:
    """What an earlier workflow had under way when it ended is in doubt; its tool's own hook is asked first."""
    orphaned = [record.effects[key] for key in keys if key in record.effects]
    for effect in orphaned:
        doubt(record, effect)
    if any(effect.reconcile for effect in orphaned):
        tools = (await load_saga(record, None, THREAD)).tools
        for effect in (effect for effect in orphaned if effect.reconcile):
            await reconciled(record, effect, tools)


def doubt(record: Record, effect: Effect) -> None:
    """Tell that nobody knows how an effect ended."""
    record.note(f"in doubt: {effect.label()}")
    record.journal.write_of("effect.in_doubt", effect, error=effect.error)


async def reconciled(record: Record, effect: Effect, tools: Mapping[str, ToolSpec], *, asked_by: str = "") -> Effect:
    """Ask the tool's own hook how the effect ended; what is known then is in the ledger. Unknown stays as it was."""
    task = Reconcile(
        thread_id=record.thread_id, agent=record.agent, key=effect.key, tool=effect.tool, reconcile=effect.reconcile
    )
    spec = tools.get(effect.reconcile, ToolSpec())
    summary = f"was it done? {effect.label()}"
    try:
        known = await start_tool(reconcile_stub(effect.reconcile), task, spec, summary=summary, limits=record.limits)
    except ActivityError as error:
        record.note(f"{effect.reconcile} can't tell of {effect.label()}: {describe(root(error))}")
        return effect if effect.status != "registered" else effect.model_copy(update={"status": "attempted"})
    if known.status in ("attempted", "in_doubt"):
        record.note(f"{effect.reconcile} can't tell of {effect.label()}")
        return effect.model_copy(update={"status": known.status})
    record.note(f"{known.by or 'the ledger'} says: {effect.label()} is {known.status}")
    record.journal.write_of("effect.reconciled", effect, status=known.status, by=known.by, asked_by=asked_by)
    told = {"status": known.status, "error": known.error, "settled_by": known.by}
    settled = effect.model_copy(update=told | {"finished_at": effect.finished_at or stamp_now()})
    if effect.key in record.effects:
        record.enter(settled)
    return settled


async def _undo(record: Record, effect: Effect, tools: Mapping[str, ToolSpec]) -> Effect:
    undo = Undo(
        thread_id=record.thread_id,
        agent=record.agent,
        key=effect.key,
        tool=effect.tool,
        compensation=effect.compensation,
    )
    try:
        handle = start_tool(
            undo_stub(effect.compensation), undo, tools.get(effect.compensation, ToolSpec()),
            summary=f"undo {effect.label()}", limits=record.limits,
        )  # fmt: skip
        done = await handle
        record.note(f"undone: {effect.label()}")
        return done
    except ActivityError as error:
        why = describe(root(error))
        record.note(f"could not undo {effect.label()}: {why}")
        record.journal.write_of("effect.needs_attention", effect, error=why)
        settle = Settle(thread_id=record.thread_id, key=effect.key, status="needs_attention", error=why)
        summary = f"{effect.label()} needs attention"
        return await store_call(SETTLE_EFFECT, settle, summary=summary, limits=record.limits)


def rollback_message(reason: str, left: Residue) -> str:
    """What the conversation keeps of a rollback, so that the model knows what is true."""
    return " ".join([f"This turn was stopped and rolled back: {reason}.", *left.lines()])


def stamp_now() -> str:
    """Now, as records have it."""
    return stamp(workflow.now())
