"""Checks of whole threads: listed, closed, leased, deleted, copied."""

from dataclasses import replace

from perdure.checkpointer import Checkpointer
from perdure.errors import Conflict, ThreadNotFound
from perdure.lease import Lease
from perdure.stores.base import CachedResult, Receipt, Store
from perdure.testing.conformance.audits import audit_entries
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.picture import refused, thread_picture
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer, checkpoint_id, put

_LEASE = Lease(holder="me", token="t", until="2100-01-01T00:00:00.000+00:00").model_dump_json()


async def _furnished(store: Store, thread_id: str = "") -> Writer:
    """A thread that has something of everything."""
    thread = Writer(store, thread_id)
    place = checkpoint_id()
    kept = CachedResult(scope="s", key=thread.thread_id, thread_id=thread.thread_id, checkpoint_id=place)
    await thread.commit(put(1), checkpoint_id=place, result=kept, metadata={"mark": 1}, agent="desk", tenant="shop")
    await thread.take_snapshot()
    await thread.rewind(thread.positions[0], branch=1)
    await store.claim(effect_row(thread), head=thread.head.ref.id)
    await store.put_receipt(thread.thread_id, Receipt(key="part", result=b"1"))
    await store.append_audit(thread.thread_id, audit_entries(2))
    await store.set_lease(thread.thread_id, _LEASE)
    return thread


class Threads(Suite):
    """Rows of threads."""

    async def test_threads_are_listed_by_id(self, store: Store) -> None:
        """A page at a time, each thread once, by the letters of its id and nobody's alphabet."""
        names = sorted(["a", "B", "a-1", "a.1", "a:1", "a_1", "A1", "b", "Z", "z", "é", "10", "9"])
        for name in reversed(names):
            await Writer(store, name).commit()
        assert [row.thread_id for row in await store.threads()] == names
        assert [row.thread_id for row in await store.threads(after="a.1")] == names[names.index("a.1") + 1 :]
        assert [row.thread_id for row in await store.threads(after="aa", limit=2)] == ["b", "z"]
        assert await store.threads(after=names[-1]) == []
        assert [await store.thread(row.thread_id) for row in await store.threads()] == await store.threads()

    async def test_a_thread_is_closed(self, store: Store) -> None:
        """It alone, also a second time; one that isn't there is not made."""
        thread, other = Writer(store), Writer(store)
        for each in (thread, other):
            await each.grow(1)
        for _ in range(2):
            await store.close_thread(thread.thread_id)
            rows = [await store.thread(each.thread_id) for each in (thread, other)]
            assert [row.closed for row in rows if row] == [True, False]
        await store.close_thread("nobody")
        assert await store.thread("nobody") is None

    async def test_a_lease_is_kept_until_it_is_replaced(self, store: Store) -> None:
        """Commits leave it alone; an empty one takes it away."""
        thread = Writer(store)
        await thread.grow(1)
        for lease in (_LEASE, "another", ""):
            await store.set_lease(thread.thread_id, lease)
            await thread.grow(1)
            row = await store.thread(thread.thread_id)
            assert row is not None and row.lease == lease

    async def test_a_deleted_thread_leaves_nothing(self, store: Store) -> None:
        """Nothing is found of it any more, and other threads keep theirs."""
        other, empty = await _furnished(store), await thread_picture(store, "nobody")
        kept, rows = await thread_picture(store, other.thread_id), (await store.sizes())["rows"]
        thread = await _furnished(store)
        await store.delete_thread(thread.thread_id)
        assert await thread_picture(store, thread.thread_id) == empty
        assert await store.result("s", thread.thread_id) is None
        assert [c.thread_id for c in await store.find({"mark": 1})] == [other.thread_id]
        assert [row.thread_id for row in await store.threads()] == [other.thread_id]
        assert await thread_picture(store, other.thread_id) == kept
        assert await store.result("s", other.thread_id) is not None
        assert (await store.sizes())["rows"] == rows

    async def test_a_name_is_free_after_its_thread(self, store: Store) -> None:
        """A thread that begins under it anew inherits nothing."""
        thread = await _furnished(store, "again")
        await store.close_thread("again")
        await store.delete_thread("again")
        anew = Writer(store, "again")
        await anew.commit()
        fresh = Writer(store)
        await fresh.commit()
        seen, usual = await thread_picture(store, "again"), await thread_picture(store, fresh.thread_id)
        assert (seen["row"].branch, seen["row"].lease, seen["row"].closed, seen["row"].agent) == (0, "", False, "")
        for part in ("snapshots", "receipts", "effects", "forks", "found", "audit"):
            assert seen[part] == usual[part]
        assert await store.checkpoint("again", thread.ids[0]) is None

    async def test_deleting_what_isnt_there_is_no_error(self, store: Store) -> None:
        """So a deletion can be done again."""
        thread = await _furnished(store)
        await store.delete_thread("nobody")
        await store.delete_thread(thread.thread_id)
        await store.delete_thread(thread.thread_id)
        assert await store.threads() == []

    async def test_a_thread_with_forks_is_not_deleted(self, store: Store) -> None:
        """They go back to it. When they are gone, it may go."""
        thread = await _furnished(store)
        fork = await thread.fork(thread.positions[1])
        second = await fork.fork(fork.head)
        for origin, blocking in ((thread, fork), (fork, second)):
            kept = CachedResult(scope="s", key=thread.thread_id)
            async with refused(store, Conflict, results=[kept]) as refusal:
                await store.delete_thread(origin.thread_id)
            assert blocking.thread_id in str(refusal.value)
        for gone in (second, fork, thread):
            await store.delete_thread(gone.thread_id)
        assert await store.threads() == []


