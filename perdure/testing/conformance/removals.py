"""Checks of taking away and putting back: parts of a thread, and all of one."""

from collections.abc import Sequence

import pytest

from perdure.checkpointer import Checkpointer
from perdure.errors import CheckpointNotFound, Conflict
from perdure.stores.base import CachedResult, Receipt, Step, Store, ThreadRow
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.picture import picture, refused, thread_picture
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer, add, checkpoint_id, put, snapshot_of

_CUT = 5  # the step that has no ancestors any more where a check removes the beginning of a thread


async def _furnished(store: Store) -> Writer:
    """A thread of ten steps with a snapshot at step 3, in which every step has metadata, a result and receipts."""
    thread = Writer(store)

    async def commit(n: int) -> None:
        place = checkpoint_id()
        delta = add("x" * 9_000) if n == 2 else put([], "items") if n == 3 else add(n)
        kept = CachedResult(scope="s", key=str(n), thread_id=thread.thread_id, checkpoint_id=place)
        await thread.commit(delta, checkpoint_id=place, metadata={"n": n, "all": True}, result=kept)
        for key in (f"{place}:part", f"{place}0", f"free-{n}"):
            await store.put_receipt(thread.thread_id, Receipt(key=key, result=b"1"))

    for n in range(10):
        await commit(n)
    assert [draft.position.base_id for draft in thread.drafts] == [None] * 3 + [thread.ids[3]] * 7
    return thread


async def _cut(store: Store, thread: Writer) -> None:
    """Remove everything before the step at which it is cut."""
    root = snapshot_of(thread.positions[_CUT])
    await store.remove(thread.thread_id, thread.ids[:_CUT], [root], head=thread.head.ref.id)


