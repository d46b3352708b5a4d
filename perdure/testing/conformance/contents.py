"""Checks of contents: whatever ids and JSON there are, they are read as they were written."""

from typing import Any

import pytest

from perdure.canonical import Json, canonical
from perdure.checkpointer import Checkpointer
from perdure.stores.base import CachedResult, Receipt, Store
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer, put, snapshot_of

_IDS = (
    "1", "c1", "0" * 16, "x" * 11, "x" * 16, "x" * 200, "é" * 8, "é" * 40, "a b", "a/b", "a:b", "a|b", "50%", "a_b",
    "*?[x]", "{slot}:x", "'; --", '"', "\\", "text:x", "019AA5E3-0000-7000-8000-0000000000AB",
    "019aa5e3000070008000000000000000", "日本", "\U0001f600",
)  # fmt: skip

_VALUES: dict[str, Json] = {
    "nothing": None, "empty": ["", [], {}, {"": ""}], "truth": [True, False, 1, 0, 1.0, -0.0],
    "numbers": [2**53 + 1, -(2**63), 2**64, 10**40, 0.1, 5e-324, 1.7976931348623157e308],
    "letters": ["é", "e\u0301", "日本", "\U0001f600", "\u202e", "\ufeff", "\u2028", "\x7f"],
    "controls": ["\0", "a\0b", "\x01\x1f\t\r\n", "\\u0000", "\\"], "keys": {"\0": 1, "a.b": {"$": 2}, "": 3},
    "deep": [[[[[[[[[[{"a": [{"b": {}}]}]]]]]]]]]], "likely": ["<b>", "%s", "{}", "'; DROP TABLE threads; --", "NaN"],
}  # fmt: skip
_ODD = "é'\"%s:x\\\n\t\U0001f600 \u202e"


