"""What the command line refuses: with which exit code, in which words, and that nothing was written.

Long: one table of everything that can be typed wrongly.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from perdure import errors
from perdure.contracts import WORKFLOW, ThreadInput
from perdure.errors import InvalidInput, PerdureError
from perdure.starters.cli import run
from perdure.starters.cli.defaults import find_place
from perdure.workers.dev_record import DevRecord
from tests.clerk import app, holds, script
from tests.cli import Cli, Done
from tests.conftest import MakeWorld
from tests.world import World, eventually

APP = ("--app", "tests.clerk:app")
AT_ONCE = 4  # commands at the same time: each is a process that imports for half a second


class Case:
    """A command that fails: its exit code, and words of its message. ``{name}`` stands for one of the threads."""

    def __init__(self, code: int, words: str, *arguments: str) -> None:
        self.code = code
        self.words = words
        self.arguments = arguments

    async def check(self, cli: Cli, room: asyncio.Semaphore, threads: dict[str, str]) -> None:
        """Run it: the code, one line on standard error, nothing on standard output, no traceback."""
        arguments = [re.sub(r"^\{(\w+)\}$", lambda name: threads[name[1]], each) for each in self.arguments]
        async with room:
            done = await cli(*arguments)
        assert (done.code, done.out) == (self.code, ""), (arguments, done)
        told = _told(done)
        assert self.words in told, (arguments, done)


USAGE = [
    Case(2, "either a message or an input", "start", "clerk"),
    Case(2, "either a message or an input", "start", "clerk", "-m", "hello", "--input", '{"title": "x"}'),
    Case(2, "The message is empty", "start", "clerk", "-m", " "),
    Case(2, "The input is no JSON", "start", "clerk", "--input", '{"title": '),
    Case(2, "names no channels", "start", "clerk", "--input", "[1]"),
    Case(2, "names no channels", "start", "clerk", "--input", "{}"),
    Case(2, "'two words' is no thread id", "start", "clerk", "-m", "hello", "-t", "two words"),
    Case(2, "'-x' is no thread id", "start", "clerk", "-m", "hello", "--thread=-x"),
    Case(2, "Desk.nope, which doesn't exist", "start", "clerk", "--input", '{"nope": 1}', *APP),
    Case(2, "Desk.title takes str, not this int", "start", "clerk", "--input", '{"title": 5}', *APP),
    Case(2, "Desk.title takes str, not this int", "send", "{idle}", "--input", '{"title": 5}', *APP),
    Case(2, "Give a message", "send", "{idle}"),
    Case(2, "'asleep' is no status. There are: idle, running", "list", "--status", "asleep"),
    Case(2, "--limit", "list", "--limit", "0"),
    Case(2, "stands alone", "state", "{idle}", "--at", "x", "--blob", "y"),
    Case(2, "no channel 'nope'", "state", "{idle}", "--channel", "nope"),
    Case(2, "not of the form KEY=VALUE", "history", "{idle}", "--where", "nope"),
    Case(2, "not of the form KEY=VALUE", "find", "=nope"),
    Case(2, "Which checkpoints?", "diff", "{idle}"),
    Case(2, "three checkpoints", "diff", "one@1", "two@2", "3"),
    Case(2, "the value is no JSON", "fork", "{idle}", "--set", "title=Tea"),
    Case(2, "the value is no JSON", "update", "{idle}", "--set", "title=NaN"),
    Case(2, "not of the form KEY=VALUE", "update", "{idle}", "--set", "title"),
    Case(2, "both set and appended to", "update", "{idle}", "--set", "notes=[]", "--append", "notes=[]"),
    Case(2, "nothing to write", "update", "{idle}"),
    Case(2, "Desk.nope, which doesn't exist", "fork", "{idle}", "--set", "nope=1", *APP),
    Case(2, "Desk.title takes str, not this int", "fork", "{idle}", "--set", "title=5", *APP),
    Case(2, "Desk.title takes str, not this int", "update", "{idle}", "--set", "title=5", *APP),
    Case(2, "Desk.notes takes", "update", "{idle}", "--append", 'notes="x"', *APP),
    Case(2, "goes nowhere", "fork", "{idle}", "--hold", "-m", "hello"),
    Case(2, "'two words' is no thread id", "fork", "{idle}", "-t", "two words"),
    Case(2, "is the head already", "rewind", "{idle}", "--to", "head", "-y"),
    Case(2, "is the head already", "rewind", "{idle}", "--to", "1", "--plan"),
    Case(2, "'--to'", "rewind", "{idle}"),
    Case(2, "text or as JSON", "answer", "{idle}", "--as", "ann"),
    Case(2, "The answer is no JSON", "answer", "{idle}", "--as", "ann", "--input", "yes"),
    Case(2, "'--as'", "answer", "{idle}", "-m", "yes"),
    Case(2, "Who holds it?", "lease", "{idle}", "acquire"),
    Case(2, "Which lease?", "lease", "{idle}", "renew"),
    Case(2, "up to 86,400 seconds", "lease", "{idle}", "acquire", "--as", "ann", "--seconds", "0"),
    Case(2, "'steal'", "lease", "{idle}", "steal", "--as", "ann"),
    Case(2, "more --steps or more --tokens", "extend", "{idle}"),
    Case(2, "stream", "watch", "{idle}", "-o", "json"),
    Case(2, "Which app?", "graph", "clerk"),
    Case(2, "can't be imported", "graph", "clerk", "--app", "no_such_module:app"),
    Case(2, "is no App", "graph", "clerk", "--app", "tests.clerk:no_app"),
    Case(2, "'--reason'", "reject", "{twice}", "a1", "--as", "ann"),
    Case(2, "'--as'", "approve", "{twice}", "a1"),
    Case(2, "one of --done, --not-done and --ask", "resolve", "{idle}", "key", "--as", "me"),
    Case(2, "one of --done, --not-done and --ask", "resolve", "{idle}", "key", "--done", "--ask", "--as", "me"),
    Case(2, "'--as'", "resolve", "{idle}", "key", "--done"),
    Case(2, "more than anybody reads. Add --open", "effects", "--all"),
    Case(2, "Of which thread?", "effects"),
    Case(2, "Of which thread?", "effects", "{idle}", "--all", "--open"),
    Case(2, "are for --all --open", "effects", "{idle}", "--agent", "clerk"),
    Case(2, "Either a turn or a saga", "compensate", "{idle}", "--turn", "1", "--saga", "trip", "-y"),
    Case(2, "Of one thread everything is shown", "approvals", "{once}", "--watch"),
    Case(2, "Of one thread everything is shown", "approvals", "{once}", "--for", "ann"),
    Case(2, "a stream of documents", "approvals", "--watch", "-o", "json"),
    Case(2, "'soon' is no duration", "approvals", "--older", "soon"),
    Case(2, "the value is no JSON", "approve", "{once}", "a1", "--as", "ann", "--edit", "to=nobody"),
    Case(2, "not of the form KEY=VALUE", "approve", "{once}", "a1", "--as", "ann", "--edit", "to"),
    Case(2, "nowhere.key can't be read", "approve", "{once}", "a1", "--as", "ann", "--key", "nowhere.key"),
    Case(2, "nowhere.key can't be read", "reject", "{once}", "--as", "ann", "--reason", "no", "--key", "nowhere.key"),
    Case(2, "'--as'", "promote", "{idle}", "{once}"),
    Case(2, "No such command 'strat'. Did you mean", "strat"),
    Case(2, "No such option: --verbose. See `perdure list --help`", "list", "--verbose"),
    Case(2, "Missing command", "db"),
    Case(2, "names no store", "db", "verify", "--store", "nonsense://"),
    Case(2, "--output", "list", "-o", "yaml"),
    Case(2, "Temporal's configuration can't be read", "list", "--profile", "nobody"),
]
NOT_FOUND = [
    *(
        Case(3, "There is no thread nobody", command, "nobody")
        for command in ("status", "watch", "approvals", "cancel")
    ),
    *(Case(3, "There is no thread nobody", command, "nobody") for command in ("effects", "close")),
    Case(3, "There is no thread nobody", "send", "nobody", "-m", "hello"),
    Case(3, "There is no thread nobody", "extend", "nobody", "--steps", "1"),
    Case(3, "There is no thread nobody", "compensate", "nobody", "-y"),
    Case(3, "There is no thread nobody", "approve", "nobody", "a1", "--as", "ann"),
    Case(3, "There is no thread nobody", "resolve", "nobody", "key", "--done", "--as", "me"),
    Case(3, "The store has no thread nobody", "state", "nobody"),
    Case(3, "The store has no thread nobody", "history", "nobody"),
    Case(3, "The store has no thread nobody", "db", "verify", "nobody"),
    Case(3, "The store has no thread nobody", "audit", "nobody"),
    Case(3, "The store has no thread nobody", "diff", "nobody", "--with", "{idle}"),
    Case(3, "The store has no thread nobody", "diff", "{idle}", "--with", "nobody"),
    Case(3, "There is no thread nobody", "promote", "nobody", "{idle}", "--as", "ann", "-y"),
    *(
        Case(3, "The store has no thread nobody", *command)
        for command in (
            ("tree", "nobody"),
            ("diff", "nobody", "0"),
            ("find", "a=1", "-t", "nobody"),
            ("restore", "nobody", "-y"),
            ("fork", "nobody", "--at", "0"),
            ("rewind", "nobody", "--to", "0", "-y"),
        )
    ),
    *(
        Case(3, "There is no thread nobody", *command)
        for command in (
            ("update", "nobody", "--set", "title=1"),
            ("resume", "nobody"),
            ("answer", "nobody", "-m", "x", "--as", "ann"),
            ("lease", "nobody", "acquire", "--as", "ann"),
        )
    ),
    Case(3, "has no checkpoint 'gone'", "state", "{idle}", "--at", "gone"),
    Case(3, "has no checkpoint '7'. Its head is step 1.", "fork", "{idle}", "--at", "7"),
    Case(3, "No turn of it has ended with an answer", "restore", "{once}", "-y"),
    Case(3, "has no checkpoint 'turn:2'", "rewind", "{idle}", "--to", "turn:2", "-y"),
    Case(3, "has no checkpoint 'head~9'", "history", "{idle}", "--before", "head~9"),
    Case(3, "has no checkpoint 'gone'", "update", "{idle}", "--set", 'title="x"', "--expect", "gone"),
    Case(3, "has no open question. Open: none", "answer", "{idle}", "-m", "x", "--as", "ann"),
    Case(3, "has no open question 'q1'", "answer", "{idle}", "q1", "-m", "x", "--as", "ann"),
    Case(3, "has no blob gone", "state", "{idle}", "--blob", "gone"),
    Case(3, "has no open request. Open: none", "approve", "{idle}", "--as", "ann"),
    Case(3, "has no request 'a9'. Open: a1", "approve", "{twice}", "a9", "--as", "ann"),
    Case(3, "has no request 'a9'. Open: a1", "reject", "{twice}", "a9", "--as", "ann", "--reason", "no"),
    Case(3, "no open effect gone", "resolve", "{idle}", "gone", "--done", "--as", "me"),
    Case(3, "There is no agent 'nobody'. Agents: clerk", "start", "nobody", "-m", "hello", *APP),
    Case(3, "There is no agent 'nobody'. Agents: clerk", "graph", "nobody", *APP),
]
CONFLICT = [
    Case(4, "already", "start", "clerk", "-m", "hello", "-t", "{idle}"),
    Case(4, 'a1 (pay(to="x", amount=250.0)), a2 (pay(to="y"', "approve", "{twice}", "--as", "ann"),
    Case(4, "Name one", "reject", "{twice}", "--as", "ann", "--reason", "no"),
    Case(4, "There is a thread", "fork", "{idle}", "-t", "{once}"),
    Case(4, "The head of", "update", "{idle}", "--set", 'title="x"', "--expect", "0"),
]
REFUSED = [
    Case(5, "is closed. Start a new one.", "send", "{closed}", "-m", "hello"),
    Case(5, "is closed: approved by bob", "approve", "{decided}", "a1", "--as", "ann"),
    Case(5, "is closed: approved by bob", "reject", "{decided}", "a1", "--as", "ann", "--reason", "no"),
    Case(5, "Name the request, or pass -y", "approve", "{once}", "--as", "ann"),
    Case(5, "Pass -y", "compensate", "{decided}"),
    Case(5, "No turn of", "cancel", "{idle}"),
    Case(5, "No turn is running", "extend", "{idle}", "--steps", "1"),
    Case(5, "is running", "send", "{strict}", "-m", "hello"),
    Case(5, "Pass -y", "rewind", "{idle}", "--to", "0"),
    Case(5, "Pass -y", "promote", "{idle}", "{once}", "--as", "ann"),
    Case(5, "A turn of", "update", "{strict}", "--set", 'title="x"'),
    Case(5, "A turn of", "resume", "{strict}"),
    Case(5, "Nothing follows the head", "resume", "{idle}"),
    Case(5, "is closed", "rewind", "{closed}", "--to", "0", "-y"),
    Case(5, "is closed", "update", "{closed}", "--set", 'title="x"'),
]


COUNTED_OUT = [
    Case(5, "eve may not decide; approvers: ann, bob.", "approve", "{twice}", "a1", "--as", "eve"),
    Case(5, "eve may not decide", "reject", "{twice}", "a1", "--as", "eve", "--reason", "no"),
    Case(5, "Invalid arguments for pay: amount", "approve", "{twice}", "a1", "--as", "ann", "--edit", "amount=[]"),
]


def _told(done: Done) -> str:
    assert "Traceback" not in done.err
    *shown, told = done.err.splitlines()
    assert told.startswith("perdure: ")
    assert not shown or shown[0].startswith("request"), "only `approve` shows anything before it fails"
    return told


async def written(world: World) -> tuple[int, dict[str, int], dict[str, int]]:
    """Everything a command could write: workflows, events of each thread, rows of the store."""
    workflows = await world.temporal.count_workflows(f"TaskQueue = '{world.settings.task_queue}'")
    return workflows.count, {t: await world.length(t) for t in world.threads}, (await world.store.sizes())["rows"]


@asynccontextmanager
async def town(make_world: MakeWorld) -> AsyncIterator[tuple[World, dict[str, str]]]:
    """A world with a thread in every state that matters here."""
    async with make_world(app, script) as world:
        idle = await _answered(world, "hello")
        closed = await _answered(world, "hello")
        await world.client.close_thread(closed)
        await world.stands(closed, "closed")
        once, _ = await world.begin("clerk", "pay 250")
        decided, message = await world.begin("clerk", "pay 250")
        twice, _ = await world.begin("clerk", "pay twice")
        strict, _ = await world.begin("strict", "dig")
        for thread, count in ((once, 1), (decided, 1), (twice, 2)):
            await world.opened(thread, count)
        await world.client.decide(decided, "approve", await world.client.request(decided), approver="bob")
        await world.ended(decided, message)
        await holds[strict].arrived()
        yield world, {
            "idle": idle, "closed": closed, "once": once, "decided": decided, "twice": twice, "strict": strict
        }  # fmt: skip
        holds[strict].let_go()
        await world.stands(strict, "idle")


async def _answered(world: World, text: str) -> str:
    thread, message = await world.begin("clerk", text)
    await world.ended(thread, message)
    return thread


@pytest.mark.parametrize(
    "cases", [USAGE, NOT_FOUND, CONFLICT, REFUSED], ids=["usage", "missing", "conflict", "refused"]
)
async def test_errors_change_nothing(make_world: MakeWorld, cases: Sequence[Case]) -> None:
    """Each error has its exit code and says what is wrong; no workflow, no event and no row comes of it."""
    async with town(make_world) as (world, threads):
        before, room = await written(world), asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for case in cases:
                group.create_task(case.check(Cli(world), room, threads))
        assert await written(world) == before


async def test_decisions_that_do_not_count(make_world: MakeWorld) -> None:
    """A decision that the thread refuses is written down, a line of the audit each; nothing else comes of it."""
    async with town(make_world) as (world, threads):
        _, _, before = await written(world)
        waiting = (await world.client.approvals(threads["twice"])).open
        for case in COUNTED_OUT:
            await case.check(Cli(world), asyncio.Semaphore(), threads)
        assert (await world.client.approvals(threads["twice"])).open == waiting
        await eventually(
            lambda: world.store.sizes(),
            lambda sizes: sizes["rows"] == before | {"audit": before["audit"] + len(COUNTED_OUT)},
        )


async def test_an_unknown_agent_without_the_app(make_world: MakeWorld) -> None:
    """Where only the worker knows the app it refuses: nothing is in the store, and the same id can be used again."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        before = (await world.store.sizes())["rows"]
        done = await cli("start", "nobody", "-m", "hello", "-t", thread)
        assert (done.code, done.out) == (3, "")
        assert "Agents: clerk, frugal, strict" in _told(done)
        assert (await world.store.sizes())["rows"] == before
        assert (await cli("start", "clerk", "-m", "hello", "-t", thread, "--wait")).out == "Good day.\n"


