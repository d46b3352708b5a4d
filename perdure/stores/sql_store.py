"""The store on a SQL database: a SQLite file (the default backend), or a PostgreSQL server."""

from collections.abc import AsyncIterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

from perdure.audit import AuditEntry, AuditHead, AuditRow
from perdure.canonical import Json, digest
from perdure.checkpoint import Checkpoint
from perdure.effects import EffectStatus
from perdure.stores import attempts, auditing, commits, ledger, ledger_rows, migration, rows, surgery
from perdure.stores.base import CachedResult, EffectRow, Line, Receipt, Snapshot, Step, ThreadRow
from perdure.stores.database import Database, Transaction
from perdure.stores.ledger import Move
from perdure.stores.packing import packed, unpacked
from perdure.stores.rows import now
from perdure.stores.sqlite import open_sqlite

_TABLES = (
    "threads", "checkpoints", "snapshots", "labels", "results", "receipts", "effects", "tokens", "audit", "blobs"
)  # fmt: skip
_STEP = itemgetter("step")
_SMALL = 64_000  # bytes of a change that are written in no time
_NUMBERS = "numbers"  # of threads: a table that belongs to the others


class SqlStore:
    """See ``perdure.stores.base.Store``."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.url = database.url

    @classmethod
    def sqlite(cls, path: Path) -> "SqlStore":
        """A store in a SQLite file. The file and its folder are made at the first use."""
        return cls(open_sqlite(path))

    @classmethod
    def postgres(cls, url: str) -> "SqlStore":
        """A store on a PostgreSQL server; see ``perdure.stores.postgres.open_postgres``."""
        from perdure.stores.postgres import open_postgres  # its driver isn't installed everywhere

        return cls(open_postgres(url))

    # ── schema ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def migrate(self, *, partitions: int = 0) -> list[str]:
        return await migration.migrate(self.database, partitions)

    async def missing_migrations(self) -> list[str]:
        return await migration.missing_migrations(self.database)

    async def cautions(self) -> list[str]:
        return await self.database.read(self.database.engine.cautions)

    async def close(self) -> None:
        await self.database.engine.close()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def thread(self, thread_id: str) -> ThreadRow | None:
        row = await self.database.one("thread", thread_id=thread_id)
        return rows.thread(row) if row else None

    async def threads(self, *, after: str = "", limit: int = 1000) -> list[ThreadRow]:
        return [rows.thread(row) for row in await self.database.all("threads", after=after, limit=limit)]

    async def forks(self, thread_id: str) -> list[ThreadRow]:
        return [rows.thread(row) for row in await self.database.all("forks", thread_id=thread_id)]

    async def close_thread(self, thread_id: str) -> None:
        await self.database.run("close_thread", thread_id=thread_id)

    async def set_lease(self, thread_id: str, lease: str) -> None:
        await self.database.run("set_lease", thread_id=thread_id, lease=lease)

    async def delete_thread(self, thread_id: str) -> None:
        await self.database.write(lambda tx: surgery.delete_thread(tx, thread_id))

    async def copy_thread(self, source: str, target: str) -> None:
        await self.database.write(lambda tx: surgery.copy_thread(tx, source, target), repeatable=False)

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, step: Step) -> bool:
        quick = step.snapshot is None and step.checkpoint.size <= _SMALL
        return await self.database.write(lambda tx: commits.commit(tx, step), quick=quick)

    async def restore(self, step: Step, *, head: bool) -> None:
        await self.database.write(lambda tx: surgery.restore(tx, step, head=head))

    async def remove(
        self, thread_id: str, checkpoint_ids: Sequence[str], roots: Sequence[Snapshot], *, head: str
    ) -> None:
        await self.database.write(lambda tx: surgery.remove(tx, thread_id, checkpoint_ids, roots, head))

    async def checkpoint(self, thread_id: str, checkpoint_id: str) -> Checkpoint | None:
        row = await self.database.one("checkpoint", **_named(thread_id, checkpoint_id))
        return rows.checkpoint(row) if row else None

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        named = _named(thread_id, checkpoint_id)
        end, found = await self.database.read(lambda tx: tx.together(("end_of_line", named), ("line", named)))
        return rows.line(sorted(found.rows, key=_STEP), end.rows[0]) if end.rows and found.rows else None

    async def path(self, thread_id: str, checkpoint_id: str, *, limit: int) -> list[Checkpoint]:
        found = await self.database.all("path", **_named(thread_id, checkpoint_id), limit=limit) if limit > 0 else []
        return [rows.checkpoint(row) for row in found]

    async def landmarks(
        self, thread_id: str, checkpoint_id: str, *, limit: int, in_turn: bool = False
    ) -> list[Checkpoint]:
        asked = _named(thread_id, checkpoint_id)
        found = await self.database.all("landmarks", **asked, limit=limit, in_turn=int(in_turn)) if limit > 0 else []
        return [rows.checkpoint(row) for row in found]

    async def ancestor(self, thread_id: str, checkpoint_id: str, step: int) -> Checkpoint | None:
        row = await self.database.one("ancestor", **_named(thread_id, checkpoint_id), step=step)
        return rows.checkpoint(row) if row else None

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        name = "find" if metadata else "newest"
        rarest, *more = await self._by_frequency(rows.labels(metadata)) or [b""]
        found = await self.database.all(
            f"{name}_in_thread" if thread_id else name, thread_id=thread_id, limit=limit, label=rarest,
            keys=more or [rarest], more=len(more) or 1,
        )  # fmt: skip
        return [rows.checkpoint(row) for row in found]

    async def _by_frequency(self, labels: list[bytes]) -> list[bytes]:
        """The rare ones first: they are looked for, the others looked up. Beyond a thousand all are equal."""
        if len(labels) < 2:
            return labels
        counts = {label: await self.database.all("count_label", label=label) for label in labels}
        return sorted(labels, key=lambda label: int(counts[label][0]["count"]))

    async def walk(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        after = surgery.FIRST
        while page := await self.database.all("walk", **surgery.following(thread_id, after)):
            for row in page:
                yield rows.checkpoint(row)
            after = page[-1]

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        found = await self.database.all("snapshots", thread_id=thread_id)
        return [rows.snapshot(thread_id, row) for row in found]

    # ── results, receipts, effects ───────────────────────────────────────────────────────────────────────────────

    async def result(self, scope: str, key: str) -> CachedResult | None:
        moment = rows.milliseconds(now())
        row = await self.database.one("result", request=rows.request(scope, key), now_ms=moment)
        return rows.result(scope, key, row) if row else None

    async def put_result(self, result: CachedResult) -> None:
        async def work(tx: Transaction) -> None:
            if result.thread_id:
                await tx.run("add_number", thread_id=result.thread_id)
            commits.put_result(tx, result)

        await self.database.write(work, quick=True)

    async def stray_results(self, thread_id: str) -> list[str]:
        found = await self.database.all("stray_results", thread_id=thread_id)
        return sorted(rows.read_id(row["checkpoint_id"]) for row in found)

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        claim = attempts.Claim(row, head, uuid4().bytes)
        return await self.database.write(claim.record, durable=row.entry.effect == "irreversible", quick=True)

    async def record_simulated(self, row: EffectRow, *, head: str) -> None:
        await self.database.write(lambda tx: attempts.record_simulated(tx, row, head))

    async def join_saga(self, thread_id: str, key: str, saga: str) -> None:
        await self._move(thread_id, key, ledger.join(saga))

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        await self._move(thread_id, key, ledger.fail(error, now()))

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str = "") -> None:
        await self.database.write(
            lambda tx: attempts.put_receipt(tx, thread_id, receipt, head=head, keep=True), quick=True
        )

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str = "", by: str = "") -> None:
        await self.database.write(
            lambda tx: attempts.put_receipt(tx, thread_id, receipt, head=head, keep=False, by=by), quick=True
        )

    async def receipts(self, thread_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        if not keys:
            return {}
        asked = [key.encode() for key in keys]
        return _receipts(await self.database.all("receipts", thread_id=thread_id, keys=asked))

    async def receipts_under(self, thread_id: str, prefix: str) -> dict[str, bytes]:
        first = prefix.encode()
        beyond = first + b"\xff"  # no byte of UTF-8 is as high
        return _receipts(await self.database.all("receipts_under", thread_id=thread_id, first=first, beyond=beyond))

    async def effect(self, thread_id: str, key: str) -> EffectRow | None:
        row = await self.database.one("effect", thread_id=thread_id, key=key.encode())
        return ledger_rows.effect(row) if row else None

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        name = "effects" if turn is None else "effects_of_turn"
        return [ledger_rows.effect(row) for row in await self.database.all(name, thread_id=thread_id, turn=turn)]

    async def open_effects(self, *, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[EffectRow]:
        bound = {"after_thread": after[0], "after_key": after[1].encode()}
        return [ledger_rows.effect(row) for row in await self.database.all("open_effects", **bound, limit=limit)]

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        await self._move(thread_id, key, ledger.settle(status, error=error, by=by, now=now()))

    async def _move(self, thread_id: str, key: str, move: Move) -> None:
        await self.database.write(lambda tx: attempts.move(tx, thread_id, key, move), quick=True)

    # ── audit ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        return await self.database.write(lambda tx: auditing.append(tx, thread_id, entries), quick=True)

    async def audit(self, thread_id: str, *, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        found = await self.database.all("audit", thread_id=thread_id, after=after, limit=limit)
        return [rows.audit_line(row) for row in found]

    # ── blobs, sizes ─────────────────────────────────────────────────────────────────────────────────────────────

    async def put_blob(self, kind: str, blob: bytes) -> str:
        name = digest(blob)
        await self.database.run("add_blob", digest=name, kind=kind, body=packed(blob))
        return name

    async def blob(self, digest: str) -> bytes | None:
        row = await self.database.one("blob", digest=digest)
        return unpacked(row["body"]) if row else None

    async def sizes(self) -> dict[str, Any]:
        async def work(tx: Transaction) -> dict[str, Any]:
            counted = {table: await tx.plain(f"SELECT count(*) AS count FROM {table}") for table in _TABLES}
            counts = {table: int(row["count"]) for table, (row,) in counted.items()}
            return {"rows": counts, "bytes": await self.database.engine.bytes(tx, (*_TABLES, _NUMBERS))}

        return await self.database.read(work)


def _named(thread_id: str, checkpoint_id: str) -> dict[str, Any]:
    return {"thread_id": thread_id, "checkpoint_id": rows.stored_id(checkpoint_id)}


def _receipts(found: Sequence[rows.Row]) -> dict[str, bytes]:
    return {row["key"].decode(): unpacked(row["result"]) for row in found}
