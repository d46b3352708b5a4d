"""Checks of the search by metadata."""

from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.stores.base import Store
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer


class Search(Suite):
    """Finding checkpoints by what users noted on them."""

    async def test_all_entries_have_to_fit(self, store: Store) -> None:
        """One entry finds all that have it, two find those that have both; nothing finds everything."""
        thread = Writer(store)
        notes: list[dict[str, Json]] = [{"a": 1}, {"a": 1, "b": "x"}, {"a": 2, "b": "x"}, {}, {"b": "x"}]
        for note in notes:
            await thread.commit(metadata=note)
        wanted: list[tuple[dict[str, Json], list[int]]] = [
            ({"a": 1}, [1, 0]), ({"b": "x"}, [4, 2, 1]), ({"a": 1, "b": "x"}, [1]), ({"a": 2, "b": "y"}, []),
            ({"c": 1}, []), ({}, [4, 3, 2, 1, 0]),
        ]  # fmt: skip
        for metadata, places in wanted:
            assert await store.find(metadata) == [thread.checkpoints[n] for n in places], metadata

    async def test_values_are_the_same_json_or_not(self, store: Store) -> None:
        """``1``, ``"1"``, ``true`` and ``1.0`` are four values; the order of an object's keys says nothing."""
        values: list[Json] = [
            1, "1", True, 1.0, None, "", [], {}, [1, 2], [2, 1], {"x": 1, "y": [None]}, "é", "e\u0301", "a\0b", 2**80,
        ]  # fmt: skip
        thread = Writer(store)
        for value in values:
            await thread.commit(metadata={"v": value})
        for value, checkpoint in zip(values, thread.checkpoints, strict=True):
            assert await store.find({"v": value}) == [checkpoint], value
        assert await store.find({"v": {"y": [None], "x": 1}}) == [thread.checkpoints[10]]
        assert await store.find({"v": [1]}) == []

    async def test_names_are_taken_as_they_are(self, store: Store) -> None:
        """Whatever a database may read into them."""
        names = ["a", "A", "a.b", "a b", "$", "%", "a'b", 'a"b', "é", "a\0b", "", "*"]
        thread = Writer(store)
        for name in names:
            await thread.commit(metadata={name: 1})
        for name, checkpoint in zip(names, thread.checkpoints, strict=True):
            assert await store.find({name: 1}) == [checkpoint], name

    async def test_the_newest_come_first(self, store: Store) -> None:
        """Of all threads, or of one; as many as were asked for."""
        one, two = Writer(store), Writer(store)
        written = list[Checkpoint]()
        for thread in (one, two, two, one, two):
            await thread.commit(metadata={"mark": True, "other": len(written)})
            written.append(thread.checkpoints[-1])
        assert await store.find({"mark": True}) == written[::-1]
        assert await store.find({"mark": True}, limit=3) == written[:1:-1]
        assert await store.find({"mark": True}, thread_id=one.thread_id) == one.checkpoints[::-1]
        assert await store.find({"mark": True}, thread_id=one.thread_id, limit=1) == one.checkpoints[:0:-1]
        assert await store.find({"mark": True}, thread_id="nobody") == []

    async def test_all_branches_are_searched(self, store: Store) -> None:
        """A rewind takes nothing out of sight."""
        thread = Writer(store)
        for n in range(3):
            await thread.commit(metadata={"mark": 1, "n": n})
        await thread.rewind(thread.positions[0], branch=1, metadata={"mark": 1})
        assert await store.find({"mark": 1}) == thread.checkpoints[::-1]
