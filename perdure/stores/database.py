"""A SQL database: transactions that are patient with a server that goes away, and named queries in them."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from perdure.errors import InvalidInput, PerdureError, StoreOutdated, StoreUnreachable
from perdure.stores.rows import Row

_T = TypeVar("_T")
Call = tuple[str, Mapping[str, Any]]
"""A name, and the values for its statements."""
_SHORTEST, _LONGEST = 0.05, 1.0  # seconds between two tries


class Answer(NamedTuple):
    """What the statements of a name came to: the rows of the last one, and how many rows it changed."""

    rows: Sequence[Row]
    changed: int


class Transaction(Protocol):
    """Statements on one connection, one after another.

    Most are named: see ``perdure.stores.queries``. They may be given more values than they name.
    """

    async def run(self, name: str, **values: Any) -> int:
        """Run the statements of this name; how many rows the last one changed."""

    async def together(self, *calls: Call) -> list[Answer]:
        """Run the statements of each name, in one message to a server: none of them depends on another's answer."""

    def later(self, name: str, **values: Any) -> None:
        """As ``run``, at the latest with the next statement whose answer is waited for, or at the end."""

    async def one(self, name: str, **values: Any) -> Row | None:
        """The first row."""

    async def all(self, name: str, **values: Any) -> Sequence[Row]:
        """All rows."""

    async def plain(self, sql: str, **values: Any) -> Sequence[Row]:
        """Run a statement that has no name; all rows."""

    async def rollback(self) -> None:
        """Undo everything, and end the transaction: each statement after that stands for itself."""


Work = Callable[[Transaction], Coroutine[Any, Any, _T]]
"""What is done in a transaction. It waits for nothing but the transaction: over SQLite it runs in another thread."""


class Failed(Exception):
    """A database didn't do its work: ``said`` is why, in its own words.

    ``passing``: the same may work in a moment. ``outdated``: a table is missing. ``refused``: it doesn't take a value.
    ``unclear``: nobody knows whether the transaction has ended well.
    """

    def __init__(
        self, said: str, *, passing: bool = False, outdated: bool = False, refused: bool = False, unclear: bool = False
    ) -> None:
        super().__init__(said)
        self.said = said.strip()
        self.passing = passing
        self.outdated = outdated
        self.refused = refused
        self.unclear = unclear


class Engine(Protocol):
    """One kind of database, with its connections. ``name`` is also that of its folder of migrations.

    What needs a connection raises Failed.
    """

    name: str

    async def read(self, work: Work[_T], *, quick: bool) -> _T:
        """Do work that changes nothing; each of its statements stands for itself. ``quick``: it finds a few rows by
        their keys."""

    async def write(self, work: Work[_T], *, durable: bool, quick: bool) -> _T:
        """Do work in one transaction. ``durable``: it is on disk when this returns, whatever is configured, as far as
        that goes. ``quick``: it is about a few small rows."""

    async def close(self) -> None:
        """Let go of connections; the next work opens one again."""

    async def lock_schema(self, tx: Transaction) -> None:
        """Let nobody else change the schema until the transaction ends."""

    async def partitions(self, tx: Transaction) -> int | None:
        """Over how many partitions the tables that grow are spread; None where the database has no such thing."""

    async def cautions(self, tx: Transaction) -> list[str]:
        """See ``perdure.stores.base.Store.cautions``."""

    async def bytes(self, tx: Transaction, tables: Sequence[str]) -> int:
        """What the tables take up, with their indexes."""


class Database:
    """Runs work in transactions, and again where the database was away for a moment.

    ``patience``: for how many seconds a failing operation is tried again. Every method raises StoreUnreachable,
    StoreOutdated where tables are missing, and InvalidInput for a value that the database doesn't take.
    """

    def __init__(self, engine: Engine, url: str, *, patience: float = 0) -> None:
        self.engine = engine
        self.url = url
        self._patience = patience

    async def one(self, name: str, **values: Any) -> Row | None:
        """The row of a query that looks it up by its key."""
        return await self.read(lambda tx: tx.one(name, **values), quick=True)

    async def all(self, name: str, **values: Any) -> Sequence[Row]:
        """All rows of a query."""
        return await self.read(lambda tx: tx.all(name, **values))

    async def run(self, name: str, **values: Any) -> int:
        """Run a statement that may be repeated, in a transaction of its own; how many rows it changed."""
        return await self.write(lambda tx: tx.run(name, **values))

    async def read(self, work: Work[_T], *, quick: bool = False) -> _T:
        """Do work that changes nothing. ``quick``: see Engine."""

        async def once() -> _T:
            return await self.engine.read(work, quick=quick)

        return await self._patiently(once, repeatable=True)

    async def write(self, work: Work[_T], *, repeatable: bool = True, durable: bool = False, quick: bool = False) -> _T:
        """Do work in one transaction.

        A transaction that was lost before its end has left nothing and is done again. Where the connection is lost
        while it ends, nobody knows whether it did: then only work that is ``repeatable`` is done again. ``durable``:
        for what must be on disk when this returns, even where the database is set up to be less careful. ``quick``:
        see Engine.
        """

        async def once() -> _T:
            return await self.engine.write(work, durable=durable, quick=quick)

        return await self._patiently(once, repeatable=repeatable)

    async def _patiently(self, once: Callable[[], Awaitable[_T]], *, repeatable: bool) -> _T:
        def again(error: BaseException) -> bool:
            return isinstance(error, Failed) and error.passing and (repeatable or not error.unclear)

        try:
            return await once()
        except Failed as error:
            if not (self._patience and again(error)):
                raise self._ours(error) from error
        # Only now, since all that it takes to try again costs more than most work.
        retrying = AsyncRetrying(
            stop=stop_after_delay(self._patience), wait=wait_random_exponential(multiplier=_SHORTEST, max=_LONGEST),
            retry=retry_if_exception(again), reraise=True,
        )  # fmt: skip
        try:
            return await retrying(once)
        except Failed as error:
            raise self._ours(error) from error

    def _ours(self, error: Failed) -> PerdureError:
        """The error that people are told."""
        if error.outdated:
            return StoreOutdated(f"The store {self.url} has no schema yet.", hint="Run `perdure db migrate`.")
        if error.refused:
            return InvalidInput(f"The store {self.url} can't take that: {error.said}.")
        return StoreUnreachable(f"The store {self.url} doesn't answer: {error.said}.")
