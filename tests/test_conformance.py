"""The four backends through the conformance suite; and random work on each of them against the store in memory."""

import itertools
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from random import Random

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from perdure.errors import InvalidInput, PerdureError
from perdure.stores import open_store
from perdure.stores.memory import MemoryStore
from perdure.stores.open import open_existing
from perdure.testing.conformance import MakeStore, StoreConformance
from perdure.testing.conformance.writer import Writer
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


# ── stores of others ─────────────────────────────────────────────────────────────────────────────────────────────

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language in the page about stores."""
    page = (ROOT / "docs" / "stores.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


MY_STORE = """
from perdure.stores.memory import MemoryStore

def open_my_store(url):
    return MemoryStore.named(url)
"""


def package(folder: Path) -> None:
    """What somebody installs who follows that page: a module with a store, and its entry point."""
    (folder / "my_store.py").write_text(MY_STORE)
    [declared] = blocks("toml")
    points = tomllib.loads(declared)["project"]["entry-points"]
    installed = folder / "my_store-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: my-store\nVersion: 1.0\n")
    lines = [line for group in points for line in (f"[{group}]", *map("=".join, points[group].items()))]
    (installed / "entry_points.txt").write_text("\n".join(lines))


async def test_an_installed_package_opens_its_own_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its entry point, so that PERDURE_STORE may name such a store; a kind that nobody opens is refused."""
    with pytest.raises(InvalidInput, match="names no store"):
        open_store("mystore://place")
    package(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    store = open_store("mystore://place")
    await Writer(store, "thread").grow(1)
    assert await open_existing("mystore://place").thread("thread") is not None


def test_the_page_shows_how_to_run_the_suite(tmp_path: Path) -> None:
    """Its example runs as it is, in a project that has none of our settings for pytest."""
    package(tmp_path)
    [example] = blocks("python")
    (tmp_path / "test_my_store.py").write_text(example)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--strict-markers", "-p", "no:cacheprovider", "-k", "commit"],
        cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert int(re.findall(r"(\d+) passed", ran.stdout)[0]) > 10
