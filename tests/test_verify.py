"""`perdure db verify`: every tampered row is found on every backend, and the first one is named."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from perdure.canonical import canonical
from perdure.care.verify import Problem, Report, verify
from perdure.checkpointer import Change, Checkpointer, Position, snapshot_digest
from perdure.delta import Delta
from perdure.effects import Effect, arguments_digest
from perdure.errors import ThreadNotFound
from perdure.stores import Store
from perdure.stores.base import CachedResult, EffectRow, Snapshot
from perdure.stores.memory import MemoryStore
from tests.tampering import Hands, forged_snapshot, hands

STEPS = 20  # in each of them a kilobyte is overwritten, so that there are snapshots on the way
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
    await claim(store, thread_id, head, f"key-of-{thread_id}")


async def claim(store: Store, thread_id: str, head: Position, key: str, *, branch: int = 0) -> None:
    """An effect on the head."""
    entry = Effect(
        key=key, tool="pay", effect="compensable", turn=1, step=head.ref.step, index=0, branch=branch,
        checkpoint_id=head.ref.id,
    )  # fmt: skip
    arguments = canonical({"amount": 50})
    digest = arguments_digest("pay", arguments)
    row = EffectRow(thread_id=thread_id, entry=entry, arguments=arguments, arguments_digest=digest)
    await store.claim(row, head=head.ref.id)


async def commit(
    checkpointer: Checkpointer, head: Position | None, thread_id: str, checkpoint: str, text: str, **more: Any
) -> Position:
    """One more checkpoint."""
    delta: Delta = {"text": {"op": "set", "value": text}, "log": {"op": "append", "items": [text[:3]]}}
    change = Change(
        thread_id=thread_id, checkpoint_id=checkpoint, source="step", nodes=("model",), turn=1, delta=delta,
        metadata={"begins": text[0], "even": len(checkpoint) % 2 == 0},
    )  # fmt: skip
    return await checkpointer.commit(head, change, agent="clerk", **more)


@pytest.fixture
async def three(any_store: Store) -> Store:
    """A store with three threads, the second of which is going to be tampered with."""
    for thread in (FIRST, SECOND, THIRD):
        await write(any_store, thread)
    return any_store


def second(store: Store) -> Hands:
    """Hands on the second thread."""
    return hands(store, SECOND)


async def problem_of(store: Store, thread_id: str = "") -> Problem:
    """The problem there must be."""
    problem = (await verify(store, thread_id)).problem
    assert problem is not None
    return problem


# ── what is right ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_good_store(three: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine wrote verifies, snapshots included; threads are read page by page."""
    monkeypatch.setattr("perdure.care.verify._PAGE", 2)
    report = await verify(three)
    assert (report.threads, report.checkpoints, report.effects, report.problem) == (3, 3 * STEPS, 3, None)
    assert report.snapshots >= 3 * 2
    assert report.bytes > 3 * STEPS * 1_000
    alone = await verify(three, SECOND)
    assert (alone.threads, alone.checkpoints) == (1, STEPS)


async def test_an_empty_store(any_store: Store) -> None:
    """Nothing is not wrong; a thread that isn't there is."""
    assert await verify(any_store) == Report(store=any_store.url)
    with pytest.raises(ThreadNotFound):
        await verify(any_store, "nobody")


async def test_branches(three: Store) -> None:
    """Lines that rewinds left are followed too, with the effects that were made on them."""
    checkpointer = Checkpointer(three)
    head = await checkpointer.load(FIRST, checkpoint_id(FIRST, STEPS - 1))
    for number, step in enumerate((3, STEPS - 10)):
        target = await checkpointer.load(FIRST, checkpoint_id(FIRST, step))
        name = checkpoint_id(FIRST, 100 + number)
        head = await commit(checkpointer, target, FIRST, name, "back", replaces=head.ref.id, branch=number + 1)
        await claim(three, FIRST, head, f"key-{number}", branch=number + 1)
    report = await verify(three, FIRST)
    assert (report.checkpoints, report.effects, report.problem) == (STEPS + 2, 3, None)


