"""The SQL store's database as a SQLite file: one writer at a time, while others read."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from perdure.errors import StoreUnreachable
from perdure.stores.database import Database

_BUSY_MS = 10_000  # another process may hold the write lock for one short transaction; ten seconds is an outage
_READS, _SYNCHRONOUS = "perdure_reads", "perdure_synchronous"


def open_sqlite(path: Path) -> Database:
    """The database in a file. The file and its folder are made at the first use.

    One connection a process: SQLite has one writer, and the write-ahead log lets others read.
    """
    path = path.expanduser().absolute()
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)

    @event.listens_for(engine.sync_engine, "do_connect")
    def make_folder(*_: object) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnreachable(f"The folder of the store {path} can't be made: {error.strerror}.") from error

    event.listen(engine.sync_engine, "connect", _prepare)
    event.listen(engine.sync_engine, "begin", _begin)
    return Database(engine, SqliteDialect(), f"sqlite:///{path}")


class SqliteDialect:
    """See ``perdure.stores.database.Dialect``."""

    name = "sqlite"
    reads: Mapping[str, Any] = {_READS: True}

    def passing(self, error: DBAPIError) -> bool:
        return False  # a lock that is held is waited for by SQLite itself

    def outdated(self, error: DBAPIError) -> bool:
        return "no such table" in str(error.orig)

    def writes(self, durable: bool) -> Mapping[str, Any]:
        return {_SYNCHRONOUS: "FULL" if durable else "NORMAL"}

    async def harden(self, connection: AsyncConnection) -> None:
        return None  # it can't be done within a transaction: see _begin

    async def lock_schema(self, connection: AsyncConnection) -> None:
        return None  # whoever writes has the lock

    async def partitions(self, connection: AsyncConnection) -> int | None:
        return None

    async def cautions(self, connection: AsyncConnection) -> list[str]:
        return [
            "SQLite writes with synchronous=normal: a power cut of its machine can lose the commits of the last "
            "moments (Temporal's retries write them again), but no claim of an irreversible effect."
        ]

    async def bytes(self, connection: AsyncConnection, tables: Sequence[str]) -> int:
        pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
        size = (await connection.exec_driver_sql("PRAGMA page_size")).scalar_one()
        return int(pages * size)


def _prepare(connection: Any, _: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, see _begin
    cursor = connection.cursor()
    # WAL: readers don't wait for the writer. NORMAL: a power cut may lose the last commits, never the file;
    # the workflow's history then repeats them under the same ids. A killed process loses nothing.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get(_READS):
        return  # one query is a transaction by itself
    wanted = options.get(_SYNCHRONOUS, "NORMAL")
    if connection.info.get(_SYNCHRONOUS, "NORMAL") != wanted:
        connection.exec_driver_sql(f"PRAGMA synchronous={wanted}")
        connection.info[_SYNCHRONOUS] = wanted
    # A deferred transaction that turns from reading to writing can fail at once; so writers take the lock first.
    connection.exec_driver_sql("BEGIN IMMEDIATE")
