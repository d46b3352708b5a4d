"""Checks of the ledger: which attempt is the first, and what a receipt does."""

import asyncio
from typing import Any

import pytest

from perdure.checkpointer import Position
from perdure.effects import Effect, EffectStatus, arguments_digest
from perdure.errors import ConcurrentModification
from perdure.stores.base import EffectRow, Receipt, Store
from perdure.testing.conformance.picture import refused
from perdure.testing.conformance.suite import MakeStore, Suite
from perdure.testing.conformance.writer import Writer


def effect_row(
    thread: Writer,
    key: str = "paid",
    *,
    on: Position | None = None,
    arguments: bytes = b"{}",
    tokens: tuple[str, ...] = (),
    **fields: Any,
) -> EffectRow:
    """A ledger entry of a call that is made on the head, or on another position."""
    at = on or thread.head
    usual: dict[str, Any] = {
        "tool": "pay", "effect": "idempotent", "turn": at.turn, "step": at.ref.step, "index": 0,
        "checkpoint_id": at.ref.id,
    }  # fmt: skip
    entry = Effect(key=key, **(usual | fields))
    return EffectRow(
        thread_id=thread.thread_id, entry=entry, arguments=arguments,
        arguments_digest=arguments_digest(entry.tool, arguments), tokens=tokens,
    )  # fmt: skip


async def entry_of(store: Store, thread: Writer, key: str = "paid") -> EffectRow:
    """An entry that is in the ledger."""
    row = await store.effect(thread.thread_id, key)
    assert row is not None
    return row


async def begun(store: Store, **fields: Any) -> Writer:
    """A thread on whose head a call was attempted."""
    thread = Writer(store)
    await thread.commit()
    assert await store.claim(effect_row(thread, **fields), head=thread.head.ref.id) is None
    return thread


async def brought(store: Store, status: EffectStatus, **fields: Any) -> Writer:
    """A thread with a call whose effect has this status."""
    thread = await begun(store, **fields)
    ways: dict[EffectStatus, tuple[EffectStatus, ...]] = {
        "attempted": (), "in_doubt": ("in_doubt",), "failed": ("in_doubt", "failed"), "done": ("in_doubt", "done"),
        "undone": ("in_doubt", "done", "undone"), "needs_attention": ("in_doubt", "done", "needs_attention"),
    }  # fmt: skip
    for step in ways[status]:
        await store.settle(thread.thread_id, "paid", step, error="earlier", by="them")
    assert (await entry_of(store, thread)).entry.status == status
    return thread


