"""`perdure db …`: the care of a store, as operators give it, against a real server and its histories."""

from collections.abc import Callable
from typing import Annotated, Any

from perdure import END, START, Agent, App, Graph, Retry, State, ToolError, append, tool
from perdure.care.verify import Report, verify
from perdure.security.keyring import Keyring
from perdure.testing import Rule, Script, call, say, together
from tests import clerk, test_upgrade
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.tampering import hands
from tests.world import World, eventually


async def contents(world: World, thread: str) -> list[dict[str, Any]]:
    """All checkpoints of a thread as they are stored; a history tells the moment of each in its own way."""
    return [checkpoint.model_dump(exclude={"created_at"}) async for checkpoint in world.store.walk(thread)]


async def paid(world: World) -> str:
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
        message = (await client.send(thread, "hello", metadata={"asked": "hello"})).message_id
        await world.ended(thread, message)
        message = (await client.send(thread, "pay twice")).message_id
        await world.opened(thread, 2)
        await client.cancel(thread, by="ann")
        await world.ended(thread, message)
        await client.update_state(thread, {"title": "late"}, by="ann", metadata={"by": "hand"})
        fork = (await client.fork(thread, start, state={"title": "other"}, thread=world.thread())).thread_id
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
            assert done.json()["audited"] == next(row.audited for row in rows if row and row.thread_id == name)
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

    lines: Annotated[list[str], append] = []
    agreed: bool = False


@tool
async def look(what: int) -> str:
    """Look something up."""
    return f"seen {what}"


def right(state: Board) -> None:
    """One side, which fails."""
    raise ToolError("There is no room.")


board = Graph("board", state=Board)
board.node("split", lambda state: {"lines": ["split"]})
board.node("left", lambda state: {"lines": ["left"]})
board.node("right", right, retry=Retry(attempts=1))
board.node("mend", lambda arg: {"lines": [arg["message"]]})
board.node("join", lambda state: {"lines": ["join"]})
board.human("ask", "Go on?", answer=bool, into="agreed")
board.node("helper", Agent(name="helper", model="m", tools=[look], state=Board))
board.edge(START, "split")
for side in ("left", "right", "ask"):
    board.edge("split", side)
board.edge("right", "mend", on="error")
board.edge("right", END)
board.edge(["left", "mend"], "join")
board.edge("join", END)
board.edge("ask", "helper")
board.edge("helper", END)
BOARD = App(agents=[board])
LOOKS = Script(rules=[Rule(when="go", replies=[together(call("look", what=1), call("look", what=2)), say("Seen.")])])


async def test_a_graph_from_its_history(make_world: MakeWorld) -> None:
    """Steps with several tasks are merged beside the workflow, and leave only results: joins that wait, an error that
    led to a node, and what a model used are found again."""
    async with make_world(BOARD, LOOKS) as world:
        thread, message = await world.begin("board", "go")
        asked = await eventually(lambda: world.client.approvals(thread), lambda found: len(found.questions) == 1)
        await world.client.answer(thread, asked.questions[0].id, True, by="ann")
        assert (await world.ended(thread, message)).outcome == "answered"
        before = await contents(world, thread)
        assert any(checkpoint["next"]["arrived"] for checkpoint in before)
        assert any(task["arg"] for checkpoint in before for task in checkpoint["next"]["tasks"])
        assert sum("usage" in checkpoint["facts"] for checkpoint in before) == 2
        await world.store.delete_thread(thread)
        done = await Cli(world)("db", "repair", thread, "-o", "json")
        assert (done.code, done.json()["missed"]) == (0, []), done
        assert await contents(world, thread) == before


async def test_what_a_repair_can_not_do(make_world: MakeWorld) -> None:
    """What the history doesn't hold is named with its reason, and the exit code is 1."""
    async with make_world(clerk.app, clerk.script) as world:
        cli, thread = Cli(world), await paid(world)
        ids = [checkpoint["id"] for checkpoint in await contents(world, thread)]
        await hands(world.store, thread).drop(ids[1])
        await world.completes(thread)
        await world.forget(thread)
        done = await cli("db", "repair", thread)
        assert done.code == 1
        assert ids[1] in done.out
        assert "The history that Temporal still has doesn't tell of it" in done.out
        assert f"perdure: Table checkpoints, thread {thread}, {ids[2]}: Its parent {ids[1]} doesn't exist." in done.err
        assert (await cli("db", "repair", "nobody")).code == 3
        world.threads.remove(thread)


# ── upgrade ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_upgrading(make_world: MakeWorld) -> None:
    """A dry run writes nothing; then each thread at rest is upgraded, once; a thread goes on from there."""
    old = App(agents=[Agent(name="orders", model="m", state=Before)])
    script = Script(rules=[Rule(when="hello", replies=[say("Good day.")])])
    async with make_world(old, script) as world:
        cli = Cli(world)
        thread, message = await world.begin("orders", "hello")
        await world.ended(thread, message)
        before = await contents(world, thread)
        assert (await cli("db", "upgrade")).code == 2
        app = ("--app", "tests.test_upgrade:APP")
        would = await cli.json("db", "upgrade", "--dry-run", *app)
        assert (would["upgraded"], would["dry_run"], await contents(world, thread)) == (1, True, before)
        assert (await cli.json("db", "upgrade", *app))["upgraded"] == 1
        done = await cli("db", "upgrade", *app)
        assert (done.code, done.out) == (0, "Upgraded: 0 threads. Up to date already: 1.\n")
        assert len(await contents(world, thread)) == len(before) + 1
        assert (await cli("db", "upgrade", "--agent", "nobody", *app)).code == 3


