"""Checks of reading a thread: what it takes to make a state, the way back, ancestors, all of it."""

from perdure.checkpoint import layer_of
from perdure.checkpointer import Checkpointer
from perdure.stores.base import Store
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer, checkpoint_id, put


class Lines(Suite):
    """One thread, without forks."""

    async def test_what_isnt_there_is_not_found(self, store: Store) -> None:
        """Neither of a thread that isn't there nor of one that is. Nothing fails."""
        thread = Writer(store)
        await thread.grow(2)
        nowhere = checkpoint_id()
        for thread_id, id in (("nobody", thread.ids[0]), (thread.thread_id, nowhere), (thread.thread_id, "foreign")):
            assert await store.checkpoint(thread_id, id) is None
            assert await store.line(thread_id, id) is None
            assert await store.path(thread_id, id, limit=5) == []
            assert await store.ancestor(thread_id, id, 0) is None
        assert [c async for c in store.walk("nobody")] == []
        assert await store.thread("nobody") is None
        assert (await store.snapshots("nobody"), await store.forks("nobody")) == ([], [])
        assert await store.find({}, thread_id="nobody") == []

    async def test_a_line_without_snapshots_begins_at_the_root(self, store: Store) -> None:
        """At every checkpoint it has all before it, oldest first, and the two sizes that were committed."""
        thread = Writer(store)
        await thread.grow(5)
        for n, (step, position) in enumerate(thread.drafts):
            line = await store.line(thread.thread_id, position.ref.id)
            assert line is not None
            assert line.layers == tuple(map(layer_of, thread.checkpoints[: n + 1]))
            assert (line.snapshot, line.last, line.base_id) == (None, thread.checkpoints[n], None)
            assert (line.since_base, line.state_size) == (step.since_base, step.state_size)

    async def test_a_line_begins_at_the_nearest_snapshot(self, store: Store) -> None:
        """And no further back, at every checkpoint, also where there are several snapshots."""
        thread = Writer(store)
        bases: list[int | None] = []
        await thread.grow(2)
        bases += [None, None, None, 3]
        await thread.take_snapshot()
        await thread.grow(2)
        bases += [3, 3, 3, 7]
        await thread.take_snapshot()
        for n, (base, (step, position)) in enumerate(zip(bases, thread.drafts, strict=True)):
            line = await store.line(thread.thread_id, position.ref.id)
            assert line is not None
            assert line.layers == tuple(map(layer_of, thread.checkpoints[base or 0 : n + 1]))
            assert line.last == thread.checkpoints[n]
            assert line.snapshot == (thread.drafts[base].step.snapshot if base else None)
            assert line.base_id == (thread.ids[base] if base else None)
            assert (line.since_base, line.state_size) == (step.since_base, step.state_size)
            assert await Checkpointer(store).load(thread.thread_id, position.ref.id) == position

    async def test_snapshots_are_listed_oldest_first(self, store: Store) -> None:
        """Each as it was committed."""
        thread = Writer(store)
        await thread.grow(1)
        for _ in range(3):
            await thread.take_snapshot()
        written = [draft.step.snapshot for draft in thread.drafts if draft.step.snapshot]
        assert await store.snapshots(thread.thread_id) == written
        assert len(written) == 3

    async def test_a_path_goes_back(self, store: Store) -> None:
        """From any checkpoint, newest first, as far as the limit; snapshots don't end it."""
        thread = Writer(store)
        await thread.grow(2)
        await thread.take_snapshot()
        await thread.grow(2)
        for n, id in enumerate(thread.ids):
            for limit in (1, 2, 4, 6, 100):
                way = thread.checkpoints[: n + 1][::-1]
                assert await store.path(thread.thread_id, id, limit=limit) == way[:limit]

    async def test_landmarks_are_no_plain_steps(self, store: Store) -> None:
        """From any checkpoint, newest first: among so many on the way back, or only up to where its turn began."""
        thread = Writer(store)
        for turn, sources in enumerate(("input step step update step", "input step", "step input rewind step step")):
            for source in sources.split():
                await thread.commit(put(source), source=source, turn=turn)
        for n, id in enumerate(thread.ids):
            way = thread.checkpoints[: n + 1][::-1]
            for limit in (0, 1, 3, 5, 100):
                found = await store.landmarks(thread.thread_id, id, limit=limit)
                assert found == [c for c in way[:limit] if c.source != "step"]
            own = [c for c in way if c.turn == way[0].turn and c.source != "step"]
            assert await store.landmarks(thread.thread_id, id, limit=100, in_turn=True) == own
        assert await store.landmarks("nobody", thread.ids[-1], limit=5) == []

    async def test_an_ancestor_is_found_by_its_step(self, store: Store) -> None:
        """Of every checkpoint at every step, itself too; later steps are not its ancestors."""
        thread = Writer(store)
        await thread.grow(2)
        await thread.take_snapshot()
        await thread.grow(1)
        for n, id in enumerate(thread.ids):
            for step in range(len(thread.ids) + 1):
                found = await store.ancestor(thread.thread_id, id, step)
                assert found == (thread.checkpoints[step] if step <= n else None)
        assert await store.ancestor(thread.thread_id, thread.ids[-1], -1) is None

    async def test_a_walk_meets_every_checkpoint(self, store: Store) -> None:
        """By step, the root first, as they were committed, and none of another thread."""
        thread, other = Writer(store), Writer(store)
        for _ in range(3):
            await thread.grow(2)
            await other.grow(1)
        assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints
        assert [c async for c in store.walk(other.thread_id)] == other.checkpoints

    async def test_a_walk_may_be_left(self, store: Store) -> None:
        """Whoever has seen enough goes, and the store goes on; a walk also bears that the thread is written to."""
        thread = Writer(store)
        await thread.grow(3)
        async for checkpoint in store.walk(thread.thread_id):
            assert checkpoint == thread.checkpoints[0]
            break
        seen = []
        async for checkpoint in store.walk(thread.thread_id):
            seen.append(checkpoint)
            if len(seen) == 1:
                await thread.commit(put("meanwhile"))
        assert seen[:3] == thread.checkpoints[:3]
        assert await store.thread(thread.thread_id) is not None
