"""`db repair`: what the store lost is made again from the history, exactly as it was, or is said to be lost."""

from typing import Any

import pytest

from perdure.canonical import canonical
from perdure.care.chronicle import Chronicle, chronicle
from perdure.care.repair import repair
from perdure.care.verify import verify
from perdure.checkpoint import Frontier, Task
from perdure.checkpointer import Position
from perdure.contracts import INLINE
from perdure.errors import IntegrityError, ThreadNotFound
from perdure.stores import Store
from tests.retelling import AT, Retelling, says, to
from tests.tampering import hands

LONG = "a long text " * 1_000  # overwritten again and again, so that there are snapshots


async def conversation(store: Store, **named: Any) -> Retelling:
    """A thread with a commit of every kind, two snapshots, and a line that a rewind left."""
    thread = Retelling(store, **named)
    await thread.opens("Buy two laptops", customer="ada", priority=2)
    await thread.asks("let me see", calls=1)
    await thread.calls_tool()
    await thread.asks("which ones?", calls=2)
    await thread.merges(next=to("model"), used=0)
    here = await thread.asks("done")
    await thread.updates()
    for text in ("b", "c"):
        await thread.opens(text + LONG)
        await thread.asks(text)
    await thread.notes()
    await thread.rewinds(here)
    await thread.opens("again")
    await thread.asks("here you are")
    return thread


async def everything(store: Store, thread_id: str) -> dict[str, dict[str, Any]]:
    """All checkpoints as they are stored, but for the moment, which a history tells in its own way."""
    return {c.id: c.model_dump(exclude={"created_at"}) async for c in store.walk(thread_id)}


async def lost(store: Store, thread: Retelling, *names: str) -> None:
    """Checkpoints are gone."""
    for name in names:
        await hands(store, thread.thread_id).drop(name)


# ── the whole of it ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_nothing_to_repair(any_store: Store) -> None:
    """A thread that has lost nothing is left as it is, to the last field."""
    thread = await conversation(any_store)
    before = [c async for c in any_store.walk(thread.thread_id)]
    row = await any_store.thread(thread.thread_id)
    done = await repair(any_store, thread.told())
    assert (done.whole, done.rebuilt, done.missed, done.head_moved) == (len(thread.ids), (), (), False)
    assert [c async for c in any_store.walk(thread.thread_id)] == before
    assert await any_store.thread(thread.thread_id) == row


async def test_each_checkpoint_alone(any_store: Store) -> None:
    """Whichever row is lost, it comes back as it was: metadata, facts and what follows included."""
    thread = await conversation(any_store)
    before, told = await everything(any_store, thread.thread_id), thread.told()
    for name in thread.ids:
        await lost(any_store, thread, name)
        done = await repair(any_store, told, everything=True)
        assert (done.rebuilt, done.missed, done.problem) == ((name,), (), None)
        assert await everything(any_store, thread.thread_id) == before
    restored = await any_store.checkpoint(thread.thread_id, thread.ids[0])
    assert restored is not None
    assert restored.created_at == AT


async def test_a_damaged_row(any_store: Store) -> None:
    """A row that can't be read is replaced, and so are two that changed places."""
    thread = await conversation(any_store)
    before = await everything(any_store, thread.thread_id)
    await hands(any_store, thread.thread_id).change(thread.ids[3])
    await hands(any_store, thread.thread_id).swap(thread.ids[1], thread.ids[8])
    assert (await verify(any_store, thread.thread_id)).problem
    done = await repair(any_store, thread.told())
    assert set(done.rebuilt) == {thread.ids[1], thread.ids[3], thread.ids[8]}
    assert (done.missed, done.problem) == ((), None)
    assert await everything(any_store, thread.thread_id) == before