class Before(State):
    """The state of tests.test_upgrade, two versions ago."""

    name: str = "Ada Byron"
    note: str = ""


async def test_an_upgraded_thread_goes_on(make_world: MakeWorld) -> None:
    """A thread whose workflow waits is upgraded under it: the next message finds where it stands now."""
    script = Script(rules=[Rule(when="hello", replies=[say("Good day.")])])
    old = App(agents=[Agent(name="orders", model="m", state=Before)])
    async with make_world(old, script, serve=False) as world:
        async with world.worker():
            thread, message = await world.begin("orders", "hello")
            await world.ended(thread, message)
        assert (await Cli(world).json("db", "upgrade", "--app", "tests.test_upgrade:APP"))["upgraded"] == 1
        async with world.worker(App(agents=[test_upgrade.ORDERS])):
            message = (await world.client.send(thread, "hello")).message_id
            assert (await world.ended(thread, message)).outcome == "answered"
            assert (await verify(world.store, thread)).problem is None


async def test_an_upgrade_on_a_terminal(make_world: MakeWorld) -> None:
    """A failing upcast is told with its reason, and ends with 1."""
    async with make_world(clerk.app, clerk.script) as world:
        await test_upgrade.thread(world.store, "a", note="broken")
        done = await Cli(world).on_terminal("db", "upgrade", "--app", "tests.test_upgrade:APP", types="")
        assert (done.code, "nobody can read that" in done.out) == (1, True)
        assert "1 threads can't be upgraded" in done.err


# ── prune, delete, size, keys ────────────────────────────────────────────────────────────────────────────────────


async def test_prune(make_world: MakeWorld) -> None:
    """It asks, or needs -y; what stays is whole, and the thread goes on."""
    async with make_world(clerk.app, clerk.script) as world:
        cli, thread = Cli(world), await paid(world)
        count = len(await contents(world, thread))
        assert (await cli("db", "prune", thread, "--keep", "2")).code == 5
        assert (await cli("db", "prune", thread, "-y")).code == 2
        would = await cli.json("db", "prune", "--keep", "2", "--dry-run")
        assert (would["pruned"][0]["removed"], len(await contents(world, thread))) == (count - 2, count)
        assert (await cli.json("db", "prune", thread, "--before", "2020-01-01", "-y"))["pruned"][0]["removed"] == 0
        done = await cli.on_terminal("db", "prune", thread, "--keep", "2", types="y\n")
        assert (done.code, len(await contents(world, thread))) == (0, 2)
        assert f"Removed: {count - 2} checkpoints of 1 threads" in done.out
        assert (await cli("db", "verify")).code == 0
        repaired = await cli.json("db", "repair", thread)
        assert (repaired["rebuilt"], repaired["unneeded"]) == ([], count - 2)
        message = (await world.client.send(thread, "hello")).message_id
        assert (await world.ended(thread, message)).outcome == "answered"
        assert (await cli("db", "prune", "nobody", "--keep", "2", "-y")).code == 3


async def test_delete(make_world: MakeWorld) -> None:
    """Not while its workflow is open; then it is gone, and only where somebody agrees."""
    async with make_world(clerk.app, clerk.script) as world:
        cli, thread = Cli(world), await paid(world)
        done = await cli("db", "delete", thread, "-y")
        assert (done.code, "is open" in done.err) == (5, True)
        await world.completes(thread)
        root = (await contents(world, thread))[0]["id"]
        fork = (await world.client.fork(thread, root, thread=world.thread(), hold=True)).thread_id
        assert (await cli("db", "delete", thread, "-y")).code == 4
        await world.client.close_thread(fork)
        await eventually(world.handle(fork).describe, lambda run: run.close_time is not None)
        assert (await cli("db", "delete", fork)).code == 5
        for name in (fork, thread):
            assert (await cli.json("db", "delete", name, "-y"))["thread_id"] == name
        assert (await cli("db", "delete", thread, "-y")).code == 3
        assert await world.store.effects(thread) == []
        away = Cli(world, TEMPORAL_ADDRESS="127.0.0.1:1")
        await test_upgrade.thread(world.store, "alone")
        done = await away("db", "delete", "alone", "-y")
        assert (done.code, "can't be known" in done.err) == (0, True)


async def test_size_and_keys(make_world: MakeWorld) -> None:
    """How much there is; and a key that PERDURE_KEYS takes."""
    async with make_world(clerk.app, clerk.script) as world:
        cli, thread = Cli(world), await paid(world)
        sizes = await cli.json("db", "size")
        assert sizes["rows"]["checkpoints"] == len(await contents(world, thread))
        assert sizes["bytes"] > 1_000
        assert "checkpoints" in (await cli("db", "size")).out
        key = (await cli.json("db", "keys", "new"))["key"]
        other = (await cli("db", "keys", "new")).out.strip()
        assert key != other
        assert Keyring.parse(f"{key},{other}").current == key.partition(":")[0]


async def test_migrate(make_world: MakeWorld, postgres_url: Callable[[], str]) -> None:
    """A store that isn't there is made, in partitions where the database has them."""
    async with make_world(clerk.app, clerk.script) as world:
        url = postgres_url()
        cli = Cli(world, PERDURE_STORE=url)
        assert (await cli("db", "verify")).code == 1
        assert (await cli.json("db", "migrate", "--partitions", "4"))["applied"]
        assert (await cli.json("db", "migrate", "--partitions", "4"))["applied"] == []
        assert (await cli("db", "migrate", "--partitions", "8")).code != 0
        assert (await cli("db", "verify")).code == 0
