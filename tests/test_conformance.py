"""The four backends through the conformance suite; and random work on each of them against the store in memory."""

import itertools
from collections.abc import Callable
from pathlib import Path
from random import Random

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from perdure.errors import PerdureError
from perdure.stores import open_store
from perdure.stores.memory import MemoryStore
from perdure.testing.conformance import MakeStore, StoreConformance
from tests.broken_stores import CHECKED
from tests.properties import brief
from tests.work import Work

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def shared_postgres(postgres_url: Callable[[], str]) -> str:
    """One database for all tests: to make one and its schema takes longer than most of them."""
    return postgres_url()


class TestMemory(StoreConformance):
    """The store in memory."""

    @pytest.fixture
    def make_store(self) -> MakeStore:
        name = f"conformance-{next(_numbers)}"
        return lambda: MemoryStore.named(name)


class TestSqlite(StoreConformance):
    """A SQLite file."""

    @pytest.fixture
    def make_store(self, tmp_path: Path) -> MakeStore:
        return lambda: open_store(f"sqlite:///{tmp_path / 'store.db'}")


class TestPostgres(StoreConformance):
    """A PostgreSQL database."""

    @pytest.fixture
    def make_store(self, shared_postgres: str) -> MakeStore:
        with psycopg.connect(shared_postgres) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            for (table,) in tables:
                if table != "schema_migrations":
                    connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        return lambda: open_store(shared_postgres)

    @pytest.fixture
    def make_bare_store(self, postgres_url: Callable[[], str]) -> MakeStore:
        url = postgres_url()
        return lambda: open_store(url)


class TestRedis(StoreConformance):
    """A Valkey server."""

    @pytest.fixture
    def make_store(self, redis_url: Callable[[], str]) -> MakeStore:
        url = redis_url()
        return lambda: open_store(url)


# ── random work ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def fresh_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Each call is the URL of another store, which is empty."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path / f'{next(_numbers)}.db'}"
    fresh: Callable[[], str] = request.getfixturevalue(f"{request.param}_url")
    return fresh


@settings(brief, max_examples=10)
@given(chance=st.randoms(use_true_random=False), steps=st.integers(1, 60))
async def test_random_work_comes_to_the_same(fresh_url: Callable[[], str], chance: Random, steps: int) -> None:
    """Commits, forks, rewinds, prunings, copies, deletions, the ledger: whatever is done in whatever order, the store
    answers as the one in memory does, refuses what that refuses, and holds the same; and both are whole.
    """
    store = open_store(fresh_url())
    try:
        await store.migrate()
        await Work(store, chance).run(steps)
    finally:
        await store.close()


# ── the suite ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", list(CHECKED), ids=lambda kind: kind.__name__.lower())
async def test_the_suite_finds_what_is_wrong(kind: type[MemoryStore]) -> None:
    """Each of these stores is wrong in one way only, and the check that is about it fails."""
    name, *arguments = CHECKED[kind]
    check = getattr(StoreConformance(), name)
    await check(MemoryStore(), *arguments)
    with pytest.raises((AssertionError, pytest.fail.Exception, PerdureError)):
        await check(kind(), *arguments)
