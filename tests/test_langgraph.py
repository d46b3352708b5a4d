"""PerdureSaver: LangGraph's graphs run on it as on LangGraph's own savers, and what they leave is far smaller."""

import asyncio
import itertools
import operator
import sqlite3
import subprocess
import sys
import types
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command

from perdure.bridges.langgraph import PerdureSaver
from perdure.care.verify import verify
from perdure.errors import Conflict, InvalidInput, StoreUnreachable, ThreadNotFound
from perdure.stores import open_store
from tests.threads import History
from tests.travellers import Graph, journey, on, picture, travel

Urls = Callable[[], str]


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis"])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> Urls:
    """Makes URLs of stores of a kind; each is another one, which is empty and has no schema."""
    numbers = itertools.count()
    if request.param == "memory":
        return lambda: f"memory://{tmp_path}-{next(numbers)}"
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"
    made: Urls = request.getfixturevalue(f"{request.param}_url")
    return made


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where a store in a file is going to be."""
    return f"sqlite:///{tmp_path}/store.db"


@pytest.fixture
def saver(url: str) -> Iterator[PerdureSaver]:
    """A saver on a store in a file."""
    with PerdureSaver(url) as saver:
        yield saver


async def is_whole(url: str) -> bool:
    """Whether a store passes `perdure db verify`."""
    store = open_store(url)
    try:
        report = await verify(store)
    finally:
        await store.close()
    assert report.problem is None, report.problem
    return report.checkpoints > 0


# ── LangGraph's own suite ────────────────────────────────────────────────────────────────────────────────────────


async def test_conformance(urls: Urls) -> None:
    """langgraph-checkpoint-conformance detects every capability that it knows, and every check passes."""

    @checkpointer_test(name="PerdureSaver")
    async def fresh() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        async with PerdureSaver(urls()) as saver:
            yield saver

    report = await validate(fresh)
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert failures == []
    assert {name for name, result in report.results.items() if result.detected and result.passed} == {*Capability}
    assert sum(result.tests_passed for result in report.results.values()) >= 81


# ── a graph ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_graph_runs_as_in_memory(urls: Urls) -> None:
    """Fan-out, interrupts, a subgraph of its own namespace, time travel, updates, histories: all as on InMemorySaver.

    And so it looks to another process, and the store is whole.
    """
    url, theirs = urls(), travel(InMemorySaver())
    with PerdureSaver(url) as saver:
        ours = travel(saver)
        for expected, came in zip(journey(theirs), journey(ours), strict=True):
            assert came == expected
    with PerdureSaver(url) as another:
        assert picture(travel(another), "trip") == picture(theirs, "trip")
    assert await is_whole(url)


async def test_many_threads_at_once(saver: PerdureSaver, url: str) -> None:
    """Twenty runs in one event loop, of which each asks a person and goes on; and the blocking methods beside them."""
    graph, threads = travel(saver), [f"trip-{number}" for number in range(20)]

    async def run(thread: str) -> Any:
        await graph.ainvoke({"messages": [HumanMessage("Where to?")]}, on(thread))
        await asyncio.to_thread(graph.invoke, Command(resume=thread), on(thread))
        return await graph.ainvoke(Command(resume="Visa"), on(thread))

    done = await asyncio.gather(*map(run, threads))
    assert [came["approved"] for came in done] == threads
    assert {came["booked"] for came in done} == {"paid by Visa"}
    assert await is_whole(url)


async def test_a_blocking_call_in_an_event_loop(saver: PerdureSaver) -> None:
    """A synchronous run inside a running loop blocks it, and no more than that."""
    assert travel(saver).invoke({"messages": [HumanMessage("Where to?")]}, on("trip"))["spent"] == 13


async def test_ten_runs_of_one_thread_lose_nothing(url: str) -> None:
    """Ten writers on one head, through two savers: all ten checkpoints are there, each with what its writer knew."""
    with PerdureSaver(url) as one, PerdureSaver(url) as other:
        await other.aput(on("busy", checkpoint_ns=""), {**empty_checkpoint(), "id": "0"}, {"step": -1}, {})

        async def write(number: int) -> None:
            checkpoint, versions = empty_checkpoint(), {"writer": 1}
            checkpoint |= {"id": f"1{number}", "channel_values": {"writer": number}, "channel_versions": {**versions}}
            config = on("busy", checkpoint_ns="", checkpoint_id="0")
            await (one, other)[number % 2].aput(config, checkpoint, {}, {**versions})

        await asyncio.gather(*map(write, range(10)))
        found = list(one.list(on("busy", checkpoint_ns="")))
    assert [saved.checkpoint["channel_values"].get("writer") for saved in found] == [*reversed(range(10)), None]
    assert {(saved.parent_config or {}).get("configurable", {}).get("checkpoint_id") for saved in found[:-1]} == {"0"}
    assert await is_whole(url)


def test_copies_and_prunings_go_on(saver: PerdureSaver, url: str) -> None:
    """A copied thread goes on by itself, also when the other is pruned; what is pruned goes on from what is left."""
    graph = travel(saver)
    graph.invoke({"messages": [HumanMessage("Where to?", id="1")]}, on("one"))
    graph.invoke(Command(resume="yes"), on("one"))
    saver.copy_thread("one", "two")
    assert picture(graph, "two") == picture(graph, "one")
    saver.prune(["one"])
    left = [str(found.config["configurable"]["checkpoint_ns"]) for found in saver.list(on("one"))]
    # The latest of the graph itself, and that of its subgraph, which waits.
    assert sorted(namespace.partition(":")[0] for namespace in left) == ["", "book"]
    for thread in ("one", "two"):
        assert graph.invoke(Command(resume="Visa"), on(thread))["booked"] == "paid by Visa"
    assert asyncio.run(is_whole(url))
    saver.prune(["two"], strategy="delete")
    assert {found.config["configurable"]["thread_id"] for found in saver.list(None)} == {"one"}
    saver.delete_thread("one")
    assert list(saver.list(None)) == []


def test_channels_that_are_kept_as_their_writes(saver: PerdureSaver) -> None:
    """A DeltaChannel is what it is in memory, at every checkpoint, and still after its thread was pruned."""

    class Log(TypedDict):
        lines: Annotated[
            list[str], DeltaChannel(lambda state, writes: [*state, *itertools.chain(*writes)], snapshot_frequency=4)
        ]

    def graph(saver: BaseCheckpointSaver[Any]) -> Graph:
        log = StateGraph(Log)
        log.add_node("add", lambda state: {"lines": [f"line {len(state['lines'])}"]})
        log.add_edge(START, "add")
        return log.compile(checkpointer=saver)

    ours, theirs = graph(saver), graph(InMemorySaver())
    for run in (ours, theirs):
        for turn in range(7):
            run.invoke({"lines": [f"turn {turn}"]}, on("log"))
    assert picture(ours, "log") == picture(theirs, "log")
    saver.prune(["log"])
    assert 1 < len(list(saver.list(on("log")))) < 15
    assert ours.get_state(on("log")).values == theirs.get_state(on("log")).values
    assert ours.invoke({"lines": ["more"]}, on("log")) == theirs.invoke({"lines": ["more"]}, on("log"))


# ── how much is stored ───────────────────────────────────────────────────────────────────────────────────────────


class Talk(MessagesState):
    """A conversation, and a list that is no conversation."""

    notes: Annotated[list[str], operator.add]


def talk(saver: BaseCheckpointSaver[Any]) -> Graph:
    """A graph that says 400 characters to everything, and writes down 20."""

    def answer(state: Talk) -> dict[str, Any]:
        turn = len(state["messages"]) // 2
        return {"messages": [AIMessage(f"answer {turn:04} " * 33)], "notes": [f"turn {turn:04}, as planned"]}

    builder = StateGraph(Talk)
    builder.add_node(answer)
    builder.add_edge(START, "answer")
    return builder.compile(checkpointer=saver)


def test_bytes_of_200_turns(saver: PerdureSaver, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same 200 turns in SQLite: LangGraph's own saver needs more than four times as much. A late step costs no more
    than an early one, but for the digits of its numbers."""
    with closing(sqlite3.connect(tmp_path / "theirs.db", check_same_thread=False)) as connection:
        for graph in (talk(saver), talk(SqliteSaver(connection))):
            for turn in range(200):
                graph.invoke({"messages": [HumanMessage(f"question {turn:04} " * 10)]}, on("talk"))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    saver.close()
    theirs, ours = (tmp_path / "theirs.db").stat().st_size, (tmp_path / "store.db").stat().st_size
    with capsys.disabled():
        factor = f"{theirs / ours:.0f} times"
        sys.stdout.write(f"\n200 turns in SQLite: LangGraph {theirs:,} bytes, PerdureSaver {ours:,} bytes ({factor})\n")
    assert ours * 4 < theirs
    sizes = asyncio.run(delta_sizes(f"sqlite:///{tmp_path}/store.db", "talk"))
    assert max(sizes[-30:]) <= max(sizes[30:60]) + 20