async def test_a_forged_row(any_store: Store) -> None:
    """A row that was changed by somebody who knows how rows are sealed, digest and all, is replaced too."""
    thread = await conversation(any_store)
    before = await everything(any_store, thread.thread_id)
    delta = says("forged")
    await hands(any_store, thread.thread_id).forge(thread.ids[2], delta=delta, size=len(canonical(delta)))
    await hands(any_store, thread.thread_id).forge(thread.ids[4], parent_id=thread.ids[2])
    done = await repair(any_store, thread.told())
    assert (done.rebuilt, done.problem) == ((thread.ids[2], thread.ids[4]), None)
    assert await everything(any_store, thread.thread_id) == before


async def test_a_thread_that_is_gone(any_store: Store) -> None:
    """All of a thread is made again: its row, its head, its branch, that it is closed, and its snapshots."""
    thread = await conversation(any_store)
    before, row = await everything(any_store, thread.thread_id), await any_store.thread(thread.thread_id)
    snapshots = await any_store.snapshots(thread.thread_id)
    assert row is not None
    assert len(snapshots) >= 2
    told = thread.told().model_copy(update={"closed": True})
    await any_store.delete_thread(thread.thread_id)
    done = await repair(any_store, told)
    assert (len(done.rebuilt), done.missed, done.problem) == (len(thread.ids), (), None)
    assert await everything(any_store, thread.thread_id) == before
    assert await any_store.snapshots(thread.thread_id) == snapshots
    made = await any_store.thread(thread.thread_id)
    assert made is not None
    times = {"created_at": row.created_at, "updated_at": row.updated_at}
    assert made.model_copy(update=times) == row.model_copy(update={"closed": True})


async def test_a_row_of_a_thread_that_is_gone(any_store: Store) -> None:
    """Where its checkpoints are there, a thread's row alone is made again."""
    thread = await conversation(any_store)
    row = await any_store.thread(thread.thread_id)
    assert row is not None
    await hands(any_store, thread.thread_id).drop_thread()
    assert await any_store.thread(thread.thread_id) is None
    done = await repair(any_store, thread.told())
    assert (done.rebuilt, done.missed, done.problem, done.head) == ((), (), None, thread.ids[-1])
    made = await any_store.thread(thread.thread_id)
    assert made is not None
    assert (made.agent, made.tenant, made.lineage, made.branch, made.turn, made.head_id) == (
        row.agent, row.tenant, row.lineage, row.branch, row.turn, row.head_id,
    )  # fmt: skip


async def test_a_fork_that_is_gone(any_store: Store) -> None:
    """A fork begins again where it began, with the lineage of its origin."""
    origin = await conversation(any_store)
    fork = Retelling(any_store)
    await fork.forks(origin.positions[7], lineage=origin.thread_id)
    await fork.asks("another answer")
    row, before = await any_store.thread(fork.thread_id), await everything(any_store, fork.thread_id)
    assert row is not None
    await any_store.delete_thread(fork.thread_id)
    done = await repair(any_store, fork.told())
    assert (len(done.rebuilt), done.problem) == (2, None)
    made = await any_store.thread(fork.thread_id)
    assert made is not None
    assert (made.origin_thread, made.origin_id) == (origin.thread_id, origin.ids[7])
    assert (made.lineage, made.agent, made.tenant) == (origin.thread_id, "desk", "acme")
    assert await everything(any_store, fork.thread_id) == before


# ── the head ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_lost_head(any_store: Store) -> None:
    """The head is made again, and is the head."""
    thread = await conversation(any_store)
    await lost(any_store, thread, *thread.ids[-2:])
    done = await repair(any_store, thread.told())
    assert (done.rebuilt, done.head, done.head_moved) == (tuple(thread.ids[-2:]), thread.ids[-1], False)
    assert await thread.checkpointer.load(thread.thread_id, done.head) == thread.head


async def test_a_head_that_was_moved(any_store: Store) -> None:
    """A head that was set back is the newest of its line again."""
    thread = await conversation(any_store)
    await hands(any_store, thread.thread_id).move_head(thread.ids[4])
    done = await repair(any_store, thread.told())
    assert (done.head, done.head_moved, done.problem) == (thread.ids[-1], True, None)


