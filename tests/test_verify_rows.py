"""`perdure db verify` on rows as they are: whatever a database has of a checkpoint, none of it changes unnoticed."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from perdure.care.verify import verify
from perdure.stores.redis.keys import place
from perdure.stores.redis_store import RedisStore
from perdure.stores.sql_store import SqlStore
from tests.test_verify import FIRST, SECOND, checkpoint_id, problem_of, write

COLUMNS = (
    "thread", "parent_thread", "created_at", "step", "turn", "schema_version", "size", "state_size", "based", "cut",
    "checkpoint_id", "parent_id", "source", "nodes", "next", "metadata", "facts", "digest", "seal", "delta",
)  # fmt: skip


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqlStore]:
    """A SQLite store with two threads of ten steps."""
    store = SqlStore.sqlite(tmp_path / "store.db")
    await store.migrate()
    for thread in (FIRST, SECOND):
        await write(store, thread, steps=10)
    yield store
    await store.close()


async def columns(store: SqlStore) -> dict[str, Any]:
    """A row of a checkpoint, by column."""
    (row,) = await store.database.read(lambda tx: tx.plain("SELECT * FROM checkpoints WHERE step = 5 AND thread = 2"))
    return dict(row)


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_changed_column_is_found(sqlite: SqlStore, column: str) -> None:
    """No column of a checkpoint can change unnoticed."""
    row = await columns(sqlite)
    assert tuple(row) == COLUMNS
    change = f"UPDATE checkpoints SET {column} = :value WHERE step = 5 AND thread = 2"
    await sqlite.database.write(lambda tx: tx.plain(change, value=_changed(row[column])))
    report = await verify(sqlite)
    assert report.problem is not None
    assert (report.problem.table, report.problem.thread_id) == ("checkpoints", SECOND)
    if column not in ("thread", "checkpoint_id", "step"):  # without these the row can't be found any more
        assert (report.problem.row, report.checkpoints) == (checkpoint_id(SECOND, 5), 15)
    assert (await verify(sqlite, FIRST)).problem is None


def _changed(value: Any) -> Any:
    match value:
        case int():
            return value + 1
        case str():
            return value + "x"
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 0x80])
        case _:
            return 1


@pytest.mark.parametrize("part", ["links", "checkpoints", "steps"])
async def test_a_missing_part_is_found(redis_url: Callable[[], str], part: str) -> None:
    """On Redis a checkpoint is kept under three keys; none of them can lose it unnoticed."""
    store = RedisStore.from_url(redis_url())
    await store.migrate()
    await write(store, SECOND, steps=10)
    key, name = store._keys.part(SECOND, part), checkpoint_id(SECOND, 5)
    gone = ("ZREM", key, place(5, name)) if part == "steps" else ("HDEL", key, name)
    assert await store._ask(*gone) == 1
    problem = await problem_of(store)
    assert (problem.table, problem.thread_id) == ("checkpoints", SECOND)
    await store.close()
