"""The SQL store on both databases: one commit wins, a killed one leaves no trace, a changed row is found."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.errors import CheckpointNotFound, ConcurrentModification, IntegrityError
from perdure.stores import Store, open_store
from perdure.stores.base import EffectRow, Receipt
from perdure.stores.sql_store import SqlStore
from tests import commit_and_die
from tests.places import Place, behind, dump, opened, run
from tests.threads import History, checkpoint_id, effect, name, noise

ROOT = Path(__file__).parents[1]


@pytest.fixture
async def store(place: Place) -> AsyncIterator[SqlStore]:
    """A store with its schema, in a place of its own."""
    store = await opened(place)
    yield store
    await store.close()


# ── fencing ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_of_many_commits_wins(store: Store, place: Place) -> None:
    """Twelve commits on one head, through four stores at once: one becomes the head, the others learn both versions."""
    history = History(store)
    root = await history.commit({})
    stores = [open_store(place.url) for _ in range(4)]
    changes = [history.change({"winner": {"op": "set", "value": number}}) for number in range(12)]
    done = await asyncio.gather(
        *(Checkpointer(stores[i % 4]).commit(root, change) for i, change in enumerate(changes)), return_exceptions=True
    )
    won = [position for position in done if not isinstance(position, BaseException)]
    lost = [error for error in done if isinstance(error, ConcurrentModification)]
    assert (len(won), len(lost)) == (1, 11)
    assert {(error.expected, error.actual) for error in lost} == {(root.ref.id, won[0].ref.id)}
    assert all(root.ref.id in str(error) and won[0].ref.id in str(error) for error in lost)
    assert await Checkpointer(stores[0]).load(history.thread_id, won[0].ref.id) == won[0]
    assert [c.id async for c in store.walk(history.thread_id)] == [root.ref.id, won[0].ref.id]
    for other in stores:
        await other.close()


async def test_one_commit_by_many_is_done_once(store: Store, place: Place) -> None:
    """Attempts of one commit that run side by side all succeed, and there is one checkpoint."""
    history = History(store)
    root = await history.commit({})
    stores = [open_store(place.url) for _ in range(4)]
    change = history.change({"n": {"op": "set", "value": 1}})
    done = await asyncio.gather(*(Checkpointer(stores[i % 4]).commit(root, change) for i in range(12)))
    assert {position.ref.id for position in done} == {change.checkpoint_id}
    assert len(await store.path(history.thread_id, change.checkpoint_id, limit=9)) == 2
    for other in stores:
        await other.close()


async def test_a_thread_begins_once(store: Store, place: Place) -> None:
    """Of several first checkpoints under one thread's id, at the same time, one is the root."""
    stores = [open_store(place.url) for _ in range(4)]
    firsts = [History(stores[i % 4], "same") for i in range(8)]
    done = await asyncio.gather(*(first.commit({}) for first in firsts), return_exceptions=True)
    lost = [error for error in done if isinstance(error, ConcurrentModification)]
    row = await store.thread("same")
    assert row is not None and len(lost) == 7
    assert {(error.expected, error.actual) for error in lost} == {("", row.head_id)}
    assert [c.id async for c in store.walk("same")] == [row.head_id]
    for other in stores:
        await other.close()


async def test_a_refused_commit_changes_nothing(store: Store, place: Place) -> None:
    """Also where it brought a snapshot, a receipt and labels: the database holds what it held."""
    history = History(store)
    root = await history.commit({"big": {"op": "set", "value": noise(9_000)}})
    await history.commit({})
    before = dump(place)
    change = history.change({"big": {"op": "set", "value": ""}}, metadata={"a": 1})
    with pytest.raises(ConcurrentModification):
        await Checkpointer(store).commit(root, change, receipt=Receipt(key="k", result=b"1"), clears=("k",))
    assert dump(place) == before


async def test_a_commit_without_its_parent_changes_nothing(store: Store, place: Place) -> None:
    """A rewind to what isn't there, and a fork of what isn't there: nobody would ever load them."""
    history = History(store)
    head = await history.commit({})
    nowhere = replace(head, ref=head.ref.model_copy(update={"id": checkpoint_id()}))
    elsewhere = replace(nowhere, thread_id=name())
    before = dump(place)
    with pytest.raises(CheckpointNotFound, match=nowhere.ref.id):
        await history.checkpointer.commit(nowhere, history.change({}), replaces=head.ref.id)
    for parent in (replace(nowhere, thread_id=history.thread_id), elsewhere):
        with pytest.raises(CheckpointNotFound, match=nowhere.ref.id):
            await Checkpointer(store).commit(parent, History(store).change({}))
    assert dump(place) == before