async def test_a_head_that_can_not_be_made_again(any_store: Store) -> None:
    """What was committed last is lost: the thread stands on the newest of its line that is there, and not on the line
    that a rewind left, though that is newer."""
    thread = Retelling(any_store)
    await thread.opens()
    here = await thread.asks()
    await thread.opens("left behind")
    await thread.rewinds(here)
    last = await thread.opens("x" * (INLINE + 1_000))
    await lost(any_store, thread, last.ref.id)
    done = await repair(any_store, thread.told())
    assert [(missed.id, missed.step) for missed in done.missed] == [(last.ref.id, last.ref.step)]
    assert (done.head, done.head_moved, done.problem) == (thread.ids[3], True, None)


async def test_a_head_that_the_history_does_not_know(any_store: Store) -> None:
    """Somebody wrote without Temporal, or since the history was read: that stays the head."""
    thread = await conversation(any_store)
    told = thread.told()
    newest = await thread.opens("one more")
    await lost(any_store, thread, thread.ids[1])
    done = await repair(any_store, told)
    assert (done.rebuilt, done.head, done.problem) == ((thread.ids[1],), newest.ref.id, None)


# ── what can't be made again ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_long_delta_is_lost(any_store: Store) -> None:
    """What was too long for the history is named; what comes after it can't be made again either."""
    thread = Retelling(any_store)
    await thread.opens()
    long = await thread.asks("x" * (INLINE + 1_000), calls=1)
    after = await thread.calls_tool()
    await lost(any_store, thread, long.ref.id, after.ref.id)
    done = await repair(any_store, thread.told())
    assert [(missed.id, missed.step) for missed in done.missed] == [(long.ref.id, 1), (after.ref.id, 2)]
    assert "too long" in done.missed[0].why
    assert long.ref.id in done.missed[1].why
    assert done.head == thread.ids[0]


async def test_what_a_send_gave_is_lost(any_store: Store) -> None:
    """The history has the names of the nodes, not what a Send gave them: that is said, and nothing is written."""
    thread = Retelling(any_store)
    await thread.opens(next=to("split"))
    sent = await thread.runs("split", next=Frontier(tasks=(Task(node="left", arg=1), Task(node="left", arg=2))))
    await lost(any_store, thread, sent.ref.id)
    done = await repair(any_store, thread.told())
    assert done.rebuilt == ()
    assert [missed.id for missed in done.missed] == [sent.ref.id]
    assert "Send" in done.missed[0].why
    assert await any_store.checkpoint(thread.thread_id, sent.ref.id) is None


async def test_a_history_that_lies_is_not_believed(any_store: Store) -> None:
    """What doesn't come to the digest is not written."""
    thread = await conversation(any_store)
    told = thread.told()
    forged = list(told.written)
    forged[2] = forged[2].model_copy(update={"delta": says("forged")})
    await lost(any_store, thread, thread.ids[2])
    done = await repair(any_store, told.model_copy(update={"written": tuple(forged)}))
    assert (done.rebuilt, [missed.id for missed in done.missed]) == ((), [thread.ids[2]])
    assert await any_store.checkpoint(thread.thread_id, thread.ids[2]) is None


async def test_a_history_that_is_past_its_retention(any_store: Store) -> None:
    """What nothing tells of any more is named."""
    thread = await conversation(any_store)
    told = thread.told()
    await lost(any_store, thread, thread.ids[1], thread.ids[-1])
    done = await repair(any_store, told.model_copy(update={"written": told.written[-1:]}))
    assert (done.rebuilt, {missed.id for missed in done.missed}) == ((), {thread.ids[1], thread.ids[-1]})
    again = await repair(any_store, chronicle(thread.thread_id, []))
    assert {missed.id for missed in again.missed} == {thread.ids[1], thread.ids[-1]}
    assert again.problem is not None
    with pytest.raises(ThreadNotFound):
        await repair(any_store, Chronicle(thread_id="nobody"))


