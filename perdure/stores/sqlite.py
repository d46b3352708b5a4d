"""The SQL store's database as a SQLite file: one writer at a time, while others read."""

import sqlite3
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from perdure.errors import StoreUnreachable
from perdure.stores.database import Answer, Call, Database, Failed, Transaction, Work
from perdure.stores.queries import Query, listed, query
from perdure.stores.rows import Row
from perdure.stores.sole_thread import MISSED, Missed, SoleThread

_T = TypeVar("_T")
_BUSY = 10_000  # milliseconds; another process may hold the write lock for one short transaction; that is an outage
_LOG = 1_000  # pages of the log until it is moved into the file, as SQLite does by itself
_COMMITS = 200  # quick ones that are about as much
_AT_ONCE = ("busy_timeout=0", "wal_autocheckpoint=0")  # where nobody may be kept waiting
_STATEMENTS = 256  # that are kept prepared: more than there are


def open_sqlite(path: Path) -> Database:
    """The database in a file. The file and its folder are made at the first use.

    One connection a process: SQLite has one writer, and reads are short.
    """
    path = path.expanduser().absolute()
    return Database(SqliteEngine(path), f"sqlite:///{path}")


class SqliteEngine:
    """See ``perdure.stores.database.Engine``. There is one connection, and one thread that waits for the file: for the
    lock of another process, for the disk, for the end of a long query. What is quick is done at once.
    """

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._thread = SoleThread(f"perdure {path.name}", lambda: _connect(path), sqlite3.Connection.close)
        self._careful = False  # whether the connection waits for the disk
        self._commits = 0  # since the last that was moved out of the log

    async def read(self, work: Work[_T], *, quick: bool = False) -> _T:
        return await self._do(lambda connection: _driven(work(SqliteTransaction(connection))), quick=quick)

    async def write(self, work: Work[_T], *, durable: bool = False, quick: bool = False) -> _T:
        written = await self._do(lambda one: self._write(one, work, durable), quick=quick and not durable)
        self._commits += 1
        if self._commits >= _COMMITS:
            self._commits = 0
            self._thread.later(_move_log)
        return written

    def _write(self, connection: sqlite3.Connection, work: Work[_T], durable: bool) -> _T:
        tx = SqliteTransaction(connection)
        if durable != self._careful:
            tx.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._careful = durable
        # A deferred transaction that turns from reading to writing can fail at once; so writers take the lock first.
        tx.execute("BEGIN IMMEDIATE")
        try:
            done = _driven(work(tx))
            tx.commit()
        except BaseException:
            tx.undo()
            raise
        return done

    async def _do(self, work: Callable[[sqlite3.Connection], _T], *, quick: bool) -> _T:
        try:
            done = self._at_once(work) if quick else MISSED
            return await self._thread.do(partial(_patiently, work)) if done is MISSED else done
        except sqlite3.Error as error:  # a lock that is held has been waited for by SQLite itself
            outdated, refused = "no such table" in str(error), isinstance(error, sqlite3.DataError)
            raise Failed(str(error), outdated=outdated, refused=refused) from error

    def _at_once(self, work: Callable[[sqlite3.Connection], _T]) -> _T | Missed:
        try:
            return self._thread.at_once(work)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return MISSED  # another process has the lock; nothing was done

    async def close(self) -> None:
        await self._thread.close()
        self._careful = False

    async def lock_schema(self, tx: Transaction) -> None:
        return None  # whoever writes has the lock

    async def partitions(self, tx: Transaction) -> int | None:
        return None

    async def cautions(self, tx: Transaction) -> list[str]:
        return [
            "SQLite writes with synchronous=normal: a power cut of its machine can lose the commits of the last "
            "moments (Temporal's retries write them again), but no claim of an irreversible effect."
        ]

    async def bytes(self, tx: Transaction, tables: Sequence[str]) -> int:
        (pages,), (size,) = await tx.plain("PRAGMA page_count"), await tx.plain("PRAGMA page_size")
        return int(pages["page_count"] * size["page_size"])


class SqliteTransaction:
    """See ``perdure.stores.database.Transaction``. Nothing in here ever waits for anything else than the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Mapping[str, Any] | tuple[()] = ()) -> sqlite3.Cursor:
        """Run a statement: the one place where it's done."""
        return self._connection.execute(sql, values)

    def commit(self) -> None:
        """Make it good, unless it was undone."""
        if self._connection.in_transaction:
            self.execute("COMMIT")

    def undo(self) -> None:
        """As if it had never begun."""
        if self._connection.in_transaction:
            self.execute("ROLLBACK")

    def later(self, name: str, **values: Any) -> None:
        self._run(name, values)

    async def run(self, name: str, **values: Any) -> int:
        return self._run(name, values).rowcount

    async def together(self, *calls: Call) -> list[Answer]:
        cursors = (self._run(name, values) for name, values in calls)
        return [Answer(_rows(cursor), cursor.rowcount) for cursor in cursors]

    async def one(self, name: str, **values: Any) -> Row | None:
        found = await self.all(name, **values)
        return found[0] if found else None

    async def all(self, name: str, **values: Any) -> Sequence[Row]:
        return _rows(self._run(name, values))

    async def plain(self, sql: str, **values: Any) -> Sequence[Row]:
        return _rows(self.execute(sql, values))

    async def rollback(self) -> None:
        self.undo()

    def _run(self, name: str, values: Mapping[str, Any]) -> sqlite3.Cursor:
        *before, last = query(name, SqliteEngine.name)
        for statement in before:
            self._execute(statement, values)
        return self._execute(last, values)

    def _execute(self, statement: Query, values: Mapping[str, Any]) -> sqlite3.Cursor:
        sql, lists = statement
        return self.execute(*(_listed(sql, values) if lists else (sql, values)))


def _listed(sql: str, values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    keys = values["keys"]
    return listed(sql, len(keys)), {**values, **{f"key{number}": key for number, key in enumerate(keys)}}


def _rows(cursor: sqlite3.Cursor) -> list[Row]:
    cursor.row_factory = sqlite3.Row
    return cursor.fetchall()


def _driven(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end. Its transaction never lets it wait, so this is one step."""
    try:
        work.send(None)
    except StopIteration as end:
        done: _T = end.value
        return done
    work.close()
    raise RuntimeError("Work in a transaction waits for nothing but the transaction.")


def _patiently(work: Callable[[sqlite3.Connection], _T], connection: sqlite3.Connection) -> _T:
    """Work that waits for the locks of others, and moves the log into the file where it has become long."""
    for pragma in (f"busy_timeout={_BUSY}", f"wal_autocheckpoint={_LOG}"):
        connection.execute(f"PRAGMA {pragma}")
    try:
        return work(connection)
    finally:
        for pragma in _AT_ONCE:
            connection.execute(f"PRAGMA {pragma}")


def _move_log(connection: sqlite3.Connection) -> None:
    """Move what was committed from the log into the file, which waits for the disk. What fails is done next time."""
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnreachable(f"The folder of the store {path} can't be made: {error.strerror}.") from error
    # isolation_level None: we begin transactions ourselves. One thread at a time uses it, see SoleThread.
    connection = sqlite3.connect(
        path, timeout=_BUSY / 1e3, isolation_level=None, cached_statements=_STATEMENTS, check_same_thread=False
    )  # fmt: skip
    try:
        # WAL: readers don't wait for the writer. NORMAL: a power cut may lose the last commits, never the file;
        # the workflow's history then repeats them under the same ids. A killed process loses nothing.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection
