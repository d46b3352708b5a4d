"""Checks of dry runs: threads that do nothing outside, and their entries in the ledger."""

from typing import Any

import pytest

from perdure.effects import EffectStatus
from perdure.errors import ConcurrentModification
from perdure.stores.base import EffectRow, Receipt, Store
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.picture import refused
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer


def _answered(thread: Writer, key: str = "paid", **fields: Any) -> EffectRow:
    """A call on the head, and what answered it."""
    return effect_row(thread, key, **fields).model_copy(update={"receipt": b'{"id":1}'})


async def _simulated(store: Store, **fields: Any) -> Writer:
    """A thread with a call that was answered without being made."""
    thread = Writer(store)
    await thread.commit()
    await store.record_simulated(_answered(thread, **fields), head=thread.head.ref.id)
    return thread


async def _entry(store: Store, thread: Writer) -> EffectRow:
    row = await store.effect(thread.thread_id, "paid")
    assert row is not None
    return row


class DryRuns(Suite):
    """What a dry run leaves in the store."""

    async def test_a_thread_is_a_dry_run_from_its_beginning(self, store: Store) -> None:
        """The step that begins it says so; none that follows does, and it shares its origin's lineage."""
        origin = Writer(store)
        await origin.commit()
        fork = Writer(store, origin=origin.head)
        draft = await fork.draft(source="fork", lineage=origin.thread_id, facts={"dry_run": True})
        assert await store.commit(draft.step.model_copy(update={"dry_run": True})) is True
        fork.drafts.append(draft)
        await fork.grow(2)
        other = await origin.fork(origin.head)
        rows = [await store.thread(thread.thread_id) for thread in (origin, fork, other)]
        assert [(row.dry_run, row.lineage) for row in rows if row] == [
            (False, origin.thread_id), (True, origin.thread_id), (False, origin.thread_id),
        ]  # fmt: skip
        await store.copy_thread(fork.thread_id, "copy")
        copy = await store.thread("copy")
        assert copy is not None and copy.dry_run

    async def test_a_simulated_call_is_in_the_ledger(self, store: Store) -> None:
        """With what answered it, and where that comes from; it was never attempted."""
        thread = await _simulated(store, effect="compensable", source="other", summary="Pay", saga="trip")
        row = await _entry(store, thread)
        entry = row.entry
        assert (entry.status, entry.attempts, entry.source, entry.saga) == ("simulated", 0, "other", "trip")
        assert (row.receipt, row.arguments) == (b'{"id":1}', b"{}")
        assert "" < entry.started_at <= entry.finished_at
        assert [row] == await store.effects(thread.thread_id)
        assert await store.open_effects() == []

    async def test_the_first_entry_stays(self, store: Store) -> None:
        """Of a simulated call, and of one that was made."""
        thread = await _simulated(store)
        head = thread.head.ref.id
        before = await _entry(store, thread)
        again = _answered(thread, summary="other").model_copy(update={"receipt": b"2"})
        await store.record_simulated(again, head=head)
        assert await _entry(store, thread) == before
        await store.claim(effect_row(thread, "made"), head=head)
        made = await store.effect(thread.thread_id, "made")
        await store.record_simulated(_answered(thread, "made"), head=head)
        assert await store.effect(thread.thread_id, "made") == made

    async def test_it_stays_simulated(self, store: Store) -> None:
        """No attempt, receipt, failure or settlement makes it anything else."""
        thread = await _simulated(store)
        name, head, receipt = thread.thread_id, thread.head.ref.id, Receipt(key="paid", result=b"2")
        before = await _entry(store, thread)
        told: tuple[EffectStatus, ...] = (
            "registered", "attempted", "done", "failed", "in_doubt", "undone", "needs_attention", "simulated",
        )  # fmt: skip
        for status in told:
            await store.settle(name, "paid", status, error="e", by="me")
        await store.fail(name, "paid", "no")
        await store.finish(name, receipt, head=head)
        await store.finish(name, receipt)
        assert await store.claim(effect_row(thread), head=head) == before
        await store.put_receipt(name, receipt, head=head)
        assert await _entry(store, thread) == before
        assert await store.receipts(name, ["paid"]) == {"paid": b"2"}  # for the commit
        await thread.commit(receipt=receipt)
        assert await _entry(store, thread) == before

    async def test_a_call_of_an_old_head_is_not_entered(self, store: Store) -> None:
        """Its step is over, or its thread isn't there."""
        thread = Writer(store)
        await thread.grow(2)
        async with refused(store, ConcurrentModification):
            await store.record_simulated(_answered(thread), head=thread.ids[0])
        stray = _answered(thread).model_copy(update={"thread_id": "nobody"})
        async with refused(store, ConcurrentModification):
            await store.record_simulated(stray, head=thread.head.ref.id)

    @pytest.mark.parametrize("status", ["attempted", "in_doubt", "failed", "done"])
    async def test_nothing_becomes_simulated(self, store: Store, status: EffectStatus) -> None:
        """What was attempted outside can't be told to be a dry run afterwards."""
        thread = Writer(store)
        await thread.commit()
        await store.claim(effect_row(thread), head=thread.head.ref.id)
        if status != "attempted":
            await store.settle(thread.thread_id, "paid", "in_doubt")
            await store.settle(thread.thread_id, "paid", status)
        before = await _entry(store, thread)
        await store.settle(thread.thread_id, "paid", "simulated")
        assert await _entry(store, thread) == before
        assert before.entry.status == status
