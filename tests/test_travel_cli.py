"""Time travel on the command line: every command once, against a real server, worker and store.

Long: one claim a command.
"""

import json
import re
from collections.abc import AsyncIterator

import pytest

from perdure.contracts import Committed, RewindPlan, Rewound, StatusAnswer
from perdure.lease import Lease
from perdure.patch import applied
from perdure.starters.branches import Tree
from perdure.starters.cli.leases import Released
from perdure.starters.cli.travel import Fork, Resumed
from perdure.starters.entries import HistoryEntry
from perdure.starters.inbox import OpenRequest
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.traveller import app, holds, script, witness
from tests.world import World, eventually

SECRETS = '{"card": "number 4242", "city": "Bern", "messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """A world of travellers."""
    async with make_world(app, script, keys=f"k1:{'A' * 43}=") as made:
        yield made


async def told(world: World, *messages: str) -> str:
    """A thread that has answered these messages."""
    thread, first = await world.begin("traveller", messages[0])
    await world.ended(thread, first)
    for message in messages[1:]:
        await world.ended(thread, (await world.client.send(thread, message)).message_id)
    return thread


async def steps(cli: Cli, thread: str) -> list[HistoryEntry]:
    """The thread's line, the root first."""
    found = await cli.json("history", thread, "--limit", "1000")
    return [HistoryEntry.model_validate(entry) for entry in reversed(found)]


# ── looking back ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_history_shows_what_happened_where(world: World) -> None:
    """Each checkpoint with its source, changes, tokens, effects and metadata; pages follow one another by id."""
    cli, thread = Cli(world), world.thread()
    await cli.json("start", "traveller", "-m", "book twice", "-t", thread, "--meta", "ticket=OPS-1", "--wait")
    line = await steps(cli, thread)
    assert [entry.source for entry in line] == ["input", *["step"] * 5]
    assert [(e.tool, e.status) for entry in line for e in entry.effects] == [("book", "done")] * 2
    assert [len(entry.effects) for entry in line] == [0, 1, 0, 1, 0, 0]
    assert line[0].metadata == {"ticket": "OPS-1"}
    assert [entry.usage.tokens > 0 for entry in line] == [False, True, False, True, False, True]
    page = await cli.json("history", thread, "--limit", "2")
    rest = (await cli("history", thread, "--before", page[-1]["id"], "--limit", "2", "-o", "jsonl")).lines()
    assert [item["step"] for item in page + rest] == [5, 4, 3, 2]
    assert [item["id"] for item in await cli.json("history", thread, "--where", "ticket=OPS-1")] == [line[0].id]
    shown = (await cli("history", thread)).out
    assert re.search(rf'^{line[0].id} +0 +1 +input .*ticket="OPS-1"', shown, re.MULTILINE)
    assert re.search(rf"^{line[3].id} +3 +1 +step model .*book done", shown, re.MULTILINE)


async def test_names_of_checkpoints(world: World) -> None:
    """Anything that names a checkpoint will do: an end of its id, a step, head~N, turn:N, good."""
    cli, thread = Cli(world), await told(world, "hello", "book twice")
    line = await steps(cli, thread)
    for name, step in (("turn:1", 1), (line[3].id[-8:], 3), ("2", 2), ("head~6", 1), ("good", 7), ("head", 7)):
        (before, *_) = await cli.json("history", thread, "--before", name) or [{"step": -1}]
        assert before["step"] == step - 1
    assert await cli.json("state", thread, "--at", "turn:2", "--channel", "notes") == ["booked train", "booked hotel"]
    assert (await cli("state", thread, "--at", "5", "--channel", "notes")).out.split() == [
        "notes:", "[", '"booked', 'train"', "]"
    ]  # fmt: skip
    done = await cli("state", thread, "--at", line[0].id[:6])
    assert done.code == 4
    assert line[-1].id in done.err


