"""The command line: every command once against a real server, worker and store.

Long: one claim a command.
"""

import json
import os
import re
import signal
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main
from pydantic import BaseModel

from perdure.approvals import ApprovalPolicy, ApprovalRequest, CountedDecision, Edit, Level, RefusedDecision
from perdure.audit import AuditEntry, AuditHead, AuditRow
from perdure.bridges.import_langgraph import Imported
from perdure.budget import Budget, Usage
from perdure.care.prune import PruneReport
from perdure.care.repair import Repaired
from perdure.care.upgrade import Upgraded
from perdure.care.verify import Problem, Report
from perdure.checkpoint import Checkpoint
from perdure.contracts import (
    ApprovalsAnswer,
    Committed,
    LogEntry,
    RewindPlan,
    Rewound,
    Status,
    StatusAnswer,
    TurnResult,
)
from perdure.effects import Effect, EffectStatus, Residue
from perdure.lease import Lease
from perdure.questions import Question
from perdure.starters.branches import Stretch, Tree
from perdure.starters.cli import app as cli
from perdure.starters.cli.agents import Drawing
from perdure.starters.cli.checkpoints import Blob
from perdure.starters.cli.database import Migrated, NewKey, Sizes
from perdure.starters.cli.database.retention import Deleted
from perdure.starters.cli.keys import ApproverKey, NewPair
from perdure.starters.cli.leases import Released
from perdure.starters.cli.messages import Sent
from perdure.starters.cli.threads import Cancelled, Closed
from perdure.starters.cli.travel import Fork, Promoted, Resumed
from perdure.starters.compare import Comparison, SameCall, Side
from perdure.starters.entries import Change, Difference, HistoryEntry, Place
from perdure.starters.inbox import InboxChange, OpenRequest
from perdure.starters.threads import ThreadSummary
from perdure.starters.unsettled import OpenEffect
from perdure.workers.doctor import Check
from tests.clerk import REPORT, app, holds, script
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.world import World, eventually

ROOT = Path(__file__).resolve().parent.parent
START = '{"title": "Tea", "notes": ["one"], "messages": [{"role": "user", "content": "hello"}]}'
ESCAPE = "\x1b"
SHAPES = [
    Sent, TurnResult, Usage, Residue, ThreadSummary, StatusAnswer, LogEntry, Budget, Cancelled, Closed,
    ApprovalsAnswer, OpenRequest, InboxChange, ApprovalRequest, ApprovalPolicy, Level, CountedDecision, Edit,
    RefusedDecision, Question, AuditRow, AuditEntry, AuditHead, NewPair, ApproverKey, Effect, OpenEffect,
    Checkpoint, HistoryEntry, Tree, Stretch, Comparison, Side, SameCall, Place, Difference, Change, RewindPlan,
    Rewound, Committed, Fork, Promoted, Resumed, Lease, Released, Blob, Migrated, Report, Problem, Sizes, Repaired,
    Upgraded, PruneReport, Deleted, Imported, NewKey, Drawing, Check,
]  # fmt: skip


async def paid(world: World) -> str:
    """A thread that has paid 50."""
    thread, message = await world.begin("clerk", "pay 50")
    await world.ended(thread, message)
    return thread


async def asking(world: World, message: str = "pay 250", count: int = 1) -> str:
    """A thread with so many open approvals."""
    thread, _ = await world.begin("clerk", message)
    await world.opened(thread, count)
    return thread


# ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_start_tells_the_thread(make_world: MakeWorld) -> None:
    """Standard output of `start` is the thread's id and nothing else, so a script can take it."""
    async with make_world(app, script) as world:
        cli = Cli(world)
        done = await cli("start", "clerk", "-m", "hello")
        assert done.code == 0
        assert re.fullmatch(r"clerk-[0-9a-f]{8}\n", done.out)
        assert "perdure watch clerk-" in done.err
        thread = world.thread()
        sent = Sent.model_validate(await cli.json("start", "clerk", "-m", "hello", "-t", thread, "--tenant", "acme"))
        assert (sent.thread_id, sent.queued, sent.result) == (thread, 0, None)
        await world.ended(thread, sent.message_id)


