"""Whatever is put, in whatever order: PerdureSaver answers as LangGraph's saver in memory does."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    empty_checkpoint,
)
from langgraph.checkpoint.memory import InMemorySaver

from perdure.bridges.langgraph import PerdureSaver
from perdure.care.verify import verify
from perdure.stores import open_store
from tests.properties import thorough
from tests.travellers import on

NUMBERS = itertools.count()
Filter = dict[str, Any]

# ── what can be called ───────────────────────────────────────────────────────────────────────────────────────────


class Put(NamedTuple):
    """A checkpoint with one of a few ids, so that some are put again, and under one another in any order."""

    namespace: str
    id: str
    parent: str
    values: dict[str, Any]
    source: Literal["input", "loop"]
    run: str


class Writes(NamedTuple):
    """Pending writes of a task; the checkpoint may not be there yet."""

    namespace: str
    id: str
    task: str
    path: str
    writes: list[tuple[str, Any]]


IDS = st.sampled_from([f"1f000000-0000-6000-8000-00000000000{number}" for number in range(6)])
NAMESPACES = st.sampled_from(["", "", "sub:1"])
RUNS = st.sampled_from(["run-1", "run-2"])
ITEMS = st.sampled_from(["a", 1, True, {"id": "m1"}, {"id": "m2"}, {"id": "m1", "more": 2}, None, {3}])
VALUES = st.dictionaries(
    st.sampled_from(["messages", "$odd", "total"]),
    st.lists(ITEMS, max_size=3) | st.integers(0, 3) | st.dictionaries(st.sampled_from("abc"), ITEMS),
)
CHANNELS = st.sampled_from(["messages", "total", "__error__", "__interrupt__", "__resume__"])
CALLS = st.lists(
    st.builds(Put, NAMESPACES, IDS, st.just("") | IDS, VALUES, st.sampled_from(["input", "loop"]), RUNS)
    | st.builds(
        Writes, NAMESPACES, IDS, st.sampled_from(["t1", "t2"]), st.sampled_from(["", "~b", "~a"]),
        st.lists(st.tuples(CHANNELS, ITEMS), min_size=1, max_size=3),
    ),
    max_size=14,
)  # fmt: skip


def call(saver: BaseCheckpointSaver[Any], what: Put | Writes, version: int) -> None:
    """Make a call. Each put is the next version of its channels."""
    if isinstance(what, Writes):
        config = on("thread", checkpoint_ns=what.namespace, checkpoint_id=what.id)
        saver.put_writes(config, what.writes, what.task, what.path)
        return
    checkpoint: Checkpoint = empty_checkpoint()
    versions: ChannelVersions = dict.fromkeys(what.values, version)
    checkpoint |= {"id": what.id, "ts": str(version), "channel_values": what.values, "channel_versions": versions}
    checkpoint |= {"versions_seen": {"node": {"messages": version}}, "updated_channels": sorted(what.values)}
    above = {"checkpoint_id": what.parent} if what.parent not in ("", what.id) else {}
    config = on("thread", checkpoint_ns=what.namespace, **above)
    metadata: CheckpointMetadata = {"source": what.source, "step": version, "parents": {}, "run_id": what.run}
    saver.put(config, checkpoint, metadata, versions)


def shown(found: Sequence[CheckpointTuple]) -> str:
    """All that there is to tell. As text, since 1 and True are equal."""
    return "\n".join(
        str(
            (
                item.config["configurable"], item.parent_config, sorted(item.checkpoint["channel_values"].items()),
                sorted(item.checkpoint["channel_versions"].items()), item.checkpoint["versions_seen"],
                item.checkpoint["ts"], item.checkpoint["updated_channels"], sorted(item.metadata.items()),
                item.pending_writes,
            )
        )
        for item in found
    )  # fmt: skip


def everything(saver: BaseCheckpointSaver[Any], namespace: str = "") -> list[CheckpointTuple]:
    """A namespace, the highest id first."""
    return list(saver.list(on("thread", checkpoint_ns=namespace)))


# ── properties ───────────────────────────────────────────────────────────────────────────────────────────────────


@given(CALLS, IDS, st.sampled_from([{}, {"source": "loop"}, {"run_id": "run-1"}, {"run_id": "run-2", "step": 3}]))
@thorough
def test_it_answers_as_in_memory(calls: list[Put | Writes], some: str, filter: Filter) -> None:
    """Lists, filters, pages, single checkpoints and the latest, after any puts; and the store is whole."""
    url, theirs = f"memory://calls-{next(NUMBERS)}", InMemorySaver()
    with PerdureSaver(url) as ours:
        for version, what in enumerate(calls, start=1):
            call(theirs, what, version)
            call(ours, what, version)
        for namespace in ("", "sub:1"):
            place = on("thread", checkpoint_ns=namespace)
            here = on("thread", checkpoint_ns=namespace, checkpoint_id=some)
            for asked in ({}, {"filter": filter}, {"before": here}, {"limit": 2}, {"filter": filter, "limit": 1}):
                assert shown(list(ours.list(place, **asked))) == shown(list(theirs.list(place, **asked)))
            assert one(ours, here) == one(theirs, here)
            assert one(ours, place) == one(theirs, place)
        assert len(list(ours.list(on("thread")))) == len(list(theirs.list(on("thread"))))
    assert asyncio.run(problem_of(url)) is None


@given(CALLS, CALLS)
@thorough
def test_what_is_removed_is_gone_and_nothing_else(calls: list[Put | Writes], more: list[Put | Writes]) -> None:
    """A run's checkpoints go; the others stay as they were but for their parents, and whatever is put goes on."""
    url, theirs = f"memory://calls-{next(NUMBERS)}", InMemorySaver()
    with PerdureSaver(url) as ours:
        for version, what in enumerate(calls, start=1):
            call(ours, what, version)
        before = [saved for namespace in ("", "sub:1") for saved in everything(ours, namespace)]
        ours.delete_for_runs(["run-1", "run-3"])
        after = [saved for namespace in ("", "sub:1") for saved in everything(ours, namespace)]
        stay = [saved for saved in before if saved.metadata["run_id"] != "run-1"]
        assert shown([saved._replace(parent_config=None) for saved in after]) == shown(
            [saved._replace(parent_config=None) for saved in stay]
        )
        for version, what in enumerate(more, start=100):
            call(theirs, what, version)
            call(ours, what, version)
        put = {(what.namespace, what.id) for what in more if isinstance(what, Put)}
        for namespace, id in put:
            here = on("thread", checkpoint_ns=namespace, checkpoint_id=id)
            saved, expected = ours.get_tuple(here), theirs.get_tuple(here)
            assert saved and expected
            assert (saved.checkpoint, saved.metadata) == (expected.checkpoint, expected.metadata)
        ours.prune(["thread"])
        for namespace in ("", "sub:1"):
            assert len(everything(ours, namespace)) <= 1
    assert asyncio.run(problem_of(url)) is None


