"""Where a SQL store keeps what it has, and a way behind its back: the same for a SQLite file and for PostgreSQL."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import psycopg

from perdure.stores.open import open_store
from perdure.stores.sql_store import SqlStore
from tests.postgres import Fresh


class Place(Protocol):
    """A database of its own."""

    kind: str
    url: str

    def copy(self) -> "Place":
        """Another one with the same content. Nobody may be using this one."""

    def connect(self) -> Any:
        """A connection of the driver, in a transaction that locks what it changes."""

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""

    def tables(self) -> list[str]:
        """The tables."""

    def bytes(self) -> int:
        """What all tables and indexes take up."""


class SqlitePlace:
    """A file."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        self._copies = count(1)

    def copy(self) -> "SqlitePlace":
        path = self.path.with_name(f"{self.path.stem}-{next(self._copies)}.db")
        shutil.copy(self.path, path)
        return SqlitePlace(path)

    def connect(self) -> Any:
        connection = sqlite3.connect(self.path, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        return connection

    def columns(self, table: str) -> list[str]:
        return [name for _, name, *_ in run(self, f"PRAGMA table_info({table})")]

    def tables(self) -> list[str]:
        return sorted(name for (name,) in run(self, "SELECT name FROM sqlite_master WHERE type = 'table'"))

    def bytes(self) -> int:
        ((pages,),), ((size,),) = run(self, "PRAGMA page_count"), run(self, "PRAGMA page_size")
        return int(pages * size)


class PostgresPlace:
    """A database on a server."""

    kind = "postgresql"

    def __init__(self, fresh: Fresh, url: str = "") -> None:
        self._fresh = fresh
        self.url = url or fresh()

    def copy(self) -> "PostgresPlace":
        return PostgresPlace(self._fresh, self._fresh(copy_of=self.url))

    def connect(self) -> Any:
        return psycopg.connect(self.url)

    def columns(self, table: str) -> list[str]:
        asked = "SELECT column_name FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position"
        return [name for (name,) in run(self, asked, table)]

    def tables(self) -> list[str]:
        return sorted(name for (name,) in run(self, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"))

    def bytes(self) -> int:
        sizes = [run(self, f"SELECT pg_total_relation_size('{table}')") for table in self.tables()]
        return sum(size for ((size,),) in sizes)


@contextmanager
def behind(place: Place) -> Iterator[Any]:
    """A transaction that the store knows nothing of."""
    with closing(place.connect()) as connection:
        yield connection
        connection.commit()


def run(place: Place, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement in a transaction of its own; the rows that it gives. ``?`` stands for a value."""
    with behind(place) as connection:
        cursor = connection.execute(sql if place.kind == "sqlite" else sql.replace("?", "%s"), values)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def dump(place: Place) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that is in the database."""
    return {table: sorted(run(place, f"SELECT * FROM {table}"), key=repr) for table in place.tables()}


async def opened(place: Place, **options: Any) -> SqlStore:
    """A store with its schema."""
    store = open_store(place.url)
    assert isinstance(store, SqlStore)
    await store.migrate(**options)
    return store