async def test_wait_gives_the_answer(make_world: MakeWorld) -> None:
    """With --wait the answer is on standard output; in JSON the whole result of the turn."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        done = await cli("start", "clerk", "-m", "hello", "-t", thread, "--wait")
        assert (done.code, done.out) == (0, "Good day.\n")
        sent = Sent.model_validate(await cli.json("send", thread, "-m", "hello", "--wait"))
        assert isinstance(sent.result, TurnResult)
        assert (sent.result.turn, sent.result.outcome, sent.result.answer) == (2, "answered", "Good day.")


async def test_wait_tells_how_to_answer(make_world: MakeWorld) -> None:
    """With --wait a thread that needs a person is no failure: what it waits for and the commands that answer."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        done = await cli("start", "clerk", "-m", "pay 250", "-t", thread, "--wait")
        assert done.code == 0
        assert 'pay(to="x", amount=250.0)' in done.out
        assert f"perdure approve {thread} a1 --as WHO" in done.out
        other = world.thread()
        sent = Sent.model_validate(await cli.json("start", "clerk", "-m", "pay 250", "-t", other, "--wait"))
        assert sent.status is not None
        assert (sent.status.status, sent.result) == ("awaiting_approval", None)


async def test_an_input_sets_channels(make_world: MakeWorld) -> None:
    """--input starts a thread from channels of the state; `send` takes it along with a message."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world, PERDURE_APP="tests.clerk:app"), world.thread()
        await cli.json("start", "clerk", "--input", START, "-t", thread, "--wait")
        await cli.json("send", thread, "-m", "hello", "--input", '{"notes": ["two"]}', "--wait")
        state = await cli.json("state", thread)
        assert (state["title"], state["notes"]) == ("Tea", ["one", "two"])


async def test_a_message_waits_its_turn(make_world: MakeWorld) -> None:
    """`send` to a busy thread tells how many turns come first."""
    async with make_world(app, script) as world:
        cli = Cli(world)
        thread, _ = await world.begin("clerk", "dig")
        await holds[thread].arrived()
        assert (await cli("send", thread, "-m", "hello")).out == f"{thread}: queued behind 1 turns\n"
        holds[thread].let_go()


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_list(make_world: MakeWorld) -> None:
    """`list` shows threads newest first, whole ids, by agent and status; JSON as an array, or one a line."""
    async with make_world(app, script) as world:
        cli = Cli(world)
        first, second = await asking(world), await asking(world)

        async def listed() -> list[ThreadSummary]:
            found = await cli.json("list", "--agent", "clerk", "--status", "awaiting_approval", "--limit", "1000")
            return [ThreadSummary.model_validate(item) for item in found if item["thread_id"] in (first, second)]

        both = await eventually(listed, lambda found: len(found) == 2)
        assert [thread.thread_id for thread in both] == [second, first]
        assert {(thread.agent, thread.status, thread.pending, thread.open) for thread in both} == {
            ("clerk", "awaiting_approval", 1, True)
        }
        lines = (await cli("list", "--limit", "2", "-o", "jsonl")).lines()
        assert len(lines) == 2
        shown = (await cli("list", "--limit", "1000")).out
        assert re.search(rf"^{second} +clerk +awaiting approval", shown, re.MULTILINE)
        assert await cli.json("list", "--agent", "no-such-agent") == []
        assert (await cli("list", "--agent", "no-such-agent")).out == "No threads.\n"


async def test_status(make_world: MakeWorld) -> None:
    """`status` is the answer of the query; for people it has the commands that answer, and a link into the UI."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world, PERDURE_UI="http://ui.test:8233"), await asking(world)
        answer = StatusAnswer.model_validate(await cli.json("status", thread))
        assert answer == await world.client.status(thread)
        shown = (await cli("status", thread)).out
        assert "awaiting approval" in shown
        assert f"perdure reject {thread} a1 --as WHO --reason TEXT" in shown
        assert f"http://ui.test:8233/namespaces/default/workflows/{thread}" in shown