class Contents(Suite):
    """Odd ids, odd values, large ones."""

    async def test_any_checkpoint_id_is_kept(self, store: Store) -> None:
        """Ids are UUIDs; what is brought from elsewhere may have others, each of them a different one."""
        thread = Writer(store)
        for id in _IDS:
            await thread.commit(put(id), checkpoint_id=id, metadata={"id": id})
        await thread.take_snapshot()
        for checkpoint in thread.checkpoints:
            assert await store.checkpoint(thread.thread_id, checkpoint.id) == checkpoint
        assert await store.path(thread.thread_id, thread.head.ref.id, limit=100) == thread.checkpoints[::-1]
        for n, id in enumerate(_IDS):
            assert await store.ancestor(thread.thread_id, thread.head.ref.id, n) == thread.checkpoints[n]
            assert await Checkpointer(store).load(thread.thread_id, id) == thread.positions[n]
            fork = await thread.fork(thread.positions[n], f"fork-{n}", checkpoint_id=id)
            row = await store.thread(fork.thread_id)
            assert row is not None
            assert (row.head_id, row.origin_id) == (id, id)

    async def test_any_thread_id_is_kept(self, store: Store) -> None:
        """What is brought from elsewhere may have ids that we would not take; threads stay apart."""
        threads = [Writer(store, id) for id in _IDS]
        for thread in threads:
            await thread.commit(put(thread.thread_id), metadata={"id": thread.thread_id})
            await store.put_receipt(thread.thread_id, Receipt(key="k", result=thread.thread_id.encode()))
            await store.claim(effect_row(thread), head=thread.head.ref.id)
            kept = CachedResult(scope="s", key=thread.thread_id, thread_id=thread.thread_id, value=b"1")
            await store.put_result(kept)
            fork = await thread.fork(thread.head, f"fork of {thread.thread_id}")
            assert (await Checkpointer(store).load(fork.thread_id, fork.head.ref.id)).values == thread.head.values
        for thread in threads:
            assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints
            assert await store.find({"id": thread.thread_id}) == thread.checkpoints
            assert await store.receipts_under(thread.thread_id, "") == {"k": thread.thread_id.encode()}
            assert [row.thread_id for row in await store.effects(thread.thread_id)] == [thread.thread_id]
            assert [row.origin_thread for row in await store.forks(thread.thread_id)] == [thread.thread_id]
        assert [row.thread_id for row in await store.threads()] == sorted(
            id for thread in threads for id in (thread.thread_id, f"fork of {thread.thread_id}")
        )

    @pytest.mark.parametrize("kind", list(_VALUES))
    async def test_any_json_is_kept(self, store: Store, kind: str) -> None:
        """In deltas, in snapshots, in metadata and facts, in what a ``Send`` gave: to the byte what was written."""
        value = _VALUES[kind]
        thread = Writer(store)
        await thread.commit(put(value), metadata={"value": value}, facts={"value": value})
        await thread.take_snapshot()
        position = await thread.commit(put(value), next={"tasks": [{"node": "n", "arg": value}]})
        for written in thread.checkpoints:
            found = await store.checkpoint(thread.thread_id, written.id)
            assert found is not None
            assert canonical(found.model_dump(mode="json")) == canonical(written.model_dump(mode="json"))
        assert await Checkpointer(store).load(thread.thread_id, position.ref.id) == position
        assert await store.find({"value": value}) == thread.checkpoints[:1]

    async def test_any_text_is_kept(self, store: Store) -> None:
        """In the names of nodes, of agents and tenants, in a lease."""
        thread = Writer(store)
        await thread.commit(nodes=(f"{_ODD}\0", ""), agent=_ODD, tenant=_ODD, lineage=_ODD)
        await store.set_lease(thread.thread_id, _ODD)
        assert await store.checkpoint(thread.thread_id, thread.ids[0]) == thread.checkpoints[0]
        row = await store.thread(thread.thread_id)
        assert row is not None
        assert (row.agent, row.tenant, row.lineage, row.lease) == (_ODD,) * 4

    async def test_the_ledger_takes_any_text(self, store: Store) -> None:
        """What is said of a call comes from tools and from outside: a NUL in it must not cost the record."""
        odd = f"a\0{_ODD}"
        thread = Writer(store)
        await thread.commit()
        fields: dict[str, Any] = {"tool": _ODD, "summary": odd, "compensation": _ODD}
        for key in ("doubtful", "failed"):
            await store.claim(effect_row(thread, key, arguments=bytes(range(256)), **fields), head=thread.head.ref.id)
        await store.settle(thread.thread_id, "doubtful", "in_doubt", error=odd, by=odd)
        await store.fail(thread.thread_id, "failed", odd)
        doubtful, failed = await store.effects(thread.thread_id)
        assert (doubtful.entry.error, doubtful.entry.settled_by, failed.entry.error) == (odd,) * 3
        for row in (doubtful, failed):
            assert row.arguments == bytes(range(256))
            assert {name: getattr(row.entry, name) for name in fields} == fields

    async def test_a_megabyte_is_kept(self, store: Store) -> None:
        """A delta, a snapshot, arguments and a receipt of that size."""
        thread = Writer(store)
        step, position = await thread.draft(put([f"{n:x}é" for n in range(150_000)]))
        snapshot = snapshot_of(position)
        whole = {"snapshot": snapshot, "base_id": snapshot.checkpoint_id, "since_base": len(snapshot.state)}
        assert step.checkpoint.size > 1_000_000 and len(snapshot.state) > 1_000_000
        await store.commit(step.model_copy(update=whole))
        assert await store.checkpoint(thread.thread_id, position.ref.id) == step.checkpoint
        assert (await Checkpointer(store).load(thread.thread_id, position.ref.id)).values == position.values
        call = effect_row(thread, arguments=b"x" * 1_000_000, on=position)
        await store.claim(call, head=position.ref.id)
        await thread.commit(on=position, receipt=Receipt(key="paid", result=b"y" * 1_000_000))
        found = await store.effect(thread.thread_id, "paid")
        assert found is not None
        assert (found.arguments, found.receipt) == (call.arguments, b"y" * 1_000_000)
