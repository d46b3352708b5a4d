"""Somebody who gets at a store's rows without Perdure: what `db verify` must find and `db repair` must mend."""

from collections.abc import Sequence
from typing import Any, Protocol

from perdure.audit import AuditHead, AuditRow
from perdure.canonical import canonical
from perdure.checkpointer import snapshot_digest
from perdure.stores import Store, ledger_rows, rows, sealed
from perdure.stores.base import EffectRow, Snapshot, Step
from perdure.stores.memory import MemoryStore
from perdure.stores.records import Entry, Record, entry, record
from perdure.stores.redis.checkpoints import stored_snapshot
from perdure.stores.redis.keys import place
from perdure.stores.redis_store import RedisStore
from perdure.stores.sql_store import SqlStore

_CALL = canonical({"amount": 5_000})


class Hands(Protocol):
    """What can be done to one thread's rows. Nothing is sealed anew but by ``forge``."""

    async def drop(self, checkpoint_id: str) -> None:
        """Delete a checkpoint's row; its snapshot stays."""

    async def change(self, checkpoint_id: str) -> None:
        """Change what a checkpoint's row holds."""

    async def swap(self, one: str, other: str) -> None:
        """Let two checkpoints' rows change places."""

    async def forge(self, checkpoint_id: str, **changes: Any) -> None:
        """Change fields of a checkpoint as somebody does who knows how rows are sealed."""

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        """Delete a snapshot."""

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        """Put a snapshot where one was, or none."""

    async def move_head(self, checkpoint_id: str) -> None:
        """Say that the thread stands elsewhere."""

    async def move_origin(self, thread_id: str, checkpoint_id: str) -> None:
        """Say that the thread comes from elsewhere."""

    async def drop_thread(self) -> None:
        """Delete the thread's row alone."""

    async def change_call(self, key: str) -> None:
        """Change the arguments of an effect as somebody does who knows how rows are sealed."""

    async def put_lines(self, lines: Sequence[AuditRow]) -> None:
        """Let these be the lines of the audit; where it ends, the thread's row says as before."""

    async def move_audit_end(self, end: AuditHead) -> None:
        """Say that the audit ends elsewhere."""


def hands(store: Store, thread_id: str) -> Hands:
    """Hands on a thread."""
    if isinstance(store, MemoryStore):
        return _MemoryHands(store, thread_id)
    if isinstance(store, SqlStore):
        return _SqlHands(store, thread_id)
    assert isinstance(store, RedisStore)
    return _RedisHands(store, thread_id)


def forged_snapshot(checkpoint_id: str, digest: str) -> Snapshot:
    """Another state, bound to the checkpoint of this digest as a right one is."""
    state = canonical({"text": "forged"})
    return Snapshot(checkpoint_id=checkpoint_id, state=state, digest=snapshot_digest(digest, state))


def _with_other_call(row: EffectRow) -> EffectRow:
    return row.model_copy(update={"arguments": _CALL})


def _forged(known: Entry, changes: dict[str, Any]) -> Entry:
    return known.model_copy(update={"checkpoint": known.checkpoint.model_copy(update=changes)})


class _MemoryHands:
    def __init__(self, store: MemoryStore, thread_id: str) -> None:
        self._thread_id = thread_id
        self._thread: Any = store._threads[thread_id]

    async def drop(self, checkpoint_id: str) -> None:
        del self._thread.checkpoints[checkpoint_id]

    async def change(self, checkpoint_id: str) -> None:
        stored = self._thread.checkpoints[checkpoint_id]
        self._thread.checkpoints[checkpoint_id] = Record(stored.link, stored.body[:-1] + bytes([stored.body[-1] ^ 1]))

    async def swap(self, one: str, other: str) -> None:
        rows = self._thread.checkpoints
        rows[one], rows[other] = rows[other], rows[one]

    async def forge(self, checkpoint_id: str, **changes: Any) -> None:
        known = entry(self._thread_id, checkpoint_id, self._thread.checkpoints[checkpoint_id])
        self._thread.checkpoints[checkpoint_id] = record(_forged(known, changes))

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        del self._thread.snapshots[checkpoint_id]

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        self._thread.snapshots[snapshot.checkpoint_id] = snapshot

    async def move_head(self, checkpoint_id: str) -> None:
        self._thread.row = self._thread.row.model_copy(update={"head_id": checkpoint_id})

    async def move_origin(self, thread_id: str, checkpoint_id: str) -> None:
        self._thread.row = self._thread.row.model_copy(update={"origin_thread": thread_id, "origin_id": checkpoint_id})

    async def drop_thread(self) -> None:
        self._thread.row = None

    async def change_call(self, key: str) -> None:
        known = sealed.opened(self._thread_id, key, self._thread.effects[key])
        self._thread.effects[key] = sealed.written(_with_other_call(known.row), known.mark)

    async def put_lines(self, lines: Sequence[AuditRow]) -> None:
        self._thread.audit = list(lines)

    async def move_audit_end(self, end: AuditHead) -> None:
        self._thread.row = self._thread.row.model_copy(update={"audited": end.number, "audit_digest": end.digest})