async def test_watch_follows(make_world: MakeWorld) -> None:
    """`watch` gives a document whenever something changes, and ends when the thread has completed."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        async with cli.running("watch", thread, "-o", "jsonl") as watch:
            assert watch.stdout is not None
            first = StatusAnswer.model_validate_json(await watch.stdout.readline())
            assert first.status == "awaiting_approval"
            assert (await cli("approve", thread, "a1", "--as", "ann")).code == 0
            await world.stands(thread, "idle")
            assert (await cli("close", thread)).code == 0
            out, err = await watch.communicate()
            last = StatusAnswer.model_validate_json(out.splitlines()[-1])
            assert (watch.returncode, last.status, err) == (0, "closed", b"")


async def test_watch_ends_with_ctrl_c(make_world: MakeWorld) -> None:
    """Ctrl-C is how one stops watching: exit code 0, no traceback. On a pipe `watch` prints what is new, as lines."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        async with cli.running("watch", thread) as watch:
            assert watch.stdout is not None
            shown = ""
            while "perdure reject" not in shown:
                shown += (await watch.stdout.readline()).decode()
            watch.send_signal(signal.SIGINT)
            _, err = await watch.communicate()
            assert (watch.returncode, err) == (0, b"")
        assert "message: pay 250" in shown
        assert f"perdure approve {thread} a1 --as WHO" in shown


async def test_state(make_world: MakeWorld) -> None:
    """`state` is the state at the head or at a checkpoint, from the store; --blob a large result, byte by byte."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        newest, *_, oldest = await world.client.history(thread)
        assert await cli.json("state", thread) == await world.client.state(thread, newest.id)
        assert [m["content"] for m in (await cli.json("state", thread, "--at", oldest.id))["messages"]] == ["pay 50"]
        shown = (await cli("state", thread)).out
        assert "user: pay 50\n" in shown
        assert '"paid 50 to x"' in shown

        thread, message = await world.begin("clerk", "report")
        await world.ended(thread, message)
        (told,) = [m["content"] for m in (await cli.json("state", thread))["messages"] if m["role"] == "tool"]
        digest = re.findall("blob ([0-9a-f]{64})", told)[0]
        assert (await cli("state", thread, "--blob", digest)).out == REPORT
        assert await cli.json("state", thread, "--blob", digest) == {"digest": digest, "content": REPORT}


async def test_history(make_world: MakeWorld) -> None:
    """`history` pages through the checkpoints, newest first; its ids are whole, so they can be given to `state`."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        page = [HistoryEntry.model_validate(item) for item in await cli.json("history", thread, "--limit", "2")]
        assert page == (await world.client.history(thread))[:2]
        rest = (await cli("history", thread, "--before", page[-1].id, "-o", "jsonl")).lines()
        assert [item["step"] for item in rest] == [1, 0]
        shown = (await cli("history", thread)).out
        assert all(checkpoint.id in shown for checkpoint in page)


# ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_approvals(make_world: MakeWorld) -> None:
    """Without a thread `approvals` finds what waits anywhere; with one it shows everything about that thread's."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world, "pay twice", 2)

        async def found() -> list[str]:
            waiting = (await cli("approvals", "-o", "json")).json()  # threads of other tests may not answer any more
            return [item["request"]["id"] for item in waiting if item["thread_id"] == thread]

        assert await eventually(found, lambda ids: len(ids) == 2) == ["a1", "a2"]
        assert re.search(rf"^{thread} +a2 +pay\(to=\"y\"", (await cli("approvals")).out, re.MULTILINE)
        assert (await cli("approve", thread, "a1", "--as", "eve")).code == 5
        await cli("reject", thread, "a1", "--as", "ann", "--reason", "too much")
        answer = ApprovalsAnswer.model_validate(await cli.json("approvals", thread))
        assert [request.id for request in answer.open] == ["a2"]
        assert [request.verdict_line() for request in answer.closed] == ["rejected by ann: too much"]
        assert "rejected by ann: too much" in (await cli("approvals", thread)).out


async def test_approve_by_name(make_world: MakeWorld) -> None:
    """Where nobody can be asked, naming the request is the confirmation; what is approved is shown all the same."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        digest = (await world.client.request(thread)).digest
        done = await cli("approve", thread, "a1", "--as", "ann", "--reason", "fine")
        assert (done.code, done.out) == (0, f"Request a1 of {thread}: approved by ann.\n")
        assert [part in done.err for part in ("pay", "250.0", digest, "It is above 100.")] == [True] * 4
        await world.stands(thread, "idle")


