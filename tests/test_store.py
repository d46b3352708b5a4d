"""The store: one commit wins, a killed one leaves no trace, a changed row is found, a step costs what it holds."""

import asyncio
import itertools
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from perdure.canonical import canonical
from perdure.checkpointer import Checkpointer
from perdure.effects import Effect, arguments_digest
from perdure.errors import (
    CheckpointNotFound,
    ConcurrentModification,
    IntegrityError,
    InvalidInput,
    StoreOutdated,
    StoreUnreachable,
)
from perdure.stores import Store, open_store
from perdure.stores.base import EffectRow, Receipt
from perdure.verify import verify
from tests import commit_and_die
from tests.threads import History, checkpoint_id, noise, store_in

ROOT = Path(__file__).parents[1]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store in a file of its own."""
    store = await store_in(tmp_path)
    yield store
    await store.close()


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The file behind a store's back."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def rows(path: Path) -> list[str]:
    """Everything that is in a store."""
    with raw(path) as connection:
        return list(connection.iterdump())


# ── fencing ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_of_many_commits_wins(store: Store, tmp_path: Path) -> None:
    """Twelve commits on one head, through four connections at once: one becomes the head, the others are told so."""
    history = History(store)
    root = await history.commit({})
    stores = [open_store(f"sqlite:///{tmp_path / 'store.db'}") for _ in range(4)]
    changes = [history.change({"winner": {"op": "set", "value": number}}) for number in range(12)]
    done = await asyncio.gather(
        *(Checkpointer(stores[i % 4]).commit(root, change) for i, change in enumerate(changes)), return_exceptions=True
    )
    won = [position for position in done if not isinstance(position, BaseException)]
    lost = [str(error) for error in done if isinstance(error, ConcurrentModification)]
    assert (len(won), len(lost)) == (1, 11)
    assert {f"extends {root.ref.id}, but the head is {won[0].ref.id}" in error for error in lost} == {True}
    assert await Checkpointer(stores[0]).load(history.thread_id, won[0].ref.id) == won[0]
    assert len(await store.history(history.thread_id, limit=100)) == 2
    for other in stores:
        await other.close()


async def test_two_threads_of_one_name_are_one(store: Store) -> None:
    """A thread begins once: of two first checkpoints under one id the second is refused."""
    first, second = History(store, "same"), History(store, "same")
    await first.commit({})
    with pytest.raises(ConcurrentModification, match="extends None, but the head is"):
        await second.commit({})


async def test_a_refused_commit_changes_nothing(store: Store, tmp_path: Path) -> None:
    """Also where it brought a snapshot, a result and a receipt: the file holds what it held."""
    history = History(store)
    root = await history.commit({"big": {"op": "set", "value": noise(9_000)}})
    await history.commit({})
    before = rows(tmp_path / "store.db")
    change = history.change({"big": {"op": "set", "value": ""}})
    with pytest.raises(ConcurrentModification):
        await Checkpointer(store).commit(root, change, receipt=Receipt(key="k", result=b"1"), clears=("k",))
    assert rows(tmp_path / "store.db") == before


# ── a process that is killed ─────────────────────────────────────────────────────────────────────────────────────


async def picture(path: Path) -> dict[str, Any]:
    """What a commit changes, but for the time."""
    store = open_store(f"sqlite:///{path}")
    thread = await store.thread(commit_and_die.THREAD)
    assert thread is not None
    effect = await store.effect(thread.thread_id, commit_and_die.KEY)
    assert effect is not None
    seen = {
        "head": await Checkpointer(store).load(thread.thread_id, thread.head_id),
        "history": [c.digest for c in await store.history(thread.thread_id, limit=100)],
        "snapshots": await store.snapshots(thread.thread_id),
        "result": await store.result("s", "k"),
        "effect": (effect.entry.status, effect.receipt),
        "parts": await store.receipts(thread.thread_id, [commit_and_die.PART]),
    }
    assert (await verify(store)).problem is None
    await store.close()
    return seen


def copies(folder: Path) -> list[Path]:
    """What ``commit_and_die`` left, in its order."""
    return sorted(folder.glob("dead-*.db"), key=lambda path: int(path.stem.removeprefix("dead-")))


async def test_a_killed_commit_leaves_the_old_head_or_the_new(tmp_path: Path) -> None:
    """Killed before any of its statements, a commit has happened or it has not; done again, it has.

    The commit carries everything there is: a snapshot, a cached result, an effect's receipt, a part that it merges.
    """
    template = tmp_path / "template.db"
    store = await store_in(tmp_path, template.name)
    history = History(store, commit_and_die.THREAD)
    head = (await history.commit({"text": {"op": "set", "value": noise(9_000)}})).ref.id
    entry = Effect(key=commit_and_die.KEY, tool="pay", effect="idempotent", turn=1, step=0, index=0)
    seen = arguments_digest(entry.tool, b"{}")
    row = EffectRow(thread_id=history.thread_id, entry=entry, arguments=b"{}", arguments_digest=seen)
    await store.claim(row, head=head)
    await store.put_receipt(history.thread_id, Receipt(key=commit_and_die.PART, result=b"1"), head=head)
    await store.close()
    old = await picture(template)

    ran = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "tests.commit_and_die", str(template)], cwd=ROOT, timeout=120
    )
    assert ran.returncode == 0
    *dead, alive = copies(tmp_path)
    assert len(dead) >= 9, "fewer statements than a whole commit has"
    new = await picture(alive)
    assert [new[part] != old[part] for part in new] == [True] * 6
    for path in dead:
        assert await picture(path) == old, path.stem
        await commit_and_die.commit(path)
        assert await picture(path) == new, path.stem


# ── a row that is changed ────────────────────────────────────────────────────────────────────────────────────────

FLIPPED = {
    "null": lambda value: value + 1,
    "integer": lambda value: value + 1,
    "text": lambda value: value[:-1] + ("x" if value[-1:] != "x" else "y"),
    "blob": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
}


@pytest.mark.parametrize("table", ["checkpoints", "snapshots"])
async def test_a_changed_column_is_found(table: str, store: Store, tmp_path: Path) -> None:
    """Whatever column of whatever row a load reads is changed by whatever hand: it fails with IntegrityError.

    Only a head that is no longer found under its name is reported as missing.
    """
    history = History(store)
    for _ in range(30):
        await history.commit({"text": {"op": "set", "value": noise(700)}}, metadata={"note": 1})
    await History(store).commit({})  # so that another thread's number is a thread's number
    assert history.head is not None
    line = await store.line(history.thread_id, history.head.ref.id)
    assert line is not None and line.snapshot is not None and len(line.checkpoints) > 2
    await store.close()
    last = line.checkpoints[-1].step
    steps = [line.checkpoints[0].step, last - 1, last] if table == "checkpoints" else [line.checkpoints[0].step]
    with raw(tmp_path / "store.db") as connection:
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    assert len(columns) >= 4
    for step, column in itertools.product(steps, columns):
        path = tmp_path / "tampered.db"
        shutil.copy(tmp_path / "store.db", path)
        _tamper(path, table, column, step)
        gone = step == last and column in ("thread", "checkpoint_id")
        other = open_store(f"sqlite:///{path}")
        with pytest.raises(CheckpointNotFound if gone else IntegrityError):
            await Checkpointer(other).load(history.thread_id, history.head.ref.id)
            pytest.fail(f"a changed {column} in step {step} was not found")
        await other.close()


def _tamper(path: Path, table: str, column: str, step: int) -> None:
    where = "WHERE checkpoint_id = (SELECT checkpoint_id FROM checkpoints WHERE step = ? ORDER BY thread LIMIT 1)"
    with raw(path) as connection:
        value, kind = connection.execute(f"SELECT {column}, typeof({column}) FROM {table} {where}", (step,)).fetchone()
        changed = FLIPPED[kind](value)
        assert changed != value
        assert connection.execute(f"UPDATE {table} SET {column} = ? {where}", (changed, step)).rowcount == 1


@pytest.mark.parametrize("step", [0, 1])
async def test_a_missing_row_is_found(step: int, store: Store, tmp_path: Path) -> None:
    """A state of which a delta is missing isn't the state."""
    history = History(store)
    for number in range(3):
        await history.commit({"n": {"op": "append", "items": [number]}})
    with raw(tmp_path / "store.db") as connection:
        connection.execute("DELETE FROM checkpoints WHERE step = ?", (step,))
    assert history.head is not None
    with pytest.raises(IntegrityError):
        await Checkpointer(store).load(history.thread_id, history.head.ref.id)


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────