async def test_find(world: World) -> None:
    """Checkpoints of all threads by what was given with --meta, whatever command wrote it."""
    cli, thread = Cli(world), await told(world, "hello")
    mark = f"m-{thread}"
    await cli.json("send", thread, "-m", "hello", "--meta", f"mark={mark}", "--wait")
    await cli.json("update", thread, "--set", 'city="Bern"', "--meta", f"mark={mark}", "--meta", "n=3")
    fork = await cli.json("fork", thread, "--meta", f"mark={mark}", "--meta", "n=3", "-t", world.thread())
    found = await cli.json("find", f"mark={mark}")
    assert [(c["thread_id"], c["source"]) for c in found] == [
        (fork["thread_id"], "fork"), (thread, "update"), (thread, "input")
    ]  # fmt: skip
    assert len(await cli.json("find", f"mark={mark}", "n=3")) == 2
    assert await cli.json("find", f"mark={mark}", 'n="3"') == []
    lines = (await cli("find", f"mark={mark}", "--thread", thread, "--limit", "1", "-o", "jsonl")).lines()
    assert [c["source"] for c in lines] == ["update"]
    assert thread in (await cli("find", f"mark={mark}")).out


async def test_diff(world: World) -> None:
    """Two checkpoints of a thread, or of two threads, by channel; in JSON the patch from the first to the second."""
    cli, thread = Cli(world), await told(world, "book twice")
    await cli.json("update", thread, "--set", 'city="Bern"')
    one, two = await cli.json("state", thread, "--at", "2"), await cli.json("state", thread)
    patch = await cli.json("diff", thread, "2")
    assert applied(one, patch) == two
    assert (await cli("diff", f"{thread}@2", f"{thread}@head", "-o", "jsonl")).lines() == patch
    shown = (await cli("diff", thread, "2", "head")).out
    assert '+ [1] "booked hotel"' in shown
    assert "assistant: Booked." in shown
    fork = world.thread()
    await cli.json("fork", thread, "--at", "2", "--set", 'city="Basel"', "--hold", "-t", fork)
    assert [item["path"] for item in await cli.json("diff", thread, "2", "head", "--with", fork)] == ["/city"]
    shown = (await cli("diff", f"{thread}@2", fork + "@")).out
    assert f"of {fork}" in shown
    assert '+ "Basel"' in shown
    assert "are the same" in (await cli("diff", thread, "2", "2", "--with", fork)).out


async def test_what_is_sensitive_is_not_shown(world: World) -> None:
    """Sensitive values are redacted in states, histories and differences; the commands have no keys."""
    cli, thread = Cli(world), world.thread()
    await cli.json("start", "keeper", "--input", SECRETS, "-t", thread, "--wait")
    await cli.json("update", thread, "--set", 'card="number 4343"')
    for command in (("state", thread), ("history", thread), ("diff", thread, "0"), ("find", "a=1", "-t", thread)):
        for form in ("text", "json"):
            done = await cli(*command, "-o", form)
            assert done.code == 0, done
            assert not re.search("number 4242|number 4343|sealed", done.out)
    assert (await cli.json("state", thread, "--at", "0"))["card"] == "[sensitive]"


# ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_fork(world: World) -> None:
    """Standard output is the new thread's id. It goes on by itself with what is different; its origin stays."""
    cli, thread = Cli(world, PERDURE_APP="tests.traveller:app"), await told(world, "book twice")
    before = await cli.json("history", thread)
    done = await cli("fork", thread, "--at", "head~1", "--set", 'city="Bern"', "--as", "ann")
    assert done.code == 0
    new = done.out.strip()
    assert re.fullmatch(rf"{thread}-fork-[0-9a-f]{{4}}", new)
    assert f"perdure watch {new}" in done.err
    world.threads.append(new)
    await world.stands(new, "idle")
    state = await eventually(lambda: cli.json("state", new), lambda now: now["messages"][-1]["content"] == "Booked.")
    assert (state["city"], state["notes"]) == ("Bern", ["booked train", "booked hotel"])
    assert [entry.source for entry in await steps(cli, new)][-2:] == ["fork", "step"]
    assert await cli.json("history", thread) == before
    assert len(witness.of(new)) == 0