def one(saver: BaseCheckpointSaver[Any], config: RunnableConfig) -> str:
    """What a configuration names."""
    found = saver.get_tuple(config)
    return shown([found]) if found else ""


async def problem_of(url: str) -> object:
    """What is wrong with a store."""
    return (await verify(open_store(url))).problem


# ── cases ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def saver() -> PerdureSaver:
    """A saver in memory."""
    return PerdureSaver(f"memory://calls-{next(NUMBERS)}")


def test_a_checkpoint_put_again(saver: PerdureSaver) -> None:
    """The last one counts, also for what comes after it; the first stays in the store, as all that was committed."""
    first, second, third = (f"1f000000-0000-6000-8000-00000000000{number}" for number in range(3))
    call(saver, Put("", first, "", {"total": 1}, "input", "run"), 1)
    call(saver, Put("", second, first, {"total": 2}, "loop", "run"), 2)
    call(saver, Put("", first, "", {"total": 10}, "input", "run"), 3)
    call(saver, Put("", third, first, {"total": 10}, "loop", "run"), 3)
    found = everything(saver)
    assert [item.checkpoint["channel_values"]["total"] for item in found] == [10, 2, 10]
    assert [item.parent_config and item.parent_config["configurable"]["checkpoint_id"] for item in found] == [
        first, first, None,
    ]  # fmt: skip
    for _ in range(2):  # the same once more is nothing new
        call(saver, Put("", first, "", {"total": 10}, "input", "run"), 3)
    kept = asyncio.run(ids_of(saver))
    assert kept == [first, second, f"{first}~2", third]


async def ids_of(saver: PerdureSaver) -> list[str]:
    """The checkpoints in the store, as they were committed."""
    return [checkpoint.id async for checkpoint in open_store(saver.url).walk("thread")]


def test_writes_that_count(saver: PerdureSaver) -> None:
    """A task's first write to a place stays; of an error, an interrupt, a resume the last one counts. By path."""
    here = on("thread", checkpoint_ns="", checkpoint_id="1")
    saver.put_writes(here, [("b", 1), ("__error__", "first")], "task", "~2")
    saver.put_writes(here, [("b", 2), ("__error__", "second"), ("c", 3)], "task", "~2")
    saver.put_writes(here, [("a", 0)], "other", "~1")
    call(saver, Put("", "1", "", {}, "loop", "run"), 1)
    found = saver.get_tuple(here)
    assert found is not None
    assert found.pending_writes == [
        ("other", "a", 0), ("task", "__error__", "second"), ("task", "b", 1), ("task", "c", 3),
    ]  # fmt: skip


def test_a_long_history_is_listed_in_pages(saver: PerdureSaver) -> None:
    """130 checkpoints, more than two pages of them: each with the value that it had, and the newest few alone too."""
    ids = [f"1f000000-0000-6000-8000-{number:012}" for number in range(130)]
    for number, id in enumerate(ids):
        values = {"messages": [f"message {n}" for n in range(number)]}
        call(saver, Put("", id, ids[number - 1] if number else "", values, "loop", f"run-{number % 7}"), number)
    found = everything(saver)
    assert [len(item.checkpoint["channel_values"]["messages"]) for item in found] == [*reversed(range(130))]
    before = on("thread", checkpoint_ns="", checkpoint_id=ids[70])
    some = list(saver.list(on("thread", checkpoint_ns=""), before=before, limit=3, filter={"run_id": "run-0"}))
    assert [item.checkpoint["id"] for item in some] == [ids[63], ids[56], ids[49]]