async def test_approve_with_yes(make_world: MakeWorld) -> None:
    """-y confirms the only open request without its name; in JSON the request as it stands then."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        request = ApprovalRequest.model_validate(await cli.json("approve", thread, "--as", "bob", "-y"))
        assert (request.outcome, request.decisions[0].approver) == ("approved", "bob")


async def test_approve_on_a_terminal(make_world: MakeWorld) -> None:
    """On a terminal a person sees tool, arguments and digest and is asked; all but yes is no, and changes nothing."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        digest = (await world.client.request(thread)).digest
        for answer in ("\n", "n\n", "maybe\n"):
            done = await cli.on_terminal("approve", thread, "a1", "--as", "ann", types=answer)
            assert (done.code, done.out) == (5, "")
            assert digest in done.err
            assert "Approve a1 as ann? [y/N]" in done.err
        assert [request.id for request in (await world.client.approvals(thread)).open] == ["a1"]
        done = await cli.on_terminal("approve", thread, "--as", "ann", types="y\n")
        assert (done.code, done.out) == (0, f"Request a1 of {thread}: approved by ann.\n")


async def test_reject(make_world: MakeWorld) -> None:
    """The agent is told the reason of a rejection and goes on."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        assert (await cli("reject", thread, "--as", "ann", "--reason", "not now")).code == 0
        status = await world.stands(thread, "idle")
        assert status.results[-1].answer == "Then not."
        (told,) = [m["content"] for m in (await cli.json("state", thread))["messages"] if m["role"] == "tool"]
        assert "not now" in told


async def test_an_approver_sees_what_will_run(make_world: MakeWorld) -> None:
    """Control characters in arguments don't reach the terminal: they could show other arguments than will run."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world, "pay the trickster")
        shown = (await cli.on_terminal("approve", thread, "--as", "ann", types="y\n")).err
        assert r"\u001b[1A\u001b[2Knobody" in shown
        assert f"{ESCAPE}[1A" not in shown
        assert "\u202e" not in shown
        await world.stands(thread, "idle")
        for command in ("status", "state", "effects", "approvals", "history"):
            assert ESCAPE not in (await cli(command, thread)).out
        texts = await cli.json("state", thread)
        assert texts["messages"][-1]["content"] == f"{ESCAPE}[31mPaid."


