"""`perdure db verify`: every tampered row is found, and the first one is named."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perdure.canonical import canonical
from perdure.checkpointer import Change, Checkpointer, Position, snapshot_digest
from perdure.delta import Delta
from perdure.effects import Effect, arguments_digest
from perdure.errors import ThreadNotFound
from perdure.stores import Store, open_store, rows
from perdure.stores.base import EffectRow, Snapshot, Step
from perdure.stores.queries import query
from perdure.stores.sql_store import SqlStore
from perdure.verify import Problem, Report, verify
from tests.clerk import app, script
from tests.cli import Cli
from tests.conftest import MakeWorld

STEPS = 30  # in each of them a kilobyte is overwritten, so that there are snapshots on the way
FIRST, SECOND, THIRD = "good-1", "good-2", "good-3"


def checkpoint_id(thread_id: str, step: int) -> str:
    """Ids that a test can name."""
    return str(UUID(int=int(thread_id.rpartition("-")[2]) << 64 | step))


async def write(store: Store, thread_id: str, *, steps: int = STEPS) -> None:
    """A thread of that many steps, with an effect."""
    checkpointer, head = Checkpointer(store), None
    for step in range(steps):
        head = await commit(checkpointer, head, thread_id, checkpoint_id(thread_id, step), f"{step % 10}" * 1_000)
    assert head is not None
    entry = Effect(key=f"key-of-{thread_id}", tool="pay", effect="compensable", turn=1, step=1, index=0)
    arguments = canonical({"amount": 50})
    digest = arguments_digest("pay", arguments)
    row = EffectRow(thread_id=thread_id, entry=entry, arguments=arguments, arguments_digest=digest)
    await store.claim(row, head=head.ref.id)


async def commit(
    checkpointer: Checkpointer, head: Position | None, thread_id: str, checkpoint: str, text: str
) -> Position:
    """One more checkpoint."""
    delta: Delta = {"text": {"op": "set", "value": text}, "log": {"op": "append", "items": [text[:3]]}}
    change = Change(thread_id=thread_id, checkpoint_id=checkpoint, source="step", nodes=("model",), turn=1, delta=delta)
    return await checkpointer.commit(head, change, agent="clerk")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A store with three threads, the second of which is going to be tampered with."""
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await made.migrate()
    for thread in (FIRST, SECOND, THIRD):
        await write(made, thread)
    yield made
    await made.close()


# ── tampering ────────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def opened(store: Store) -> Iterator[sqlite3.Connection]:
    """The file, as somebody opens it who knows nothing of Perdure."""
    with closing(sqlite3.connect(store.url.removeprefix("sqlite:///"))) as database, database:
        yield database


def flip(store: Store, table: str, column: str, where: str, *values: object) -> None:
    """Change one column of one row a little."""
    with opened(store) as database:
        ((before,),) = database.execute(f"SELECT {column} FROM {table} WHERE {where}", values).fetchall()
        database.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (_changed(before), *values))


def _changed(value: Any) -> Any:
    match value:
        case int():
            return value + 1
        case str():
            return value + "x"
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 0x80])
        case _:
            return b"something"


async def forge(store: Store, at: int, /, *, base_id: str | None = None, **changes: Any) -> None:
    """Rewrite a checkpoint of the second thread as somebody would who knows how rows are sealed."""
    line = await store.line(SECOND, checkpoint_id(SECOND, at))
    assert line is not None
    forged = Step(
        checkpoint=line.checkpoints[-1].model_copy(update=changes), base_id=base_id or line.base_id,
        since_base=line.since_base, state_size=line.state_size,
    )  # fmt: skip
    await replace(store, "checkpoints", "add_checkpoint", rows.step_values(forged), checkpoint_id(SECOND, at))


async def replace(store: Store, table: str, insert: str, values: dict[str, Any], row: str) -> None:
    """Put a row in the place of another."""
    assert isinstance(store, SqlStore)
    async with store._writing() as tx:
        await tx.connection.exec_driver_sql(f"DELETE FROM {table} WHERE checkpoint_id = ?", (rows.stored_id(row),))
        values = {"thread_id": SECOND, **values}
        await tx.run(insert, **{name: values[name] for name in query(insert)._bindparams})


async def problem_of(store: Store, thread_id: str = "") -> Problem:
    """The problem there must be."""
    problem = (await verify(store, thread_id)).problem
    assert problem is not None
    return problem


# ── claims ───────────────────────────────────────────────────────────────────────────────────────────────────────


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


