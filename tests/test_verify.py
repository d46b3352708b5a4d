"""`perdure db verify`: every tampered row is found, and the first one is named."""

import sqlite3
import zlib
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from perdure.canonical import canonical
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.delta import Delta
from perdure.effects import Effect, arguments_digest
from perdure.errors import ThreadNotFound
from perdure.stores import Store, open_store
from perdure.stores.base import EffectRow
from perdure.verify import Problem, Report, verify
from tests.clerk import app, script
from tests.cli import Cli
from tests.conftest import MakeWorld

STEPS = 30
SNAPSHOT = 12  # the step with the first snapshot: 1,000 bytes are overwritten in each step
SECOND = "good-2"


def checkpoint_id(thread_id: str, step: int) -> str:
    """Ids that a test can name."""
    return f"{thread_id}-{step:03}"


async def write(store: Store, thread_id: str, *, steps: int = STEPS) -> None:
    """A thread of that many steps, with snapshots on the way."""
    checkpointer, head = Checkpointer(store), None
    for step in range(steps):
        head = await commit(checkpointer, head, thread_id, checkpoint_id(thread_id, step), f"{step % 10}" * 1_000)


async def commit(
    checkpointer: Checkpointer, head: Position | None, thread_id: str, checkpoint: str, text: str
) -> Position:
    """One more checkpoint."""
    delta: Delta = {"text": {"op": "set", "value": text}, "log": {"op": "append", "items": [text[:3]]}}
    change = Change(thread_id=thread_id, checkpoint_id=checkpoint, source="step", turn=1, delta=delta)
    return await checkpointer.commit(head, change, agent="clerk")


async def claim(store: Store, thread_id: str) -> None:
    """One effect."""
    entry = Effect(key="key-1", tool="pay", effect="compensable", turn=1, step=1, index=0)
    arguments = canonical({"amount": 50})
    digest = arguments_digest("pay", arguments)
    await store.claim(EffectRow(thread_id=thread_id, entry=entry, arguments=arguments, arguments_digest=digest))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with three threads, the second of which is going to be tampered with."""
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await opened.migrate()
    for thread in ("good-1", SECOND, "good-3"):
        await write(opened, thread)
        await claim(opened, thread)
    yield opened
    await opened.close()


def tamper(store: Store, statement: str, *values: object) -> None:
    """What somebody with access to the file may do."""
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as database:
        changed = database.execute(statement, values).rowcount
        database.commit()
    assert changed == 1


def packed(delta: object) -> bytes:
    """A delta as the store has it."""
    return b"z" + zlib.compress(canonical(delta))


async def test_a_good_store(store: Store) -> None:
    """What the engine wrote verifies, snapshots included."""
    report = await verify(store)
    assert (report.threads, report.checkpoints, report.effects, report.problem) == (3, 3 * STEPS, 3, None)
    assert report.snapshots >= 3 * 2
    assert report.bytes > 3 * STEPS * 1_000
    alone = await verify(store, SECOND)
    assert (alone.threads, alone.checkpoints) == (1, STEPS)


async def test_an_empty_store(tmp_path: Path) -> None:
    """Nothing is not wrong; a thread that isn't there is."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await store.migrate()
    assert await verify(store) == Report(store=store.url)
    with pytest.raises(ThreadNotFound):
        await verify(store, "nobody")
    await store.close()


_AT = f"WHERE thread_id = '{SECOND}' AND checkpoint_id = ?"
_OTHER = {"text": {"op": "set", "value": "forged"}}