async def fork(store: Store, origin: str, thread_id: str, step: int) -> Position:
    """A thread forked from a step of another, three steps long."""
    checkpointer = Checkpointer(store)
    head = await checkpointer.load(origin, checkpoint_id(origin, step))
    for number in range(3):
        name = checkpoint_id(thread_id, number)
        head = await commit(checkpointer, head, thread_id, name, "fork" * 100, lineage=origin if number == 0 else "")
    return head


async def test_forks(three: Store) -> None:
    """A fork is followed into the thread it comes from, and a fork of it through both."""
    await fork(three, SECOND, "fork-4", 17)
    await fork(three, "fork-4", "fork-5", 1)
    report = await verify(three)
    assert (report.threads, report.checkpoints, report.problem) == (5, 3 * STEPS + 6, None)


async def cut(store: Store, thread_id: str, step: int) -> str:
    """Remove what is before a step."""
    name = checkpoint_id(thread_id, step)
    position = await Checkpointer(store).load(thread_id, name)
    state = canonical(position.values)
    root = Snapshot(checkpoint_id=name, state=state, digest=snapshot_digest(position.ref.digest, state))
    await store.remove(thread_id, [checkpoint_id(thread_id, n) for n in range(step)], [root], head="")
    return name


async def test_a_thread_that_was_pruned(three: Store) -> None:
    """A checkpoint whose ancestors were removed stands on its snapshot; effects that were made before stay."""
    checkpointer = Checkpointer(three)
    head = await commit(checkpointer, None, "cut-4", checkpoint_id("cut-4", 0), "a")
    await claim(three, "cut-4", head, "early")
    for step in range(1, 5):
        head = await commit(checkpointer, head, "cut-4", checkpoint_id("cut-4", step), f"{step}" * 100)
    await cut(three, "cut-4", 3)
    report = await verify(three, "cut-4")
    assert (report.checkpoints, report.effects, report.problem) == (2, 1, None)


@pytest.mark.parametrize("method", ["snapshots", "effects", "find"])
async def test_a_thread_that_is_written_to(three: Store, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """A step that is committed while its thread is verified, before or after it is walked, is no false alarm."""
    original, checkpointer = getattr(three, method), Checkpointer(three)

    async def meanwhile(*args: Any, **more: Any) -> object:
        head = await checkpointer.load(FIRST, checkpoint_id(FIRST, STEPS - 1))
        written = await commit(checkpointer, head, FIRST, checkpoint_id(FIRST, STEPS), "another")
        await claim(three, FIRST, written, "new")
        return await original(*args, **more)

    monkeypatch.setattr(three, method, meanwhile)
    assert (await verify(three, FIRST)).problem is None


# ── what was changed, lost, or moved ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("step", [0, 5, STEPS - 1])
async def test_a_changed_row_is_named(three: Store, step: int) -> None:
    """Nothing after the bad row is looked at."""
    await second(three).change(checkpoint_id(SECOND, step))
    report = await verify(three)
    assert report.problem is not None
    assert (report.problem.table, report.problem.thread_id) == ("checkpoints", SECOND)
    assert report.problem.row == checkpoint_id(SECOND, step)
    assert (report.threads, report.checkpoints) == (2, STEPS + step)
    assert (await verify(three, FIRST)).problem is None


@pytest.mark.parametrize("step", [0, 5, STEPS - 2])
async def test_a_missing_row_is_named_by_its_child(three: Store, step: int) -> None:
    """A deleted row can't be named; the first that misses it can."""
    await second(three).drop(checkpoint_id(SECOND, step))
    problem = await problem_of(three)
    assert problem.thread_id == SECOND
    assert (problem.table, problem.row) == ("checkpoints", checkpoint_id(SECOND, step + 1))
    assert checkpoint_id(SECOND, step) in problem.what


async def test_a_missing_head_is_named(three: Store) -> None:
    """The row that the thread stands on is gone: a problem of the thread, and no error."""
    await second(three).drop(checkpoint_id(SECOND, STEPS - 1))
    problem = await problem_of(three, SECOND)
    assert (problem.table, problem.row) == ("threads", SECOND)
    assert checkpoint_id(SECOND, STEPS - 1) in problem.what


@pytest.mark.parametrize(("one", "other"), [(5, 6), (4, 15), (0, STEPS - 1)])
async def test_swapped_rows_are_found(three: Store, one: int, other: int) -> None:
    """Two rows that changed places: the first of them is named."""
    await second(three).swap(checkpoint_id(SECOND, one), checkpoint_id(SECOND, other))
    problem = await problem_of(three)
    assert (problem.table, problem.thread_id) == ("checkpoints", SECOND)
    assert problem.row in {checkpoint_id(SECOND, one), checkpoint_id(SECOND, other)}


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
        (5, {"cut": True}, "It is cut, but its parent"),
        (0, {"parent_id": checkpoint_id(SECOND, 99)}, "doesn't exist"),
        (0, {"cut": True}, "is missing"),
        (STEPS - 1, {"step": 99}, f"It is step 99, and should be {STEPS - 1}"),
    ],
)
async def test_a_forged_checkpoint_is_named(three: Store, step: int, changes: dict[str, Any], what: str) -> None:
    """Whoever also computes the seal anew is found by the chain of digests and links."""
    await second(three).forge(checkpoint_id(SECOND, step), **changes)
    problem = await problem_of(three)
    assert (problem.table, problem.thread_id, problem.row) == ("checkpoints", SECOND, checkpoint_id(SECOND, step))
    assert what in problem.what