async def test_fork_and_wait(world: World) -> None:
    """With --wait the answer of what it goes on with, or of the message; in JSON with where it comes from."""
    cli, thread = Cli(world), await told(world, "book twice")
    new = world.thread()
    fork = Fork.model_validate(await cli.json("fork", thread, "--at", "0", "-t", new, "--wait"))
    assert fork.result is not None
    assert (fork.thread_id, fork.result.answer, fork.next) == (new, "Booked.", ("model",))
    assert (fork.origin_thread, fork.step) == (thread, 1)
    assert witness.of(new) == ["book train", "book hotel"]
    other = world.thread()
    done = await cli("fork", thread, "-m", "hello", "-t", other, "--wait")
    assert (done.code, done.out) == (0, "Good day.\n")
    assert (await cli("fork", other, "-t", thread)).code == 4


async def test_a_fork_is_held_and_resumed(world: World) -> None:
    """--hold leaves it standing, `resume` lets it go on, once."""
    cli, thread = Cli(world), await told(world, "book twice")
    new = world.thread()
    done = await cli("fork", thread, "--at", "0", "--hold", "-t", new)
    assert (done.code, done.out) == (0, f"{new}\n")
    assert f"`perdure resume {new}`" in done.err
    assert len(await steps(cli, new)) == 2
    assert (await cli("resume", new, "--wait")).out == "Booked.\n"
    assert (await cli("resume", new)).code == 5
    again = world.thread()
    await cli.json("fork", thread, "--at", "0", "--hold", "-t", again)
    assert Resumed.model_validate(await cli.json("resume", again, "--as", "ann")).status is not None
    await eventually(lambda: steps(cli, again), lambda line: line[-1].step == 6)


async def test_a_fork_that_only_the_worker_can_refuse(world: World) -> None:
    """Without the app the worker refuses a value that doesn't fit: exit code 2, no thread, and the id stays free."""
    cli, thread, new = Cli(world), await told(world, "hello"), world.thread()
    before = (await world.store.sizes())["rows"]
    done = await cli("fork", thread, "--set", "city=5", "-t", new)
    assert (done.code, done.out) == (2, "")
    assert "Trip.city takes str" in done.err
    assert (await world.store.sizes())["rows"] == before
    assert (await cli("fork", thread, "--set", 'city="Bern"', "-t", new)).out == f"{new}\n"


async def test_a_fork_across_forks(world: World) -> None:
    """A fork can begin with a checkpoint that its thread shares with another; what it rests on is named."""
    cli, thread = Cli(world), await told(world, "hello")
    one, two = world.thread(), world.thread()
    await cli.json("fork", thread, "-m", "hello", "-t", one, "--wait")
    fork = Fork.model_validate(await cli.json("fork", one, "--at", "turn:1", "-t", two))
    assert fork.origin_thread == one
    fork = Fork.model_validate(await cli.json("fork", one, "--at", "1", "-t", world.thread()))
    assert fork.origin_thread == thread
    tree = Tree.model_validate(await cli.json("tree", thread))
    assert tree.branches[0][-1].forks == tuple(sorted([one, fork.thread_id]))
    assert f"fork: {one}" in (await cli("tree", thread)).out
    assert (await cli.json("tree", one))["origin_thread"] == thread