async def test_a_commit_that_is_there_changes_nothing(store: Store, place: Place) -> None:
    """Also where the head went back to its parent, so that it would fit once more; with other content it is refused."""
    history = History(store)
    root = await history.commit({})
    change = history.change({"n": {"op": "set", "value": 1}})
    await Checkpointer(store).commit(root, change)
    ((head,),) = run(place, "SELECT checkpoint_id FROM checkpoints WHERE step = 0")
    run(place, "UPDATE threads SET head_id = ?", head)
    before = dump(place)
    await Checkpointer(store).commit(root, change)
    with pytest.raises(ConcurrentModification, match="other content") as refused:
        await Checkpointer(store).commit(root, replace(change, turn=7))
    assert (refused.value.expected, refused.value.actual) == (root.ref.id, root.ref.id)
    assert dump(place) == before


@pytest.mark.parametrize("what", ["claim", "receipt", "finish"])
async def test_a_call_waits_for_a_commit_under_way(what: str, store: Store, place: Place) -> None:
    """Somebody is about to move the head: a call of the step before waits for the outcome, and comes too late."""
    history = History(store)
    head = (await history.commit({})).ref.id
    other = (await History(store).commit({})).ref.id
    receipt = Receipt(key="k", result=b"1")
    calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
        "claim": lambda: store.claim(effect(history.thread_id), head=head),
        "receipt": lambda: store.put_receipt(history.thread_id, receipt, head=head),
        "finish": lambda: store.finish(history.thread_id, receipt, head=head),
    }
    ((moved,),) = run(place, f"SELECT head_id FROM threads WHERE thread_id <> '{history.thread_id}'")
    with behind(place) as connection:
        mark = "?" if place.kind == "sqlite" else "%s"
        connection.execute(f"UPDATE threads SET head_id = {mark} WHERE thread_id = {mark}", (moved, history.thread_id))
        call = asyncio.create_task(calls[what]())
        await asyncio.sleep(0.2)
        assert not call.done()
    with pytest.raises(ConcurrentModification, match="too late") as refused:
        await call
    assert (refused.value.expected, refused.value.actual) == (head, other)
    assert (await store.effect(history.thread_id, "k"), await store.receipts(history.thread_id, ["k"])) == (None, {})


async def test_one_of_many_first_attempts_is_the_first(store: Store, place: Place) -> None:
    """Attempts of one call that claim it side by side: one is told that it is the first."""
    history = History(store)
    head = (await history.commit({})).ref.id
    stores = [open_store(place.url) for _ in range(4)]
    row = effect(history.thread_id, kind="irreversible")
    told = await asyncio.gather(*(stores[i % 4].claim(row, head=head) for i in range(12)))
    assert [answer is None for answer in told].count(True) == 1
    known = await store.effect(history.thread_id, "k")
    assert known is not None and known.entry.attempts == 1
    for other in stores:
        await other.close()


async def test_a_cancelled_commit_leaves_the_old_head_or_the_new(store: Store) -> None:
    """Cancelled wherever it waits, a commit has happened or it has not, and the store goes on."""
    history = History(store)
    await history.commit({})
    outcomes = set()
    for moment in range(120):
        before, change = history.head, history.change({"n": {"op": "append", "items": [moment]}})
        commit = asyncio.create_task(Checkpointer(store).commit(before, change, clears=("part",)))
        for _ in range(moment):
            await asyncio.sleep(0)
        commit.cancel()
        (told,) = await asyncio.gather(commit, return_exceptions=True)
        outcomes.add(type(told))
        again = await Checkpointer(store).commit(before, change)
        assert again == told or isinstance(told, asyncio.CancelledError)
        history.positions.append(again)
    assert asyncio.CancelledError in outcomes
    assert [c.id async for c in store.walk(history.thread_id)] == [p.ref.id for p in history.positions]


# ── a process that is killed ─────────────────────────────────────────────────────────────────────────────────────


async def picture(place: Place) -> dict[str, Any]:
    """What such deeds change, but for the time."""
    store = open_store(place.url)
    thread = await store.thread(commit_and_die.THREAD)
    assert thread is not None
    seen = {
        "head": await Checkpointer(store).load(thread.thread_id, thread.head_id),
        "path": [c.digest for c in await store.path(thread.thread_id, thread.head_id, limit=100)],
        "all": [c.digest async for c in store.walk(thread.thread_id)],
        "snapshots": await store.snapshots(thread.thread_id),
        "found": [c.digest for c in await store.find(commit_and_die.LABELS)],
        "result": await store.result("s", "k"),
        "effects": [_timeless(row) for row in await store.effects(thread.thread_id)],
        "parts": await store.receipts(thread.thread_id, [commit_and_die.PART]),
        "audit": await store.audit(thread.thread_id),
        "audit's end": thread.audit_end,
        "tokens": sorted((row[1], row[3]) for row in run(place, "SELECT * FROM tokens")),
    }
    assert (await verify(store)).problem is None
    await store.close()
    return seen


def _timeless(row: EffectRow) -> tuple[object, ...]:
    return row.entry.key, row.entry.status, row.entry.attempts, row.receipt


COMMITTED = {"head", "path", "all", "snapshots", "found", "result", "effects", "parts"}


