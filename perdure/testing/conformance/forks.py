"""Checks of forks and rewinds: lines that cross threads, and branches within one."""

from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Checkpointer
from perdure.errors import CheckpointNotFound, ConcurrentModification
from perdure.stores.base import Store
from perdure.testing.conformance.picture import refused, thread_picture
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer, add, put


async def _generations(store: Store) -> tuple[list[Writer], list[Checkpoint]]:
    """A thread, a fork of it and a fork of that, each gone on; with the way from the root to the last one's head."""
    first = Writer(store)
    await first.grow(2)
    await first.take_snapshot()
    await first.grow(2)
    second = await first.fork(first.positions[4], metadata={"generation": 2})
    await second.grow(2)
    third = await second.fork(second.positions[1])
    await third.grow(2)
    await first.grow(1)
    await second.grow(1)
    return [first, second, third], first.checkpoints[:5] + second.checkpoints[:2] + third.checkpoints


class Forks(Suite):
    """Threads that begin on a checkpoint of another one."""

    async def test_a_fork_is_a_thread_that_knows_its_origin(self, store: Store) -> None:
        """Its row says where it comes from, and with whom it shares cached results; its origin stays as it is."""
        origin = Writer(store)
        await origin.commit(agent="desk", tenant="shop")
        await origin.grow(3)
        before = await thread_picture(store, origin.thread_id)
        fork = await origin.fork(origin.positions[1], agent="desk", tenant="other", schema_version=2, turn=4)
        row = await store.thread(fork.thread_id)
        assert row is not None
        seen = row.model_dump(exclude={"created_at", "updated_at"})
        assert seen == {
            "thread_id": fork.thread_id, "agent": "desk", "tenant": "other", "lineage": origin.thread_id, "branch": 0,
            "turn": 4, "head_id": fork.head.ref.id, "schema_version": 2, "closed": False,
            "origin_thread": origin.thread_id, "origin_id": origin.ids[1], "lease": "", "dry_run": False, "audited": 0,
            "audit_digest": "",
        }  # fmt: skip
        assert await thread_picture(store, origin.thread_id) == before | {"forks": [row]}
        checkpoint = await store.checkpoint(fork.thread_id, fork.head.ref.id)
        assert checkpoint == fork.checkpoints[0]
        assert checkpoint.parent_thread == origin.thread_id

    async def test_states_go_back_across_threads(self, store: Store) -> None:
        """Through two generations, from the snapshot in the first one, at every checkpoint of the three."""
        threads, _ = await _generations(store)
        for thread in threads:
            for position in thread.positions:
                assert await Checkpointer(store).load(thread.thread_id, position.ref.id) == position
        first, _, third = threads
        line = await store.line(third.thread_id, third.head.ref.id)
        assert line is not None
        assert (line.base_id, line.snapshot) == (first.ids[3], first.drafts[3].step.snapshot)

    async def test_paths_go_back_across_threads(self, store: Store) -> None:
        """With every limit, so also where it ends exactly at a fork."""
        threads, way = await _generations(store)
        for limit in range(1, len(way) + 2):
            found = await store.path(threads[-1].thread_id, threads[-1].head.ref.id, limit=limit)
            assert found == way[::-1][:limit]
            landmarks = await store.landmarks(threads[-1].thread_id, threads[-1].head.ref.id, limit=limit)
            assert landmarks == [c for c in found if c.source != "step"]

    async def test_ancestors_are_found_across_threads(self, store: Store) -> None:
        """Of the last one's head at every step: in the thread that the line goes through there."""
        threads, way = await _generations(store)
        for step, checkpoint in enumerate(way):
            found = await store.ancestor(threads[-1].thread_id, threads[-1].head.ref.id, step)
            assert found == checkpoint
        assert await store.ancestor(threads[1].thread_id, threads[1].ids[0], 4) == threads[0].checkpoints[4]
        assert await store.ancestor(threads[-1].thread_id, threads[-1].head.ref.id, len(way)) is None

    async def test_what_is_a_threads_own_stays_its_own(self, store: Store) -> None:
        """Checkpoints, walks, snapshots and searches of one thread don't reach into another."""
        threads, _ = await _generations(store)
        first, second, third = threads
        for thread in threads:
            assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints
        assert await store.checkpoint(second.thread_id, first.ids[0]) is None
        assert await store.line(third.thread_id, second.ids[0]) is None
        assert [len(await store.snapshots(thread.thread_id)) for thread in threads] == [1, 0, 0]
        assert await store.find({"generation": 2}, thread_id=third.thread_id) == []

    async def test_a_fork_has_snapshots_of_its_own(self, store: Store) -> None:
        """From then on nothing of its origin is read to load it."""
        origin = Writer(store)
        await origin.take_snapshot()
        fork = await origin.fork(origin.head)
        at = await fork.take_snapshot()
        await fork.grow(1)
        line = await store.line(fork.thread_id, fork.head.ref.id)
        assert line is not None
        assert (line.base_id, [layer.id for layer in line.layers]) == (at.ref.id, fork.ids[-2:])
        assert await Checkpointer(store).load(fork.thread_id, fork.head.ref.id) == fork.head

    async def test_forks_are_listed_by_id(self, store: Store) -> None:
        """Those of this thread; the forks of a fork are that one's."""
        origin = Writer(store)
        await origin.grow(3)
        names = ["fork-b", "fork-c", "fork-a"]
        forks = [await origin.fork(at, name) for at, name in zip(origin.positions, names, strict=True)]
        await forks[0].fork(forks[0].head, "fork-d")
        assert [row.thread_id for row in await store.forks(origin.thread_id)] == sorted(names)
        assert [row.thread_id for row in await store.forks("fork-b")] == ["fork-d"]
        assert await store.forks("fork-d") == await store.forks("nobody") == []
        row = await store.thread("fork-d")
        assert row is not None
        assert (row.lineage, row.origin_thread) == (origin.thread_id, "fork-b")

    async def test_a_fork_to_a_thread_that_is_there_is_refused(self, store: Store) -> None:
        """It is somebody else's."""
        origin, other = Writer(store), Writer(store)
        for thread in (origin, other):
            await thread.grow(1)
        draft = await Writer(store, other.thread_id, origin=origin.head).draft(source="fork")
        async with refused(store, ConcurrentModification) as refusal:
            await store.commit(draft.step)
        assert isinstance(refusal.value, ConcurrentModification)
        assert (refusal.value.expected, refusal.value.actual) == ("", other.head.ref.id)

    async def test_a_fork_done_again_changes_nothing(self, store: Store) -> None:
        """Also after it has gone on."""
        origin = Writer(store)
        await origin.grow(1)
        fork = await origin.fork(origin.head)
        await fork.grow(1)
        before = await thread_picture(store, fork.thread_id)
        assert await store.commit(fork.drafts[0].step) is False
        assert await thread_picture(store, fork.thread_id) == before


