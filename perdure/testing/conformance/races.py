"""Checks of races: several writers through several stores on one database."""

import asyncio
from collections.abc import Sequence

from perdure.checkpointer import Checkpointer
from perdure.errors import ConcurrentModification
from perdure.stores.base import CachedResult, Receipt, Store
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.suite import MakeStore, Suite
from perdure.testing.conformance.writer import Draft, Writer, put


async def _race(stores: Sequence[Store], drafts: Sequence[Draft]) -> tuple[list[Draft], list[ConcurrentModification]]:
    """Commit all at once, spread over the stores: those that were committed, and what the others were told."""
    outcomes = await asyncio.gather(
        *(stores[n % len(stores)].commit(draft.step) for n, draft in enumerate(drafts)), return_exceptions=True
    )
    won = [draft for draft, outcome in zip(drafts, outcomes, strict=True) if outcome is True]
    lost = [outcome for outcome in outcomes if isinstance(outcome, ConcurrentModification)]
    assert len(won) + len(lost) == len(drafts), outcomes
    return won, lost


class Races(Suite):
    """Single winners."""

    async def test_one_of_many_commits_wins(self, store: Store, another: MakeStore) -> None:
        """Twelve on one head: one becomes the head, with what it brought; each other one is told both versions."""
        thread = Writer(store)
        old = await thread.commit()
        drafts = [
            await thread.draft(put(n), result=CachedResult(scope="s", key=str(n), value=b"1"), metadata={"n": n})
            for n in range(12)
        ]
        [winner], lost = await _race([store, another(), another()], drafts)
        new = winner.position.ref.id
        assert {(error.expected, error.actual) for error in lost} == {(old.ref.id, new)}
        assert all(old.ref.id in str(error) and new in str(error) for error in lost)
        row = await store.thread(thread.thread_id)
        assert row is not None and row.head_id == new
        assert [c async for c in store.walk(thread.thread_id)] == [*thread.checkpoints, winner.step.checkpoint]
        assert (await Checkpointer(another()).load(thread.thread_id, new)).values == winner.position.values
        kept = [n for n in range(12) if await store.result("s", str(n))]
        assert kept == [winner.position.values["value"]]

    async def test_one_of_many_first_commits_wins(self, store: Store, another: MakeStore) -> None:
        """A thread begins once, also where several begin it."""
        drafts = [await Writer(store, "the-same").draft(put(n), agent=str(n)) for n in range(8)]
        [winner], lost = await _race([store, another(), another()], drafts)
        new = winner.position.ref.id
        assert {(error.expected, error.actual) for error in lost} == {("", new)}
        row = await store.thread("the-same")
        assert row is not None
        assert (row.head_id, row.agent) == (new, str(winner.position.values["value"]))
        assert [c async for c in store.walk("the-same")] == [winner.step.checkpoint]

    async def test_one_of_many_forks_wins(self, store: Store, another: MakeStore) -> None:
        """Several fork other checkpoints to one new thread: it comes from one of them."""
        thread = Writer(store)
        await thread.grow(6)
        drafts = [await Writer(store, "fork", origin=at).draft(source="fork") for at in thread.positions]
        [winner], lost = await _race([store, another(), another()], drafts)
        assert {(error.expected, error.actual) for error in lost} == {("", winner.position.ref.id)}
        row = await store.thread("fork")
        assert row is not None
        assert (row.origin_thread, row.origin_id) == (thread.thread_id, winner.position.parent_id)

    async def test_attempts_of_one_commit_are_one(self, store: Store, another: MakeStore) -> None:
        """The same step committed by six at once: one commits it, the others recognise it."""
        thread = Writer(store)
        await thread.commit()
        for step in [(await thread.draft(put(1))).step, (await Writer(store).draft(put(1))).step]:
            stores = [store, another(), another()]
            done = await asyncio.gather(*(stores[n % 3].commit(step) for n in range(6)))
            assert sorted(done) == [False] * 5 + [True]
            assert await store.checkpoint(step.checkpoint.thread_id, step.checkpoint.id) == step.checkpoint

    async def test_threads_dont_hinder_each_other(self, store: Store, another: MakeStore) -> None:
        """Ten threads that are written side by side lose nothing."""
        stores = [store, another()]
        threads = [Writer(stores[n % 2]) for n in range(10)]
        await asyncio.gather(*(thread.grow(5) for thread in threads))
        for thread in threads:
            assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints

    async def test_the_first_receipt_stays(self, store: Store, another: MakeStore) -> None:
        """Of receipts at once one is kept, and the ledger has the same one."""
        thread = Writer(store)
        await thread.commit()
        await store.claim(effect_row(thread, "paid"), head=thread.head.ref.id)
        stores = [store, another(), another()]
        receipts = [Receipt(key="paid", result=b"%d" % n) for n in range(9)]
        await asyncio.gather(
            *(
                stores[n % 3].put_receipt(thread.thread_id, receipt, head=thread.head.ref.id)
                for n, receipt in enumerate(receipts)
            )
        )
        kept, row = await store.receipts(thread.thread_id, ["paid"]), await store.effect(thread.thread_id, "paid")
        assert row is not None and row.entry.status == "done"
        assert row.receipt == kept["paid"] in [receipt.result for receipt in receipts]

    async def test_a_receipt_races_the_commit_that_ends_its_step(self, store: Store, another: MakeStore) -> None:
        """Either it was recorded before the head moved, or it is refused: never both, never neither."""
        other = another()
        for _ in range(5):
            thread = Writer(store)
            old = await thread.commit()
            draft = await thread.draft(put(1))
            committed, told = await asyncio.gather(
                store.commit(draft.step),
                other.put_receipt(thread.thread_id, Receipt(key="k", result=b"1"), head=old.ref.id),
                return_exceptions=True,
            )
            assert committed is True
            assert told is None or isinstance(told, ConcurrentModification)
            assert await store.receipts(thread.thread_id, ["k"]) == ({"k": b"1"} if told is None else {})
