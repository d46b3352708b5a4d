"""What all checks of the suite share: stores on the database of one test."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from perdure.care.verify import verify
from perdure.stores.base import Store

MakeStore = Callable[[], Store]


class Suite:
    """The fixtures. Each test runs on a database of its own, and leaves one that `perdure db verify` finds whole."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def make_store(self) -> MakeStore:
        """Yours to override: each call is another store on one database, which is empty when the test begins."""
        raise pytest.UsageError("A subclass of StoreConformance needs a fixture make_store.")

    @pytest.fixture
    def make_bare_store(self, make_store: MakeStore) -> MakeStore:
        """The same on a database that has no schema.

        Override it where making one takes long, and ``make_store`` gives one that was migrated and emptied since.
        """
        return make_store

    @pytest_asyncio.fixture
    async def another(self, make_store: MakeStore) -> AsyncIterator[MakeStore]:
        """Each call is another store on the database of the test; all of them are closed in the end."""
        async with _closing(make_store) as another:
            yield another

    @pytest_asyncio.fixture
    async def another_bare(self, make_bare_store: MakeStore) -> AsyncIterator[MakeStore]:
        """The same where nothing is, no schema either."""
        async with _closing(make_bare_store) as another:
            yield another

    @pytest_asyncio.fixture
    async def store(self, another: MakeStore) -> AsyncIterator[Store]:
        """The store, with its schema. Whatever the test did to it, every digest and every link is right afterwards."""
        store = another()
        await store.migrate()
        yield store
        assert (await verify(store)).problem is None


@asynccontextmanager
async def _closing(make: MakeStore) -> AsyncIterator[MakeStore]:
    opened: list[Store] = []

    def another() -> Store:
        opened.append(make())
        return opened[-1]

    yield another
    for store in opened:
        await store.close()
