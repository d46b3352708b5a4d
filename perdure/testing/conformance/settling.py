"""Checks of what is said of an effect afterwards: that it failed, how it was settled, which saga it belongs to."""

from typing import get_args

import pytest

from perdure.effects import OPEN, THREAD, EffectStatus
from perdure.stores.base import EffectRow, Store
from perdure.testing.conformance.ledger import begun, brought, effect_row, entry_of
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer

_TOLD: tuple[EffectStatus, ...] = get_args(EffectStatus)

# What may be settled as what; everything else changes nothing.
_FOLLOWS: dict[EffectStatus, set[EffectStatus]] = {
    "attempted": {"in_doubt", "failed"},
    "failed": set(),
    "in_doubt": {"done", "failed"},
    "done": {"undone", "needs_attention"},
    "undone": set(),
    "needs_attention": {"done", "undone", "needs_attention"},
}


async def _open_ones(store: Store, threads: list[Writer]) -> list[EffectRow]:
    every = [row for thread in threads for row in await store.effects(thread.thread_id)]
    return [row for row in every if row.entry.status in OPEN]


class Settling(Suite):
    """Failures, settlements, sagas, and the effects of all threads that are open."""

    async def test_a_clear_failure_is_recorded(self, store: Store) -> None:
        """With its error, and when."""
        thread = await begun(store)
        await store.fail(thread.thread_id, "paid", "card declined")
        entry = (await entry_of(store, thread)).entry
        assert (entry.status, entry.error) == ("failed", "card declined")
        assert entry.finished_at >= entry.started_at

    @pytest.mark.parametrize("status", ["failed", "in_doubt", "done", "undone", "needs_attention"])
    async def test_a_failure_takes_nothing_back(self, store: Store, status: EffectStatus) -> None:
        """Only of a call that is under way can be said that it did nothing."""
        thread = await brought(store, status)
        before = await entry_of(store, thread)
        await store.fail(thread.thread_id, "paid", "late")
        assert await entry_of(store, thread) == before

    @pytest.mark.parametrize("status", list(_FOLLOWS))
    async def test_a_settlement_follows_from_what_was_known(self, store: Store, status: EffectStatus) -> None:
        """The whole table: what may follow does, with its error and who said so; what may not, changes nothing."""
        for told in _TOLD:
            thread = await brought(store, status)
            before = await entry_of(store, thread)
            await store.settle(thread.thread_id, "paid", told, error="why", by="me")
            after = await entry_of(store, thread)
            if told not in _FOLLOWS[status]:
                assert after == before, told
                continue
            assert (after.entry.status, after.entry.error, after.entry.settled_by) == (told, "why", "me")
            assert after.entry.finished_at > ""
            assert before.entry.finished_at in ("", after.entry.finished_at)
            assert (after.entry.undone_at > "") == (told == "undone")

    async def test_what_nobody_knows_is_nobodys(self, store: Store) -> None:
        """To fail or to settle a call that isn't in the ledger is no error, and makes no entry."""
        thread = await begun(store)
        await store.fail(thread.thread_id, "other", "no")
        await store.settle(thread.thread_id, "other", "done")
        await store.settle("nobody", "paid", "done")
        assert [row.entry.key for row in await store.effects(thread.thread_id)] == ["paid"]
        assert await store.effects("nobody") == []

    @pytest.mark.parametrize("status", list(_FOLLOWS))
    async def test_an_effect_joins_a_saga(self, store: Store, status: EffectStatus) -> None:
        """Whatever became of it, and nothing else of it changes; a later saga takes the place of an earlier one."""
        thread = await brought(store, status)
        before = await entry_of(store, thread)
        for saga in ("trip", THREAD, "", "a 'b' \0"):
            await store.join_saga(thread.thread_id, "paid", saga)
            entry = before.entry.model_copy(update={"saga": saga})
            assert await entry_of(store, thread) == before.model_copy(update={"entry": entry})
        await store.join_saga(thread.thread_id, "other", "trip")
        await store.join_saga("nobody", "paid", "trip")
        assert [row.entry.key for row in await store.effects(thread.thread_id)] == ["paid"]

    async def test_open_effects_are_found_in_all_threads(self, store: Store) -> None:
        """What is in doubt or needs attention, by thread and key, as long as it is; a page at a time."""
        threads = [await brought(store, status) for status in _FOLLOWS]
        opened = [thread for thread, status in zip(threads, _FOLLOWS, strict=True) if status in OPEN]
        head = opened[0].head.ref.id
        for key in ("a", "z", "é", "B"):
            await store.claim(effect_row(opened[0], key), head=head)
            await store.settle(opened[0].thread_id, key, "in_doubt", error="lost")
        expected = sorted((row.thread_id, row.entry.key) for row in await _open_ones(store, threads))
        assert len(expected) == 6
        rows = await store.open_effects()
        assert [(row.thread_id, row.entry.key) for row in rows] == expected
        assert rows == [await store.effect(*place) for place in expected]
        assert [(row.thread_id, row.entry.key) for row in await store.open_effects(limit=4)] == expected[:4]
        for n, place in enumerate(expected):
            assert await store.open_effects(after=place, limit=2) == rows[n + 1 : n + 3]
        assert await store.open_effects(after=(expected[0][0], "")) == rows

    async def test_what_is_settled_is_no_longer_open(self, store: Store) -> None:
        """It may be open again later; what is deleted is not."""
        thread, gone = await brought(store, "in_doubt"), await brought(store, "needs_attention")
        name = thread.thread_id
        await store.delete_thread(gone.thread_id)
        opened: list[list[str]] = []
        for status in ("done", "needs_attention", "undone"):
            opened.append([row.entry.status for row in await store.open_effects()])
            await store.settle(name, "paid", status)
        assert opened == [["in_doubt"], [], ["needs_attention"]]
        assert await store.open_effects() == []