@pytest.mark.parametrize(
    ("statement", "value", "step", "what"),
    [
        (f"UPDATE checkpoints SET delta = ? {_AT}", packed(_OTHER), 5, "bytes"),
        (f"UPDATE checkpoints SET delta = ?, size = {len(canonical(_OTHER))} {_AT}", packed(_OTHER), 5, "digest"),
        (f"UPDATE checkpoints SET delta = ? {_AT}", b"zgarbage", 5, "can't be read"),
        (f"UPDATE checkpoints SET delta = ? {_AT}", b'r{"text":', 5, "can't be read"),
        (f"UPDATE checkpoints SET digest = ? {_AT}", b"\x00" * 32, 5, "digest"),
        (f"UPDATE checkpoints SET turn = ? {_AT}", 7, 5, "digest"),
        (f"UPDATE checkpoints SET source = ? {_AT}", "input", 5, "digest"),
        (f"UPDATE checkpoints SET source = ? {_AT}", "magic", 5, "can't be read"),
        (f"UPDATE checkpoints SET schema_version = ? {_AT}", 2, 5, "digest"),
        (f"UPDATE checkpoints SET nodes = ? {_AT}", "model", 5, "digest"),
        (f"UPDATE checkpoints SET size = ? {_AT}", 1, 5, "says 1 bytes"),
        (f"UPDATE checkpoints SET parent_id = ? {_AT}", "gone", 5, "parent gone doesn't exist"),
        (f"UPDATE checkpoints SET parent_id = ? {_AT}", checkpoint_id(SECOND, 2), 5, "should be 3"),
        (f"UPDATE checkpoints SET parent_id = ? {_AT}", None, 5, "no parent"),
        (f"UPDATE checkpoints SET parent_id = ? {_AT}", "gone", 0, "parent gone doesn't exist"),
        (f"UPDATE checkpoints SET metadata = ? {_AT}", "{", 5, "can't be read"),
        (f"UPDATE checkpoints SET base_id = ? {_AT}", "gone", STEPS - 1, "can't be loaded"),
    ],
)
async def test_a_checkpoint_is_named(store: Store, statement: str, value: object, step: int, what: str) -> None:
    """A changed checkpoint is found whatever was changed in it, and named before anything that follows from it."""
    row = checkpoint_id(SECOND, step)
    tamper(store, statement, value, row)
    report = await verify(store)
    assert report.problem is not None
    assert (report.problem.table, report.problem.thread_id, report.problem.row) == ("checkpoints", SECOND, row)
    assert what in report.problem.what
    assert report.threads == 2, "the third is not looked at any more"
    if step < STEPS - 1:
        assert report.checkpoints == STEPS + step
    assert (await verify(store, "good-3")).problem is None


async def test_a_moved_step_is_named(store: Store) -> None:
    """A step number that was changed is found in the first row that doesn't follow its parent."""
    tamper(store, f"UPDATE checkpoints SET step = ? {_AT}", 99, checkpoint_id(SECOND, STEPS - 1))
    problem = (await verify(store)).problem
    assert problem is not None
    assert (problem.row, problem.what) == (
        checkpoint_id(SECOND, STEPS - 1),
        f"It is step 99, and should be {STEPS - 1}.",
    )


async def test_a_missing_checkpoint_is_named_by_its_child(store: Store) -> None:
    """A deleted row can't be named; the first that misses it can."""
    tamper(store, f"DELETE FROM checkpoints {_AT}", checkpoint_id(SECOND, 5))
    problem = (await verify(store)).problem
    assert problem is not None
    assert (problem.row, checkpoint_id(SECOND, 5) in problem.what) == (checkpoint_id(SECOND, 6), True)


async def test_a_snapshot_is_named(store: Store) -> None:
    """A snapshot with another digest, one with another state, one without a checkpoint, and one that is gone."""
    first = (await store.snapshots(SECOND))[0].checkpoint_id
    stolen = (await store.snapshots("good-1"))[-1].checkpoint_id
    where = f"WHERE thread_id = '{SECOND}' AND checkpoint_id = ?"
    for statement, value, row, what in (
        (f"UPDATE snapshots SET digest = ? {where}", b"\x00" * 32, first, "digest"),
        (f"UPDATE snapshots SET state = ? {where}", b'r{"text":"forged"}', first, "digest"),
        (f"UPDATE snapshots SET state = ? {where}", b"zgarbage", first, "can't be read"),
        (f"UPDATE snapshots SET checkpoint_id = ? {where}", stolen, stolen, "doesn't exist"),
    ):
        with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as database:
            (before,) = database.execute(f"SELECT state FROM snapshots {where}", (first,)).fetchall()
            (digest,) = database.execute(f"SELECT digest FROM snapshots {where}", (first,)).fetchall()
        tamper(store, statement, value, first)
        problem = (await verify(store)).problem
        assert problem is not None
        assert (problem.table, problem.thread_id, problem.row) == ("snapshots", SECOND, row)
        assert what in problem.what
        tamper(
            store, f"UPDATE snapshots SET checkpoint_id = ?, state = ?, digest = ? {where}",
            first, before[0], digest[0], row,
        )  # fmt: skip
    assert (await verify(store)).problem is None
    tamper(store, f"DELETE FROM snapshots {where}", first)
    problem = (await verify(store)).problem
    assert problem is not None
    assert (problem.table, "can't be loaded" in problem.what) == ("checkpoints", True)