async def test_forged_metadata_is_named(three: Store) -> None:
    """Metadata isn't in the digest. Where a search goes by labels beside it, both must agree."""
    await second(three).forge(checkpoint_id(SECOND, 5), metadata={"begins": "x"})
    problem = (await verify(three, SECOND)).problem
    if isinstance(three, MemoryStore):  # its search reads the metadata itself
        assert problem is None
    else:
        assert problem is not None
        assert (problem.table, problem.row) == ("labels", checkpoint_id(SECOND, 5))


# ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_changed_snapshot_is_named(three: Store) -> None:
    """A snapshot is bound to its checkpoint by a digest over both."""
    first = (await three.snapshots(SECOND))[0]
    await second(three).put_snapshot(first.model_copy(update={"state": first.state.replace(b"1", b"2")}))
    problem = await problem_of(three)
    assert (problem.table, problem.thread_id, problem.row) == ("snapshots", SECOND, first.checkpoint_id)


async def test_a_forged_snapshot_is_named(three: Store) -> None:
    """Whoever also computes the digest of a forged snapshot is found by what the deltas make."""
    first = (await three.snapshots(SECOND))[0].checkpoint_id
    checkpoint = await three.checkpoint(SECOND, first)
    assert checkpoint is not None
    await second(three).put_snapshot(forged_snapshot(first, checkpoint.digest))
    assert await problem_of(three) == Problem(
        table="snapshots", thread_id=SECOND, row=first, what="It is not the state that the deltas make."
    )


async def test_a_snapshot_without_checkpoint_is_named(three: Store) -> None:
    """Nothing in the store belongs to nothing."""
    stray = checkpoint_id(SECOND, 99)
    await second(three).put_snapshot(forged_snapshot(stray, "0" * 64))
    assert await problem_of(three) == Problem(
        table="snapshots", thread_id=SECOND, row=stray, what="Its checkpoint doesn't exist."
    )


@pytest.mark.parametrize("which", [0, -1])
async def test_a_missing_snapshot_is_named(three: Store, which: int) -> None:
    """A state that can't be loaded without it tells that a snapshot is gone."""
    gone = (await three.snapshots(SECOND))[which].checkpoint_id
    await second(three).drop_snapshot(gone)
    problem = await problem_of(three)
    assert (problem.table, problem.row, "can't be loaded" in problem.what) == ("snapshots", gone, True)


async def test_a_missing_snapshot_of_a_cut_is_named(three: Store) -> None:
    """Without it nothing stands in the place of what was removed."""
    root = await cut(three, SECOND, 15)
    await second(three).drop_snapshot(root)
    problem = await problem_of(three)
    assert (problem.table, problem.row) == ("checkpoints", root)
    assert "ancestors were removed" in problem.what


