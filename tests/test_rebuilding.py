"""A checkpoint made again from a history: what followed a step is found by the rules that it was found by."""

import pytest

from perdure.care.chronicle import Chronicle, chronicle
from perdure.care.repair import repair
from perdure.checkpoint import Checkpoint, Frontier, Task
from perdure.checkpointer import Position
from perdure.contracts import Ended
from perdure.errors import CheckpointNotFound
from perdure.starters.histories import HistoryReader
from perdure.stores import Store
from perdure.stores.memory import MemoryStore
from perdure.wire import data_converter
from tests.record_histories import FOLDER, RUNS, unpack
from tests.retelling import Retelling, to
from tests.test_repair import lost


@pytest.fixture
def store() -> Store:
    """A store in memory: how it keeps things has nothing to do with this."""
    return MemoryStore()


# ── what follows a step ──────────────────────────────────────────────────────────────────────────────────────────


async def rebuilt(store: Store, thread: Retelling, position: Position) -> Checkpoint:
    """The checkpoint, lost and made again."""
    await lost(store, thread, position.ref.id)
    done = await repair(store, thread.told())
    assert (done.rebuilt, done.missed) == ((position.ref.id,), ())
    found = await store.checkpoint(thread.thread_id, position.ref.id)
    assert found is not None
    return found


LEFT, RIGHT = Ended(node="left", outcome="done"), Ended(node="right", outcome="done")


async def test_a_join_that_waits(store: Store) -> None:
    """Which sources of a join have finished is found by the rules that it was found by."""
    thread = Retelling(store)
    await thread.opens(next=to("left"))
    waits = Frontier(tasks=(Task(node="left"),), arrived={"join": ("right",)})
    await thread.updates(next=waits, as_node="mend")
    joined = await thread.runs("left", next=to("join"))
    assert (await rebuilt(store, thread, joined)).next == to("join")


@pytest.mark.parametrize("local", [True, False])
async def test_parallel_tasks(store: Store, local: bool) -> None:
    """A merge beside the workflow leaves only its result: nodes, joins and usage are found again."""
    thread = Retelling(store)
    await thread.opens(next=to("split"))
    await thread.runs("split", next=to("left", "right"))
    late = Ended(node="right", outcome="expired")
    waiting = Frontier(tasks=(Task(node="mend"),), arrived={"join": ("left",)})
    merged = await thread.merges(next=waiting, ended=(LEFT, late), local=local)
    found = await rebuilt(store, thread, merged)
    assert (found.nodes, found.next) == (("left", "right"), waiting)


async def test_an_error_route(store: Store) -> None:
    """The error that leads to a node stands in its argument, and in the history."""
    thread = Retelling(store)
    await thread.opens(next=to("left"))
    error = {"node": "left", "type": "ToolError", "message": "no"}
    failed = Ended(node="left", outcome="error", error="no", error_type="ToolError")
    merged = await thread.merges(next=Frontier(tasks=(Task(node="mend", arg=error),)), ended=(failed,))
    assert (await rebuilt(store, thread, merged)).next.tasks[0].arg == error


async def test_what_models_of_a_merged_step_used(store: Store) -> None:
    """Usage is added up as the merge did."""
    thread = Retelling(store)
    await thread.opens(next=to("model", "left"))
    asked = Ended(node="model", outcome="answer")
    merged = await thread.merges(next=Frontier(), ended=(asked, LEFT), used=7)
    assert (await rebuilt(store, thread, merged)).facts == {"usage": {"calls": 1, "prompt": 7}}


async def test_an_update_in_a_nodes_place(store: Store) -> None:
    """What follows the node follows the update."""
    thread = Retelling(store)
    await thread.opens(next=to("model"))
    update = await thread.updates(as_node="split", next=to("left", "right"))
    found = await rebuilt(store, thread, update)
    assert (found.nodes, found.metadata, found.facts) == (
        ("split",),
        {"tag": "better"},
        {"by": "ann", "reason": "typo"},
    )


async def test_a_step_on_a_frontier_with_arguments(store: Store) -> None:
    """What a Send gave is in the store as long as its own checkpoint is: what comes after is made again."""
    thread = Retelling(store)
    await thread.opens(next=to("split"))
    sent = Frontier(tasks=(Task(node="left", arg=1), Task(node="left", arg=2)))
    await thread.runs("split", next=sent)
    update = await thread.updates()
    merged = await thread.merges(next=Frontier(), ended=(LEFT, LEFT), local=False)
    assert (await rebuilt(store, thread, update)).next == sent
    assert (await rebuilt(store, thread, merged)).nodes == ("left", "left")


async def test_a_parent_that_can_not_be_loaded(store: Store) -> None:
    """Without the state before it a checkpoint has nothing to stand on."""
    thread = Retelling(store)
    await thread.opens()
    await thread.asks()
    await lost(store, thread, *thread.ids)
    told = thread.told()
    done = await repair(store, told.model_copy(update={"written": told.written[1:]}))
    assert {missed.id for missed in done.missed} == set(thread.ids)
    with pytest.raises(CheckpointNotFound):
        await thread.checkpointer.load("x", thread.ids[1])


# ── histories as Temporal kept them ──────────────────────────────────────────────────────────────────────────────

LOST = {"forked", "graph", "rehearsed"}  # the origin of forks is nowhere; a Send stands at its beginning


async def recorded(name: str) -> Chronicle:
    """What the recorded runs of a thread tell."""
    runs = []
    for path in sorted(FOLDER.glob(f"{name}.json.gz")) or sorted(FOLDER.glob(f"{name}-?.json.gz")):
        reader = HistoryReader(data_converter)
        for event in unpack(path).events:
            await reader.read(event)
        runs.append(reader.run())
    return chronicle(name, runs)


@pytest.mark.parametrize("name", sorted(RUNS.keys() - LOST))
async def test_recorded_histories(store: Store, name: str) -> None:
    """Whatever a thread went through: from an empty store and its history alone, all of it is made again."""
    told = await recorded(name)
    assert len(told.written) >= 2
    done = await repair(store, told)
    assert (len(done.rebuilt), done.missed, done.problem) == (len(told.written), (), None)
    assert done.head == told.written[-1].ref.id


@pytest.mark.parametrize("name", sorted(LOST))
async def test_recorded_histories_that_do_not_suffice(store: Store, name: str) -> None:
    """What is lost is told, and not one checkpoint is invented."""
    told = await recorded(name)
    done = await repair(store, told)
    assert (done.rebuilt, len(done.missed), done.head) == ((), len(told.written), "")
    assert done.missed[0].step == told.written[0].ref.step
