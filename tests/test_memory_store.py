"""The store in memory: one for each name, whole after a refusal, and nobody's to change from outside."""

import asyncio

import pytest

from perdure.canonical import Json
from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.errors import ConcurrentModification, IntegrityError, InvalidInput
from perdure.stores.base import Receipt
from perdure.stores.memory import MemoryStore
from perdure.stores.records import Record
from tests.threads import History, noise


async def test_a_name_is_one_store() -> None:
    """Whoever names it finds what others wrote; another name, or none, is another store."""
    history = History(MemoryStore.named("one"))
    await history.commit({})
    row = await MemoryStore.named("one").thread(history.thread_id)
    assert row is not None and MemoryStore.named("one").url == "memory://one"
    assert [await store.thread(history.thread_id) for store in (MemoryStore.named("two"), MemoryStore())] == [None] * 2


async def test_what_was_committed_is_nobodys_to_change() -> None:
    """Neither through the delta that was given nor through one that was read."""
    store = MemoryStore()
    history = History(store)
    items: list[Json] = [{"a": 1}]
    at = await history.commit({"list": {"op": "set", "value": items}}, metadata={"tags": ["x"]})
    items[0]["a"] = 2
    for _ in range(2):
        found = await store.checkpoint(history.thread_id, at.ref.id)
        assert found is not None
        assert (found.delta, found.metadata) == ({"list": {"op": "set", "value": [{"a": 1}]}}, {"tags": ["x"]})
        found.delta["list"]["value"].append("more")
        found.metadata["tags"] = []
    assert (await Checkpointer(store).load(history.thread_id, at.ref.id)).values == {"list": [{"a": 1}]}


async def test_what_json_cant_hold_changes_nothing() -> None:
    """A commit that can't be written is refused like anywhere else, before the thread begins."""
    store = MemoryStore()
    history = History(store, "t")
    with pytest.raises(InvalidInput):
        await history.commit({"x": {"op": "set", "value": float("nan")}})
    assert await store.thread("t") is None


async def test_one_of_many_commits_wins() -> None:
    """Twelve at once on one head: one is the head then, and the others are told both versions."""
    store = MemoryStore()
    history = History(store)
    root = await history.commit({})
    changes = [history.change({"winner": {"op": "set", "value": number}}) for number in range(12)]
    done = await asyncio.gather(
        *(Checkpointer(store).commit(root, change, receipt=Receipt(key="k", result=b"1")) for change in changes),
        return_exceptions=True,
    )
    [won] = [position for position in done if not isinstance(position, BaseException)]
    lost = [error for error in done if isinstance(error, ConcurrentModification)]
    assert [(error.expected, error.actual) for error in lost] == [(root.ref.id, won.ref.id)] * 11


@pytest.mark.parametrize("part", ["link", "body"])
async def test_a_changed_byte_is_found(part: str) -> None:
    """Whichever byte of a checkpoint is another one, loading fails and the verification names the checkpoint."""
    store = MemoryStore()
    history = History(store)
    for _ in range(3):
        await history.commit({"text": {"op": "set", "value": noise(300)}}, metadata={"note": 1})
    middle, head = history.positions[1].ref.id, history.positions[2].ref.id
    kept = store._threads[history.thread_id].checkpoints
    stored = kept[middle]
    assert (await verify(store)).problem is None
    for place in range(0, len(getattr(stored, part)), 7):
        changed = bytearray(getattr(stored, part))
        changed[place] ^= 1
        kept[middle] = Record(**(stored._asdict() | {part: bytes(changed)}))
        with pytest.raises(IntegrityError):
            await Checkpointer(store).load(history.thread_id, head)
        problem = (await verify(store)).problem
        assert problem is not None and (problem.table, problem.row) == ("checkpoints", middle)
