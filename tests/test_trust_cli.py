"""Trust on the command line: decisions, the inbox, the audit, the ledger and dry runs, against real parts.

Long: one claim a command.
"""

import asyncio
import os
import pty
import re
import shlex
import signal
import sqlite3
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest

from perdure.approvals import ApprovalRequest
from perdure.audit import AuditRow
from perdure.effects import Effect, Residue
from perdure.security.signing import SigningKey
from perdure.starters.cli.travel import Fork, Promoted
from perdure.starters.compare import Comparison
from perdure.starters.inbox import InboxChange, OpenRequest
from perdure.starters.unsettled import OpenEffect
from tests.cli import Cli, Done
from tests.conftest import MakeWorld
from tests.programs import PERDURE
from tests.teller import app, script, witness
from tests.world import World, eventually


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """A world of tellers."""
    async with make_world(app, script) as made:
        yield made


async def asking(world: World, message: str, *, agent: str = "teller", **whose: str) -> str:
    """A thread that waits for an approval."""
    thread, _ = await world.client.start(agent, message, thread=world.thread(), **whose)  # type: ignore[arg-type]
    await world.opened(thread)
    return thread


async def told(world: World, *messages: str) -> str:
    """A thread that has answered these messages, or waits for a person."""
    thread, accepted = await world.client.start("teller", messages[0], thread=world.thread(), tenant="acme")
    await world.client.wait(thread, accepted.message_id)
    for message in messages[1:]:
        await world.client.wait(thread, (await world.client.send(thread, message)).message_id)
    return thread


# ── decisions ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_edit_is_shown_and_runs(world: World) -> None:
    """--edit shows what was and what will be; the tool runs once, with that; the request tells who changed what."""
    cli, thread = Cli(world), await asking(world, "pay 250")
    done = await cli("approve", thread, "a1", "--as", "ann", "--edit", "amount=80", "--reason", "enough")
    assert (done.code, done.out) == (0, f"Request a1 of {thread}: approved by ann.\n")
    assert re.search(r"^ +amount +250\.0 → 80$", done.err, re.MULTILINE)
    await world.stands(thread, "idle")
    assert witness.of(thread) == ["pay x 80"]
    (request,) = (await world.client.approvals(thread)).closed
    assert [(edit.by, edit.changes) for edit in request.edits] == [("ann", {"amount": (250.0, 80.0)})]
    assert "ann: amount 250.0 → 80.0" in (await cli("approvals", thread)).out


async def test_an_edit_of_which_the_tool_knows_nothing(world: World) -> None:
    """What the tool doesn't take changes nothing: exit code 5, and the request waits as before."""
    cli, thread = Cli(world), await asking(world, "pay 250")
    for edit in ("amuont=80", 'amount="much"'):
        done = await cli("approve", thread, "a1", "--as", "ann", "--edit", edit)
        assert (done.code, done.out) == (5, "")
    (request,) = (await world.client.approvals(thread)).open
    assert (request.arguments["amount"], request.edits, witness.of(thread)) == (250.0, (), [])


async def test_who_must_approve_now(world: World) -> None:
    """Where duties are separated, whoever asked or edited can't approve; it is said who must, and how many have."""
    cli, thread = Cli(world), world.thread()
    await cli.json("start", "teller", "-m", "wire", "-t", thread, "--as", "zoe", "--wait")
    done = await cli("approve", thread, "a1", "--as", "ann")
    assert (done.code, done.out) == (
        0, f"Request a1 of {thread}: 1 of 2 have said yes; it waits for bob.\n"
    )  # fmt: skip
    assert [re.search(rf"^{name} +{text}", done.err, re.MULTILINE) is not None for name, text in (
        ("asked by", "zoe"), ("who", r"ann, bob \(0 of 2\)"), ("but", "not whoever asked for it or changed it"),
        ("reason", "Four eyes."), ("until", ".* then carl may decide too"),
    )] == [True] * 5  # fmt: skip
    done = await cli("approve", thread, "a1", "--as", "bob", "--edit", "amount=90")
    assert done.out == (
        f"Request a1 of {thread}: it is changed, and 0 of 2 have said yes; it waits for ann.\n"
    )  # fmt: skip
    done = await cli("approve", thread, "a1", "--as", "bob")
    assert (done.code, "bob asked for this call" in done.err) == (5, True)
    await world.forward(thread, timedelta(hours=25))
    shown = (await cli("approve", thread, "a1", "--as", "carl")).err
    assert re.search(r"^who +ann, bob, carl \(0 of 2, escalated 1 of 1\)", shown, re.MULTILINE)
    assert re.search(r"^changed +by bob, .*: amount 900\.0 → 90\.0$", shown, re.MULTILINE)
    assert (await cli("approve", thread, "a1", "--as", "ann")).code == 0
    await world.stands(thread, "idle")
    assert witness.of(thread) == ["wire y 90 by carl+ann"]