async def delta_sizes(url: str, thread: str) -> list[int]:
    """Bytes of each step's delta."""
    store = open_store(url)
    sizes = [checkpoint.size async for checkpoint in store.walk(thread)]
    await store.close()
    return sizes


# ── around it ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_program_that_never_closes_it_ends(tmp_path: Path) -> None:
    """One line, no `with`, no `close`: the program ends by itself, without a warning, and what it did is there."""
    program = f"""
from tests.travellers import on, travel
from perdure.bridges.langgraph import PerdureSaver
graph = travel(PerdureSaver("sqlite:///{tmp_path}/store.db"))
print(graph.invoke({{"messages": [("user", "Where to?")]}}, on("trip"))["spent"])
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("13\n", "")
    with PerdureSaver(f"sqlite:///{tmp_path}/store.db") as saver:
        assert travel(saver).invoke(Command(resume="yes"), on("trip"))["approved"] == "yes"


def test_a_process_that_forks(tmp_path: Path) -> None:
    """A saver that was used before goes on in the child and in the parent, and both end."""
    program = f"""
import os
from tests.travellers import Command, on, travel
from perdure.bridges.langgraph import PerdureSaver
graph = travel(PerdureSaver("sqlite:///{tmp_path}/store.db"))
for name in ("parent", "child"):
    graph.invoke({{"messages": [("user", "Where to?")]}}, on(name))