# ── rewinds ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_rewind(world: World) -> None:
    """What was done since is undone, the last first, then the head moves; what was left can still be looked at."""
    cli, thread = Cli(world), await told(world, "hello", "book twice")
    line = await steps(cli, thread)
    rewind = ("rewind", thread, "--to", "turn:1", "--as", "ann", "--reason", "no", "-y")
    done = Rewound.model_validate(await cli.json(*rewind))
    assert (done.to, done.head.step, len(done.residue.undone)) == (line[1].id, 2, 2)
    assert witness.of(thread) == ["book train", "book hotel", "cancel hotel", "cancel train"]
    after = await steps(cli, thread)
    assert [entry.id for entry in after[:2]] == [entry.id for entry in line[:2]]
    assert after[-1].facts == {"from": line[-1].id, "by": "ann", "reason": "no"}
    assert "notes" not in await cli.json("state", thread)
    everything = await cli.json("history", thread, "--all")
    assert {entry["id"] for entry in everything if entry["left"]} == {entry.id for entry in line[2:]}
    assert len((await cli.json("state", thread, "--at", line[-1].id[-8:]))["notes"]) == 2
    shown = (await cli("tree", thread)).out
    assert "left by a rewind" in shown
    assert re.search(r"step 2 +rewind .*← head$", shown, re.MULTILINE)


async def test_the_plan_changes_nothing(world: World) -> None:
    """--plan needs no Temporal and shows what would be undone, and what can't be."""
    cli, thread = Cli(world, TEMPORAL_ADDRESS="127.0.0.1:1"), await told(world, "book and post")
    before = (await world.store.sizes())["rows"], await world.length(thread)
    plan = RewindPlan.model_validate(await cli.json("rewind", thread, "--to", "0", "--plan"))
    assert ([e.tool for e in plan.undo], [e.tool for e in plan.impossible], plan.steps) == (["book"], ["post"], 5)
    shown = (await cli("rewind", thread, "--to", "0", "--plan")).out
    assert re.search(r'book\(what="hotel"\) +is undone', shown)
    assert re.search(r'post\(text="hi"\) +can\'t be undone', shown)
    assert "nothing was done outside" in (await cli("rewind", thread, "--to", "head~1", "--plan")).out
    assert ((await world.store.sizes())["rows"], await world.length(thread)) == before


async def test_what_cannot_be_undone(world: World) -> None:
    """Exit code 5 and nothing undone, unless told to keep it; then it is told what still stands."""
    cli, thread = Cli(world), await told(world, "book and post")
    done = await cli("rewind", thread, "--to", "0", "-y")
    assert (done.code, done.out) == (5, "")
    assert 'Can\'t be undone: post(text="hi"). --keep-effects' in done.err
    assert witness.of(thread) == ["book hotel", "post hi"]
    done = await cli("rewind", thread, "--to", "0", "--keep-effects", "-y")
    assert done.code == 0
    assert 'Undone: book(what="hotel").' in done.out
    assert 'Still done, can\'t be undone: post(text="hi").' in done.out
    assert f"It stands before model; `perdure resume {thread}` goes on." in done.out


async def test_rewind_on_a_terminal(world: World) -> None:
    """A person sees the plan and is asked; all but yes is no. What can't be undone is refused before that."""
    cli, thread = Cli(world), await told(world, "hello", "book twice")
    for answer in ("\n", "n\n"):
        done = await cli.on_terminal("rewind", thread, "--to", "turn:1", types=answer)
        assert (done.code, done.out) == (5, "")
        assert "is undone" in done.err
        assert f"Rewind {thread} to turn:1? [y/N]" in done.err
    assert witness.of(thread) == ["book train", "book hotel"]
    done = await cli.on_terminal("rewind", thread, "--to", "turn:1", types="y\n")
    assert done.code == 0
    assert witness.of(thread)[2:] == ["cancel hotel", "cancel train"]
    thread = await told(world, "book and post")
    done = await cli.on_terminal("rewind", thread, "--to", "0", types="y\n")
    assert done.code == 5
    assert "[y/N]" not in done.err


async def test_rewind_and_go_on(world: World) -> None:
    """--go-on runs what follows the checkpoint: the same calls to the model are not paid again."""
    cli, thread = Cli(world), await told(world, "book twice")
    done = await cli("rewind", thread, "--to", "0", "--go-on", "-y")
    assert done.code == 0
    assert "It goes on before model." in done.out
    await eventually(lambda: steps(cli, thread), lambda line: line[-1].step == 6 and line[-1].source == "step")
    assert witness.of(thread)[-2:] == ["book train", "book hotel"]
    assert all(entry.usage.tokens == 0 for entry in (await steps(cli, thread))[1:])


