"""The store on a SQL database, through SQLAlchemy Core. SQLite (WAL) is the default backend."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from perdure.canonical import digest
from perdure.checkpoint import Checkpoint
from perdure.effects import EffectStatus
from perdure.errors import ConcurrentModification, StoreOutdated, StoreUnreachable
from perdure.stores import rows
from perdure.stores.base import CachedResult, EffectRow, Line, Receipt, Snapshot, Step, ThreadRow
from perdure.stores.queries import migrations, query
from perdure.stores.rows import now

_BUSY_MS = 10_000  # another process may hold the write lock for one short transaction; ten seconds is an outage
_PAGE = 500  # rows read at once by `walk`: a few hundred kilobytes


class SqlStore:
    """See ``perdure.stores.base.Store``. One connection a process: SQLite has one writer, and WAL lets others read."""

    def __init__(self, engine: AsyncEngine, url: str) -> None:
        self._engine = engine
        self.url = url

    @classmethod
    def sqlite(cls, path: Path) -> "SqlStore":
        """A store in a SQLite file. The file and its folder are made at the first use."""
        path = path.expanduser().absolute()
        engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)

        @event.listens_for(engine.sync_engine, "do_connect")
        def make_folder(*_: object) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)

        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        return cls(engine, f"sqlite:///{path}")

    # ── schema ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def migrate(self) -> list[str]:
        async with self._writing() as tx:
            await tx.connection.exec_driver_sql(
                "CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)"
            )
            missing = await _missing(tx.connection)
            for name in missing:
                for statement in migrations()[name]:
                    await tx.connection.exec_driver_sql(statement)
                await tx.connection.exec_driver_sql("INSERT INTO schema_migrations VALUES (?, ?)", (name, now()))
        return missing

    async def missing_migrations(self) -> list[str]:
        try:
            async with self._reading() as tx:
                return await _missing(tx.connection)
        except StoreOutdated:
            return list(migrations())

    async def close(self) -> None:
        await self._engine.dispose()

    # ── threads and checkpoints ──────────────────────────────────────────────────────────────────────────────────

    async def thread(self, thread_id: str) -> ThreadRow | None:
        async with self._reading() as tx:
            row = await tx.one("thread", thread_id=thread_id)
        return rows.thread(row) if row else None

    async def threads(self) -> list[str]:
        async with self._reading() as tx:
            return [row["thread_id"] for row in await tx.all("threads")]

    async def close_thread(self, thread_id: str) -> None:
        async with self._writing() as tx:
            await tx.run("close_thread", thread_id=thread_id)

    async def commit(self, step: Step) -> bool:
        async with self._writing() as tx:
            return await _commit(tx, step)

    async def checkpoint(self, thread_id: str, checkpoint_id: str) -> Checkpoint | None:
        async with self._reading() as tx:
            row = await tx.one("checkpoint", thread_id=thread_id, checkpoint_id=rows.stored_id(checkpoint_id))
        return rows.checkpoint(thread_id, row) if row else None

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        async with self._reading() as tx:
            found = await tx.all("line", thread_id=thread_id, checkpoint_id=rows.stored_id(checkpoint_id))
            if not found:
                return None
            base = found[-1]["base_id"]
            snapshot = await tx.one("snapshot", thread_id=thread_id, checkpoint_id=base) if base else None
        return rows.line(thread_id, found, snapshot)

    async def history(self, thread_id: str, *, limit: int, before_step: int | None = None) -> list[Checkpoint]:
        top = before_step if before_step is not None else 2**62
        async with self._reading() as tx:
            found = await tx.all("history", thread_id=thread_id, limit=limit, before_step=top)
        return [rows.checkpoint(thread_id, row) for row in found]

    async def walk(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        after: dict[str, Any] = {"step": -(2**62), "checkpoint_id": b""}
        while True:
            async with self._reading() as tx:
                page = await tx.all("walk", thread_id=thread_id, limit=_PAGE, **after)
            for row in page:
                yield rows.checkpoint(thread_id, row)
            if len(page) < _PAGE:
                return
            after = {name: page[-1][name] for name in after}

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        async with self._reading() as tx:
            return [rows.snapshot(thread_id, row) for row in await tx.all("snapshots", thread_id=thread_id)]

    async def result(self, scope: str, key: str) -> CachedResult | None:
        async with self._reading() as tx:
            row = await tx.one("result", request=rows.request(scope, key))
        return rows.result(scope, key, row) if row else None

    # ── effects and receipts ─────────────────────────────────────────────────────────────────────────────────────

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        async with self._writing() as tx:
            await _check_head(tx, row.thread_id, head)
            if await tx.run("add_effect", **rows.effect_values(row), now=now()):
                return None
            before = await tx.one("effect", thread_id=row.thread_id, key=row.entry.key)
            await tx.run("attempt_again", thread_id=row.thread_id, key=row.entry.key)
        assert before is not None, "the insert was refused, so the row is there"
        return rows.effect(before)

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        async with self._writing() as tx:
            await tx.run("fail_effect", thread_id=thread_id, key=key, error=error, now=now())

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str) -> None:
        values = rows.receipt_values(thread_id, receipt)
        async with self._writing() as tx:
            await _check_head(tx, thread_id, head)
            await tx.run("finish_effect", **values, now=now())
            await tx.run("add_receipt", thread_id=thread_id, key=receipt.key, result=values["receipt"])

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str) -> None:
        async with self._writing() as tx:
            await _check_head(tx, thread_id, head)
            await tx.run("finish_effect", **rows.receipt_values(thread_id, receipt), now=now())

    async def receipts(self, thread_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        async with self._reading() as tx:
            found = await tx.all("receipts", thread_id=thread_id, keys=list(keys))
        return {row["key"]: rows.unpacked(row["result"]) for row in found}

    async def effect(self, thread_id: str, key: str) -> EffectRow | None:
        async with self._reading() as tx:
            row = await tx.one("effect", thread_id=thread_id, key=key)
        return rows.effect(row) if row else None

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        async with self._reading() as tx:
            if turn is None:
                found = await tx.all("effects", thread_id=thread_id)
            else:
                found = await tx.all("effects_of_turn", thread_id=thread_id, turn=turn)
        return [rows.effect(row) for row in found]

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        async with self._writing() as tx:
            await tx.run("settle_effect", thread_id=thread_id, key=key, status=status, error=error, by=by, now=now())

    # ── blobs, sizes ─────────────────────────────────────────────────────────────────────────────────────────────

    async def put_blob(self, kind: str, blob: bytes) -> str:
        name = digest(blob)
        async with self._writing() as tx:
            await tx.run("add_blob", digest=name, kind=kind, body=rows.packed(blob))
        return name

    async def blob(self, digest: str) -> bytes | None:
        async with self._reading() as tx:
            row = await tx.one("blob", digest=digest)
        return rows.unpacked(row["body"]) if row else None

    async def sizes(self) -> dict[str, Any]:
        async with self._reading() as tx:
            names = await tx.connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = [name for (name,) in names]
            counts = {
                name: (await tx.connection.exec_driver_sql(f"SELECT count(*) FROM {name}")).scalar_one()
                for name in tables
            }
            pages = (await tx.connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
            page = (await tx.connection.exec_driver_sql("PRAGMA page_size")).scalar_one()
        return {"rows": counts, "bytes": pages * page}

    # ── transactions ─────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def _writing(self) -> "AsyncIterator[_Transaction]":
        with _mapped(self.url):
            async with self._engine.begin() as connection:
                yield _Transaction(connection)

    @asynccontextmanager
    async def _reading(self) -> "AsyncIterator[_Transaction]":
        with _mapped(self.url):
            async with self._engine.execution_options(perdure_reads=True).connect() as connection:
                yield _Transaction(connection)


class _Transaction:
    """Named queries on one connection."""

    def __init__(self, connection: AsyncConnection) -> None:
        self.connection = connection

    async def run(self, name: str, **values: Any) -> int:
        """Run a statement; how many rows it changed."""
        return (await self.connection.execute(query(name), values)).rowcount

    async def one(self, name: str, **values: Any) -> rows.Row | None:
        """The first row."""
        return cast("rows.Row | None", (await self.connection.execute(query(name), values)).mappings().first())

    async def all(self, name: str, **values: Any) -> Sequence[rows.Row]:
        """All rows."""
        return cast("Sequence[rows.Row]", (await self.connection.execute(query(name), values)).mappings().all())


async def _commit(tx: _Transaction, step: Step) -> bool:
    checkpoint = step.checkpoint
    values = rows.step_values(step)
    earlier = await tx.one("checkpoint", **_only(values, "checkpoint"))
    if earlier is not None:
        if rows.checkpoint(checkpoint.thread_id, earlier).digest == checkpoint.digest:
            return False
        raise ConcurrentModification(
            f"Checkpoint {checkpoint.id} of {checkpoint.thread_id} was committed with other content."
        )
    statement = "new_thread" if checkpoint.parent_id is None else "move_head"
    if not await tx.run(statement, **_only(values, statement)):
        raise await _head_moved(tx, checkpoint)
    await tx.run("add_checkpoint", **_only(values, "add_checkpoint"))
    if step.snapshot:
        await tx.run("add_snapshot", thread_id=checkpoint.thread_id, **rows.snapshot_values(step.snapshot))
    if step.result:
        await tx.run("add_result", **rows.result_values(step.result))
    if step.receipt:
        await tx.run("finish_effect", **rows.receipt_values(checkpoint.thread_id, step.receipt), now=now())
    if step.clears:
        await tx.run("clear_receipts", thread_id=checkpoint.thread_id, keys=list(step.clears))
    return True


async def _check_head(tx: _Transaction, thread_id: str, head: str) -> None:
    row = await tx.one("thread", thread_id=thread_id)
    stands = rows.thread(row).head_id if row else "nothing"
    if stands != head:
        raise ConcurrentModification(f"A call of {thread_id} on {head} comes too late: the head is {stands}.")


async def _head_moved(tx: _Transaction, checkpoint: Checkpoint) -> ConcurrentModification:
    row = await tx.one("thread", thread_id=checkpoint.thread_id)
    stands = rows.thread(row).head_id if row else "nothing"
    return ConcurrentModification(
        f"Step {checkpoint.step} of {checkpoint.thread_id} extends {checkpoint.parent_id}, but the head is {stands}."
    )


def _only(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The values that the query names: SQLAlchemy refuses unknown ones."""
    return {key: values[key] for key in query(name)._bindparams}


async def _missing(connection: AsyncConnection) -> list[str]:
    applied = {name for (name,) in await connection.exec_driver_sql("SELECT name FROM schema_migrations")}
    return [name for name in migrations() if name not in applied]


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _begin_sqlite
    cursor = connection.cursor()
    # WAL: readers don't wait for the writer. NORMAL: a power cut may lose the last commits, never the file;
    # the workflow's history then repeats them under the same ids. A killed process loses nothing.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that turns from reading to writing can fail at once; so writers take the lock first.
    reads = connection.get_execution_options().get("perdure_reads")
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class _mapped:  # noqa: N801 - reads as a verb where it is used
    """Turns the database's errors into ours."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, DBAPIError):
            return
        if "no such table" in str(error.orig):
            raise StoreOutdated(f"The store {self.url} has no schema yet.", hint="Run `perdure db migrate`.") from error
        raise StoreUnreachable(f"The store {self.url} doesn't answer: {error.orig}.") from error