class Removals(Suite):
    """Checkpoints that are removed for good."""

    async def test_what_is_removed_is_gone(self, store: Store) -> None:
        """With its snapshots, results and receipts, and nobody finds it; what stays is what it was."""
        thread = await _furnished(store)
        before = await store.thread(thread.thread_id)
        await store.claim(effect_row(thread), head=thread.head.ref.id)
        await _cut(store, thread)
        root = thread.checkpoints[_CUT].model_copy(update={"cut": True})
        stay = [root, *thread.checkpoints[_CUT + 1 :]]
        assert [c async for c in store.walk(thread.thread_id)] == stay
        assert [c.id for c in await store.find({"all": True})] == thread.ids[_CUT:][::-1]
        assert await store.snapshots(thread.thread_id) == [snapshot_of(thread.positions[_CUT])]
        assert [n for n in range(10) if await store.result("s", str(n))] == list(range(_CUT, 10))
        parts = {f"{id}:part" for id in thread.ids[_CUT:]} | {f"{id}0" for id in thread.ids}
        assert set(await store.receipts_under(thread.thread_id, "")) == parts | {f"free-{n}" for n in range(10)}
        for id in thread.ids[:_CUT]:
            assert await store.checkpoint(thread.thread_id, id) is None
            assert await store.line(thread.thread_id, id) is None
        assert _timeless(await store.thread(thread.thread_id)) == _timeless(before)
        assert len(await store.effects(thread.thread_id)) == 1

    async def test_what_stays_is_read_from_the_cut_on(self, store: Store) -> None:
        """Each line, path and ancestor ends at the checkpoint that was cut; the states are what they were.

        The snapshot that lines began at before is among what went.
        """
        thread = await _furnished(store)
        await _cut(store, thread)
        root, head = thread.ids[_CUT], thread.ids[-1]
        for position in thread.positions[_CUT:]:
            line = await store.line(thread.thread_id, position.ref.id)
            assert line is not None
            assert (line.base_id, line.layers[0].id) == (root, root)
            read = len(snapshot_of(thread.positions[_CUT]).state) + sum(len(layer.delta) for layer in line.layers[1:])
            assert (line.since_base, line.state_size) == (read, position.state_size)
            loaded = await Checkpointer(store).load(thread.thread_id, position.ref.id, expect=position.ref.digest)
            assert loaded.values == position.values
        assert [c.id for c in await store.path(thread.thread_id, head, limit=100)] == thread.ids[_CUT:][::-1]
        for step in range(10):
            found = await store.ancestor(thread.thread_id, head, step)
            assert (found.id if found else None) == (thread.ids[step] if step >= _CUT else None)

    async def test_a_thread_goes_on_after_a_removal(self, store: Store) -> None:
        """Committed to, forked, rewound to the cut, and cut again."""
        thread = await _furnished(store)
        await _cut(store, thread)
        loader = Checkpointer(store)
        at = await loader.load(thread.thread_id, thread.head.ref.id)
        await thread.commit(add("more"), on=at)
        root = await loader.load(thread.thread_id, thread.ids[_CUT])
        fork = await thread.fork(root)
        await fork.grow(1)
        await thread.rewind(root, branch=1)
        await thread.take_snapshot()
        for position in (*thread.positions[10:], *fork.positions):
            loaded = await Checkpointer(store).load(position.thread_id, position.ref.id)
            assert loaded.values == position.values
        await store.delete_thread(fork.thread_id)
        last = thread.head.ref.id
        await store.remove(thread.thread_id, [*thread.ids[_CUT:-1]], [snapshot_of(thread.head)], head=last)
        assert [c.id async for c in store.walk(thread.thread_id)] == [last]
        assert (await Checkpointer(store).load(thread.thread_id, last)).values == thread.head.values

    async def test_forks_of_what_stays_are_whole(self, store: Store) -> None:
        """A fork reads across the cut's thread, though the snapshot that it began at is gone; it can go on."""
        thread = await _furnished(store)
        forks = [await thread.fork(thread.positions[n]) for n in (_CUT, 8)]
        forks += [await forks[1].fork(forks[1].head)]
        for fork in forks:
            await fork.grow(2)
        await _cut(store, thread)
        for fork in forks:
            loaded = [await Checkpointer(store).load(fork.thread_id, id) for id in fork.ids]
            assert [(at.ref, at.values) for at in loaded] == [(at.ref, at.values) for at in fork.positions]
            await fork.commit(add("more"), on=loaded[-1])
            way = await store.path(fork.thread_id, fork.head.ref.id, limit=100)
            assert way[-1].id == thread.ids[_CUT]
            assert (await Checkpointer(store).load(fork.thread_id, fork.head.ref.id)).values == fork.head.values

    async def test_a_branch_is_removed_without_a_cut(self, store: Store) -> None:
        """What a rewind left goes, and nothing that stays goes back to it."""
        thread = await _furnished(store)
        await thread.rewind(thread.positions[6], branch=1)
        await thread.grow(1)
        await store.remove(thread.thread_id, thread.ids[7:10], [], head=thread.head.ref.id)
        stay = [*thread.checkpoints[:7], *thread.checkpoints[10:]]
        assert [c async for c in store.walk(thread.thread_id)] == stay
        assert await Checkpointer(store).load(thread.thread_id, thread.head.ref.id) == thread.head

    async def test_where_the_head_goes_another_takes_its_place(self, store: Store) -> None:
        """The row has the turn and the schema version of the head that is there afterwards."""
        thread = Writer(store)
        await thread.commit(turn=1, schema_version=1)
        await thread.commit(turn=2, schema_version=2)
        await thread.commit(turn=3, schema_version=3)
        await store.remove(thread.thread_id, [thread.ids[2]], [], head=thread.ids[1])
        row = await store.thread(thread.thread_id)
        assert row is not None
        assert (row.head_id, row.turn, row.schema_version) == (thread.ids[1], 2, 2)
        await thread.commit(put("other"), on=thread.positions[1])
        assert [c.id async for c in store.walk(thread.thread_id)] == [*thread.ids[:2], thread.ids[3]]

    async def test_a_removal_without_a_head_leaves_it_where_it_is(self, store: Store) -> None:
        """Also where somebody has written since it was decided what goes."""
        thread = await _furnished(store)
        await thread.commit(put("meanwhile"))
        before = await store.thread(thread.thread_id)
        root = snapshot_of(thread.positions[_CUT])
        await store.remove(thread.thread_id, thread.ids[:_CUT], [root], head="")
        assert _timeless(await store.thread(thread.thread_id)) == _timeless(before)
        assert [c.id async for c in store.walk(thread.thread_id)] == thread.ids[_CUT:]
        async with refused(store, CheckpointNotFound):
            await store.remove(thread.thread_id, thread.ids[-1:], [], head="")

    async def test_other_threads_keep_what_is_theirs(self, store: Store) -> None:
        """Also where they have checkpoints of the same ids."""
        thread = await _furnished(store)
        await store.copy_thread(thread.thread_id, "copy")
        before = await thread_picture(store, "copy")
        await _cut(store, thread)
        assert await thread_picture(store, "copy") == before

    async def test_what_another_thread_was_forked_from_stays(self, store: Store) -> None:
        """Nothing is removed where a fork goes back to any of it. Once the fork is gone, it can be."""
        thread = await _furnished(store)
        fork = await thread.fork(thread.positions[2])
        results = [draft.step.result for draft in thread.drafts if draft.step.result]
        async with refused(store, Conflict, results=results) as refusal:
            await _cut(store, thread)
        assert fork.thread_id in str(refusal.value)
        await store.delete_thread(fork.thread_id)
        await _cut(store, thread)
        assert await store.checkpoint(thread.thread_id, thread.ids[2]) is None

    async def test_what_something_that_stays_goes_back_to_stays(self, store: Store) -> None:
        """A child without its parent has to be given the state that it stands on, or nothing is removed."""
        thread = await _furnished(store)
        root, head = snapshot_of(thread.positions[_CUT]), thread.head.ref.id
        async with refused(store, Conflict):
            await store.remove(thread.thread_id, thread.ids[:_CUT], [], head=head)
        async with refused(store, Conflict):
            await store.remove(thread.thread_id, [*thread.ids[:_CUT], thread.ids[7]], [root], head=head)
        async with refused(store, CheckpointNotFound):
            await store.remove(thread.thread_id, thread.ids[:_CUT], [root], head=thread.ids[0])