async def test_restore(world: World) -> None:
    """Back to the last answer: a turn that is running is stopped and undone. At the last good state nothing moves."""
    cli, thread = Cli(world), await told(world, "book twice")
    good = (await steps(cli, thread))[-1]
    done = await cli("restore", thread)
    assert (done.code, done.out) == (0, f"{thread} stands at its last good state already.\n")
    await world.client.send(thread, "yacht")
    await world.opened(thread)
    assert (await cli("restore", thread)).code == 5
    back = Rewound.model_validate(await cli.json("restore", thread, "-y", "--as", "ann"))
    assert back.to == good.id
    assert (await cli.json("approvals", thread))["open"] == []
    assert (await cli.json("state", thread)) == await cli.json("state", thread, "--at", good.id)
    assert Rewound.model_validate(await cli.json("restore", thread)).head.id == back.head.id
    assert len(await steps(cli, thread)) == 7


async def test_a_thread_that_sleeps(world: World) -> None:
    """A thread whose workflow has completed is woken for each of these, also where Temporal has forgotten it."""
    cli, thread = Cli(world), await told(world, "book twice")
    await world.completes(thread)
    assert (await cli("update", thread, "--set", 'city="Bern"')).code == 0
    await world.completes(thread)
    await world.forget(thread)
    assert (await cli("rewind", thread, "--to", "0", "-y")).code == 0
    await world.completes(thread)
    assert (await cli("resume", thread, "--wait")).out == "Booked.\n"
    await world.completes(thread)
    assert (await cli("fork", thread, "-m", "hello", "-t", world.thread(), "--wait")).out == "Good day.\n"


# ── updates, questions, leases ───────────────────────────────────────────────────────────────────────────────────


async def test_update(world: World) -> None:
    """--set takes a channel's place, --append goes through its reducer; --expect refuses where the head has moved."""
    cli, thread = Cli(world, PERDURE_APP="tests.traveller:app"), await told(world, "hello")
    seen = (await steps(cli, thread))[-1].id
    done = Committed.model_validate(await cli.json("update", thread, "--append", 'notes=["a"]', "--expect", seen[-8:]))
    assert done.head.step == 2
    said = ("--as", "ann", "--reason", "r")
    shown = (await cli("update", thread, "--append", 'notes=["b"]', "--set", 'city="Bern"', *said)).out
    assert re.fullmatch(rf"{thread} is at step 3 \([0-9a-f-]{{36}}\)\.\n", shown)
    assert (await steps(cli, thread))[-1].facts == {"by": "ann", "reason": "r"}
    await cli.json("update", thread, "--set", 'notes=["c"]')
    state = await cli.json("state", thread)
    assert (state["notes"], state["city"]) == (["c"], "Bern")
    refused = await cli("update", thread, "--set", 'city="Basel"', "--expect", seen)
    assert refused.code == 4
    assert seen in refused.err
    assert (await steps(cli, thread))[-1].id in refused.err


async def test_update_as_a_node(world: World) -> None:
    """With --as-node what follows the node follows the update; an unknown node is refused."""
    cli, thread = Cli(world), await told(world, "hello")
    call = {"id": "c1", "name": "book", "arguments": '{"what": "bus"}'}
    asked = json.dumps([{"role": "assistant", "tool_calls": [call]}])
    done = await cli("update", thread, "--append", f"messages={asked}", "--as-node", "model")
    assert done.code == 0
    assert f"It stands before tools; `perdure resume {thread}` goes on." in done.out
    await cli("resume", thread, "--wait")
    assert witness.of(thread) == ["book bus"]
    assert (await cli("update", thread, "--set", 'city="x"', "--as-node", "nobody")).code == 1