def file_bytes(path: Path) -> int:
    """The database without its log: pages by their size."""
    with raw(path) as connection:
        ((pages,),) = connection.execute("PRAGMA page_count")
        ((size,),) = connection.execute("PRAGMA page_size")
    return int(pages * size)


def stored_bytes(path: Path) -> int:
    """The bytes of all values in all rows of all tables."""
    with raw(path) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    return sum(len(value) if isinstance(value, bytes | str) else 8 for row in found for value in row)


async def test_a_thousand_steps_are_at_most_three_times_their_payload(store: Store, tmp_path: Path) -> None:
    """Tool calls of 200 bytes, results of 500, neither of which compresses: two checkpoints and a cached answer a step.

    And the 200th step costs what the 20th did.
    """
    path, history = tmp_path / "store.db", History(store)
    await history.commit({})
    stored: dict[int, int] = {}
    for step in range(1_000):
        if step in (10, 30, 190, 210):
            stored[step] = stored_bytes(path)
        await history.loop(200, 500)
    assert file_bytes(path) <= 3 * 700 * 1_000
    early, late = stored[30] - stored[10], stored[210] - stored[190]
    assert abs(late / early - 1) < 0.1


@pytest.mark.parametrize("result", [1_300, 3_000, 9_000])
async def test_large_results_cost_no_more(result: int, store: Store, tmp_path: Path) -> None:
    """A row as large as a page, or larger, doesn't take another page for itself."""
    history = History(store)
    await history.commit({})
    empty = file_bytes(tmp_path / "store.db")
    for _ in range(60):
        await history.loop(200, result)
    assert file_bytes(tmp_path / "store.db") - empty <= 2 * (200 + result) * 60


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("url", ["", "store.db", "sqlite://", "sqlite://host/store.db", "mysql:///x", "sqlite:///"])
def test_an_url_that_names_no_store_is_refused(url: str) -> None:
    """The error says how to write one."""
    with pytest.raises(InvalidInput, match="sqlite:///FILE"):
        open_store(url)


