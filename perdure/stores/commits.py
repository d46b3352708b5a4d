"""What a SQL store does in one transaction for a step. The head is the fence.

SQLite lets one writer in at a time. On PostgreSQL the row of the thread is what everybody waits for: a commit changes
it, and a call that relies on a head (``perdure.stores.attempts``) locks it against that until its own transaction ends.
"""

from collections.abc import Mapping

from perdure.canonical import Json
from perdure.stores import attempts, ledger, refusals, rows
from perdure.stores.base import CachedResult, Step
from perdure.stores.database import Call, Transaction
from perdure.stores.rows import Row, now


async def commit(tx: Transaction, step: Step) -> bool:
    """See ``perdure.stores.base.Store.commit``."""
    values = rows.checkpoint_values(step)
    c = step.checkpoint
    orphan = int(c.parent_id is None or c.cut)
    moving, adding = await _to_head(tx, step), ("add_checkpoint", values | {"orphan": orphan})
    looks = [attempts.look(c.thread_id, step.receipt.key)] if step.receipt else []
    answers = await tx.together(*moving, adding, *looks)
    moved, added = (answer.changed for answer in answers[len(moving) - 1 : len(moving) + 1])
    if not (moved and added):
        await tx.rollback()  # the head stays
        if await _is_there(tx, step):
            return False
        raise refusals.no_parent(step) if moved else refusals.head_moved(step, await head_of(tx, c.thread_id))
    add_labels(tx, values, c.metadata)
    put_snapshot(tx, step)
    if step.result:
        put_result(tx, step.result)
    if step.receipt:
        attempts.move_seen(tx, answers[-1].rows, ledger.finish(step.receipt.result, now()))
    if step.clears:
        tx.later("clear_receipts", thread_id=c.thread_id, keys=[key.encode() for key in step.clears])
    return True


async def _to_head(tx: Transaction, step: Step) -> list[Call]:
    """What makes the step's checkpoint the head if the head is what the step extends."""
    values, origin = rows.thread_values(step), step.checkpoint.parent_thread
    if step.extends:
        return [("move_head", values)]
    if origin:  # nobody may remove what the fork begins with until it is there
        await tx.one("thread_to_rely_on", thread_id=origin)
    return [("add_number", values), ("add_thread", values)]


async def _is_there(tx: Transaction, step: Step) -> bool:
    """Whether this very checkpoint was committed before. Raises ConcurrentModification where it had other content."""
    c = step.checkpoint
    found = await tx.one("checkpoint", thread_id=c.thread_id, checkpoint_id=rows.stored_id(c.id))
    if found is None:
        return False
    if found["digest"].hex() != c.digest:
        raise refusals.other_content(step, await head_of(tx, c.thread_id))
    return True


def add_labels(tx: Transaction, row: Row, metadata: Mapping[str, Json]) -> None:
    """Let the checkpoint in this row be found by its metadata."""
    for label in rows.labels(metadata):
        tx.later("add_label", **{**row, "label": label})


def put_snapshot(tx: Transaction, step: Step) -> None:
    """Keep the step's snapshot, if it has one."""
    if step.snapshot:
        tx.later("put_snapshot", **rows.snapshot_values(step.checkpoint.thread_id, step.snapshot))


def put_result(tx: Transaction, result: CachedResult) -> None:
    """Keep a result in the place of an older one. One that will expire takes away those that have."""
    if result.expires_at:
        tx.later("delete_expired", now_ms=rows.milliseconds(now()))
    tx.later("put_result", **rows.result_values(result))


async def head_of(tx: Transaction, thread_id: str) -> str:
    """The head; empty where there is no thread."""
    row = await tx.one("thread", thread_id=thread_id)
    return rows.thread(row).head_id if row else ""