async def test_answer(world: World) -> None:
    """Questions are listed with what fits; one that is answered lets the thread go on, one that doesn't fit changes
    nothing."""
    cli, thread = Cli(world), world.thread()
    await cli.json("start", "advice", "--input", '{"notes": ["begin"]}', "-t", thread)
    await world.stands(thread, "awaiting_input")

    async def listed() -> list[OpenRequest]:
        found = (await cli("approvals", "-o", "json")).json()
        return [OpenRequest.model_validate(item) for item in found if item["thread_id"] == thread]

    (item,) = await eventually(listed, lambda found: len(found) == 1)
    assert item.question is not None
    assert (item.question.id, item.question.text, item.request) == ("q1", "Where to?", None)
    assert re.search(rf"^{thread} +q1 +city +Where to\? +string", (await cli("approvals")).out, re.MULTILINE)
    assert f"perdure answer {thread} q1 --as WHO" in (await cli("status", thread)).out
    assert "Where to?" in (await cli("approvals", thread)).out
    done = await cli("answer", thread, "--as", "ann", "-m", "Bern")
    assert (done.code, done.out) == (0, f"Question q1 of {thread} is answered.\n")
    assert "Where to?" in done.err
    await eventually(lambda: world.client.approvals(thread), lambda seen: [q.id for q in seen.questions] == ["q2"])
    done = await cli("answer", thread, "q2", "--as", "ann", "--input", '"perhaps"')
    assert (done.code, done.out) == (2, "")
    assert (await cli("answer", thread, "q1", "--as", "ann", "-m", "Basel")).code == 3
    status = StatusAnswer.model_validate(await cli.json("answer", thread, "--as", "ann", "--input", '{"good": true}'))
    assert status.thread_id == thread
    await world.stands(thread, "idle")
    assert (await cli.json("state", thread))["notes"] == ["begin", "good: True"]
    assert (await cli("answer", thread, "--as", "ann", "-m", "Bern")).code == 3


async def test_lease(world: World) -> None:
    """Who holds a lease writes alone, with its token; everybody else is told who holds it until when."""
    cli, thread = Cli(world), await told(world, "hello")
    done = await cli("lease", thread, "acquire", "--as", "ann", "--seconds", "600")
    token = done.out.strip()
    assert (done.code, "It is ann's until" in done.err) == (0, True)
    others = [
        ("send", thread, "-m", "hello"), ("update", thread, "--set", 'city="x"'), ("rewind", thread, "--to", "0", "-y"),
        ("lease", thread, "acquire", "--as", "bob"), ("lease", thread, "release", "--lease", "wrong"),
    ]  # fmt: skip
    for command in others:
        done = await cli(*command)
        assert (done.code, "ann holds the lease" in done.err) == (5, True), done
    assert (await cli("update", thread, "--set", 'city="Bern"', "--lease", token)).code == 0
    cli.environment["PERDURE_LEASE"] = token
    assert (await cli("send", thread, "-m", "hello", "--wait")).out == "Good day.\n"
    held = Lease.model_validate(await cli.json("lease", thread, "renew", "--seconds", "900"))
    assert (held.holder, held.token) == ("ann", token)
    assert (await cli("rewind", thread, "--to", "turn:1", "-y")).code == 0
    assert await cli.json("lease", thread, "release") == Released(thread_id=thread, released=True).model_dump()
    assert (await cli("lease", thread, "release")).out == "It was not held any more.\n"
    del cli.environment["PERDURE_LEASE"]
    assert (await cli("update", thread, "--set", 'city="Basel"')).code == 0


async def test_a_busy_thread(world: World) -> None:
    """While a turn runs an update waits for its end; a rewind stops the turn."""
    cli, thread = Cli(world), await told(world, "hello")
    await world.client.send(thread, "think")
    await holds[thread].arrived()
    assert (await cli("update", thread, "--set", 'city="x"')).code == 5
    assert (await cli("rewind", thread, "--to", "turn:1", "-y")).code == 0
    holds[thread].let_go()
    status = await world.stands(thread, "idle")
    assert status.results[-1].outcome == "cancelled"
