"""Checks of one-time tokens: each is for one call of a lineage."""

import asyncio
from typing import Any

import pytest

from perdure.effects import EffectStatus
from perdure.errors import ConcurrentModification, TokenSpent
from perdure.stores.base import EffectRow, Receipt, Store
from perdure.testing.conformance.ledger import begun, brought, effect_row
from perdure.testing.conformance.picture import refused
from perdure.testing.conformance.suite import MakeStore, Suite
from perdure.testing.conformance.writer import Writer


def _calling(thread: Writer, key: str, *tokens: str, **fields: Any) -> EffectRow:
    """A call on the head that needs tokens."""
    return effect_row(thread, key, tokens=tokens, **fields)


async def _used(store: Store, *tokens: str, **fields: Any) -> Writer:
    """A thread with a call that has used tokens."""
    return await begun(store, key="first", tokens=tokens, **fields)


async def _check_spent(store: Store, row: EffectRow, head: str) -> None:
    async with refused(store, TokenSpent) as refusal:
        await store.claim(row, head=head)
    assert row.entry.key in str(refusal.value)


class Tokens(Suite):
    """Who may use a token."""

    async def test_a_token_is_for_one_call(self, store: Store) -> None:
        """Another call of the thread is refused and isn't in the ledger, also where only one of its tokens is spent."""
        thread = await _used(store, "a")
        head = thread.head.ref.id
        await _check_spent(store, _calling(thread, "second", "a"), head)
        await _check_spent(store, _calling(thread, "second", "b", "a"), head)
        assert await store.claim(_calling(thread, "third", "b", "c"), head=head) is None
        assert await store.claim(_calling(thread, "fourth"), head=head) is None

    async def test_it_is_not_read_back(self, store: Store) -> None:
        """The ledger doesn't hold tokens."""
        thread = await _used(store, "a")
        assert [row.tokens for row in await store.effects(thread.thread_id)] == [()]

    async def test_the_same_call_uses_it_again(self, store: Store) -> None:
        """An attempt that follows is the same call, whether the one before failed or nobody knows."""
        thread = await _used(store, "a", "b")
        head = thread.head.ref.id
        for attempts in (1, 2):
            before = await store.claim(_calling(thread, "first", "a", "b"), head=head)
            assert before is not None and before.entry.attempts == attempts
            await store.fail(thread.thread_id, "first", "no")

    @pytest.mark.parametrize("status", ["attempted", "in_doubt", "done", "undone", "needs_attention"])
    async def test_only_a_clear_failure_frees_it(self, store: Store, status: EffectStatus) -> None:
        """Whatever else became of the call, the token is spent."""
        thread = await brought(store, status, tokens=("a",))
        await _check_spent(store, _calling(thread, "second", "a"), thread.head.ref.id)

    async def test_a_call_that_failed_frees_it_once(self, store: Store) -> None:
        """Another call takes it; then the first one comes too late, and stays as it was."""
        thread = await _used(store, "a", "b")
        head = thread.head.ref.id
        await store.fail(thread.thread_id, "first", "no")
        assert await store.claim(_calling(thread, "second", "a"), head=head) is None
        await _check_spent(store, _calling(thread, "first", "a", "b"), head)
        await _check_spent(store, _calling(thread, "third", "a"), head)
        await store.fail(thread.thread_id, "second", "no")
        before = await store.claim(_calling(thread, "first", "a", "b"), head=head)
        assert before is not None and before.entry.status == "failed"

    async def test_it_is_spent_on_all_branches_and_in_forks(self, store: Store) -> None:
        """A rewind or a fork doesn't give back what was used outside; a thread of another lineage has its own."""
        thread = await _used(store, "a")
        fork = await thread.fork(thread.positions[0])
        await _check_spent(store, _calling(fork, "elsewhere", "a"), fork.head.ref.id)
        assert await store.claim(_calling(fork, "elsewhere", "b"), head=fork.head.ref.id) is None
        await thread.commit()
        await thread.rewind(thread.positions[0], branch=1)
        for token in ("a", "b"):
            await _check_spent(store, _calling(thread, "again", token, branch=1), thread.head.ref.id)
        await _used(store, "a", "b")

    async def test_what_is_over_needs_none(self, store: Store) -> None:
        """A claim of a call that is known to be done learns that, also where its token went to another call."""
        thread = await _used(store, "a")
        head = thread.head.ref.id
        await store.fail(thread.thread_id, "first", "no")
        await store.claim(_calling(thread, "second", "a"), head=head)
        await store.finish(thread.thread_id, Receipt(key="first", result=b"1"))
        before = await store.claim(_calling(thread, "first", "a"), head=head)
        assert before is not None and (before.entry.status, before.receipt) == ("done", b"1")

    async def test_a_claim_that_comes_too_late_uses_none(self, store: Store) -> None:
        """Its step is over; the token is free for the next one."""
        thread = Writer(store)
        await thread.grow(2)
        async with refused(store, ConcurrentModification):
            await store.claim(_calling(thread, "late", "a"), head=thread.ids[0])
        assert await store.claim(_calling(thread, "next", "a"), head=thread.head.ref.id) is None

    async def test_it_outlives_its_thread(self, store: Store) -> None:
        """What was used outside stays used when the thread that used it is deleted."""
        thread = await _used(store, "a")
        fork = await thread.fork(thread.head)
        await store.claim(_calling(fork, "second", "b"), head=fork.head.ref.id)
        await store.delete_thread(fork.thread_id)
        await _check_spent(store, _calling(thread, "third", "b"), thread.head.ref.id)

    async def test_one_of_many_calls_gets_it(self, store: Store, another: MakeStore) -> None:
        """Nine calls, in forks too, through three stores: one is in the ledger, the others are refused."""
        thread, stores = Writer(store), [store, another(), another()]
        await thread.commit()
        forks = [thread, *[await thread.fork(thread.head) for _ in range(2)]]
        calls = [_calling(forks[n % 3], f"call-{n}", "a", "b") for n in range(9)]
        told = await asyncio.gather(
            *(stores[n // 3].claim(row, head=forks[n % 3].head.ref.id) for n, row in enumerate(calls)),
            return_exceptions=True,
        )
        assert told.count(None) == 1
        assert sum(isinstance(answer, TokenSpent) for answer in told) == 8
        kept = [row.entry.key for each in forks for row in await store.effects(each.thread_id)]
        assert kept == [calls[told.index(None)].entry.key]

    async def test_a_failed_call_and_another_race_for_it(self, store: Store, another: MakeStore) -> None:
        """Attempted again just when another call takes its token: never do both run."""
        thread, other = await _used(store, "a"), another()
        head = thread.head.ref.id
        for n in range(8):
            holder = next(row.entry.key for row in await store.effects(thread.thread_id) if _may_run(row))
            await store.fail(thread.thread_id, holder, "no")
            calls = [(store, holder), (other, f"call-{n}")]
            told = await asyncio.gather(
                *(each.claim(_calling(thread, key, "a"), head=head) for each, key in calls), return_exceptions=True
            )
            spent = [answer for answer in told if isinstance(answer, TokenSpent)]
            running = [row.entry.key for row in await store.effects(thread.thread_id) if _may_run(row)]
            assert (len(spent), len(running)) == (1, 1), told


def _may_run(row: EffectRow) -> bool:
    return row.entry.status == "attempted"