child = os.fork()
name = "parent" if child else "child"
print(graph.invoke(Command(resume=name), on(name))["approved"], flush=True)
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program], capture_output=True, text=True, timeout=60,
        check=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert (sorted(done.stdout.split()), done.stderr) == (["child", "parent"], "")


def test_the_page_about_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of docs/langgraph.md runs as it stands there."""
    page = (Path(__file__).parents[1] / "docs" / "langgraph.md").read_text("utf-8")
    code, graph = page.split("```python\n")[1].split("```")[0], {"__name__": "page"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "page", types.ModuleType("page"))
    exec(compile(code, "docs/langgraph.md", "exec"), graph)
    with PerdureSaver(f"sqlite:///{tmp_path}/threads.db") as saver:
        found = saver.get_tuple(on("trip-1"))
    assert found is not None
    assert found.checkpoint["channel_values"]["visited"] == ["home", "city 1"]


async def test_a_thread_of_perdures_own_is_left_alone(saver: PerdureSaver, url: str) -> None:
    """Its name is taken: a graph can neither read it nor write to it nor delete it."""
    saver.setup()
    store = open_store(url)
    await History(store, "mine").commit({"notes": {"op": "set", "value": ["kept"]}})
    for call in (
        lambda: travel(saver).invoke({"messages": []}, on("mine")),
        lambda: saver.get_tuple(on("mine")),
        lambda: saver.delete_thread("mine"),
        lambda: saver.prune(["mine"], strategy="delete"),
    ):
        with pytest.raises(Conflict, match="not of a LangGraph graph"):
            call()
    assert list(saver.list(None)) == []
    assert await store.thread("mine") is not None
    await store.close()


def test_what_it_refuses(saver: PerdureSaver, tmp_path: Path) -> None:
    """Each error is one of Perdure's, and says what is wrong."""
    with pytest.raises(InvalidInput, match="keep_most"):
        saver.prune(["one"], strategy="keep_most")
    with pytest.raises(ThreadNotFound, match="nothing"):
        saver.copy_thread("nothing", "something")
    travel(saver).invoke({"messages": []}, on("one"))
    with pytest.raises(Conflict, match="exists already"):
        saver.copy_thread("one", "one")
    with pytest.raises(InvalidInput, match="names no store"):
        PerdureSaver("mysql://localhost/threads").setup()
    with pytest.raises(StoreUnreachable, match="unable to open"):
        PerdureSaver(f"sqlite:///{tmp_path}").setup()