COLUMNS = (
    "thread", "checkpoint_id", "parent_id", "step", "source", "nodes", "turn", "schema_version", "metadata", "delta",
    "size", "digest", "base_id", "since_base", "state_size", "created_at", "seal",
)  # fmt: skip


def test_columns_are_all(store: Store) -> None:
    """The next test knows every column of a checkpoint."""
    with opened(store) as database:
        assert tuple(row[1] for row in database.execute("PRAGMA table_info(checkpoints)")) == COLUMNS


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_changed_column_is_found(store: Store, column: str) -> None:
    """No column of a checkpoint can change unnoticed; nothing after the bad row is looked at."""
    flip(store, "checkpoints", column, "checkpoint_id = ?", rows.stored_id(checkpoint_id(SECOND, 5)))
    report = await verify(store)
    assert report.problem is not None
    assert (report.problem.table, report.problem.thread_id) == ("checkpoints", SECOND)
    if column not in ("thread", "checkpoint_id", "step"):  # without these the row can't be found any more
        assert report.problem.row == checkpoint_id(SECOND, 5)
        assert report.checkpoints == STEPS + 5
    assert report.threads == 2
    assert (await verify(store, FIRST)).problem is None


@pytest.mark.parametrize(
    ("step", "changes", "what"),
    [
        (5, {"delta": {"text": {"op": "set", "value": "forged"}}}, "bytes, and has"),
        (5, {"delta": {"text": {"op": "set", "value": "forged"}}, "size": 38}, "digest"),
        (5, {"digest": "0" * 64}, "digest"),
        (5, {"turn": 7}, "digest"),
        (5, {"source": "input"}, "digest"),
        (5, {"nodes": ("tools",)}, "digest"),
        (5, {"schema_version": 2}, "digest"),
        (5, {"size": 1}, "It says 1 bytes"),
        (5, {"parent_id": checkpoint_id(SECOND, 99)}, "doesn't exist"),
        (5, {"parent_id": checkpoint_id(FIRST, 4)}, "doesn't exist"),
        (5, {"parent_id": checkpoint_id(SECOND, 2)}, "It is step 5, and should be 3"),
        (5, {"parent_id": None}, "no parent"),
        (0, {"parent_id": checkpoint_id(SECOND, 99)}, "doesn't exist"),
        (STEPS - 1, {"step": 99}, f"It is step 99, and should be {STEPS - 1}"),
        (STEPS - 1, {"base_id": checkpoint_id(SECOND, 99)}, "can't be loaded"),
    ],
)
async def test_a_forged_checkpoint_is_named(store: Store, step: int, changes: dict[str, Any], what: str) -> None:
    """Whoever also computes the seal anew is found by the chain of digests and links."""
    await forge(store, step, **changes)
    problem = await problem_of(store)
    assert (problem.table, problem.thread_id, problem.row) == ("checkpoints", SECOND, checkpoint_id(SECOND, step))
    assert what in problem.what


async def test_a_missing_checkpoint_is_named_by_its_child(store: Store) -> None:
    """A deleted row can't be named; the first that misses it can."""
    with opened(store) as database:
        database.execute("DELETE FROM checkpoints WHERE checkpoint_id = ?", (rows.stored_id(checkpoint_id(SECOND, 5)),))
    problem = await problem_of(store)
    assert (problem.row, checkpoint_id(SECOND, 5) in problem.what) == (checkpoint_id(SECOND, 6), True)


@pytest.mark.parametrize("column", ["state", "digest"])
async def test_a_changed_snapshot_is_named(store: Store, column: str) -> None:
    """A snapshot is bound to its checkpoint by a digest over both."""
    first = (await store.snapshots(SECOND))[0].checkpoint_id
    flip(store, "snapshots", column, "checkpoint_id = ?", rows.stored_id(first))
    problem = await problem_of(store)
    assert (problem.table, problem.thread_id, problem.row) == ("snapshots", SECOND, first)


async def test_a_forged_snapshot_is_named(store: Store) -> None:
    """Whoever also computes the digest of a forged snapshot is found by what the deltas make."""
    first = (await store.snapshots(SECOND))[0].checkpoint_id
    checkpoint = await store.checkpoint(SECOND, first)
    assert checkpoint is not None
    state = canonical({"text": "forged"})
    forged = Snapshot(checkpoint_id=first, state=state, digest=snapshot_digest(checkpoint.digest, state))
    await replace(store, "snapshots", "add_snapshot", rows.snapshot_values(forged), first)
    assert await problem_of(store) == Problem(
        table="snapshots", thread_id=SECOND, row=first, what="It is not the state that the deltas make."
    )