async def test_what_only_the_worker_can_see(make_world: MakeWorld) -> None:
    """What the worker refuses after a look at its app or its ledger leaves no row in the store either."""
    async with make_world(app, script) as world:
        thread, room = await _answered(world, "hello"), asyncio.Semaphore()
        before = (await world.store.sizes())["rows"]
        for case in (
            Case(2, "Desk.title takes str, not this int", "send", thread, "--input", '{"title": 5}'),
            Case(5, "nothing to undo", "compensate", thread, "-y"),
            Case(5, "nothing to undo", "compensate", thread, "--saga", "trip", "-y"),
            Case(3, "There is no thread nobody", "promote", thread, "nobody", "--as", "ann", "-y"),
            Case(5, "is no dry run of", "promote", thread, thread, "--as", "ann", "-y"),
        ):
            await case.check(Cli(world), room, {})
        assert (await world.store.sizes())["rows"] == before


async def test_a_turn_that_fails(make_world: MakeWorld) -> None:
    """With --wait a failed turn is exit code 1; in JSON the document is there all the same."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        done = await cli("start", "clerk", "-m", "stumble", "-t", thread, "--wait")
        assert (done.code, done.out) == (1, "")
        assert "The floor is wet" in done.err
        done = await cli("send", thread, "-m", "stumble", "--wait", "-o", "json")
        assert (done.code, done.json()["result"]["outcome"]) == (1, "failed")
        assert _told(done).startswith(f"perdure: Turn 2 of {thread} failed: ")


async def test_nobody_serves(make_world: MakeWorld) -> None:
    """Without a worker nothing is sent; nor is a thread waited for whose worker never came."""
    async with make_world(app, script, serve=False) as world:
        cli, thread = Cli(world), world.thread()
        done = await cli("start", "clerk", "-m", "hello", "-t", thread)
        assert (done.code, done.out) == (6, "")
        assert "No worker serves the task queue" in _told(done)
        done = await cli("status", thread)
        assert done.code == 3, "no workflow was started"
        await _abandoned(world, thread)
        try:
            for command in (("status", thread), ("approve", thread, "a1", "--as", "ann"), ("close", thread)):
                done = await cli(*command)
                assert (done.code, done.out) == (6, "")
                assert "`perdure worker` starts one" in _told(done)
        finally:
            await world.handle(thread).terminate()
            world.threads.clear()


async def test_one_silent_thread_hides_no_other(make_world: MakeWorld) -> None:
    """`approvals` shows what it could find, and says which threads didn't answer."""
    async with make_world(app, script) as world:
        thread, _ = await world.begin("clerk", "pay 250")
        await world.opened(thread)
        silent = world.thread()
        await _abandoned(world, silent, queue="nobody-serves-this")
        try:
            done = await Cli(world)("approvals", "-o", "json")
            assert done.code == 6
            assert silent in _told(done)
            assert thread in [item["thread_id"] for item in done.json()]
        finally:
            await world.handle(silent).terminate()
            world.threads.clear()


