"""Checks of the audit: lines are only ever added, each once, and their digests are a chain."""

import asyncio
from typing import Any

from perdure.audit import AuditEntry, AuditHead, chained, check_end, follow
from perdure.errors import ThreadNotFound
from perdure.stores.base import Store
from perdure.testing.conformance.picture import refused, thread_picture
from perdure.testing.conformance.suite import MakeStore, Suite
from perdure.testing.conformance.writer import Writer, snapshot_of

_AT = "2024-05-06T07:08:09.000+00:00"
_ODD = ("a b", "a:b", "é", "\U0001f600", "50%", "';--", "*", "{x}", "\0", "x" * 500)


def audit_entries(count: int, name: str = "line", **body: Any) -> list[AuditEntry]:
    """So many lines, each under an id of its own."""
    return [AuditEntry(id=f"{name}-{n}", at=_AT, kind="request.opened", body={"n": n, **body}) for n in range(count)]


async def _audited(store: Store, count: int) -> Writer:
    """A thread with so many lines in its audit."""
    thread = Writer(store)
    await thread.grow(2)
    await store.append_audit(thread.thread_id, audit_entries(count))
    return thread


async def _check_whole(store: Store, thread_id: str) -> list[str]:
    """The ids of the lines, which must be one chain that ends where the thread says."""
    lines, row = await store.audit(thread_id), await store.thread(thread_id)
    assert row is not None
    check_end(follow(thread_id, AuditHead(), lines), row.audit_end)
    return [line.entry.id for line in lines]


class Audits(Suite):
    """Lines of the audit."""

    async def test_lines_are_read_as_they_were_written(self, store: Store) -> None:
        """In their order, under numbers from 1, chained from the digest before; the thread knows the end."""
        thread = Writer(store)
        await thread.commit()
        odd = [
            AuditEntry(id=id, at=_AT, kind="decision.refused", body={"who": id, "deep": [{"a": [1.5, None, True]}]})
            for id in _ODD
        ]
        expected = chained(thread.thread_id, AuditHead(), [*audit_entries(3), *odd])
        assert await store.append_audit(thread.thread_id, audit_entries(3)) == expected[2].head
        assert await store.append_audit(thread.thread_id, odd) == expected[-1].head
        assert await store.audit(thread.thread_id) == expected
        row = await store.thread(thread.thread_id)
        assert row is not None and row.audit_end == expected[-1].head

    async def test_lines_are_read_a_page_at_a_time(self, store: Store) -> None:
        """Those after a number, so many of them; of one thread."""
        thread, other = await _audited(store, 25), await _audited(store, 3)
        every = await store.audit(thread.thread_id)
        assert [line.number for line in every] == list(range(1, 26))
        assert await store.audit(thread.thread_id, after=7, limit=9) == every[7:16]
        assert await store.audit(thread.thread_id, after=20, limit=9) == every[20:]
        assert await store.audit(thread.thread_id, after=25) == await store.audit("nobody") == []
        assert len(await store.audit(other.thread_id)) == 3

    async def test_a_line_is_written_once(self, store: Store) -> None:
        """Whoever says it again changes nothing, also with other words; what is new beside it is added."""
        thread = await _audited(store, 2)
        before = await thread_picture(store, thread.thread_id)
        end = await store.append_audit(thread.thread_id, audit_entries(2, other=True))
        assert end == before["row"].audit_end
        assert await store.append_audit(thread.thread_id, []) == end
        assert await thread_picture(store, thread.thread_id) == before
        await store.append_audit(thread.thread_id, [*audit_entries(3), *audit_entries(3)])
        assert await _check_whole(store, thread.thread_id) == ["line-0", "line-1", "line-2"]

    async def test_ids_are_each_threads_own(self, store: Store) -> None:
        """The same id in two threads is two lines, with other digests."""
        one, other = await _audited(store, 1), await _audited(store, 1)
        [first], [second] = await store.audit(one.thread_id), await store.audit(other.thread_id)
        assert first.entry == second.entry
        assert first.digest != second.digest

    async def test_no_thread_has_no_audit(self, store: Store) -> None:
        """Nothing is written for a thread that isn't there."""
        async with refused(store, ThreadNotFound):
            await store.append_audit("nobody", audit_entries(1))
        async with refused(store, ThreadNotFound):
            await store.append_audit("nobody", [])
        assert await store.audit("nobody") == []

    async def test_lines_added_at_once_all_count(self, store: Store, another: MakeStore) -> None:
        """Twelve writers through three stores, and commits beside them: one chain, which has every line once."""
        thread, stores = await _audited(store, 1), [store, another(), another()]
        writing = [
            stores[n % 3].append_audit(thread.thread_id, audit_entries(3, f"writer-{n // 2}")) for n in range(12)
        ]
        ends = [end for end in await asyncio.gather(*writing, thread.grow(4)) if end is not None]
        kept = await _check_whole(store, thread.thread_id)
        assert sorted(kept) == sorted(["line-0", *(f"writer-{n}-{line}" for n in range(6) for line in range(3))])
        assert max(end.number for end in ends) == len(kept)
        assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints

    async def test_the_rest_of_a_thread_leaves_it_alone(self, store: Store) -> None:
        """Commits, rewinds, the end; and what is removed of the past is not removed of the audit."""
        thread = await _audited(store, 3)
        before = await store.audit(thread.thread_id)
        await thread.rewind(thread.positions[0], branch=1)
        await thread.grow(2)
        await store.close_thread(thread.thread_id)
        root = thread.positions[-1]
        await store.remove(thread.thread_id, thread.ids[:-1], [snapshot_of(root)], head=root.ref.id)
        assert await store.audit(thread.thread_id) == before
        assert len(await _check_whole(store, thread.thread_id)) == 3

    async def test_a_fork_begins_an_audit_of_its_own(self, store: Store) -> None:
        """What was decided elsewhere is in the audit of that thread."""
        thread = await _audited(store, 3)
        fork = await thread.fork(thread.head)
        assert await _check_whole(store, fork.thread_id) == []
        await store.append_audit(fork.thread_id, audit_entries(1))
        assert (await store.audit(fork.thread_id))[0].number == 1
        assert len(await _check_whole(store, thread.thread_id)) == 3

    async def test_a_long_audit_is_one_chain(self, store: Store) -> None:
        """Written in pieces, of which the last is shorter."""
        thread, entries = await _audited(store, 0), audit_entries(250)
        for at in range(0, 250, 40):
            await store.append_audit(thread.thread_id, entries[at : at + 40])
        assert await _check_whole(store, thread.thread_id) == [entry.id for entry in entries]