class Rewinds(Suite):
    """Branches of one thread."""

    async def test_a_rewind_moves_the_head_to_another_branch(self, store: Store) -> None:
        """The new head goes back to where it was rewound to; the row has its turn, and counts the branch."""
        thread = Writer(store)
        await thread.commit(turn=1)
        for turn in (1, 2, 2):
            await thread.commit(turn=turn)
        at = await thread.rewind(thread.positions[1], branch=1)
        row = await store.thread(thread.thread_id)
        assert row is not None
        assert (row.head_id, row.turn, row.branch) == (at.ref.id, 1, 1)
        checkpoint = await store.checkpoint(thread.thread_id, at.ref.id)
        assert checkpoint == thread.checkpoints[-1]
        assert (checkpoint.parent_id, checkpoint.parent_thread, checkpoint.step) == (thread.ids[1], "", 2)
        await thread.grow(1)
        row = await store.thread(thread.thread_id)
        assert row is not None and row.branch == 1

    async def test_lines_follow_their_own_branch(self, store: Store) -> None:
        """State, path and ancestors of each branch go its own way back, also over snapshots."""
        thread = Writer(store)
        await thread.grow(2)
        await thread.take_snapshot()
        await thread.commit(add("left"))
        left = thread.head
        await thread.rewind(thread.positions[1], branch=1)
        await thread.commit(add("right"))
        right = thread.head
        await thread.rewind(left, branch=2)
        for position in thread.positions:
            assert await Checkpointer(store).load(thread.thread_id, position.ref.id) == position
        written = thread.checkpoints
        ways = {left.ref.id: written[:5], right.ref.id: written[:2] + written[5:7]}
        for id, way in ways.items():
            assert await store.path(thread.thread_id, id, limit=100) == way[::-1]
            for step, checkpoint in enumerate(way):
                assert await store.ancestor(thread.thread_id, id, step) == checkpoint
            assert await store.ancestor(thread.thread_id, id, len(way)) is None
        assert await store.ancestor(thread.thread_id, thread.head.ref.id, 4) == written[4]

    async def test_a_walk_meets_all_branches(self, store: Store) -> None:
        """Every checkpoint once, none before its parent, by step."""
        thread = Writer(store)
        await thread.grow(4)
        for branch in (1, 2, 3):
            await thread.rewind(thread.positions[branch], branch=branch)
            await thread.grow(2)
        met = [c async for c in store.walk(thread.thread_id)]
        assert sorted(met, key=lambda c: c.id) == sorted(thread.checkpoints, key=lambda c: c.id)
        assert [c.step for c in met] == sorted(c.step for c in thread.checkpoints)

    async def test_a_rewind_is_fenced_by_the_head_it_replaces(self, store: Store) -> None:
        """What it extends is the head, not its parent: where somebody has written meanwhile, it is refused."""
        thread = Writer(store)
        await thread.grow(3)
        old = thread.head
        late = await thread.draft(on=thread.positions[0], replaces=old.ref.id, branch=1, source="rewind")
        await thread.commit(put(1))
        async with refused(store, ConcurrentModification) as refusal:
            await store.commit(late.step)
        assert isinstance(refusal.value, ConcurrentModification)
        assert (refusal.value.expected, refusal.value.actual) == (old.ref.id, thread.head.ref.id)
        nowhere = (await thread.draft(put(2))).position
        lost = await thread.draft(on=nowhere, replaces=thread.head.ref.id, branch=1, source="rewind")
        async with refused(store, CheckpointNotFound):
            await store.commit(lost.step)

    async def test_a_fork_of_a_branch_that_was_left_goes_its_way(self, store: Store) -> None:
        """A rewind takes nothing away: what it left can be forked."""
        thread = Writer(store)
        await thread.grow(2)
        await thread.commit(put("left"))
        left = thread.head
        await thread.rewind(thread.positions[0], branch=1)
        fork = await thread.fork(left)
        assert (await Checkpointer(store).load(fork.thread_id, fork.head.ref.id)).values == left.values
        way = await store.path(fork.thread_id, fork.head.ref.id, limit=9)
        assert way == [fork.checkpoints[0], *thread.checkpoints[:3][::-1]]
