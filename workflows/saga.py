"""Rollback: compensating what a turn did outside, in reverse order of completion."""

from collections.abc import Mapping

from temporalio import workflow
from temporalio.exceptions import ActivityError

from perdure.approvals import stamp
from perdure.contracts import (
    LOAD_SAGA,
    SETTLE_EFFECT,
    AgentSpec,
    Saga,
    SagaQuery,
    Settle,
    ToolSpec,
    Undo,
    undo_stub,
)
from perdure.effects import Effect, Residue, residue, to_undo
from perdure.failures import describe, root
from perdure.workflows.calls import start_undo, store_call
from perdure.workflows.display import Display
from perdure.workflows.record import Record


async def load_saga(record: Record, turn: int | None) -> Saga:
    """The effects of a turn from the ledger in the store: it knows also what earlier runs of the workflow did."""
    query = SagaQuery(thread_id=record.thread_id, turn=turn)
    return await store_call(LOAD_SAGA, query, summary="what is there to undo?", limits=record.limits)


async def roll_back(record: Record, display: Display, saga: Saga, spec: AgentSpec | None) -> Residue:
    """Undo the saga and report what is left. One failed compensation doesn't stop the others."""
    record.compensating = True
    display.refresh()
    try:
        left = {effect.key: effect for effect in saga.effects}
        tools = saga.tools | (dict(spec.tools) if spec else {})
        for effect in to_undo(saga.effects):
            left[effect.key] = await _undo(record, effect, tools)
            record.enter(left[effect.key])
            display.refresh()
        # What is in doubt in the workflow's own ledger is in doubt, whatever the store saw last.
        left |= {e.key: e for e in record.effects.values() if e.status == "in_doubt" and e.turn == saga.turn}
        return residue(left.values())
    finally:
        record.compensating = False


async def _undo(record: Record, effect: Effect, tools: Mapping[str, ToolSpec]) -> Effect:
    undo = Undo(
        thread_id=record.thread_id,
        agent=record.agent,
        key=effect.key,
        tool=effect.tool,
        compensation=effect.compensation,
    )
    try:
        handle = start_undo(
            undo_stub(effect.compensation), undo, tools.get(effect.compensation, ToolSpec()),
            summary=f"undo {effect.label()}", limits=record.limits,
        )  # fmt: skip
        done = await handle
        record.note(f"undone: {effect.label()}")
        return done
    except ActivityError as error:
        why = describe(root(error))
        record.note(f"could not undo {effect.label()}: {why}")
        settle = Settle(thread_id=record.thread_id, key=effect.key, status="needs_attention", error=why)
        await store_call(SETTLE_EFFECT, settle, summary=f"{effect.label()} needs attention", limits=record.limits)
        return effect.model_copy(update={"status": "needs_attention", "error": why})


def rollback_message(reason: str, left: Residue) -> str:
    """What the conversation keeps of a rollback, so that the model knows what is true."""
    return " ".join([f"This turn was stopped and rolled back: {reason}.", *left.lines()])


def stamp_now() -> str:
    """Now, as records have it."""
    return stamp(workflow.now())