@pytest.mark.parametrize(
    ("deed", "statements", "changes"),
    [("commit", 8, COMMITTED), ("audit", 5, {"audit", "audit's end"}), ("claim", 7, {"effects", "tokens"})],
)
async def test_who_is_killed_leaves_the_old_or_the_new(
    deed: str, statements: int, changes: set[str], store: Store, place: Place
) -> None:
    """Killed before any of its statements, a commit has happened or it has not; done again, it has.

    The commit carries everything there is: a snapshot, labels, a cached result, an effect's receipt, a part that it
    merges. So it is with lines of the audit, and with a claim that needs tokens which another call has used.
    """
    history = History(store, commit_and_die.THREAD)
    head = (await history.commit({"text": {"op": "set", "value": noise(9_000)}})).ref.id
    failed = effect(history.thread_id, "failed-call").model_copy(update={"tokens": ("a",)})
    for row in (effect(history.thread_id, commit_and_die.KEY), failed):
        await store.claim(row, head=head)
    await store.fail(history.thread_id, "failed-call", "no")
    await store.put_receipt(history.thread_id, Receipt(key=commit_and_die.PART, result=b"1"), head=head)
    await store.append_audit(history.thread_id, [commit_and_die.LINE])
    await store.close()
    old = await picture(place)

    copies = [place.copy() for _ in range(statements + 8)]
    script = [sys.executable, "-m", "tests.commit_and_die", deed, *(copy.url for copy in copies)]
    ran = await asyncio.to_thread(subprocess.run, script, cwd=ROOT, timeout=120, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    killed = int(ran.stdout)
    assert killed >= statements, "fewer statements than the whole of it has"
    new = await picture(copies[killed])
    assert {part for part in new if new[part] != old[part]} == changes
    for number, copy in enumerate(copies[:killed]):
        assert await picture(copy) == old, f"killed before statement {number}"
        await commit_and_die.do(deed, copy.url)
        assert await picture(copy) == new, f"killed before statement {number}"


# ── a row that is changed ────────────────────────────────────────────────────────────────────────────────────────


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if value is None:
        return 1
    if isinstance(value, int):
        return value + 1
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1])
    return value[:-1] + ("x" if value[-1:] != "x" else "y")


def tamper(place: Place, table: str, key: dict[str, Any], column: str, value: Any) -> dict[str, Any]:
    """Write a column of a row; the key that the row has afterwards."""
    where = "thread = ? AND checkpoint_id = ?"
    run(place, f"UPDATE {table} SET {column} = ? WHERE {where}", value, key["thread"], key["checkpoint_id"])
    return key | {column: value} if column in key else key


_MAKES_THE_STATE = ("thread", "checkpoint_id", "step", "delta", "digest", "state")


@pytest.mark.parametrize("table", ["checkpoints", "snapshots"])
async def test_a_changed_column_is_found(table: str, store: Store, place: Place) -> None:
    """Whatever column of whatever row is changed by whatever hand: `db verify` finds it; so does a load of the head.

    A head that is no longer found under its name is reported as missing. Of the rows before it a load looks only at
    what makes the state: else the state is what it was.
    """
    history = History(store)
    for _ in range(30):
        await history.commit({"text": {"op": "set", "value": noise(700)}}, metadata={"note": 1}, facts={"by": "ann"})
    await History(store).commit({})  # so that another thread's number is a thread's number
    assert history.head is not None
    line = await store.line(history.thread_id, history.head.ref.id)
    assert line is not None and line.snapshot is not None and len(line.layers) > 2
    last = line.layers[-1].step
    steps = [line.layers[0].step, last - 1, last] if table == "checkpoints" else [line.layers[0].step]
    columns = place.columns(table)
    assert len(columns) >= 4
    for step, column in itertools.product(steps, columns):
        ((row,),) = run(place, "SELECT checkpoint_id FROM checkpoints WHERE step = ? AND thread = 1", step)
        key = {"thread": 1, "checkpoint_id": row}
        ((value,),) = run(place, f"SELECT {column} FROM {table} WHERE thread = 1 AND checkpoint_id = ?", row)
        new = tamper(place, table, key, column, changed(value))
        gone = step == last and column in key
        assert (await verify(store)).problem is not None, f"a changed {column} in step {step} was not found"
        with suppress(CheckpointNotFound if gone else IntegrityError):
            loaded = await Checkpointer(store).load(history.thread_id, history.head.ref.id)
            assert step < last and column not in _MAKES_THE_STATE and loaded == history.head, (column, step)
        tamper(place, table, new, column, value)
        assert await Checkpointer(store).load(history.thread_id, history.head.ref.id) == history.head


@pytest.mark.parametrize("step", [0, 1])
async def test_a_missing_row_is_found(step: int, store: Store, place: Place) -> None:
    """A state of which a delta is missing isn't the state."""
    history = History(store)
    for number in range(3):
        await history.commit({"n": {"op": "append", "items": [number]}})
    run(place, "DELETE FROM checkpoints WHERE step = ?", step)
    assert history.head is not None
    with pytest.raises(IntegrityError):
        await Checkpointer(store).load(history.thread_id, history.head.ref.id)