async def _abandoned(world: World, thread: str, queue: str = "") -> None:
    """A thread whose worker never comes."""
    attributes = TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword("PerdureStatus"), "awaiting_approval"),
            SearchAttributePair(SearchAttributeKey.for_int("PerdurePending"), 1),
        ]
    )
    await world.temporal.start_workflow(
        WORKFLOW, ThreadInput(agent="clerk"), id=thread, task_queue=queue or world.settings.task_queue,
        search_attributes=attributes,
    )  # fmt: skip


async def test_nothing_is_there(make_world: MakeWorld, tmp_path: Path) -> None:
    """No server, no store: exit code 6 and what to do. Looking for a store that isn't there doesn't make one."""
    async with make_world(app, script, serve=False) as world:
        cli, nowhere = Cli(world), tmp_path / "nowhere" / "store.db"
        assert (await cli("db", "verify", "--address", "127.0.0.1:1")).code == 0, "the store needs no Temporal"
        assert (await cli("state", "nobody", "--address", "127.0.0.1:1")).code == 3
        done = await cli("list", "--address", "127.0.0.1:1")
        assert (done.code, done.out) == (6, "")
        assert "No Temporal server answers at 127.0.0.1:1. Start one with `perdure dev`" in _told(done)
        for command in (("state", "nobody"), ("history", "nobody"), ("effects", "nobody"), ("db", "verify")):
            done = await cli(*command, "--store", f"sqlite:///{nowhere}")
            assert (done.code, done.out) == (6, "")
            assert "There is no store" in _told(done)
        assert not nowhere.parent.exists()
        (tmp_path / "notes.txt").write_text("This is no database. " * 100)
        done = await cli("db", "verify", "--store", f"sqlite:///{tmp_path / 'notes.txt'}")
        assert (done.code, done.out) == (6, "")
        (tmp_path / "empty.db").touch()
        done = await cli("db", "verify", "--store", f"sqlite:///{tmp_path / 'empty.db'}")
        assert (done.code, done.out) == (1, "")
        assert "Run `perdure db migrate`" in _told(done)