class Copies(Suite):
    """Threads that are copied."""

    async def test_a_copy_has_everything_that_is_to_be_read(self, store: Store) -> None:
        """All checkpoints of all branches, snapshots and receipts under the same ids.

        Effects, results, the lease and the audit stay.
        """
        thread = await _furnished(store)
        before = await thread_picture(store, thread.thread_id)
        await store.copy_thread(thread.thread_id, "copy")
        copy = await thread_picture(store, "copy")
        assert await thread_picture(store, thread.thread_id) == before
        fresh = {"thread_id": "copy", "lineage": "copy", "lease": "", "audited": 0, "audit_digest": ""}
        assert _timeless(copy["row"]) == _timeless(before["row"].model_copy(update=fresh))
        assert copy["effects"] == [] != before["effects"]
        assert copy["audit"] == [] != before["audit"]
        for part in ("snapshots", "receipts", "forks"):
            assert copy[part] == before[part]
        assert copy["checkpoints"] == copy["one by one"]
        assert copy["checkpoints"] == [c.model_copy(update={"thread_id": "copy"}) for c in before["checkpoints"]]
        assert [c.thread_id for c in await store.find({"mark": 1}, thread_id="copy")] == ["copy"]
        for position in thread.positions:
            loaded = await Checkpointer(store).load("copy", position.ref.id, expect=position.ref.digest)
            assert loaded == replace(position, thread_id="copy")

    async def test_a_copy_goes_its_own_way(self, store: Store) -> None:
        """Neither sees what the other does afterwards, and each can go without the other."""
        thread = await _furnished(store)
        await store.copy_thread(thread.thread_id, "copy")
        copy = Writer(store, "copy")
        await copy.commit(put(3), on=await Checkpointer(store).load("copy", thread.head.ref.id))
        await thread.commit(put(4))
        await store.delete_thread(thread.thread_id)
        assert [c.id async for c in store.walk("copy")][-1] == copy.head.ref.id
        assert (await Checkpointer(store).load("copy", copy.head.ref.id)).values == copy.head.values
        assert await store.receipts("copy", ["part"]) == {"part": b"1"}

    async def test_a_copy_of_a_fork_comes_from_the_same_place(self, store: Store) -> None:
        """It goes back to the origin as the fork does, and the origin knows both."""
        thread = await _furnished(store)
        fork = await thread.fork(thread.positions[1])
        await fork.grow(1)
        await store.copy_thread(fork.thread_id, "copy")
        assert sorted(row.thread_id for row in await store.forks(thread.thread_id)) == sorted(["copy", fork.thread_id])
        assert (await Checkpointer(store).load("copy", fork.head.ref.id)).values == fork.head.values
        await store.delete_thread(fork.thread_id)
        async with refused(store, Conflict):
            await store.delete_thread(thread.thread_id)

    async def test_a_copy_of_nothing_is_refused(self, store: Store) -> None:
        """And nothing begins under the name of the copy."""
        await _furnished(store)
        async with refused(store, ThreadNotFound):
            await store.copy_thread("nobody", "copy")
        assert await store.thread("copy") is None

    async def test_a_copy_over_a_thread_is_refused(self, store: Store) -> None:
        """Over itself too."""
        thread, other = await _furnished(store), await _furnished(store)
        for target in (other.thread_id, thread.thread_id):
            async with refused(store, Conflict):
                await store.copy_thread(thread.thread_id, target)


def _timeless(row: object) -> object:
    return row.model_dump(exclude={"created_at", "updated_at"}) if hasattr(row, "model_dump") else row