async def test_what_nothing_needs_stays_away(any_store: Store) -> None:
    """Pruned checkpoints don't come back, unless everything is asked for."""
    thread = await conversation(any_store)
    left = thread.ids[7:12]
    await any_store.remove(thread.thread_id, left, [], head=thread.ids[-1])
    done = await repair(any_store, thread.told())
    assert (done.rebuilt, done.unneeded, done.problem) == ((), len(left), None)
    done = await repair(any_store, thread.told(), everything=True)
    assert (done.rebuilt, done.unneeded, done.problem) == (tuple(left), 0, None)


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["dropped", "forged"])
async def test_snapshots_are_made_from_the_deltas(any_store: Store, how: str) -> None:
    """Missing and damaged snapshots are made again, without a history."""
    thread = await conversation(any_store)
    snapshots = await any_store.snapshots(thread.thread_id)
    for snapshot in snapshots:
        if how == "dropped":
            await hands(any_store, thread.thread_id).drop_snapshot(snapshot.checkpoint_id)
        else:
            wrong = snapshot.model_copy(update={"state": snapshot.state.replace(b"long", b"tall")})
            await hands(any_store, thread.thread_id).put_snapshot(wrong)
    with pytest.raises(IntegrityError):
        await load(any_store, thread, snapshots[-1].checkpoint_id)
    done = await repair(any_store, chronicle(thread.thread_id, []))
    assert (set(done.snapshots), done.missed, done.problem) == ({s.checkpoint_id for s in snapshots}, (), None)
    assert await any_store.snapshots(thread.thread_id) == snapshots


async def load(store: Store, thread: Retelling, checkpoint_id: str) -> Position:
    """What somebody gets who has not seen the thread before."""
    return await Retelling(store, thread.thread_id).checkpointer.load(thread.thread_id, checkpoint_id)


async def test_a_checkpoint_with_its_snapshot(any_store: Store) -> None:
    """A checkpoint that had a snapshot gets it again, with the checkpoints after it that are read from there."""
    thread = await conversation(any_store)
    snapshots = await any_store.snapshots(thread.thread_id)
    gone = snapshots[0].checkpoint_id
    await lost(any_store, thread, gone)
    await hands(any_store, thread.thread_id).drop_snapshot(gone)
    done = await repair(any_store, thread.told())
    assert (done.rebuilt, done.problem) == ((gone,), None)
    assert await any_store.snapshots(thread.thread_id) == snapshots


async def test_the_snapshot_of_a_cut_is_lost(any_store: Store) -> None:
    """What stands for removed ancestors can't be made from anything."""
    thread = await conversation(any_store)
    root = thread.positions[5]
    await cut(any_store, thread, root)
    await hands(any_store, thread.thread_id).drop_snapshot(root.ref.id)
    done = await repair(any_store, chronicle(thread.thread_id, []))
    assert (done.snapshots, done.problem is not None) == ((), True)


async def cut(store: Store, thread: Retelling, root: Position) -> None:
    """Remove what is before a checkpoint."""
    from perdure.checkpointer import snapshot_digest
    from perdure.stores.base import Snapshot

    state = canonical(root.values)
    snapshot = Snapshot(checkpoint_id=root.ref.id, state=state, digest=snapshot_digest(root.ref.digest, state))
    before = [
        name for name, position in zip(thread.ids, thread.positions, strict=True) if position.ref.step < root.ref.step
    ]
    await store.remove(thread.thread_id, before, [snapshot], head=thread.ids[-1])


async def test_what_was_cut_stays_cut(any_store: Store) -> None:
    """A checkpoint behind a cut is made again, what was before it is not."""
    thread = await conversation(any_store)
    root = thread.positions[5]
    await cut(any_store, thread, root)
    await lost(any_store, thread, thread.ids[-1])
    done = await repair(any_store, thread.told())
    assert (done.rebuilt, done.missed, done.problem, done.unneeded) == ((thread.ids[-1],), (), None, 5)
    await hands(any_store, thread.thread_id).change(root.ref.id)
    done = await repair(any_store, thread.told())
    assert [missed.id for missed in done.missed] == [root.ref.id]
    assert "removed" in done.missed[0].why