async def test_a_store_without_schema_says_so(tmp_path: Path) -> None:
    """What is missing is listed; migrating makes it, once."""
    store = open_store(f"sqlite:///{tmp_path / 'new' / 'store.db'}")
    with pytest.raises(StoreOutdated, match="perdure db migrate"):
        await store.threads()
    missing = await store.missing_migrations()
    assert missing == await store.migrate() != []
    assert await store.missing_migrations() == await store.migrate() == await store.threads() == []
    await store.close()


async def test_a_store_out_of_reach_says_so(tmp_path: Path) -> None:
    """A folder is no database: worth trying again, since somebody may mend it."""
    store = open_store(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreUnreachable, match="doesn't answer") as refused:
        await store.threads()
    assert refused.value.retry
    await store.close()


async def test_any_checkpoint_id_is_kept(store: Store) -> None:
    """Ids are UUIDs; what is brought from elsewhere may have others."""
    history = History(store)
    ids = ["c1", "x" * 11, checkpoint_id().upper(), checkpoint_id(), "é" * 40]
    for name in ids:
        await history.commit({}, checkpoint_id=name)
    assert [c.id for c in await store.history(history.thread_id, limit=9)] == ids[::-1]
    assert [c.parent_id async for c in store.walk(history.thread_id)] == [None, *ids[:-1]]


async def test_blobs_are_kept_once(store: Store, tmp_path: Path) -> None:
    """Bytes are found under their digest, large ones too; the same bytes again take no room."""
    blob = canonical({"a": noise(100_000)})
    name = await store.put_blob("result", blob)
    before = file_bytes(tmp_path / "store.db")
    assert await store.put_blob("result", blob) == name
    assert await store.blob(name) == blob
    assert await store.blob("0" * 64) is None
    assert file_bytes(tmp_path / "store.db") == before