async def _restore(store: Store, steps: Sequence[Step], head: Step) -> None:
    for step in steps:
        await store.restore(step, head=step is head)


def _timeless(row: ThreadRow | None) -> dict[str, object] | None:
    return row.model_dump(exclude={"created_at", "updated_at"}) if row else None


class Restores(Suite):
    """Checkpoints that are put back."""

    async def test_the_end_of_a_line_is_put_back(self, store: Store) -> None:
        """Head and state are what they were; so is the whole thread."""
        thread = Writer(store)
        await thread.grow(2)
        await thread.take_snapshot()
        await thread.commit(put(1), metadata={"note": 1}, turn=4, schema_version=2)
        before = await picture(store)
        await store.remove(thread.thread_id, thread.ids[3:], [], head=thread.ids[2])
        steps = [draft.step for draft in thread.drafts[3:]]
        await _restore(store, steps, steps[-1])
        after = await picture(store)
        was, now = before["threads"][thread.thread_id], after["threads"][thread.thread_id]
        assert _timeless(was.pop("row")) == _timeless(now.pop("row"))
        assert after == before
        assert (await Checkpointer(store).load(thread.thread_id, thread.head.ref.id)) == thread.head

    @pytest.mark.parametrize("backwards", [False, True])
    async def test_a_thread_that_is_gone_is_put_back(self, store: Store, backwards: bool) -> None:
        """In whatever order its checkpoints come, the head last; a fork goes back to its origin again."""
        thread, origin = Writer(store), Writer(store)
        await origin.grow(2)
        await thread.commit(agent="desk", tenant="shop")
        await thread.take_snapshot()
        fork = await origin.fork(origin.positions[0], agent="desk", tenant="shop")
        await fork.grow(2)
        for gone in (thread, fork):
            before = await thread_picture(store, gone.thread_id)
            await store.delete_thread(gone.thread_id)
            whose = {"agent": "desk", "tenant": "shop", "lineage": before["row"].lineage}
            steps = [draft.step.model_copy(update=whose) for draft in gone.drafts]
            earlier = steps[-2::-1] if backwards else steps[:-1]
            await _restore(store, [*earlier, steps[-1]], steps[-1])
            after = await thread_picture(store, gone.thread_id)
            assert _timeless(before.pop("row")) == _timeless(after.pop("row"))
            assert after == before
        await thread.grow(1)
        await fork.grow(1)

    async def test_a_gap_is_filled(self, store: Store) -> None:
        """A checkpoint that is missing in the middle is put back without moving the head."""
        thread = Writer(store)
        await thread.grow(5)
        before = await thread_picture(store, thread.thread_id)
        await store.delete_thread(thread.thread_id)
        steps = [draft.step for draft in thread.drafts]
        await _restore(store, [steps[0], steps[1], steps[3], steps[4]], steps[4])
        await store.restore(steps[2], head=False)
        after = await thread_picture(store, thread.thread_id)
        assert _timeless(before.pop("row")) == _timeless(after.pop("row"))
        assert after == before

    async def test_what_is_there_is_left_as_it_is(self, store: Store) -> None:
        """Whatever notes are offered in the place of its own; with ``head`` it is the head then."""
        thread = Writer(store)
        await thread.commit(turn=1)
        await thread.commit(turn=2, metadata={"note": 1}, facts={"who": "me"})
        before = await picture(store)
        for draft in thread.drafts:
            other = draft.step.checkpoint.model_copy(update={"facts": {"who": "another"}, "metadata": {"note": 2}})
            await store.restore(draft.step.model_copy(update={"checkpoint": other}), head=False)
        assert await picture(store) == before
        await store.restore(thread.drafts[0].step, head=True)
        row = await store.thread(thread.thread_id)
        assert row is not None
        assert (row.head_id, row.turn) == (thread.ids[0], 1)
        await store.restore(thread.drafts[1].step, head=True)
        row = await store.thread(thread.thread_id)
        assert row is not None
        assert (row.head_id, row.turn) == (thread.ids[1], 2)
        assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints
