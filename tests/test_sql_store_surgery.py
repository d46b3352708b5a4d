"""What is done to whole threads in a SQL database: put back, cut, removed, copied; what stays is whole."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from perdure.canonical import canonical
from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer, Position, snapshot_digest
from perdure.errors import CheckpointNotFound, Conflict, IntegrityError, ThreadNotFound
from perdure.stores import Store
from perdure.stores.base import CachedResult, Receipt, Snapshot, Step
from perdure.stores.sql_store import SqlStore
from tests.places import Place, dump, opened, run
from tests.threads import History, effect, name, noise


@pytest.fixture
async def store(place: Place) -> AsyncIterator[SqlStore]:
    """A store with its schema, in a place of its own."""
    store = await opened(place)
    yield store
    await store.close()


async def grown(store: Store, steps: int = 30) -> History:
    """A thread that overwrites a kilobyte again and again, so that it has several snapshots."""
    history = History(store)
    for number in range(steps):
        delta: dict[str, Any] = {"text": {"op": "set", "value": noise(900)}, "n": {"op": "append", "items": [number]}}
        await history.commit(delta, metadata={"number": number, "kind": "test"}, facts={"by": "ann"})
    assert len(await store.snapshots(history.thread_id)) > 2
    return history


async def fork(parent: Position, store: Store) -> History:
    """A thread that goes on from there with two checkpoints."""
    forked = History(store)
    forked.positions.append(await forked.checkpointer.commit(parent, forked.change({})))
    await forked.commit({"n": {"op": "append", "items": ["fork"]}})
    return forked


async def as_written(store: Store, position: Position) -> Step:
    """What a checkpoint was committed with."""
    line = await store.line(position.thread_id, position.ref.id)
    assert line is not None
    own = line.base_id == position.ref.id
    return Step(
        checkpoint=line.last, base_id=line.base_id, since_base=line.since_base, state_size=line.state_size,
        snapshot=line.snapshot if own else None,
    )  # fmt: skip


def state_at(position: Position) -> Snapshot:
    """The whole state, as it stands for ancestors that are removed."""
    state = canonical(position.values)
    digest = snapshot_digest(position.ref.digest, state)
    return Snapshot(checkpoint_id=position.ref.id, state=state, digest=digest)


async def loads(store: Store, history: History, positions: list[Position]) -> None:
    """Each of these is loaded from the database as it was committed."""
    cold = Checkpointer(store, cache_bytes=0)
    for position in positions:
        loaded = await cold.load(history.thread_id, position.ref.id, expect=position.ref.digest)
        assert (loaded.values, loaded.state_size) == (position.values, position.state_size)


# ── restore ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_thread_gets_its_row_again(store: Store, place: Place) -> None:
    """A thread whose row is gone still has its checkpoints. A restored head gives it a row, which knows its origin."""
    origin = await grown(store)
    forked = await fork(origin.positions[20], store)
    before, step = await store.thread(forked.thread_id), await as_written(store, forked.positions[-1])
    run(place, "DELETE FROM threads WHERE thread_id = ?", forked.thread_id)
    assert await store.thread(forked.thread_id) is None
    assert [c.id async for c in store.walk(forked.thread_id)] == [p.ref.id for p in forked.positions]
    await store.restore(step, head=True)
    row = await store.thread(forked.thread_id)
    assert row is not None and before is not None
    kept = ("head_id", "turn", "schema_version", "origin_thread", "origin_id")
    assert [getattr(row, part) for part in kept] == [getattr(before, part) for part in kept]
    assert (await verify(store)).problem is None


@pytest.mark.parametrize(
    "damage", ["DELETE", "UPDATE checkpoints SET turn = 7", "UPDATE checkpoints SET delta = checkpoints.digest"]
)
async def test_what_is_missing_or_damaged_is_put_back(damage: str, store: Store, place: Place) -> None:
    """A restored checkpoint is as it was, with its labels and its snapshot, and no other row is touched."""
    history = await grown(store)
    before, snapshots = dump(place), await store.snapshots(history.thread_id)
    position = next(p for p in history.positions if p.ref.id == snapshots[1].checkpoint_id)
    step = await as_written(store, position)
    ours = "WHERE checkpoint_id IN (SELECT checkpoint_id FROM checkpoints WHERE step = ?)"
    run(place, f"UPDATE snapshots SET digest = state {ours}", position.ref.step)
    run(place, f"DELETE FROM labels {ours}", position.ref.step)
    if damage == "DELETE":
        run(place, "DELETE FROM checkpoints WHERE step = ?", position.ref.step)
    else:
        run(place, f"{damage} WHERE step = ?", position.ref.step)
    with pytest.raises(IntegrityError):
        await Checkpointer(store).load(history.thread_id, history.positions[position.ref.step + 1].ref.id)
        pytest.fail("nothing was damaged")
    await store.restore(step, head=False)
    assert dump(place) == before


async def test_what_is_whole_stays_as_it_is(store: Store, place: Place) -> None:
    """A checkpoint that is there is not written again, although its facts are told differently."""
    history = await grown(store)
    before, step = dump(place), await as_written(store, history.positions[7])
    told = step.checkpoint.model_copy(update={"facts": {"by": "bob"}, "created_at": "2020-01-01T00:00:00.000+00:00"})
    await store.restore(step.model_copy(update={"checkpoint": told}), head=False)
    assert dump(place) == before


# ── remove ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_what_stays_is_loaded_as_before(store: Store) -> None:
    """The past of a thread is cut off, also from under its fork and the fork of that: all three are read back to the
    cut, and go on from there."""
    history = await grown(store)
    forked = await fork(history.positions[22], store)
    second = await fork(forked.positions[1], store)
    root, *kept = history.positions[19:]
    await store.remove(
        history.thread_id, [p.ref.id for p in history.positions[:19]], [state_at(root)], head=kept[-1].ref.id
    )
    await loads(store, history, [root, *kept])
    await loads(store, forked, forked.positions)
    await loads(store, second, second.positions)
    assert [c.id for c in await store.path(second.thread_id, second.positions[1].ref.id, limit=99)][-1] == root.ref.id
    assert [c.id async for c in store.walk(history.thread_id) if c.cut] == [root.ref.id]
    for each in (history, forked, second):
        await each.commit({"n": {"op": "append", "items": ["more"]}})  # from a position that knows the old base
        await loads(store, each, each.positions[-1:])
    assert (await verify(store)).problem is None


async def test_what_belonged_to_it_goes_too(store: Store, place: Place) -> None:
    """Nothing is left in any table of what was removed: labels, snapshots, results and receipts of the checkpoint."""
    history = await grown(store)
    gone = history.positions[:19]
    for number, position in enumerate(gone):
        result = CachedResult(scope="s", key=str(number), thread_id=history.thread_id, checkpoint_id=position.ref.id)
        await store.put_result(result)
        await store.put_receipt(history.thread_id, Receipt(key=f"{position.ref.id}/task/1", result=b"{}"))
    await store.put_receipt(history.thread_id, Receipt(key=f"{history.positions[20].ref.id}/task/1", result=b"{}"))
    await store.put_result(CachedResult(scope="s", key="value", value=b"1"))
    names = [position.ref.id for position in gone]
    root, head = history.positions[19], history.positions[-1]
    await store.remove(history.thread_id, names, [state_at(root)], head=head.ref.id)
    counts = {table: len(rows) for table, rows in dump(place).items()}
    assert (counts["checkpoints"], counts["labels"]) == (11, 22)
    assert (counts["results"], counts["receipts"]) == (1, 1)
    left = {snapshot.checkpoint_id for snapshot in await store.snapshots(history.thread_id)}
    assert root.ref.id in left and not left & set(names)


async def test_the_head_may_go_back(store: Store) -> None:
    """Where the newest checkpoints are removed, the thread stands on the one that is named, in its turn and version."""
    history = History(store)
    for turn in range(4):
        await history.commit({"n": {"op": "set", "value": turn}}, turn=turn, schema_version=turn + 1)
    head = history.positions[1]
    await store.remove(history.thread_id, [p.ref.id for p in history.positions[2:]], [], head=head.ref.id)
    row = await store.thread(history.thread_id)
    assert row is not None
    assert (row.head_id, row.turn, row.schema_version) == (head.ref.id, 1, 2)
    assert (await verify(store)).problem is None


async def test_a_removal_that_would_break_something_changes_nothing(store: Store, place: Place) -> None:
    """A fork begins with it, a child goes back to it, the head or the root would go: refused."""
    history = await grown(store)
    names = [position.ref.id for position in history.positions]
    await fork(history.positions[5], store)
    before = dump(place)
    with pytest.raises(Conflict, match="forked"):
        await store.remove(history.thread_id, names[:10], [state_at(history.positions[10])], head=names[-1])
    with pytest.raises(Conflict, match="goes back to it"):
        await store.remove(history.thread_id, names[10:12], [], head=names[-1])
    for root, head in ((10, 5), (12, 29)):
        with pytest.raises(CheckpointNotFound):
            await store.remove(history.thread_id, names[10:13], [state_at(history.positions[root])], head=names[head])
    assert dump(place) == before


async def test_many_are_removed_at_once(store: Store) -> None:
    """More than are named in one statement, with the receipts of each."""
    history = History(store)
    for _ in range(603):
        await history.commit({})
    *gone, root, _ = history.positions
    for position in gone[::100]:
        await store.put_receipt(history.thread_id, Receipt(key=position.ref.id, result=b"1"))
    await store.remove(history.thread_id, [position.ref.id for position in gone], [state_at(root)], head="")
    assert [c.id async for c in store.walk(history.thread_id)] == [p.ref.id for p in history.positions[-2:]]
    assert await store.receipts_under(history.thread_id, "") == {}


# ── copy and delete ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_copy_is_a_thread_of_its_own(store: Store) -> None:
    """It has every checkpoint under the same id, in all branches, and outlives what it was copied from."""
    source = await grown(store)
    for _ in range(500):
        await source.commit({})
    await store.put_receipt(source.thread_id, Receipt(key="k", result=b"1"))
    await store.claim(effect(source.thread_id, "e"), head=source.positions[-1].ref.id)
    await store.set_lease(source.thread_id, "somebody")
    target = History(store)
    await store.copy_thread(source.thread_id, target.thread_id)
    original, row = await store.thread(source.thread_id), await store.thread(target.thread_id)
    assert original is not None and row is not None
    own = {"thread_id": target.thread_id, "lineage": target.thread_id, "lease": ""}
    assert row == original.model_copy(update=own)
    before = [c async for c in store.walk(source.thread_id)]
    await store.delete_thread(source.thread_id)
    assert [c async for c in store.walk(target.thread_id)] == [
        c.model_copy(update={"thread_id": target.thread_id}) for c in before
    ]
    await loads(store, target, source.positions[::60])
    found = await store.find({"kind": "test", "number": 3}, thread_id=target.thread_id)
    assert [c.id for c in found] == [source.positions[3].ref.id]
    assert await store.receipts(target.thread_id, ["k"]) == {"k": b"1"}
    assert await store.effects(target.thread_id) == []
    assert (await verify(store)).problem is None


async def test_a_copy_of_what_is_damaged_is_refused(store: Store, place: Place) -> None:
    """A copy is sealed anew: it must not vouch for what was not what was written."""
    history = await grown(store)
    run(place, "UPDATE checkpoints SET turn = 7 WHERE step = 3")
    before = dump(place)
    with pytest.raises(IntegrityError):
        await store.copy_thread(history.thread_id, name())
    assert dump(place) == before


async def test_a_copy_needs_a_source_and_room(store: Store, place: Place) -> None:
    """Refused, nothing changes."""
    history = await grown(store)
    before = dump(place)
    with pytest.raises(ThreadNotFound):
        await store.copy_thread("nobody", name())
    with pytest.raises(Conflict):
        await store.copy_thread(history.thread_id, history.thread_id)
    assert dump(place) == before


async def test_a_deleted_thread_leaves_nothing(store: Store, place: Place) -> None:
    """Not a row in any table; what another thread is forked from can't be deleted."""
    before = dump(place)
    history = await grown(store)
    cached = CachedResult(scope="s", key="k", thread_id=history.thread_id, checkpoint_id=history.positions[3].ref.id)
    await store.put_result(cached)
    await store.put_receipt(history.thread_id, Receipt(key="r", result=b"1"))
    await store.claim(effect(history.thread_id), head=history.positions[-1].ref.id)
    forked = await fork(history.positions[5], store)
    there = dump(place)
    with pytest.raises(Conflict, match=forked.thread_id):
        await store.delete_thread(history.thread_id)
    assert dump(place) == there
    await store.delete_thread(forked.thread_id)
    await store.delete_thread(history.thread_id)
    await store.delete_thread(history.thread_id)
    assert dump(place) == before