# ── operating ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_effects_and_compensate(make_world: MakeWorld) -> None:
    """`effects` shows the ledger; `compensate` undoes it after a yes, and reports what is left."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        (effect,) = [Effect.model_validate(item) for item in await cli.json("effects", thread)]
        assert (effect.tool, effect.status, effect.compensation) == ("pay", "done", "refund")
        assert effect.key in (await cli("effects", thread)).out
        no = await cli.on_terminal("compensate", thread, types="n\n")
        assert no.code == 5
        assert effect.key in no.err
        residue = Residue.model_validate(await cli.json("compensate", thread, "--turn", "1", "--as", "me", "-y"))
        assert residue.undone == ('pay(to="x", amount=50.0)',)
        assert [item["status"] for item in await cli.json("effects", thread)] == ["undone"]


async def test_compensate_that_fails(make_world: MakeWorld) -> None:
    """What could not be undone is reported, the exit code says so, and a person may settle it."""
    async with make_world(app, script) as world:
        cli = Cli(world)
        thread, message = await world.begin("clerk", "ship")
        await world.ended(thread, message)
        done = await cli("compensate", thread, "-y", "-o", "json")
        assert (done.code, done.json()["needs_attention"]) == (1, ['ship(what="tea")'])
        assert "Not everything" in done.err
        (effect,) = await cli.json("effects", thread)
        settled = Effect.model_validate(
            await cli.json("resolve", thread, effect["key"], "--not-done", "--as", "me", "--reason", "it came back")
        )
        assert (settled.status, settled.settled_by) == ("undone", "me")
        await world.stands(thread, "idle")


async def test_what_is_unsettled_is_not_forgotten(make_world: MakeWorld) -> None:
    """What a person has to settle shows, and can be settled, also when Temporal has forgotten the thread."""
    async with make_world(app, script) as world:
        cli = Cli(world)
        thread, message = await world.begin("clerk", "ship")
        await world.ended(thread, message)
        assert (await cli("compensate", thread, "-y")).code == 1
        await world.forget(thread)
        (effect,) = await cli.json("effects", thread)
        shown = (await cli("status", thread)).out
        assert "needs attention" in shown
        assert f"perdure resolve {thread} {effect['key']} --done|--not-done --as WHO" in shown
        assert (await cli.json("resolve", thread, effect["key"], "--done", "--as", "me"))["status"] == "done"
        assert (await cli.json("status", thread))["status"] == "idle"


async def test_resolve(make_world: MakeWorld) -> None:
    """An effect in doubt shows with the command that settles it; then the turn goes on."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        shown = (await cli("start", "clerk", "-m", "launch", "-t", thread, "--wait")).out
        (effect,) = await cli.json("effects", thread)
        assert f"perdure resolve {thread} {effect['key']} --done|--not-done --as WHO" in shown
        done = await cli("resolve", thread, effect["key"], "--done", "--as", "me", "--reason", "I saw it")
        assert done.code == 0
        assert effect["key"] in done.out
        assert (await world.stands(thread, "idle")).results[-1].answer == "Launched."


async def test_cancel(make_world: MakeWorld) -> None:
    """`cancel` stops the running turn."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await asking(world)
        told = await cli.json("cancel", thread, "--reason", "changed my mind", "--no-compensate", "--as", "me")
        assert told == {"thread_id": thread, "turn": 1, "compensate": False}
        status = await world.stands(thread, "idle")
        assert (status.results[-1].outcome, "changed my mind" in status.results[-1].error) == ("cancelled", True)


async def test_extend(make_world: MakeWorld) -> None:
    """A turn that ran out of budget shows how to go on, and goes on."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), world.thread()
        shown = (await cli("start", "frugal", "-m", "pay 50", "-t", thread, "--wait")).out
        assert f"perdure extend {thread} --steps" in shown
        assert Budget.model_validate(await cli.json("extend", thread, "--steps", "5", "--as", "me")) == Budget(steps=6)
        assert (await world.stands(thread, "idle")).results[-1].answer == "Paid."


async def test_close(make_world: MakeWorld) -> None:
    """A closed thread takes no more messages; what it was can still be looked at."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        assert await cli.json("close", thread) == {"thread_id": thread, "closed": True}
        assert (await cli("send", thread, "-m", "hello")).code == 5
        assert (await cli.json("status", thread))["status"] == "closed"


async def test_what_temporal_has_forgotten(make_world: MakeWorld) -> None:
    """A thread whose history is gone is whole in the store: its state, its checkpoints, its ledger; and it goes on."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        await world.forget(thread)
        assert (await cli.json("state", thread))["notes"] == ["paid 50 to x"]
        assert len(await cli.json("history", thread)) == 4
        assert [item["status"] for item in await cli.json("effects", thread)] == ["done"]
        assert StatusAnswer.model_validate(await cli.json("status", thread)).status == "idle"
        assert (await cli("watch", thread)).code == 0
        assert (await cli("send", thread, "-m", "hello", "--wait")).out == "Good day.\n"