async def test_a_forged_snapshot_is_named(store: Store) -> None:
    """Whoever also computes the digest of a forged snapshot is found by what the deltas make."""
    from perdure.checkpointer import snapshot_digest

    first = (await store.snapshots(SECOND))[0].checkpoint_id
    checkpoint = await store.checkpoint(SECOND, first)
    assert checkpoint is not None
    state = canonical({"text": "forged"})
    tamper(
        store, f"UPDATE snapshots SET state = ?, digest = ? {_AT}",
        b"r" + state, bytes.fromhex(snapshot_digest(checkpoint.digest, state)), first,
    )  # fmt: skip
    assert (await verify(store)).problem == Problem(
        table="snapshots", thread_id=SECOND, row=first, what="It is not the state that the deltas make."
    )


@pytest.mark.parametrize(("head", "what"), [("gone", "head gone doesn't exist"), (10, "not the end of a line")])
async def test_a_head_is_named(store: Store, head: str | int, what: str) -> None:
    """The head must be there, and nothing may follow it."""
    wrong = checkpoint_id(SECOND, head) if isinstance(head, int) else head
    tamper(store, "UPDATE threads SET head_id = ? WHERE thread_id = ?", wrong, SECOND)
    problem = (await verify(store)).problem
    assert problem is not None
    assert (problem.table, problem.thread_id, problem.row) == ("threads", SECOND, SECOND)
    assert what in problem.what


async def test_an_effect_is_named(store: Store) -> None:
    """The ledger's arguments are what an approval and a compensation rely on."""
    tamper(store, "UPDATE effects SET arguments = ? WHERE thread_id = ?", b'r{"amount":5}', SECOND)
    assert (await verify(store)).problem == Problem(
        table="effects", thread_id=SECOND, row="key-1", what="Its arguments don't match their digest."
    )


async def test_branches(store: Store) -> None:
    """A line that branches off an earlier checkpoint is followed too; the head must end one of the lines."""
    checkpointer = Checkpointer(store)
    for number, step in enumerate((3, SNAPSHOT + 1)):
        tamper(store, "UPDATE threads SET head_id = ? WHERE thread_id = ?", checkpoint_id("good-1", step), "good-1")
        head = await checkpointer.load("good-1", checkpoint_id("good-1", step))
        await commit(checkpointer, head, "good-1", f"branch-{number}", "another")
    report = await verify(store, "good-1")
    assert (report.checkpoints, report.problem) == (STEPS + 2, None)


async def test_a_thread_that_is_written_to(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is committed while its thread is verified is no false alarm."""
    checkpointer, look = Checkpointer(store), store.snapshots

    async def meanwhile(thread_id: str) -> object:
        head = await checkpointer.load("good-1", checkpoint_id("good-1", STEPS - 1))
        await commit(checkpointer, head, "good-1", checkpoint_id("good-1", STEPS), "another")
        return await look(thread_id)

    monkeypatch.setattr(store, "snapshots", meanwhile)
    assert (await verify(store, "good-1")).problem is None


async def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is walked page by page, each row once."""
    monkeypatch.setattr("perdure.stores.sql_store._PAGE", 7)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await store.migrate()
    for steps in (6, 7, 8, 14, 21):
        await write(store, f"t{steps}", steps=steps)
        walked = [checkpoint.step async for checkpoint in store.walk(f"t{steps}")]
        assert walked == list(range(steps))
    assert (await verify(store)).checkpoints == 6 + 7 + 8 + 14 + 21
    await store.close()


async def test_the_command(make_world: MakeWorld) -> None:
    """`perdure db verify` ends with 1 and names the row; its JSON document is printed all the same."""
    async with make_world(app, script) as world:
        cli = Cli(world)
        thread, message = await world.begin("clerk", "pay 50")
        await world.ended(thread, message)
        assert (await cli("db", "verify")).code == 0
        second = (await world.client.history(thread))[-2].id
        tamper(world.store, "UPDATE checkpoints SET turn = 9 WHERE checkpoint_id = ?", second)
        done = await cli("db", "verify", "-o", "json")
        assert done.code == 1
        assert Report.model_validate(done.json()).problem == Problem(
            table="checkpoints", thread_id=thread, row=second, what="Step 1 doesn't match its digest."
        )
        assert f"perdure: Table checkpoints, thread {thread}, {second}: Step 1 doesn't match its digest." in done.err
        assert (await cli("state", thread)).code == 1