async def test_the_sender_of_a_message_can_be_named(world: World) -> None:
    """--as of `send` names who asks for the turn, and so can't approve what the turn wants."""
    cli, thread = Cli(world), await told(world, "hello")
    await cli.json("send", thread, "-m", "wire", "--as", "ann", "--wait")
    done = await cli("approve", thread, "a1", "--as", "ann")
    assert (done.code, "ann asked for this call" in done.err) == (5, True)


# ── signatures ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A folder with the keys of ann and bob; their public halves are those that count."""
    for name in ("ann", "bob"):
        SigningKey.new(name).save(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
async def signing(make_world: MakeWorld, keys: Path) -> AsyncIterator[World]:
    """A world in which only signed decisions count."""
    async with make_world(app, script, approver_keys=keys) as made:
        yield made


async def test_only_signed_decisions_count(signing: World, keys: Path) -> None:
    """Without a key nothing is sent; a foreign one is refused; the right one approves, and is shown as signed."""
    cli, thread = Cli(signing), await asking(signing, "pay 250")
    for verdict in (("approve",), ("reject", "--reason", "no")):
        done = await cli(verdict[0], thread, "a1", "--as", "ann", *verdict[1:])
        assert (done.code, "Sign it with --key FILE." in done.err) == (5, True)
    assert (await signing.client.approvals(thread)).refused_decisions == ()
    done = await cli("approve", thread, "a1", "--as", "ann", "--key", str(keys / "bob.key"))
    assert (done.code, "not a signature of ann" in done.err) == (5, True)
    request = await cli.json("approve", thread, "a1", "--as", "ann", "--key", str(keys / "ann.key"))
    assert ApprovalRequest.model_validate(request).outcome == "approved"
    await signing.stands(thread, "idle")
    assert witness.of(thread) == ["pay x 250"]
    assert re.search(r"decision counted +a1 .* ann \(signed\)", (await cli("audit", thread)).out)


async def test_a_signed_rejection(signing: World, keys: Path) -> None:
    """A rejection is signed like an approval."""
    cli, thread = Cli(signing), await asking(signing, "pay 250")
    done = await cli("reject", thread, "--as", "bob", "--key", str(keys / "bob.key"), "--reason", "no")
    assert (done.code, done.out) == (0, f"Request a1 of {thread}: rejected by bob: no.\n")
    await signing.stands(thread, "idle")
    assert witness.of(thread) == []


async def test_a_signed_edit_is_approved_in_a_second_step(signing: World, keys: Path) -> None:
    """A signature is for what was signed: the edited call is fetched, shown, and signed by the same person."""
    cli, thread = Cli(signing), await asking(signing, "pay 250")
    key = ("--key", str(keys / "ann.key"))
    done = await cli("approve", thread, "a1", "--as", "ann", *key, "--edit", "amount=120")
    assert (done.code, done.out) == (0, f"Request a1 of {thread}: approved by ann.\n")
    assert [re.search(text, done.err, re.MULTILINE) is not None for text in (
        r"^ +amount +250\.0 → 120$", r"^ +amount +120\.0$", r"^signed +only signed decisions count",
    )] == [True] * 3  # fmt: skip
    await signing.stands(thread, "idle")
    assert witness.of(thread) == ["pay x 120"]


async def test_what_came_out_otherwise_is_not_signed(signing: World, keys: Path) -> None:
    """Where nobody can be asked, only what was written is signed: not what the tool has made of it."""
    cli, thread = Cli(signing), await asking(signing, "pay 250")
    command = ("approve", thread, "a1", "--as", "ann", "--key", str(keys / "ann.key"))
    done = await cli(*command, "--edit", 'amount="120"')
    assert (done.code, done.out) == (5, "")
    assert "Request a1 is changed, not approved: its tool takes the arguments otherwise" in done.err
    (request,) = (await signing.client.approvals(thread)).open
    assert (request.arguments["amount"], request.approvals()) == (120.0, 0)
    assert (await cli(*command, "--edit", 'amount="130"', "-y")).code == 0
    await signing.stands(thread, "idle")
    assert witness.of(thread) == ["pay x 130"]


async def test_a_second_yes_is_asked_for_on_a_terminal(signing: World, keys: Path) -> None:
    """A person is asked twice: before the edit, and before what it came to. A no in between leaves it changed only."""
    cli, thread = Cli(signing), await asking(signing, "pay 250")
    command = ("approve", thread, "a1", "--as", "ann", "--key", str(keys / "ann.key"))
    done = await cli.on_terminal(*command, "--edit", "amount=120", types="y\nn\n")
    assert (done.code, done.out) == (5, "")
    assert "Change a1 so, and approve it as ann? [y/N]" in done.err
    assert "Approve a1 as it is now, as ann? [y/N]" in done.err
    assert "You said no; request a1 is changed, and not approved by you." in done.err
    (request,) = (await signing.client.approvals(thread)).open
    assert (request.arguments["amount"], request.approvals()) == (120.0, 0)
    assert (await cli.on_terminal(*command, types="y\n")).code == 0
    await signing.stands(thread, "idle")
    assert witness.of(thread) == ["pay x 120"]


# ── the inbox ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_filters_of_the_inbox(world: World) -> None:
    """By agent, tenant, age, and by what a person may still decide; filters leave out, and change nothing."""
    cli, mark = Cli(world), f"m-{world.thread()}"
    paying = await asking(world, "pay 250", tenant=mark)
    wiring = await asking(world, "wire", agent="cashier", tenant=mark, sender="bob")

    async def found(*options: str) -> set[str]:
        done = await cli("approvals", "--tenant", mark, *options, "-o", "json")
        return {OpenRequest.model_validate(item).thread_id for item in done.json()}

    await eventually(found, lambda threads: threads == {paying, wiring})
    assert await found("--agent", "cashier") == {wiring}
    assert await found("--for", "ann") == {paying, wiring}
    assert await found("--for", "bob") == {paying}, "bob asked for the other"
    assert await found("--for", "carl") == set(), "not before it is escalated"
    assert await found("--older", "2h") == set()
    assert await found("--older", "10ms") == {paying, wiring}
    assert (await cli("approve", wiring, "a1", "--as", "ann")).code == 0
    assert await found("--for", "ann") == {paying}, "she has decided"
    assert re.search(rf"^{wiring} +a1 .*ann, bob \(1 of 2\)", (await cli("approvals", "--tenant", mark)).out, re.M)


class Watching:
    """`perdure approvals --watch` that runs, as a stream of changes."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def next(self) -> InboxChange:
        """The next change."""
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            return InboxChange.model_validate_json(await self._process.stdout.readline())

    async def stop(self) -> tuple[int | None, bytes, bytes]:
        """Ctrl-C; exit code and what came after what was read."""
        self._process.send_signal(signal.SIGINT)
        out, err = await self._process.communicate()
        return self._process.returncode, out, err


async def test_the_inbox_follows(world: World) -> None:
    """--watch tells each change once: what opened, was decided on, edited, escalated, closed. Ctrl-C is exit code 0."""
    cli, mark = Cli(world), f"m-{world.thread()}"
    thread = await asking(world, "wire", tenant=mark, sender="zoe")
    command = ("approvals", "--watch", "--tenant", mark, "--every", "50ms", "-o", "jsonl")
    async with cli.running(*command) as process:
        watching = Watching(process)
        opened = await watching.next()
        assert opened.item is not None
        assert (opened.kind, opened.thread_id, opened.item.tenant) == ("opened", thread, mark)
        assert (await cli("approve", thread, "a1", "--as", "ann")).code == 0
        decided = await watching.next()
        assert decided.item is not None and decided.item.request is not None
        assert (decided.kind, decided.item.request.approvals()) == ("changed", 1)
        await world.forward(thread, timedelta(hours=25))
        escalated = await watching.next()
        assert escalated.item is not None
        assert (escalated.kind, escalated.item.level) == ("escalated", 1)
        assert (await cli("approve", thread, "a1", "--as", "carl")).code == 0
        closed = await watching.next()
        assert closed.item is not None and closed.item.request is not None
        assert (closed.kind, closed.item.request.outcome) == ("closed", "approved")
        assert await watching.stop() == (0, b"", b"")


async def test_the_inbox_of_a_person(world: World) -> None:
    """--for follows what becomes theirs: an escalation brings it in, their own decision takes it out."""
    cli, mark = Cli(world), f"m-{world.thread()}"
    thread = await asking(world, "wire", tenant=mark, sender="zoe")
    async with cli.running("approvals", "--watch", "--tenant", mark, "--for", "carl", "--every", "50ms") as process:
        first = asyncio.ensure_future(_line(process))
        await world.forward(thread, timedelta(hours=25))
        assert re.search(rf" (opened|escalated) {thread} a1 wire.*: ann, bob, carl ", await first)
        assert (await cli("approve", thread, "a1", "--as", "carl")).code == 0
        assert f" changed {thread} a1 wire" in await _line(process)
        assert (await cli("approve", thread, "a1", "--as", "ann")).code == 0
        await world.stands(thread, "idle")
        assert await Watching(process).stop() == (0, b"", b""), "what is no longer theirs is told no more"


async def _line(process: Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode()


async def test_threads_that_do_not_answer_are_in_the_inbox(make_world: MakeWorld) -> None:
    """A thread whose worker is gone is told as silent, once, and its request stays; then that it answers again."""
    async with make_world(app, script, serve=False) as world:
        cli, mark = Cli(world), f"m-{world.thread()}"
        async with cli.running(
            "approvals", "--watch", "--tenant", mark, "--every", "50ms", "-o", "jsonl"
        ) as process:  # fmt: skip
            watching = Watching(process)
            async with world.worker():
                thread = await asking(world, "pay 250", tenant=mark)
                assert (await watching.next()).kind == "opened"
            silent = await watching.next()
            assert (silent.kind, silent.thread_id, silent.item) == ("silent", thread, None)
            assert "perdure worker" in silent.error
            async with world.worker():
                assert (await watching.next()).kind == "answers"
                assert (await cli("reject", thread, "--as", "ann", "--reason", "no")).code == 0
                closed = await watching.next()
                assert closed.item is not None and closed.item.request is not None
                assert (closed.kind, closed.item.request.outcome) == ("closed", "rejected")
                await world.stands(thread, "idle")


async def test_the_inbox_on_a_terminal(world: World) -> None:
    """On a terminal the inbox is drawn as a table, and drawn again."""
    cli, mark = Cli(world), f"m-{world.thread()}"
    thread = await asking(world, "pay 250", tenant=mark)
    async with on_screen(cli, "approvals", "--watch", "--tenant", mark, "--every", "50ms") as shows:
        await shows(thread)
        assert (await cli("approve", thread, "a1", "--as", "ann")).code == 0
        await shows("Nothing waits for an approval.")
    await world.stands(thread, "idle")


@asynccontextmanager
async def on_screen(cli: Cli, *arguments: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """A command that draws on a terminal, until Ctrl-C; waits until something is shown that wasn't before."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        PERDURE, *arguments, env=cli.environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)

    async def shows(text: str) -> None:
        seen = ""
        async with asyncio.timeout(20):
            while text not in seen:
                seen += (await asyncio.to_thread(os.read, ours, 65_536)).decode()

    try:
        yield shows
    finally:
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
        os.close(ours)


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────────


async def decided(world: World, cli: Cli) -> str:
    """A thread with a decision that was refused, an edit, and an approval."""
    thread = await asking(world, "pay 250", sender="zoe")
    assert (await cli("approve", thread, "a1", "--as", "eve", "--reason", "mine")).code == 5
    assert (await cli("approve", thread, "a1", "--as", "ann", "--edit", "amount=80", "--reason", "less")).code == 0
    await world.stands(thread, "idle")
    return thread


async def rows(world: World, thread: str) -> list[AuditRow]:
    """The thread's audit, as the store has it."""
    return await world.store.audit(thread)


async def test_the_audit_tells_all(world: World) -> None:
    """When, what, who and why of each line, and that the chain is intact; also where Temporal has forgotten it."""
    cli = Cli(world)
    thread = await decided(world, cli)
    kept = await rows(world, thread)
    await world.forget(thread)
    cli.environment["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
    done = await cli("audit", thread)
    assert (done.code, done.err) == (0, f"{len(kept)} lines, chain intact, head {kept[-1].digest}\n")
    assert [re.search(rf"^\d+ +20\S+ \S+ +{text}", done.out, re.MULTILINE) is not None for text in (
        r"request opened +a1 pay\(.* asks ann or bob", r"decision refused .*not_an_approver: eve may not decide",
        r"decision counted +a1 pay\(.*\) approve +ann +less$", r"request edited +a1 .*250\.0 → 80\.0 +ann",
        r"request closed +a1 .* approved$",
    )] == [True] * 5, done.out  # fmt: skip
    assert [AuditRow.model_validate(item) for item in await cli.json("audit", thread)] == kept
    lines = (await cli("audit", thread, "-o", "jsonl")).lines()
    assert [line["number"] for line in lines] == list(range(1, len(kept) + 1))


async def test_a_digest_that_was_noted_down(world: World) -> None:
    """--expect finds a line by the digest that it had; where there is none, something was cut or rewritten."""
    cli = Cli(world)
    thread = await decided(world, cli)
    noted = (await rows(world, thread))[1].digest
    assert (await cli("audit", thread, "--expect", noted)).code == 0
    done = await cli("audit", thread, "--expect", noted[::-1])
    assert (done.code, "No line of the audit" in done.err) == (1, True)


@pytest.mark.parametrize("damage", ["rewritten", "cut", "forged"])
async def test_a_tampered_audit(world: World, damage: str) -> None:
    """The first bad line is named, the sound ones before it are shown, and the exit code is 1. A chain that was forged
    as a whole is given away by a digest that was noted down."""
    cli = Cli(world)
    thread = await decided(world, cli)
    kept = await rows(world, thread)
    noted = kept[-1].digest
    await tamper(world, thread, kept, damage)
    done = await cli("audit", thread, "-o", "json", "--expect", noted)
    assert done.code == 1
    shown = [item["number"] for item in done.json()]
    if damage == "forged":
        assert (len(shown), "No line of the audit" in done.err) == (len(kept), True)
        assert (await cli("audit", thread)).code == 0
        return
    bad = 2 if damage == "rewritten" else len(kept)
    assert (shown, f"line {bad} of the audit of {thread}" in done.err) == (list(range(1, bad)), True)


async def tamper(world: World, thread: str, kept: list[AuditRow], damage: str) -> None:
    """Change the second line, cut off the last one, or write all anew with another reason."""
    with closing(sqlite3.connect(world.settings.home / "store.db", isolation_level=None)) as database:
        if damage == "rewritten":
            database.execute("UPDATE audit SET at = '2020-01-01' WHERE thread_id = ? AND number = 2", (thread,))
        elif damage == "cut":
            database.execute("DELETE FROM audit WHERE thread_id = ? AND number = ?", (thread, len(kept)))
        else:
            database.execute("DELETE FROM audit WHERE thread_id = ?", (thread,))
            empty = "UPDATE threads SET audited = 0, audit_digest = NULL WHERE thread_id = ?"
            database.execute(empty, (thread,))
    if damage == "forged":
        lines = [row.entry for row in kept]
        other = lines[1].model_copy(update={"body": {**lines[1].body, "why": "another"}})
        await world.store.append_audit(thread, [lines[0], other, *lines[2:]])


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_operators_queue(world: World) -> None:
    """`effects --all --open` finds what is not settled in any thread, the oldest first, with the command that does."""
    cli = Cli(world)
    rocket, sea = await told(world, "rocket"), await told(world, "tea")
    assert (await cli("compensate", sea, "-y")).code == 1
    await told(world, "silk")
    queue = [OpenEffect.model_validate(item) for item in await cli.json("effects", "--all", "--open")]
    assert [(each.thread_id, each.tenant, each.effect.tool, each.effect.status) for each in queue] == [
        (rocket, "acme", "launch", "in_doubt"), (sea, "acme", "ship", "needs_attention")
    ]  # fmt: skip
    assert await cli.json("effects", "--all", "--open", "--agent", "cashier") == []
    assert await cli.json("effects", "--all", "--open", "--tenant", "nobody") == []
    shown = (await cli("effects", "--all", "--open")).out
    for each in queue:
        assert re.search(rf"^{each.thread_id} +teller +{re.escape(each.effect.label())} +.*{re.escape(each.command)}$",
                         shown, re.MULTILINE)  # fmt: skip
        chosen = each.command.replace("perdure ", "", 1).replace("WHO", "me")
        chosen = re.sub(r"--done\S*", "--not-done", chosen)
        assert (await cli(*shlex.split(chosen))).code == 0
    assert (await cli("effects", "--all", "--open")).out == "Nothing is open.\n"
    assert re.search(r"undone, says me.* compensable, unship, saga voyage$", (await cli("effects", sea)).out, re.M)


async def test_the_hook_is_asked(world: World) -> None:
    """`resolve --ask` asks the tool's own hook: where it can tell, that holds; where it can't, nothing has changed."""
    cli, thread = Cli(world), await told(world, "kite")
    (effect,) = [Effect.model_validate(item) for item in await cli.json("effects", thread, "--open")]
    done = await cli("resolve", thread, effect.key, "--ask", "--as", "me")
    assert (done.code, "landed can't tell" in done.err) == (5, True)
    assert [item["status"] for item in await cli.json("effects", thread)] == ["in_doubt"]
    assert (await cli("resolve", thread, effect.key, "--not-done", "--as", "me")).code == 0
    thread = await told(world, "rocket")
    (effect,) = [Effect.model_validate(item) for item in await cli.json("effects", thread)]
    settled = Effect.model_validate(await cli.json("resolve", thread, effect.key, "--ask", "--as", "me"))
    assert (settled.status, settled.settled_by) == ("done", "landed")
    assert witness.of(thread) == ["launch rocket", "look for rocket", "look for rocket"]
    assert await cli.json("effects", thread, "--open") == []


async def test_what_is_in_doubt_shows(world: World) -> None:
    """Status and list say that something is in doubt, and which command shows it."""
    cli, thread = Cli(world), await told(world, "rocket")
    assert re.search(rf"^{thread} +teller +in doubt +\d+ +1 ", (await _listed(cli, thread)).out, re.MULTILINE)
    assert "perdure effects --all --open" in (await cli("list", "--status", "in_doubt")).err
    shown = (await cli("status", thread)).out
    assert re.search(r"^status +in doubt$", shown, re.MULTILINE)
    assert re.search(rf"perdure resolve {thread} \w+ --done\|--not-done", shown)


async def _listed(cli: Cli, thread: str) -> Done:
    return await eventually(
        lambda: cli("list", "--status", "in_doubt", "--limit", "1000"), lambda done: thread in done.out
    )  # fmt: skip


async def test_a_saga_is_undone_by_its_name(world: World) -> None:
    """--saga undoes what belongs together across turns; a person sees what and in what order, and what was left."""
    cli, thread = Cli(world), await told(world, "silk", "pay 50", "tea")
    done = await cli.on_terminal("compensate", thread, "--saga", "voyage", types="n\n")
    assert (done.code, done.out) == (5, "")
    order = re.findall(r"^(\d)\s.*ship\(what=\"(\w+)\"\)\s+unship(?:, after (\d))?", done.err, re.MULTILINE)
    assert [(number, after) for number, _, after in order] == [("1", ""), ("2", "1"), ("3", "2")]
    assert "pay" not in done.err
    left = await cli("compensate", thread, "--saga", "voyage", "--as", "me", "-y", "-o", "json")
    residue = Residue.model_validate(left.json())
    assert (left.code, residue.needs_attention, len(residue.undone)) == (1, ('ship(what="tea")',), 2)
    assert witness.of(thread)[-2:] == ["unship silk", "unship silk"]
    assert (await cli("compensate", thread, "--turn", "2", "-y")).code == 0
    assert witness.of(thread)[-1] == "refund x 50"


# ── dry runs ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def dry(world: World, cli: Cli, thread: str, message: str) -> Fork:
    """A dry run of the thread that has ended."""
    made = Fork.model_validate(
        await cli.json("fork", thread, "--dry-run", "-m", message, "-t", world.thread(), "--wait")
    )
    assert made.dry_run
    return made


async def test_a_dry_run_does_nothing(world: World) -> None:
    """It says that it is one, asks nobody, and does nothing outside; its ledger tells what answered each call."""
    cli, thread = Cli(world), await told(world, "hello")
    fork = (await dry(world, cli, thread, "pay 250")).thread_id
    assert (witness.of(fork), witness.of(thread)) == ([], [])
    assert re.search(r"^dry run +it does nothing outside$", (await cli("status", fork)).out, re.MULTILINE)
    assert (await cli.json("status", fork))["dry_run"]
    assert re.search(r"simulated by the tool itself", (await cli("effects", fork)).out)
    listed = await eventually(lambda: cli("list", "--limit", "1000"), lambda done: fork in done.out)
    assert re.search(rf"^{fork} +teller +idle \(dry run\)", listed.out, re.MULTILINE)
    assert not re.search(rf"^{thread} .*dry run", listed.out, re.MULTILINE)


async def test_two_branches_are_compared(world: World) -> None:
    """`diff THREAD --with OTHER`: what each has cost and done since their common past, and how the states differ."""
    cli, thread = Cli(world), await told(world, "hello")
    fork = (await dry(world, cli, thread, "pay 250")).thread_id
    found = Comparison.model_validate(await cli.json("diff", thread, "--with", fork))
    assert found.common is not None
    assert (found.common.thread_id, found.one.steps, found.other.dry_run) == (thread, 0, True)
    assert [effect.status for effect in found.other.effects] == ["simulated"]
    shown = (await cli("diff", thread, "--with", fork)).out
    assert f"common past: step {found.common.step}" in shown
    assert re.search(r'^pay\(to="x", amount=250\.0\) +simulated$', shown, re.MULTILINE)
    assert "+ [2] user: pay 250" in shown


async def test_a_plan_is_promoted(world: World) -> None:
    """A person sees the plan and who will be asked; after a yes its calls are made for real, behind their gates."""
    cli, thread = Cli(world), await told(world, "hello")
    fork = (await dry(world, cli, thread, "pay 250")).thread_id
    no = await cli.on_terminal("promote", thread, fork, "--as", "zoe", types="n\n")
    assert (no.code, no.out) == (5, "")
    assert re.search(r'^1 +pay\(to="x", +compensable +simulated by the tool +ann, bob', no.err, re.MULTILINE)
    assert f"Do this for real, in {thread}? [y/N]" in no.err
    assert (await cli.json("status", thread))["turn"] == 1
    promoted = Promoted.model_validate(
        await cli.json("promote", thread, fork, "--as", "zoe", "--reason", "fine", "--wait", "-y")
    )
    assert promoted.status is not None
    assert (promoted.fork, promoted.status.status) == (fork, "awaiting_approval")
    assert (await cli("approve", thread, "a1", "--as", "ann")).code == 0
    await world.stands(thread, "idle")
    assert (witness.of(thread), witness.of(fork)) == (["pay x 250"], [])
    assert re.search(rf"thread promoted .*{fork} +zoe +fine$", (await cli("audit", thread)).out, re.MULTILINE)