_OF_THREAD = "thread = (SELECT number FROM numbers WHERE thread_id = :thread_id)"


class _SqlHands:
    def __init__(self, store: SqlStore, thread_id: str) -> None:
        self._store = store
        self._thread_id = thread_id

    async def run(self, statement: str, **values: Any) -> None:
        """Run a statement on exactly one row. ``OWN`` in it names the thread."""
        written = f"{statement.replace('OWN', _OF_THREAD)} RETURNING 1 AS changed"
        given = {"thread_id": self._thread_id, **values}
        assert len(await self._store.database.write(lambda tx: tx.plain(written, **given))) == 1

    async def drop(self, checkpoint_id: str) -> None:
        await self.run("DELETE FROM checkpoints WHERE OWN AND checkpoint_id = :id", id=rows.stored_id(checkpoint_id))

    async def change(self, checkpoint_id: str) -> None:
        name = rows.stored_id(checkpoint_id)
        await self.run("UPDATE checkpoints SET turn = turn + 1 WHERE OWN AND checkpoint_id = :id", id=name)

    async def swap(self, one: str, other: str) -> None:
        for before, after in ((one, "between"), (other, one), ("between", other)):
            values = {"before": rows.stored_id(before), "after": rows.stored_id(after)}
            rename = "UPDATE checkpoints SET checkpoint_id = :after WHERE OWN AND checkpoint_id = :before"
            await self.run(rename, **values)

    async def forge(self, checkpoint_id: str, **changes: Any) -> None:
        row = await self._store.database.one(
            "checkpoint", thread_id=self._thread_id, checkpoint_id=rows.stored_id(checkpoint_id)
        )
        assert row is not None
        forged = rows.checkpoint(row).model_copy(update=changes)
        base = forged.id if row["based"] else None
        step = Step(checkpoint=forged, base_id=base, since_base=0, state_size=row["state_size"])
        await self.drop(checkpoint_id)
        await self._store.database.run("add_checkpoint", **rows.checkpoint_values(step), orphan=1)

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        await self.run("DELETE FROM snapshots WHERE OWN AND checkpoint_id = :id", id=rows.stored_id(checkpoint_id))

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self._store.database.run("put_snapshot", **rows.snapshot_values(self._thread_id, snapshot))

    async def move_head(self, checkpoint_id: str) -> None:
        head = rows.stored_id(checkpoint_id)
        await self.run("UPDATE threads SET head_id = :id WHERE thread_id = :thread_id", id=head)

    async def move_origin(self, thread_id: str, checkpoint_id: str) -> None:
        move = "UPDATE threads SET origin_thread = :origin, origin_id = :id WHERE thread_id = :thread_id"
        await self.run(move, origin=thread_id, id=rows.stored_id(checkpoint_id))

    async def drop_thread(self) -> None:
        await self.run("DELETE FROM threads WHERE thread_id = :thread_id")

    async def change_call(self, key: str) -> None:
        found = await self._store.effect(self._thread_id, key)
        assert found is not None
        values = ledger_rows.effect_values(_with_other_call(found), b"")
        await self.run("DELETE FROM effects WHERE thread_id = :thread_id AND key = :key", key=key.encode())
        await self._store.database.run("add_effect", **values)

    async def put_lines(self, lines: Sequence[AuditRow]) -> None:
        async def work(tx: Any) -> None:
            await tx.plain("DELETE FROM audit WHERE thread_id = :id", id=self._thread_id)
            for line in lines:
                tx.later("add_line", **(rows.audit_values(line) | {"thread_id": self._thread_id}))

        await self._store.database.write(work)

    async def move_audit_end(self, end: AuditHead) -> None:
        values = {"number": end.number, "digest": bytes.fromhex(end.digest)}
        await self._store.database.run("set_audit_end", thread_id=self._thread_id, **values)


