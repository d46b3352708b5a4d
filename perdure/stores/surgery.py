"""What a SQL store does to a whole thread, or to its past, in one transaction: restore, remove, copy, delete."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from perdure.canonical import canonical
from perdure.checkpoint import Checkpoint
from perdure.errors import IntegrityError
from perdure.stores import records, refusals, rows
from perdure.stores.base import Snapshot, Step
from perdure.stores.commits import add_labels, put_snapshot
from perdure.stores.database import Transaction
from perdure.stores.records import Link
from perdure.stores.rows import Row

_PAGE = 500  # rows read, or named in a statement, at once
FIRST: Row = {"step": -(2**31), "checkpoint_id": b""}  # what comes before every checkpoint


def following(thread_id: str, after: Row) -> dict[str, Any]:
    """What the query ``walk`` takes to give the page of rows that follows a row."""
    return {"thread_id": thread_id, "limit": _PAGE, "step": after["step"], "checkpoint_id": after["checkpoint_id"]}


async def restore(tx: Transaction, step: Step, *, head: bool) -> None:
    """See ``perdure.stores.base.Store.restore``."""
    c = step.checkpoint
    values = rows.checkpoint_values(step)
    await tx.run("add_number", thread_id=c.thread_id)
    found = await tx.one("checkpoint", **values)
    if found is not None and _is_whole(found, c):
        add_labels(tx, found, rows.checkpoint(found).metadata)
    else:
        await tx.run("delete_damaged", **values)
        await tx.run("add_checkpoint", **values, orphan=1)
        add_labels(tx, values, c.metadata)
    put_snapshot(tx, step)
    if head:
        await _set_head(tx, step)


def _is_whole(row: Row, checkpoint: Checkpoint) -> bool:
    """Whether this is the checkpoint, in all that its digest covers."""
    try:
        return _covered(rows.checkpoint(row)) == _covered(checkpoint)
    except IntegrityError:
        return False


def _covered(checkpoint: Checkpoint) -> bytes:
    return canonical(checkpoint.model_dump(mode="json", exclude={"metadata", "facts", "cut", "created_at"}))


async def _set_head(tx: Transaction, step: Step) -> None:
    values = rows.thread_values(step)
    if await tx.run("set_head", **values):
        return
    first = await tx.one("first_checkpoint", **values)
    assert first is not None, "the head has just been restored"
    forked = first["parent_thread_id"] is not None
    origin = {"origin_thread": first["parent_thread_id"], "origin_id": first["parent_id"]} if forked else {}
    await tx.run("add_thread", **(values | {"origin_thread": "", "origin_id": None} | origin))


async def remove(
    tx: Transaction, thread_id: str, checkpoint_ids: Collection[str], roots: Sequence[Snapshot], head: str
) -> None:
    """See ``perdure.stores.base.Store.remove``."""
    thread = await tx.one("thread_to_change", thread_id=thread_id)
    if thread is None:
        return
    head = head or rows.thread(thread).head_id
    links = {rows.read_id(row["checkpoint_id"]): _link(row) for row in await tx.all("links", thread_id=thread_id)}
    gone = links.keys() & set(checkpoint_ids)
    for fork in await tx.all("forks", thread_id=thread_id):
        if rows.thread(fork).origin_id in gone:
            raise refusals.forked(thread_id, fork["thread_id"])
    records.check_removal(thread_id, links, gone, roots, head)
    for root in roots:
        await _cut(tx, thread_id, root)
    for keys in _batches(rows.stored_id(name) for name in gone):
        await tx.run("delete_checkpoints", thread_id=thread_id, keys=keys)
    for keys in _batches(await _receipts_of(tx, thread_id, gone)):
        await tx.run("clear_receipts", thread_id=thread_id, keys=keys)
    await _stand_on(tx, thread_id, head)


def _link(row: Row) -> Link:
    """Of a checkpoint what ``check_removal`` asks for."""
    elsewhere = "another" if row["parent_thread"] is not None else ""
    parent = rows.read_id(row["parent_id"]) if row["parent_id"] is not None else ""
    return Link(step=0, digest="", parent_id=parent, parent_thread=elsewhere)


async def _cut(tx: Transaction, thread_id: str, root: Snapshot) -> None:
    """Let a checkpoint stand on its own. Those after it are read back to it from now on, in forks too."""
    found = await _row(tx, thread_id, root.checkpoint_id)
    await tx.run("cut_checkpoint", **rows.when_cut(found, len(root.state)))
    await tx.run("put_snapshot", **rows.snapshot_values(thread_id, root))


async def _stand_on(tx: Transaction, thread_id: str, head: str) -> None:
    found = await _row(tx, thread_id, head)
    await tx.run("set_head", **{**found, "branch": None, "committed_at": rows.now()})


async def _row(tx: Transaction, thread_id: str, checkpoint_id: str) -> Row:
    found = await tx.one("checkpoint", thread_id=thread_id, checkpoint_id=rows.stored_id(checkpoint_id))
    assert found is not None, "the links have it"
    return found


async def _receipts_of(tx: Transaction, thread_id: str, gone: Collection[str]) -> list[bytes]:
    """The keys of the receipts that belong to one of these checkpoints."""
    keys = [row["key"] for row in await tx.all("receipt_keys", thread_id=thread_id)]
    return [key for key in keys if _belongs(key.decode(), gone)]


def _belongs(key: str, gone: Collection[str]) -> bool:
    beginnings = (key[:end] for end in range(len(key) + 1))
    return any(name in gone and records.belongs(key, name) for name in beginnings)


def _batches(keys: Iterable[bytes]) -> Iterator[list[bytes]]:
    left = iter(keys)
    while batch := list(islice(left, _PAGE)):
        yield batch


async def copy_thread(tx: Transaction, source: str, target: str) -> None:
    """See ``perdure.stores.base.Store.copy_thread``."""
    if await tx.one("thread_to_change", thread_id=source) is None:
        raise refusals.no_thread(source)
    if await tx.one("thread", thread_id=target) is None:
        await tx.run("delete_thread", thread_id=target)  # what a thread has left behind whose row was lost
    if not await tx.run("copy_thread", thread_id=source, target=target):
        raise refusals.thread_exists(target)
    await tx.run("add_number", thread_id=target)
    after = FIRST
    while page := await tx.all("walk", **following(source, after)):
        await tx.together(*(("add_checkpoint", rows.in_copy(row, target) | {"orphan": 1}) for row in page))
        after = page[-1]
    await tx.run("copy_parts", thread_id=source, target=target)


async def delete_thread(tx: Transaction, thread_id: str) -> None:
    """See ``perdure.stores.base.Store.delete_thread``."""
    await tx.one("thread_to_change", thread_id=thread_id)
    for fork in await tx.all("forks", thread_id=thread_id):
        raise refusals.forked(thread_id, fork["thread_id"])
    await tx.run("delete_thread", thread_id=thread_id)