# ── around ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_graph(make_world: MakeWorld) -> None:
    """`graph` draws an agent without asking anybody; what the app's module prints stays out of the document."""
    async with make_world(app, script, serve=False) as world:
        (world.settings.home / "talkative.py").write_text("print('imported')\nfrom tests.clerk import app\n")
        cli = Cli(world, TEMPORAL_ADDRESS="127.0.0.1:1", PYTHONPATH=str(world.settings.home))
        assert (await cli("graph", "clerk", "--app", "tests.clerk")).out.startswith("flowchart TD\n")
        drawing = await cli.json("graph", "clerk", "--app", "talkative:app")
        assert (drawing["name"], drawing["mermaid"].splitlines()[0]) == ("clerk", "flowchart TD")
        assert drawing["nodes"]["tools"]["routes"] == {"done": ["model"]}
        drawn = (await cli("graph", "clerk", "--app", "tests.clerk", "--format", "terminal")).out
        assert drawn.splitlines()[1:2] == ["│ start          │─╮"]


async def test_db(make_world: MakeWorld, tmp_path: Path) -> None:
    """`db migrate` makes a store and then has nothing to do; `db verify` counts what it found right."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        fresh = f"sqlite:///{tmp_path / 'fresh' / 'store.db'}"
        assert (await cli.json("db", "migrate", "--store", fresh))["applied"]
        assert (await cli.json("db", "migrate", "--store", fresh)) == {"store": fresh, "applied": []}
        assert Report.model_validate(await cli.json("db", "verify", "--store", fresh)) == Report(store=fresh)
        report = Report.model_validate(await cli.json("db", "verify", thread))
        assert (report.threads, report.checkpoints, report.effects, report.problem) == (1, 4, 1, None)
        assert "4 checkpoints" in (await cli("db", "verify")).out


async def test_a_second_terminal_just_works(make_world: MakeWorld) -> None:
    """Beside a running `perdure dev`, commands find its server, store, app and UI by themselves."""
    async with make_world(app, script) as world:
        cli, thread = Cli(world), await paid(world)
        record = {
            "address": cli.environment.pop("TEMPORAL_ADDRESS"), "store": cli.environment.pop("PERDURE_STORE"),
            "app": "tests.clerk:app", "ui": "http://ui.test", "pid": os.getpid(),
        }  # fmt: skip
        (world.settings.home / "dev.json").write_text(json.dumps(record))
        assert "http://ui.test/namespaces/default/workflows/" in (await cli("status", thread)).out
        assert (await cli.json("state", thread))["notes"] == ["paid 50 to x"]
        assert (await cli("graph", "clerk")).code == 0


async def test_help_is_quick() -> None:
    """Help imports neither Temporal's SDK nor a database's driver nor the model's client."""
    code = (
        "import sys\nfrom perdure.starters.cli import run\n"
        "assert run(['--help']) == run(['start', '--help']) == 0\n"
        "slow = {'temporalio', 'sqlite3', 'openai', 'httpx2', 'structlog'} & set(sys.modules)\n"
        "assert not slow, slow"
    )
    process = await create_subprocess_exec(sys.executable, "-c", code, stdout=PIPE, stderr=PIPE)
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"approve" in out


PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_json_shapes_are_documented(shape: type[BaseModel]) -> None:
    """docs/cli.md has a section for each shape that -o json prints, and in it every field."""
    section = re.search(rf"^### {shape.__name__}\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    assert [name for name in shape.model_fields if f"`{name}`" not in section[1]] == []


@pytest.mark.parametrize("status", [*get_args(Status), *get_args(EffectStatus)])
def test_statuses_are_documented(status: str) -> None:
    """docs/cli.md names every status of a thread and of an effect."""
    assert f"`{status}`" in PAGE


def test_options_are_documented() -> None:
    """docs/cli.md has every command, and every option of those that talk to threads."""
    known = typer.main.get_group(cli).commands
    nouns = {**known, **{f"db {name}": each for name, each in known["db"].commands.items()}}  # type: ignore[attr-defined]
    assert [name for name in nouns if f"`perdure {name}" not in PAGE and name != "db"] == []
    options = {option for name, each in nouns.items() if name not in ("demo", "dev") for option in _options(each)}
    assert [option for option in sorted(options - {"--help", "-h"}) if f"`{option}" not in PAGE] == []


def _options(command: Any) -> list[str]:
    return [name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")]