# ── threads and effects ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("step", "what"), [(99, "doesn't exist"), (10, "not the end of a line")])
async def test_a_head_is_named(three: Store, step: int, what: str) -> None:
    """The head must be there, and nothing may follow it."""
    await second(three).move_head(checkpoint_id(SECOND, step))
    problem = await problem_of(three)
    assert (problem.table, problem.thread_id, problem.row) == ("threads", SECOND, SECOND)
    assert what in problem.what


async def test_a_missing_row_of_a_thread_is_named(three: Store) -> None:
    """Whoever asks for the thread learns that its checkpoints are there, and its row isn't."""
    await second(three).drop_thread()
    assert await problem_of(three, SECOND) == Problem(
        table="threads", thread_id=SECOND, row=SECOND, what="Its row is gone."
    )


async def test_a_wrong_origin_is_named(three: Store) -> None:
    """Where a thread says it comes from is where its first checkpoint does."""
    await fork(three, SECOND, "fork-4", 17)
    await hands(three, "fork-4").move_origin(SECOND, checkpoint_id(SECOND, 16))
    assert (await problem_of(three, "fork-4")).table == "threads"
    await second(three).move_origin(FIRST, checkpoint_id(FIRST, 3))
    assert (await problem_of(three, SECOND)).row == SECOND


@pytest.mark.parametrize("step", [3, 17])
async def test_what_is_wrong_with_an_origin_is_named_there(three: Store, step: int) -> None:
    """A fork that is verified names the row of the other thread."""
    await fork(three, THIRD, "fork-0", 17)
    await hands(three, THIRD).change(checkpoint_id(THIRD, step))
    problem = await problem_of(three, "fork-0") if step == 17 else await problem_of(three)
    assert (problem.thread_id, problem.row) == (THIRD, checkpoint_id(THIRD, step))


async def test_a_parent_in_another_thread_that_is_gone(three: Store) -> None:
    """A fork whose beginning was deleted."""
    await fork(three, SECOND, "fork-4", STEPS - 1)
    await second(three).drop(checkpoint_id(SECOND, STEPS - 1))
    problem = await problem_of(three, "fork-4")
    assert (problem.thread_id, checkpoint_id(SECOND, STEPS - 1) in problem.what) == (SECOND, True)


async def test_a_changed_call_is_named(three: Store) -> None:
    """The ledger's calls are what approvals and compensations rely on."""
    await second(three).change_call(f"key-of-{SECOND}")
    problem = await problem_of(three)
    assert (problem.table, problem.thread_id, problem.row) == ("effects", SECOND, f"key-of-{SECOND}")


async def test_a_result_of_nothing_is_named(any_store: Store) -> None:
    """The lost end of a line that a rewind left: nothing goes back to it, but its answer is cached."""
    checkpointer, ids = Checkpointer(any_store), [checkpoint_id(FIRST, n) for n in range(3)]
    root = await commit(checkpointer, None, FIRST, ids[0], "question")
    result = CachedResult(scope="s", key="k", thread_id=FIRST, checkpoint_id=ids[1])
    await commit(checkpointer, root, FIRST, ids[1], "answer", result=result)
    await commit(checkpointer, root, FIRST, ids[2], "back", replaces=ids[1], branch=1)
    assert (await verify(any_store, FIRST)).problem is None
    await hands(any_store, FIRST).drop(ids[1])
    assert await problem_of(any_store, FIRST) == Problem(
        table="results", thread_id=FIRST, row=ids[1], what="A cached result names it, and it doesn't exist."
    )


async def test_an_effect_on_nothing_is_named(three: Store) -> None:
    """An effect names the checkpoint on which it was made: a rewind counts what lies behind it by that."""
    checkpointer = Checkpointer(three)
    head = await checkpointer.load(THIRD, checkpoint_id(THIRD, STEPS - 1))
    lost = replace(head, ref=head.ref.model_copy(update={"id": checkpoint_id(THIRD, 77)}))
    await hands(three, THIRD).move_head(lost.ref.id)
    await claim(three, THIRD, lost, "stray")
    await hands(three, THIRD).move_head(head.ref.id)
    problem = await problem_of(three)
    assert (problem.table, problem.row) == ("effects", "stray")
    assert checkpoint_id(THIRD, 77) in problem.what