async def test_the_unexpected_is_short(make_world: MakeWorld) -> None:
    """What we did not foresee is told by its type, without a traceback unless PERDURE_DEBUG=1."""
    async with make_world(app, script, serve=False) as world:
        cli = Cli(world)
        done = await cli("graph", "clerk", "--app", "tests.clerk:broken")
        assert (done.code, done.out) == (1, "")
        assert _told(done).startswith("perdure: RuntimeError: the app is broken")
        cli.environment["PERDURE_DEBUG"] = "1"
        done = await cli("graph", "clerk", "--app", "tests.clerk:broken")
        assert done.code == 1
        assert "Traceback" in done.err


async def test_the_environment_is_checked(make_world: MakeWorld) -> None:
    """A variable that doesn't fit is named."""
    async with make_world(app, script, serve=False) as world:
        done = await Cli(world, PERDURE_HEARTBEAT="often")("list")
        assert (done.code, done.out) == (2, "")
        assert "PERDURE_HEARTBEAT" in _told(done)


async def test_ctrl_c(make_world: MakeWorld) -> None:
    """Interrupted while it waits, a command ends with 130 and no traceback; the thread goes on."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        async with cli.running("start", "clerk", "-m", "dig", "-t", thread, "--wait") as process:
            await holds[thread].arrived()
            process.send_signal(signal.SIGINT)
            out, err = await process.communicate()
        assert (process.returncode, out) == (130, b"")
        assert b"Traceback" not in err
        holds[thread].let_go()
        assert (await world.stands(thread, "idle")).results[-1].answer == "Dug."


async def test_a_reader_that_leaves(make_world: MakeWorld) -> None:
    """`perdure list | head -0` is no reason for a traceback."""
    async with make_world(app, script) as world:
        thread = await _answered(world, "hello")
        async with Cli(world).running("state", thread) as process:
            assert process.stdout is not None
            process.stdout._transport.close()  # type: ignore[attr-defined]
            assert process.stderr is not None
            assert await process.stderr.read() == b""


# ── without a server ─────────────────────────────────────────────────────────────────────────────────────────────


def _all(kind: type[PerdureError]) -> list[type[PerdureError]]:
    found = [kind, *(each for direct in kind.__subclasses__() for each in _all(direct))]
    return [each for each in found if each.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", _all(PerdureError), ids=lambda kind: kind.__name__)
def test_every_error_has_an_exit_code(
    kind: type[PerdureError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error's class decides the exit code, as the tree in perdure.errors says; its message and hint are one line."""

    def fail(**_: object) -> None:
        raise kind("It went wrong.", hint="Do\nthis.")

    monkeypatch.setattr("perdure.starters.cli.defaults.find_place", fail)
    assert run(["list"]) == kind.exit_code
    assert capsys.readouterr() == ("", "perdure: It went wrong. Do this.\n")
    assert kind.exit_code in {1, 2, 3, 4, 5, 6}
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder in which a `perdure dev` of this very process runs."""
    for name in [name for name in os.environ if name.startswith(("PERDURE_", "TEMPORAL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PERDURE_HOME", str(tmp_path))
    _write_record(tmp_path, os.getpid())
    return tmp_path


def _write_record(home: Path, pid: int) -> None:
    record = DevRecord(address="127.0.0.1:4", ui="http://ui", app="dev:app", store="sqlite:///dev.db", pid=pid)
    (home / "dev.json").write_text(record.model_dump_json())


def _place(**options: str) -> tuple[str, str, str, str]:
    place = find_place(**options, environment=os.environ)
    return place.address, place.settings.store, place.settings.app, place.settings.ui


def test_options_go_before_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Option, then environment, then the running `perdure dev`: each value by itself."""
    assert _place() == ("127.0.0.1:4", "sqlite:///dev.db", "dev:app", "http://ui")
    monkeypatch.setenv("PERDURE_STORE", "sqlite:///mine.db")
    assert _place() == ("127.0.0.1:4", "sqlite:///mine.db", "dev:app", "http://ui")
    assert _place(store="sqlite:///now.db", app="now:app") == (
        "127.0.0.1:4", "sqlite:///now.db", "now:app", "http://ui"
    )  # fmt: skip
    assert _place(address="127.0.0.1:4")[1:] == ("sqlite:///mine.db", "dev:app", "http://ui")


def test_another_server_is_not_the_development_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another server is named, the development server's store and app don't apply: it has other threads."""
    assert _place(address="temporal:7233") == ("temporal:7233", "", "", "")
    assert _place(profile="prod") == ("", "", "", "")
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal:7233")
    assert _place() == ("", "", "", "")


@pytest.mark.parametrize("record", ["dead", "half", "absent"])
async def test_a_development_server_that_is_gone(home: Path, record: str) -> None:
    """A record of a process that died, one that can't be read, and none at all: commands go where they always go."""
    if record == "dead":
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()
        _write_record(home, process.pid)
    elif record == "half":
        (home / "dev.json").write_text('{"address": "127.')
    else:
        (home / "dev.json").unlink()
    assert _place() == ("", "", "", "")


def test_a_setting_that_does_not_fit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is named, not the field of a class."""
    monkeypatch.setenv("PERDURE_HEALTH_PORT", "http")
    with pytest.raises(InvalidInput, match="PERDURE_HEALTH_PORT"):
        find_place()