async def test_a_snapshot_without_checkpoint_is_named(store: Store) -> None:
    """Nothing in the store belongs to nothing."""
    stray = checkpoint_id(SECOND, 99)
    snapshot = (await store.snapshots(SECOND))[0].model_copy(update={"checkpoint_id": stray})
    await replace(store, "snapshots", "add_snapshot", rows.snapshot_values(snapshot), stray)
    assert await problem_of(store) == Problem(
        table="snapshots", thread_id=SECOND, row=stray, what="Its checkpoint doesn't exist."
    )


@pytest.mark.parametrize("which", [0, -1])
async def test_a_missing_snapshot_is_found(store: Store, which: int) -> None:
    """Checkpoints that can't be loaded without it tell that a snapshot is gone."""
    gone = (await store.snapshots(SECOND))[which].checkpoint_id
    with opened(store) as database:
        database.execute("DELETE FROM snapshots WHERE checkpoint_id = ?", (rows.stored_id(gone),))
    problem = await problem_of(store)
    assert (problem.table, "can't be loaded" in problem.what) == ("checkpoints", True)


@pytest.mark.parametrize(("step", "what"), [(99, "doesn't exist"), (10, "not the end of a line")])
async def test_a_head_is_named(store: Store, step: int, what: str) -> None:
    """The head must be there, and nothing may follow it."""
    move_head(store, SECOND, step)
    problem = await problem_of(store)
    assert (problem.table, problem.thread_id, problem.row) == ("threads", SECOND, SECOND)
    assert what in problem.what


def move_head(store: Store, thread_id: str, step: int) -> None:
    """Say that a thread stands elsewhere."""
    with opened(store) as database:
        head = rows.stored_id(checkpoint_id(thread_id, step))
        database.execute("UPDATE threads SET head_id = ? WHERE thread_id = ?", (head, thread_id))


@pytest.mark.parametrize("column", ["tool", "arguments", "arguments_digest", "effect"])
async def test_an_effect_is_named(store: Store, column: str) -> None:
    """The ledger's calls are what approvals and compensations rely on."""
    flip(store, "effects", column, "thread_id = ?", SECOND)
    problem = await problem_of(store)
    assert (problem.table, problem.thread_id, problem.row) == ("effects", SECOND, f"key-of-{SECOND}")


async def test_branches(store: Store) -> None:
    """A line that branches off an earlier checkpoint is followed too; the head must end one of the lines."""
    checkpointer = Checkpointer(store)
    for number, step in enumerate((3, STEPS - 10)):
        move_head(store, FIRST, step)
        head = await checkpointer.load(FIRST, checkpoint_id(FIRST, step))
        await commit(checkpointer, head, FIRST, checkpoint_id(FIRST, 100 + number), "another")
    report = await verify(store, FIRST)
    assert (report.checkpoints, report.problem) == (STEPS + 2, None)


@pytest.mark.parametrize("method", ["snapshots", "effects"])
async def test_a_thread_that_is_written_to(store: Store, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A step that is committed while its thread is verified, before or after it is walked, is no false alarm."""
    original, checkpointer = getattr(store, method), Checkpointer(store)

    async def meanwhile(thread_id: str) -> object:
        head = await checkpointer.load(FIRST, checkpoint_id(FIRST, STEPS - 1))
        await commit(checkpointer, head, FIRST, checkpoint_id(FIRST, STEPS), "another")
        return await original(thread_id)

    monkeypatch.setattr(store, method, meanwhile)
    assert (await verify(store, FIRST)).problem is None


async def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is walked page by page, each row once."""
    monkeypatch.setattr("perdure.stores.sql_store._PAGE", 7)
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await store.migrate()
    for steps in (6, 7, 8, 14, 21):
        await write(store, f"t-{steps}", steps=steps)
        walked = [checkpoint.step async for checkpoint in store.walk(f"t-{steps}")]
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
        flip(world.store, "checkpoints", "turn", "checkpoint_id = ?", rows.stored_id(second))
        done = await cli("db", "verify", "-o", "json")
        assert done.code == 1
        problem = Report.model_validate(done.json()).problem
        assert problem is not None
        assert (problem.table, problem.thread_id, problem.row) == ("checkpoints", thread, second)
        assert f"perdure: Table checkpoints, thread {thread}, {second}: " in done.err
        assert (await cli("state", thread)).code == 1
