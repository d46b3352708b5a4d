"""`perdure db …`: the care of a store, as operators give it, against a real server and its histories."""

from datetime import timedelta
from typing import Any

import pytest

from perdure import END, START, Agent, App, Graph, State, tool
from perdure.security.keyring import Keyring
from perdure.testing import Rule, Script, call, say, together
from perdure.verify import Report, verify
from tests import clerk
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.tampering import hands
from tests.world import World, eventually


async def contents(world: World, thread: str) -> list[dict[str, Any]]:
    """All checkpoints of a thread as they are stored; a history tells the moment of each in its own way."""
    return [checkpoint.model_dump(exclude={"created_at"}) async for checkpoint in world.store.walk(thread)]


async def paid(world: World, thread: str = "") -> str:
    """A thread with a payment behind it."""
    thread, message = await world.begin("clerk", "pay 50")
    await world.ended(thread, message)
    return thread


# ── verify and repair ────────────────────────────────────────────────────────────────────────────────────────────


async def test_verify(make_world: MakeWorld) -> None:
    """It ends with 1 and names the row; its JSON document is printed all the same."""
    async with make_world(clerk.app, clerk.script) as world:
        cli, thread = Cli(world), await paid(world)
        done = await cli("db", "verify")
        assert (done.code, "all is well" in done.out) == (0, True)
        second = (await contents(world, thread))[1]["id"]
        await hands(world.store, thread).change(second)
        done = await cli("db", "verify", "-o", "json")
        assert done.code == 1
        problem = Report.model_validate(done.json()).problem
        assert problem is not None
        assert (problem.table, problem.thread_id, problem.row) == ("checkpoints", thread, second)
        assert f"perdure: Table checkpoints, thread {thread}, {second}: " in done.err
        assert (await cli("state", thread)).code == 1
        assert (await cli("db", "verify", "nobody")).code == 3


async def test_repair(make_world: MakeWorld) -> None:
    """Rows that were lost, changed and swapped come back from the history, and the thread goes on."""
    async with make_world(clerk.app, clerk.script) as world:
        cli, thread = Cli(world), await paid(world)
        before = await contents(world, thread)
        ids = [checkpoint["id"] for checkpoint in before]
        await hands(world.store, thread).drop(ids[1])
        await hands(world.store, thread).change(ids[2])
        done = await cli("db", "repair", thread)
        assert (done.code, ids[1] in done.out, ids[2] in done.out) == (0, True, True)
        assert await contents(world, thread) == before
        assert (await cli("db", "verify")).code == 0
        again = await cli.json("db", "repair", thread)
        assert (again["rebuilt"], again["missed"], again["whole"]) == ([], [], len(ids))
        message = (await world.client.send(thread, "hello")).message_id
        assert (await world.ended(thread, message)).outcome == "answered"


async def test_a_thread_from_its_history(make_world: MakeWorld) -> None:
    """All of a thread and of its fork is made again: runs that completed and continued, rewinds, updates, rollbacks."""
    async with make_world(clerk.app, clerk.script, history_events=60) as world:
        cli, client = Cli(world), world.client
        thread = await paid(world)
        start = (await contents(world, thread))[1]["id"]
        for text in ("hello", "pay twice"):
            message = (await client.send(thread, text, metadata={"asked": text})).message_id
            if text == "hello":
                await world.ended(thread, message)
        await world.opened(thread, 2)
        await client.cancel(thread, by="ann")
        await world.ended(thread, message)
        await client.update_state(thread, {"title": "late"}, by="ann", metadata={"by": "hand"})
        fork = await client.fork(thread, start, state={"title": "other"}, thread=world.thread())
        await eventually(lambda: client.status(fork), lambda s: s.status == "idle" and not s.node)
        await world.completes(thread)
        await client.rewind(thread, start, by="bob")
        await client.resume(thread)
        await eventually(lambda: client.status(thread), lambda s: s.status == "idle" and bool(s.results))
        await world.completes(thread)
        await world.completes(fork)
        before = {name: await contents(world, name) for name in (thread, fork)}
        assert {checkpoint["source"] for checkpoint in before[thread]} == {
            "input", "step", "compensation", "update", "rewind",
        }  # fmt: skip
        rows = [await world.store.thread(name) for name in (thread, fork)]
        for name in (fork, thread):
            await world.store.delete_thread(name)
        for name in (thread, fork):
            done = await cli("db", "repair", name, "-o", "json")
            assert (done.code, done.json()["missed"]) == (0, []), done
            assert await contents(world, name) == before[name]
        for row in rows:
            assert row is not None
            made = await world.store.thread(row.thread_id)
            assert made is not None
            times = {"created_at": row.created_at, "updated_at": row.updated_at}
            assert made.model_copy(update=times) == row
        message = (await client.send(thread, "hello")).message_id
        assert (await world.ended(thread, message)).outcome == "answered"


class Board(State):
    """What the graph writes on."""

    kind: str = ""


@tool
async def look(what: int) -> str:
    """Look something up."""
    return f"seen {what}"


board = Graph("board", state=Board)


@board.node("split", goto=["left", "right", "late"])
def split(state: Board) -> dict[str, str]:
    """Begin."""
    return {"kind": "split"}


@board.node("left")
def left(state: Board) -> None:
    """One side."""


@board.node("right")
def right(state: Board) -> None:
    """The other side, which fails."""
    raise ValueError("no")


@board.node("late")
def late(state: Board) -> None:
    """Comes a step after the others."""


board.human("ask", "Go on?", answer=bool)
board.node("join", lambda state: {"kind": "joined"})
board.node("helper", Agent(name="helper", model="m", tools=[look], state=Board))
APP = App(agents=[board])
SCRIPT = Script(rules=[Rule(when="go", replies=[together(call("look", what=1), call("look", what=2)), say("Seen.")])])


def test_placeholder() -> None:
    assert END and START and timedelta and pytest and Keyring and verify
