"""The SQL store's database on a PostgreSQL server: many writers, rows are locked."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import dict_row
from psycopg.types.numeric import Int8BinaryDumper

from perdure.stores.database import Answer, Call, Database, Failed, Transaction, Work
from perdure.stores.pool import Connection, Pool
from perdure.stores.postgres_url import PostgresUrl, read_url
from perdure.stores.queries import for_postgres, query
from perdure.stores.rows import Row

_T = TypeVar("_T")
_SCHEMA_LOCK = 0x70657264757265  # any number, the same for everybody: "perdure"

# Error codes of the server: https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING = frozenset({"40001", "40P01", "53300", "57P01", "57P02", "57P03"})
_CONNECTION_LOST = "08"
_HARDEN = "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
_NO_TABLE = frozenset({"42P01", "3F000"})


def open_postgres(url: str) -> Database:
    """The database at ``postgresql://user:password@host/database?…``; nothing is asked of it until the first use.

    Besides libpq's own parameters the query may say ``pool_size`` (10), ``max_overflow`` (10), ``pool_timeout``
    (30 seconds) and ``patience`` (8 seconds). Raises InvalidInput for an URL that can't be read.
    """
    place = read_url(url)
    return Database(PostgresEngine(place), place.shown, patience=place.patience)


class PostgresEngine:
    """See ``perdure.stores.database.Engine``."""

    name = "postgresql"

    def __init__(self, place: PostgresUrl) -> None:
        self._place = place
        self._pool = Pool(
            self._connect, size=place.pool_size, more=place.max_overflow, patience=place.pool_timeout
        )  # fmt: skip

    async def _connect(self) -> Connection:
        # autocommit: one query needs no BEGIN and no end.
        told: dict[str, Any] = {**self._place.connection, "autocommit": True, "row_factory": dict_row}
        connection = await AsyncConnection.connect(**told)
        # Every number as the same type: else each size of a number makes another prepared statement.
        connection.adapters.register_dumper(int, Int8BinaryDumper)
        return cast("Connection", connection)

    async def read(self, work: Work[_T], *, quick: bool = False) -> _T:
        async with self._connection() as connection:
            return await work(PostgresTransaction(connection))

    async def write(self, work: Work[_T], *, durable: bool = False, quick: bool = False) -> _T:
        async with self._connection() as connection:
            tx = PostgresTransaction(connection)
            tx.begin(durable)
            try:
                done = await work(tx)
            except BaseException:
                with suppress(psycopg.Error):  # the connection is lost, and the transaction with it
                    await tx.rollback()
                raise
            try:
                await tx.commit()
            except psycopg.Error as error:
                raise _failed(error, connection, unclear=True) from error
            return done

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = None
        try:
            async with self._pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise _failed(error, connection) from error

    async def close(self) -> None:
        await self._pool.close()

    async def lock_schema(self, tx: Transaction) -> None:
        await tx.plain(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    async def partitions(self, tx: Transaction) -> int | None:
        (found,) = await tx.plain("SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('checkpoints')")
        return int(found["count"])

    async def cautions(self, tx: Transaction) -> list[str]:
        lost = {
            "fsync": "a crash of its machine can destroy the whole database.",
            "full_page_writes": "a crash of its machine can destroy pages of the database.",
            "synchronous_commit": "a crash of the server can lose the commits of the last moments (Temporal's retries "
            "write them again), but no claim of an irreversible effect.",
        }
        off = [name for name in lost if (await tx.plain(f"SHOW {name}"))[0][name] == "off"]
        return [f"PostgreSQL runs with {name}=off: {lost[name]}" for name in off]

    async def bytes(self, tx: Transaction, tables: Sequence[str]) -> int:
        total = 0
        for table in tables:
            parts = f"SELECT inhrelid FROM pg_inherits WHERE inhparent = '{table}'::regclass"
            every = f"SELECT '{table}'::regclass AS part UNION ALL ({parts})"
            (size,) = await tx.plain(f"SELECT sum(pg_total_relation_size(part)) AS size FROM ({every}) AS parts")
            total += int(size["size"])
        return total


def _failed(error: psycopg.Error, connection: Connection | None, *, unclear: bool = False) -> Failed:
    code = error.sqlstate
    if code is None:  # the connection was lost, or there is nobody to connect to
        lost = connection is None or connection.closed or isinstance(error, psycopg.OperationalError)
        refused = isinstance(error, psycopg.DataError)
        return Failed(str(error), passing=lost and not refused, refused=refused, unclear=unclear)
    return Failed(
        str(error), passing=code in _PASSING or code.startswith(_CONNECTION_LOST), outdated=code in _NO_TABLE,
        refused=isinstance(error, psycopg.DataError), unclear=unclear,
    )  # fmt: skip


class PostgresTransaction:
    """See ``perdure.stores.database.Transaction``.

    Statements whose answers nobody waits for are sent with the next that somebody does: so a transaction takes two or
    three messages to the server and back, with its beginning and its end.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[tuple[str, Mapping[str, Any] | None]] = []
        self._begun = False

    def begin(self, durable: bool) -> None:
        """Begin it; ``durable``: its end waits for the disk also where that is switched off."""
        self._begun = True
        self._waiting.append(("BEGIN", None))
        if durable:
            self._waiting.append((_HARDEN, None))

    async def commit(self) -> None:
        """Make it good, with what still waits to be sent, unless it was rolled back."""
        if self._begun:
            self._waiting.append(("COMMIT", None))
            await self._send()

    async def rollback(self) -> None:
        self._begun = False
        self._waiting.clear()
        await self._connection.rollback()

    def later(self, name: str, **values: Any) -> None:
        self._waiting += [(sql, values) for sql, _ in query(name, PostgresEngine.name)]

    async def run(self, name: str, **values: Any) -> int:
        self.later(name, **values)
        return (await self._send())[-1].rowcount

    async def together(self, *calls: Call) -> list[Answer]:
        last = []
        for name, values in calls:
            self.later(name, **values)
            last.append(len(self._waiting) - 1)
        sent = await self._send()
        return [Answer(await _rows(sent[number]), sent[number].rowcount) for number in last]

    async def one(self, name: str, **values: Any) -> Row | None:
        found = await self.all(name, **values)
        return found[0] if found else None

    async def all(self, name: str, **values: Any) -> Sequence[Row]:
        self.later(name, **values)
        return await _rows((await self._send())[-1])

    async def plain(self, sql: str, **values: Any) -> Sequence[Row]:
        self._waiting.append((for_postgres(sql), values) if values else (sql, None))
        return await _rows((await self._send())[-1])

    async def _send(self) -> list[AsyncCursor[dict[str, Any]]]:
        waiting, self._waiting = self._waiting, []
        if len(waiting) == 1:
            return [await self.execute(*waiting[0])]
        async with self._connection.pipeline():
            return [await self.execute(sql, values) for sql, values in waiting]

    async def execute(self, sql: str, values: Mapping[str, Any] | None) -> AsyncCursor[dict[str, Any]]:
        """Run a statement: the one place where it's done."""
        return await self._connection.execute(sql.encode(), values, binary=True)


async def _rows(cursor: AsyncCursor[dict[str, Any]]) -> Sequence[Row]:
    return await cursor.fetchall() if cursor.description else []