class _RedisHands:
    def __init__(self, store: RedisStore, thread_id: str) -> None:
        self._store = store
        self._thread_id = thread_id

    async def run(self, command: str, part: str, *arguments: Any) -> Any:
        """A command on one of the thread's keys."""
        return await self._store._ask(command, self._store._keys.part(self._thread_id, part), *arguments)

    async def _rows(self, checkpoint_id: str) -> tuple[bytes, bytes]:
        link, body = [await self.run("HGET", part, checkpoint_id) for part in ("links", "checkpoints")]
        return link, body

    async def _write(self, checkpoint_id: str, link: bytes, body: bytes) -> None:
        await self.run("HSET", "links", checkpoint_id, link)
        await self.run("HSET", "checkpoints", checkpoint_id, body)

    async def drop(self, checkpoint_id: str) -> None:
        link, body = await self._rows(checkpoint_id)
        step = entry(self._thread_id, checkpoint_id, (link, body)).checkpoint.step
        for part in ("links", "checkpoints"):
            await self.run("HDEL", part, checkpoint_id)
        assert await self.run("ZREM", "steps", place(step, checkpoint_id)) == 1

    async def change(self, checkpoint_id: str) -> None:
        link, body = await self._rows(checkpoint_id)
        await self._write(checkpoint_id, link, body[:-1] + bytes([body[-1] ^ 1]))

    async def swap(self, one: str, other: str) -> None:
        first, second = await self._rows(one), await self._rows(other)
        await self._write(one, *second)
        await self._write(other, *first)

    async def forge(self, checkpoint_id: str, **changes: Any) -> None:
        known = entry(self._thread_id, checkpoint_id, await self._rows(checkpoint_id))
        forged = _forged(known, changes)
        await self._write(checkpoint_id, *record(forged))
        if forged.checkpoint.step != known.checkpoint.step:
            await self.run("ZREM", "steps", place(known.checkpoint.step, checkpoint_id))
            await self.run("ZADD", "steps", 0, place(forged.checkpoint.step, checkpoint_id))

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        assert await self.run("HDEL", "snapshots", checkpoint_id) == 1

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        await self.run("HSET", "snapshots", snapshot.checkpoint_id, stored_snapshot(snapshot))

    async def move_head(self, checkpoint_id: str) -> None:
        await self.run("HSET", "thread", "head_id", checkpoint_id)

    async def move_origin(self, thread_id: str, checkpoint_id: str) -> None:
        await self.run("HSET", "thread", "origin_thread", thread_id, "origin_id", checkpoint_id)

    async def drop_thread(self) -> None:
        assert await self.run("DEL", "thread") == 1

    async def change_call(self, key: str) -> None:
        entry, arguments, receipt = [await self.run("HGET", part, key) for part in ("effects", "arguments", "done")]
        known = sealed.opened(self._thread_id, key, sealed.Sealed(entry, arguments, receipt))
        forged = sealed.written(_with_other_call(known.row), known.mark)
        await self.run("HSET", "effects", key, forged.entry)
        await self.run("HSET", "arguments", key, forged.arguments)

    async def put_lines(self, lines: Sequence[AuditRow]) -> None:
        await self.run("DEL", "audit")
        await self.run("DEL", "audit-ids")
        for at, line in enumerate(lines, start=1):
            await self.run("RPUSH", "audit", canonical(line.model_dump(mode="json", exclude={"thread_id"})))
            await self.run("HSET", "audit-ids", line.entry.id, at)

    async def move_audit_end(self, end: AuditHead) -> None:
        await self.run("HSET", "thread", "audited", end.number, "audit_digest", end.digest)