class Ledger(Suite):
    """Claims and receipts."""

    async def test_the_first_attempt_is_in_the_ledger(self, store: Store) -> None:
        """With all that is known of the call, from when on, and that it is the first."""
        thread = Writer(store)
        await thread.grow(3)
        row = effect_row(
            thread, "a-key", arguments=b'{"amount":1}', tool="charge", effect="compensable", turn=4, index=2, branch=5,
            summary="Charge 1 €", compensation="refund", reconcile="look_up", saga="trip",
        )  # fmt: skip
        assert await store.effect(thread.thread_id, "a-key") is None
        assert await store.claim(row, head=thread.head.ref.id) is None
        kept = await entry_of(store, thread, "a-key")
        assert kept.entry.started_at > ""
        began = {"status": "attempted", "attempts": 1, "started_at": kept.entry.started_at}
        assert kept == row.model_copy(update={"entry": row.entry.model_copy(update=began)})

    async def test_a_later_attempt_learns_how_it_stood(self, store: Store) -> None:
        """Each gets the row as it was before, and counts; a call that clearly failed is attempted again."""
        thread = await begun(store)
        first = await entry_of(store, thread)
        assert await store.claim(effect_row(thread), head=thread.head.ref.id) == first
        await store.fail(thread.thread_id, "paid", "no")
        failed = await entry_of(store, thread)
        assert await store.claim(effect_row(thread), head=thread.head.ref.id) == failed
        third = (await entry_of(store, thread)).entry
        assert (third.status, third.attempts, third.error) == ("attempted", 3, "")
        assert third.started_at == first.entry.started_at

    @pytest.mark.parametrize("status", ["done", "undone", "in_doubt", "needs_attention"])
    async def test_what_is_settled_is_not_attempted_again(self, store: Store, status: EffectStatus) -> None:
        """The attempt learns how it stands, and changes nothing."""
        thread = await brought(store, status)
        before = await entry_of(store, thread)
        assert await store.claim(effect_row(thread), head=thread.head.ref.id) == before
        assert await entry_of(store, thread) == before

    async def test_an_irreversible_call_is_attempted_once(self, store: Store) -> None:
        """Whoever comes second finds the first attempt as it stands, and does not count as another."""
        thread = await begun(store, effect="irreversible")
        before = await entry_of(store, thread)
        assert await store.claim(effect_row(thread, effect="irreversible"), head=thread.head.ref.id) == before
        assert await entry_of(store, thread) == before

    @pytest.mark.parametrize(("effect", "attempts"), [("idempotent", 9), ("irreversible", 1)])
    async def test_of_attempts_at_once_one_is_the_first(
        self, store: Store, another: MakeStore, effect: str, attempts: int
    ) -> None:
        """Nine attempts through three stores: one is told that it is the first."""
        thread = Writer(store)
        await thread.commit()
        row, stores = effect_row(thread, effect=effect), [another() for _ in range(3)]
        told = await asyncio.gather(*(stores[n % 3].claim(row, head=thread.head.ref.id) for n in range(9)))
        assert told.count(None) == 1
        assert (await entry_of(store, thread)).entry.attempts == attempts

    async def test_an_attempt_on_an_old_head_is_refused(self, store: Store) -> None:
        """Its step is over, or its thread isn't there. Also where the call is known already."""
        thread = await begun(store)
        old, new = thread.head.ref.id, (await thread.commit()).ref.id
        for key in ("paid", "new"):
            async with refused(store, ConcurrentModification) as refusal:
                await store.claim(effect_row(thread, key), head=old)
            assert isinstance(refusal.value, ConcurrentModification)
            assert (refusal.value.expected, refusal.value.actual) == (old, new)
        stray = effect_row(thread).model_copy(update={"thread_id": "nobody"})
        async with refused(store, ConcurrentModification):
            await store.claim(stray, head=new)
        assert await store.effects("nobody") == []

    async def test_a_receipt_makes_it_done(self, store: Store) -> None:
        """Recorded to be committed (``put_receipt``), not to be (``finish``), or with a commit: at once, and with when.

        What was in doubt is no longer, whichever way the receipt comes.
        """
        for doubtful in (False, True):
            for way in ("put_receipt", "finish", "commit"):
                thread = await begun(store)
                if doubtful:
                    await store.settle(thread.thread_id, "paid", "in_doubt", error="lost")
                receipt = Receipt(key="paid", result=b'{"id":"\xc3\xa9"}')
                if way == "put_receipt":
                    await store.put_receipt(thread.thread_id, receipt, head=thread.head.ref.id)
                elif way == "finish":
                    await store.finish(thread.thread_id, receipt, head=thread.head.ref.id)
                else:
                    await thread.commit(receipt=receipt)
                row = await entry_of(store, thread)
                assert (row.entry.status, row.entry.error, row.receipt) == ("done", "", receipt.result)
                assert row.entry.finished_at >= row.entry.started_at
                waits = {"paid": receipt.result} if way == "put_receipt" else {}
                assert await store.receipts(thread.thread_id, ["paid"]) == waits

    @pytest.mark.parametrize("status", ["failed", "done", "undone", "needs_attention"])
    async def test_a_receipt_takes_nothing_back(self, store: Store, status: EffectStatus) -> None:
        """One that comes late leaves the ledger as it is."""
        thread = await brought(store, status)
        before, receipt = await entry_of(store, thread), Receipt(key="paid", result=b"2")
        await store.finish(thread.thread_id, receipt, head=thread.head.ref.id)
        await store.put_receipt(thread.thread_id, receipt, head=thread.head.ref.id)
        await thread.commit(receipt=receipt)
        assert await entry_of(store, thread) == before

    @pytest.mark.parametrize("status", ["attempted", "in_doubt", "failed"])
    async def test_what_was_done_is_known_after_its_step(self, store: Store, status: EffectStatus) -> None:
        """Finished without a head: recorded also where the step is over, and where it had been taken for not done."""
        thread = await brought(store, status)
        await thread.commit()
        await store.finish(thread.thread_id, Receipt(key="paid", result=b"1"))
        row = await entry_of(store, thread)
        assert (row.entry.status, row.entry.error, row.receipt) == ("done", "", b"1")
        assert await store.receipts(thread.thread_id, ["paid"]) == {}
        await store.finish(thread.thread_id, Receipt(key="paid", result=b"2"))
        await store.finish(thread.thread_id, Receipt(key="other", result=b"2"))
        await store.finish("nobody", Receipt(key="paid", result=b"2"))
        assert [row] == await store.effects(thread.thread_id)

    @pytest.mark.parametrize("by", ["hook", ""])
    async def test_who_found_out_is_known(self, store: Store, by: str) -> None:
        """It was somebody who looked; or nobody, since the call itself returned, whoever had said otherwise."""
        thread = await brought(store, "in_doubt")
        await store.settle(thread.thread_id, "paid", "failed", by="ops")
        await store.finish(thread.thread_id, Receipt(key="paid", result=b"1"), by=by)
        entry = (await entry_of(store, thread)).entry
        assert (entry.status, entry.settled_by) == ("done", by)

    async def test_who_found_out_is_kept(self, store: Store) -> None:
        """Where a call itself returns after all, nobody had to, whoever had said otherwise."""
        for by in ("ann", ""):
            thread = await brought(store, "failed")
            assert (await entry_of(store, thread)).entry.settled_by == "them"
            await store.finish(thread.thread_id, Receipt(key="paid", result=b"1"), by=by)
            assert (await entry_of(store, thread)).entry.settled_by == by

    async def test_the_end_of_a_call_is_that_of_its_last_attempt(self, store: Store) -> None:
        """So what is undone in the reverse order of completion is undone in the right one."""
        thread = await begun(store)
        await store.fail(thread.thread_id, "paid", "no")
        failed = await entry_of(store, thread)
        await store.claim(effect_row(thread), head=thread.head.ref.id)
        assert (await entry_of(store, thread)).entry.finished_at == ""
        await store.finish(thread.thread_id, Receipt(key="paid", result=b"1"))
        assert (await entry_of(store, thread)).entry.finished_at >= failed.entry.finished_at

    @pytest.mark.parametrize("way", ["finish", "put_receipt"])
    async def test_a_receipt_for_an_old_head_is_refused(self, store: Store, way: str) -> None:
        """The call outlived its step: what it returned isn't recorded, nor is its effect done."""
        thread = await begun(store)
        old, new = thread.head.ref.id, (await thread.commit()).ref.id
        for thread_id, actual in ((thread.thread_id, new), ("nobody", "")):
            async with refused(store, ConcurrentModification) as refusal:
                await getattr(store, way)(thread_id, Receipt(key="paid", result=b"1"), head=old)
            assert isinstance(refusal.value, ConcurrentModification)
            assert (refusal.value.expected, refusal.value.actual) == (old, actual)
        assert await store.receipts_under("nobody", "") == {}

    async def test_the_ledger_is_read_in_its_order(self, store: Store) -> None:
        """By turn, step and position, whatever the order of the attempts; of one turn, or of all; of one thread."""
        thread, other = Writer(store), Writer(store)
        await thread.grow(12)
        await other.grow(1)
        places = [(1, 2, 0), (1, 2, 1), (1, 10, 0), (2, 3, 0), (2, 11, 3), (10, 4, 0)]
        for turn, step, index in [places[n] for n in (3, 0, 5, 2, 4, 1)]:
            row = effect_row(
                thread, f"{turn}-{step}-{index}", turn=turn, step=step, index=index, checkpoint_id=thread.ids[step]
            )
            await store.claim(row, head=thread.head.ref.id)
        await store.claim(effect_row(other, "1-2-0"), head=other.head.ref.id)

        def keys(rows: list[EffectRow]) -> list[str]:
            return [row.entry.key for row in rows]

        every = [f"{turn}-{step}-{index}" for turn, step, index in places]
        assert keys(await store.effects(thread.thread_id)) == every
        assert keys(await store.effects(thread.thread_id, turn=2)) == every[3:5]
        assert keys(await store.effects(thread.thread_id, turn=3)) == []
        assert keys(await store.effects(other.thread_id)) == ["1-2-0"]
