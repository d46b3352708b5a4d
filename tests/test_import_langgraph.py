"""`perdure db import-langgraph`: LangGraph's threads come over whole, and go on."""

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.types import Command

from perdure.bridges.import_langgraph import Imported, import_threads
from perdure.bridges.langgraph import PerdureSaver
from perdure.care.verify import verify
from perdure.errors import Conflict, InvalidInput, PerdureError, StoreUnreachable, UsageError
from perdure.stores import open_store
from tests.cli import Cli
from tests.postgres import Fresh
from tests.programs import plain_environment
from tests.test_langgraph_values import Cipher
from tests.threads import History
from tests.travellers import journey, on, picture, travel

STRANGER = "bob@example.org"  # whose thread has an id that none of ours can have


class StoreCli(Cli):
    """Commands on a store, without a Temporal server."""

    def __init__(self, url: str) -> None:
        self.environment = plain_environment({"PERDURE_STORE": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"})


@contextmanager
def sqlite_saver(path: Path, **options: Any) -> Iterator[SqliteSaver]:
    """LangGraph's own saver for SQLite."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        yield SqliteSaver(connection, **options)


def live(saver: BaseCheckpointSaver[Any]) -> list[Any]:
    """A thread with everything in it, and one that waits for an answer; their histories."""
    graph = travel(saver)
    for _ in journey(graph):
        pass
    graph.invoke({"messages": [HumanMessage("Where to?", id="1")]}, on(STRANGER))
    return [picture(graph, "trip"), picture(graph, STRANGER)]


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Where our store is going to be."""
    return f"sqlite:///{tmp_path}/ours.db"


async def imported(source: str, url: str) -> Imported:
    """Bring threads over."""
    store = open_store(url)
    try:
        await store.migrate()
        return await import_threads(source, store)
    finally:
        await store.close()


async def problem_of(url: str) -> object:
    """What is wrong with our store."""
    store = open_store(url)
    try:
        return (await verify(store)).problem
    finally:
        await store.close()


def goes_on(url: str, histories: list[Any]) -> None:
    """Both threads look as they did, and the one that waits gets its answer."""
    with PerdureSaver(url) as saver:
        graph = travel(saver)
        assert [picture(graph, "trip"), picture(graph, STRANGER)] == histories
        graph.invoke(Command(resume="yes"), on(STRANGER))
        assert graph.invoke(Command(resume="Visa"), on(STRANGER))["booked"] == "paid by Visa"
    assert asyncio.run(problem_of(url)) is None


# ── both databases ───────────────────────────────────────────────────────────────────────────────────────────────


def test_from_sqlite(tmp_path: Path, url: str) -> None:
    """Histories, branches, namespaces and pending writes come over; the other file stays as it was."""
    with sqlite_saver(tmp_path / "theirs.db") as saver:
        histories = live(saver)
        checkpoints = len(list(saver.list(None)))
    before = (tmp_path / "theirs.db").read_bytes()
    done = asyncio.run(imported(f"sqlite:///{tmp_path}/theirs.db", url))
    assert (done.threads, done.checkpoints, done.skipped) == (2, checkpoints, 0)
    assert done.writes > checkpoints
    assert (tmp_path / "theirs.db").read_bytes() == before
    goes_on(url, histories)


def test_from_postgres(postgres_url: Fresh, url: str) -> None:
    """The same from PostgreSQL, to a store of another kind."""
    source = postgres_url()
    with PostgresSaver.from_conn_string(source) as saver:
        saver.setup()
        histories = live(saver)
        checkpoints = len(list(saver.list(None)))
    done = asyncio.run(imported(source, url))
    assert (done.threads, done.checkpoints, done.skipped) == (2, checkpoints, 0)
    assert "@" not in done.source
    goes_on(url, histories)


def test_every_value_and_write_is_as_it_was(tmp_path: Path, url: str) -> None:
    """Checkpoint by checkpoint, what the two savers give is the same, to the versions of channels."""
    with sqlite_saver(tmp_path / "theirs.db") as saver, PerdureSaver(url) as ours:
        live(saver)
        asyncio.run(imported(f"sqlite:///{tmp_path}/theirs.db", url))
        theirs, came = list(saver.list(None)), list(ours.list(None))
    assert len(came) == len(theirs)
    for one, other in zip(came, theirs, strict=True):
        assert one.config == other.config
        assert one.parent_config == other.parent_config
        assert one.metadata == other.metadata
        assert one.pending_writes == other.pending_writes
        assert one.checkpoint == other.checkpoint


def test_from_a_file_of_an_older_version(tmp_path: Path, url: str) -> None:
    """Before writes had a path: such a file is read as it is, not migrated."""
    with sqlite_saver(tmp_path / "theirs.db") as saver:
        graph = travel(saver)
        graph.invoke({"messages": [HumanMessage("Where to?", id="1")]}, on("old"))
        expected = picture(graph, "old")
        saver.conn.execute("ALTER TABLE writes DROP COLUMN task_path")
        saver.conn.commit()
    asyncio.run(imported(f"sqlite:///{tmp_path}/theirs.db", url))
    with PerdureSaver(url) as saver_of_ours:
        assert picture(travel(saver_of_ours), "old") == expected


# ── again ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_import_that_was_broken_off(tmp_path: Path, url: str) -> None:
    """It goes on where it was; what came since comes too; and nothing is brought over twice."""
    source = f"sqlite:///{tmp_path}/theirs.db"

    class Broken(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == total // 2:
            raise Broken

    async def broken() -> None:
        store = open_store(url)
        try:
            await store.migrate()
            await import_threads(source, store, stop)
        finally:
            await store.close()

    with sqlite_saver(tmp_path / "theirs.db") as saver:
        live(saver)
        checkpoints = len(list(saver.list(None)))
        with pytest.raises(Broken):
            asyncio.run(broken())
        done = asyncio.run(imported(source, url))
        assert (done.checkpoints, done.skipped) == (checkpoints - checkpoints // 2, checkpoints // 2)
        done = asyncio.run(imported(source, url))
        assert (done.checkpoints, done.writes, done.skipped) == (0, 0, checkpoints)
        travel(saver).invoke(Command(resume="later"), on(STRANGER))
        histories = [picture(travel(saver), "trip"), picture(travel(saver), STRANGER)]
        done = asyncio.run(imported(source, url))
        assert 0 < done.checkpoints < 9
        assert done.writes > 0
    with PerdureSaver(url) as ours:
        assert [picture(travel(ours), "trip"), picture(travel(ours), STRANGER)] == histories


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_command(tmp_path: Path, url: str) -> None:
    """It makes the store, tells what came, shows a bar on a terminal; and other commands know the threads."""
    with sqlite_saver(tmp_path / "theirs.db") as saver:
        live(saver)
    cli, source = StoreCli(url), f"sqlite:///{tmp_path}/theirs.db"
    shown = await cli.on_terminal("db", "import-langgraph", source, types="")
    assert shown.code == 0, shown
    assert "2 threads" in shown.out
    assert "import" in shown.err
    again = await cli.json("db", "import-langgraph", source)
    assert (again["threads"], again["checkpoints"], again["writes"]) == (2, 0, 0)
    assert again["skipped"] > 20
    assert (await cli("db", "verify")).code == 0
    history = await cli("history", "trip")
    assert history.code == 0, history
    assert "import" in history.out
    state = await cli("state", "bob.40example.2eorg")
    assert state.code == 0, state
    assert "Where to?" in state.out
    values = await cli.json("state", "trip")
    assert values["visited"] == ["Bern", "Oslo", "Wien"]
    assert [message["content"] for message in values["messages"]] == ["Where to?", "Approved.", "no"]


# ── what it refuses ──────────────────────────────────────────────────────────────────────────────────────────────


def _files(folder: Path) -> Path:
    """Files of several kinds, none of which holds what can be read."""
    (folder / "text").write_text("no database " * 100)
    for name, sql in (("empty.db", "SELECT 1"), ("other.db", "CREATE TABLE checkpoints (thread_id TEXT)")):
        with closing(sqlite3.connect(folder / name)) as connection:
            connection.execute(sql)
            connection.commit()
    with sqlite_saver(folder / "sealed.db", serde=EncryptedSerializer(Cipher())) as saver:
        travel(saver).invoke({"messages": []}, on("sealed"))
    return folder


@pytest.mark.parametrize(
    ("source", "error", "says"),
    [
        ("sqlite:///{}/missing.db", StoreUnreachable, "no file"),
        ("sqlite:///{}/text", InvalidInput, "holds no checkpoints of LangGraph's"),
        ("sqlite:///{}/empty.db", InvalidInput, "holds no checkpoints of LangGraph's"),
        ("sqlite:///{}/other.db", InvalidInput, "holds no checkpoints of LangGraph's"),
        ("sqlite:///{}/sealed.db", InvalidInput, r"msgpack\+rot"),
        ("mysql://me:secret@localhost/threads", InvalidInput, "'mysql://localhost/threads' names no database"),
        (
            "postgresql://me:secret@127.0.0.1:1/threads",
            StoreUnreachable,
            "postgresql://127.0.0.1:1/threads doesn't answer",
        ),
    ],
)
async def test_what_can_t_be_read(tmp_path: Path, url: str, source: str, error: type[PerdureError], says: str) -> None:
    """Each says what is wrong, and no password; nothing comes over."""
    with pytest.raises(error, match=says) as raised:
        await imported(source.format(_files(tmp_path)), url)
    assert "secret" not in str(raised.value)
    store = open_store(url)
    assert await store.threads() == []
    await store.close()


async def test_a_postgres_without_tables(postgres_url: Fresh, url: str) -> None:
    """An empty database holds none."""
    with pytest.raises(InvalidInput, match="holds no checkpoints of LangGraph's"):
        await imported(postgres_url(), url)


async def test_a_thread_of_our_own_is_in_the_way(tmp_path: Path, url: str) -> None:
    """It is not mixed with one of LangGraph's of the same name."""
    with sqlite_saver(tmp_path / "theirs.db") as saver:
        travel(saver).invoke({"messages": []}, on("same"))
    store = open_store(url)
    await store.migrate()
    await History(store, "same").commit({"notes": {"op": "set", "value": ["ours"]}})
    with pytest.raises(Conflict, match="not of a LangGraph graph"):
        await import_threads(f"sqlite:///{tmp_path}/theirs.db", store)
    await store.close()


async def test_without_langgraphs_saver(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever lacks the package that reads the database is told its name."""
    monkeypatch.setitem(sys.modules, "langgraph.checkpoint.sqlite", None)
    with pytest.raises(UsageError, match="pip install langgraph-checkpoint-sqlite"):
        await imported(f"sqlite:///{tmp_path}/theirs.db", url)
