"""A SQL database: transactions that are patient with a server that goes away, and named queries in them."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol, TypeVar, cast

from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from perdure.errors import InvalidInput, PerdureError, StoreOutdated, StoreUnreachable
from perdure.stores.queries import query
from perdure.stores.rows import Row

_T = TypeVar("_T")
_SHORTEST, _LONGEST = 0.05, 1.0  # seconds between two tries


class Dialect(Protocol):
    """What is different from one database to another. ``name`` is also that of its folder of migrations."""

    name: str
    reads: Mapping[str, Any]  # options of a connection that runs one query

    def passing(self, error: DBAPIError) -> bool:
        """Whether the same may work in a moment: the server was restarted, the network cut, a deadlock broken up."""

    def outdated(self, error: DBAPIError) -> bool:
        """Whether a table is missing."""

    def writes(self, durable: bool) -> Mapping[str, Any]:
        """Options of a connection that changes something."""

    async def harden(self, connection: AsyncConnection) -> None:
        """Let this transaction be safe on disk once it is committed, whatever is configured, as far as that goes."""

    async def lock_schema(self, connection: AsyncConnection) -> None:
        """Let nobody else change the schema until the transaction ends."""

    async def partitions(self, connection: AsyncConnection) -> int | None:
        """Over how many partitions the tables that grow are spread; None where the database has no such thing."""

    async def cautions(self, connection: AsyncConnection) -> list[str]:
        """See ``perdure.stores.base.Store.cautions``."""

    async def bytes(self, connection: AsyncConnection, tables: Sequence[str]) -> int:
        """What the tables take up, with their indexes."""


class Transaction:
    """Named queries on one connection."""

    def __init__(self, connection: AsyncConnection, dialect: Dialect) -> None:
        self.connection = connection
        self.dialect = dialect

    async def run(self, name: str, **values: Any) -> int:
        """Run the statements of this name; how many rows the last one changed. Values they don't name are left out."""
        changed = 0
        for statement, names in query(name, self.dialect.name):
            chosen = {key: values[key] for key in names}
            changed = (await self.connection.execute(statement, chosen)).rowcount
        return changed

    async def many(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement for each of the rows."""
        ((statement, names),) = query(name, self.dialect.name)
        if rows:
            await self.connection.execute(statement, [{key: row[key] for key in names} for row in rows])

    async def one(self, name: str, **values: Any) -> Row | None:
        """The first row."""
        found = await self.all(name, **values)
        return found[0] if found else None

    async def all(self, name: str, **values: Any) -> Sequence[Row]:
        """All rows."""
        ((statement, names),) = query(name, self.dialect.name)
        found = await self.connection.execute(statement, {key: values[key] for key in names})
        return cast("Sequence[Row]", found.mappings().all())


class Database:
    """Runs work in transactions, and again where the database was away for a moment.

    ``patience``: for how many seconds a failing operation is tried again. Every method raises StoreUnreachable,
    StoreOutdated where tables are missing, and InvalidInput for a value that the database doesn't take.
    """

    def __init__(self, engine: AsyncEngine, dialect: Dialect, url: str, *, patience: float = 0) -> None:
        self.engine = engine
        self.dialect = dialect
        self.url = url
        self._patience = patience
        self._reading = engine.execution_options(**dialect.reads)
        self._writing = {durable: engine.execution_options(**dialect.writes(durable)) for durable in (False, True)}

    async def one(self, name: str, **values: Any) -> Row | None:
        """The first row of a query."""
        found = await self.all(name, **values)
        return found[0] if found else None

    async def all(self, name: str, **values: Any) -> Sequence[Row]:
        """All rows of a query."""
        return await self.read(lambda tx: tx.all(name, **values))

    async def run(self, name: str, **values: Any) -> int:
        """Run a statement that may be repeated, in a transaction of its own; how many rows it changed."""
        return await self.write(lambda tx: tx.run(name, **values))

    async def read(self, work: Callable[[Transaction], Awaitable[_T]]) -> _T:
        """Do work that changes nothing."""

        async def once() -> _T:
            async with self._reading.connect() as connection:
                return await work(Transaction(connection, self.dialect))

        return await self._patiently(once)

    async def write(
        self, work: Callable[[Transaction], Awaitable[_T]], *, repeatable: bool = True, durable: bool = False
    ) -> _T:
        """Do work in one transaction.

        A transaction that was lost before its end has left nothing and is done again. Where the connection is lost
        while it ends, nobody knows whether it did: then only work that is ``repeatable`` is done again. ``durable``:
        for what must be on disk when this returns, even where the database is set up to be less careful.
        """

        async def once() -> _T:
            async with self._writing[durable].connect() as connection:
                if durable:
                    await self.dialect.harden(connection)
                done = await work(Transaction(connection, self.dialect))
                try:
                    await connection.commit()
                except DBAPIError as error:
                    if repeatable:
                        raise
                    raise _Unknown(error) from error
                return done

        return await self._patiently(once)

    async def _patiently(self, once: Callable[[], Awaitable[_T]]) -> _T:
        retrying = AsyncRetrying(
            stop=stop_after_delay(self._patience),
            wait=wait_random_exponential(multiplier=_SHORTEST, max=_LONGEST),
            retry=retry_if_exception(self._passing),
            reraise=True,
        )
        try:
            return await retrying(once)
        except (DBAPIError, PoolExhausted, _Unknown) as error:
            self._raise_ours(error)

    def _passing(self, error: BaseException) -> bool:
        return isinstance(error, DBAPIError) and self.dialect.passing(error)

    def _raise_ours(self, error: Exception) -> NoReturn:
        """Turn the database's errors into ours."""
        cause = error.error if isinstance(error, _Unknown) else error
        said = str(cause.orig).strip() if isinstance(cause, DBAPIError) else str(cause)
        ours: PerdureError = StoreUnreachable(f"The store {self.url} doesn't answer: {said}.")
        if isinstance(cause, DBAPIError) and self.dialect.outdated(cause):
            ours = StoreOutdated(f"The store {self.url} has no schema yet.", hint="Run `perdure db migrate`.")
        elif isinstance(cause, DataError):
            ours = InvalidInput(f"The store {self.url} can't take that: {said}.")
        raise ours from error


class _Unknown(Exception):
    """The connection was lost while a transaction ended that may not be repeated."""

    def __init__(self, error: DBAPIError) -> None:
        super().__init__(str(error))
        self.error = error
