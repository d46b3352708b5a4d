"""`db prune`: what is old goes for good, what stays is whole, and nobody who needs it loses anything."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure.care.prune import Rule, prune, prune_all
from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer, Position
from perdure.errors import Conflict, InvalidInput, ThreadNotFound
from perdure.stores import Store
from tests.test_verify import FIRST, SECOND, checkpoint_id, claim, commit, fork, write

STEPS, KEPT = 30, 10
ROOT = checkpoint_id(FIRST, STEPS - KEPT)


async def ids(store: Store, thread_id: str) -> list[str]:
    """The checkpoints of a thread that are there."""
    return [checkpoint.id async for checkpoint in store.walk(thread_id)]


async def states(store: Store, thread_id: str, names: list[str]) -> list[dict[str, Any]]:
    """What is loaded by somebody who has not seen the thread before."""
    return [(await Checkpointer(store).load(thread_id, name)).values for name in names]


@pytest.fixture
async def store(any_store: Store) -> Store:
    """A store with two threads."""
    for thread in (FIRST, SECOND):
        await write(any_store, thread, steps=STEPS)
    return any_store


async def rewound(store: Store, thread_id: str, step: int, name: int, *, branch: int = 1) -> Position:
    """The head, moved back to a step."""
    row = await store.thread(thread_id)
    assert row is not None
    target = await Checkpointer(store).load(thread_id, checkpoint_id(thread_id, step))
    where = {"replaces": row.head_id, "branch": branch}
    return await commit(Checkpointer(store), target, thread_id, checkpoint_id(thread_id, name), "back", **where)


async def test_keep(store: Store) -> None:
    """The newest stay, with the states that they had; the rest goes, and the ledger stays."""
    kept = [checkpoint_id(FIRST, step) for step in range(STEPS - KEPT, STEPS)]
    before, row = await states(store, FIRST, kept), await store.thread(FIRST)
    done = await prune(store, FIRST, Rule(keep=KEPT))
    assert (done.removed, done.kept, done.root) == (STEPS - KEPT, KEPT, ROOT)
    assert done.bytes > (STEPS - KEPT) * 1_000
    assert await ids(store, FIRST) == kept
    assert await states(store, FIRST, kept) == before
    after = await store.thread(FIRST)
    assert row is not None
    assert after is not None
    assert after.model_copy(update={"updated_at": row.updated_at}) == row
    report = await verify(store)
    assert (report.checkpoints, report.effects, report.problem) == (STEPS + KEPT, 2, None)
    assert await prune(store, FIRST, Rule(keep=KEPT)) == done.model_copy(
        update={"removed": 0, "bytes": 0, "root": ""}
    )  # fmt: skip


async def test_one_by_one(store: Store) -> None:
    """Pruned again and again while it grows, as a nightly job does, a thread stays whole."""
    head = await Checkpointer(store).load(FIRST, checkpoint_id(FIRST, STEPS - 1))
    for step in range(STEPS, STEPS + 12):
        head = await commit(Checkpointer(store), head, FIRST, checkpoint_id(FIRST, step), f"{step}" * 500)
        done = await prune(store, FIRST, Rule(keep=3))
        assert (done.kept, await ids(store, FIRST)) == (3, [checkpoint_id(FIRST, n) for n in range(step - 2, step + 1)])
    assert await states(store, FIRST, [head.ref.id]) == [head.values]
    assert (await verify(store)).problem is None


async def test_the_head_alone(store: Store) -> None:
    """The head always stays."""
    with pytest.raises(InvalidInput):
        await prune(store, FIRST, Rule(keep=0))
    head = await states(store, FIRST, [checkpoint_id(FIRST, STEPS - 1)])
    for rule in (Rule(keep=1), Rule(before=datetime.now(UTC) + timedelta(days=1))):
        await prune(store, FIRST, rule)
        assert await ids(store, FIRST) == [checkpoint_id(FIRST, STEPS - 1)]
        assert await states(store, FIRST, [checkpoint_id(FIRST, STEPS - 1)]) == head
    assert (await verify(store)).problem is None


async def test_before(store: Store) -> None:
    """What was made since a moment stays."""
    await asyncio.sleep(0.01)  # times have milliseconds
    moment = datetime.now(UTC)
    head = await Checkpointer(store).load(FIRST, checkpoint_id(FIRST, STEPS - 1))
    head = await commit(Checkpointer(store), head, FIRST, checkpoint_id(FIRST, STEPS), "new")
    assert (await prune(store, FIRST, Rule(before=moment - timedelta(days=1)))).removed == 0
    assert (await prune(store, FIRST, Rule(before=moment))).removed == STEPS
    assert await ids(store, FIRST) == [head.ref.id]
    assert (await verify(store)).problem is None


async def test_lines_that_rewinds_left(store: Store) -> None:
    """Those that begin before what stays go with it; those that begin after stay, and go when they are asked for."""
    await rewound(store, FIRST, 25, 100, branch=1)
    head = await rewound(store, FIRST, 5, 101, branch=2)
    await claim(store, FIRST, head, "late", branch=2)
    head = await rewound(store, FIRST, 20, 102, branch=3)
    await prune(store, FIRST, Rule(keep=5))
    left = {checkpoint_id(FIRST, n) for n in (*range(17, STEPS), 100, 102)}
    assert set(await ids(store, FIRST)) == left
    assert (await verify(store)).problem is None
    done = await prune(store, FIRST, Rule(branches=True))
    assert (done.removed, done.kept, done.root) == (10, 5, "")
    assert set(await ids(store, FIRST)) == {checkpoint_id(FIRST, n) for n in (17, 18, 19, 20, 102)}
    assert await states(store, FIRST, [head.ref.id]) == [head.values]
    assert (await verify(store)).problem is None


@pytest.mark.parametrize("dry_run", [False, True])
async def test_forks_that_hang_on_it(store: Store, dry_run: bool) -> None:
    """Nothing goes where another thread begins in what would go; where it begins later, it stays whole."""
    head = await fork(store, FIRST, "fork-3", 12)
    before = await ids(store, FIRST)
    with pytest.raises(Conflict, match="fork-3"):
        await prune(store, FIRST, Rule(keep=KEPT), dry_run=dry_run)
    assert await ids(store, FIRST) == before
    await prune(store, FIRST, Rule(keep=20), dry_run=dry_run)
    assert len(await ids(store, FIRST)) == (STEPS if dry_run else 20)
    assert await states(store, "fork-3", [head.ref.id]) == [head.values]
    assert (await verify(store)).problem is None


async def test_a_fork_is_pruned(store: Store) -> None:
    """A fork that was pruned needs its origin no longer."""
    head = await fork(store, FIRST, "fork-3", 12)
    done = await prune(store, "fork-3", Rule(keep=2))
    assert (done.removed, done.kept) == (1, 2)
    assert (await prune(store, "fork-3", Rule(keep=5))).removed == 0
    assert await states(store, "fork-3", [head.ref.id]) == [head.values]
    assert (await verify(store)).problem is None


async def test_a_dry_run(store: Store) -> None:
    """It says what would go, and removes nothing."""
    would = await prune(store, FIRST, Rule(keep=KEPT), dry_run=True)
    assert (would.removed, would.dry_run) == (STEPS - KEPT, True)
    assert len(await ids(store, FIRST)) == STEPS
    done = await prune(store, FIRST, Rule(keep=KEPT))
    assert done == would.model_copy(update={"dry_run": False})


async def test_all_threads(store: Store) -> None:
    """One that refuses is named and doesn't keep the others from it."""
    await fork(store, FIRST, "fork-3", 12)
    report = await prune_all(store, Rule(keep=KEPT))
    assert [one.thread_id for one in report.pruned] == [SECOND]
    assert [one.thread_id for one in report.refused] == [FIRST]
    assert "fork-3" in report.refused[0].why
    assert len(await ids(store, SECOND)) == KEPT
    assert (await verify(store)).problem is None


async def test_a_thread_that_moves_meanwhile(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is committed while its thread is pruned is not lost: the head is never set back."""
    original, moved = store.remove, []

    async def meanwhile(*args: Any, **more: Any) -> None:
        head = await Checkpointer(store).load(FIRST, checkpoint_id(FIRST, STEPS - 1))
        moved.append(await commit(Checkpointer(store), head, FIRST, checkpoint_id(FIRST, STEPS), "meanwhile"))
        await original(*args, **more)

    monkeypatch.setattr(store, "remove", meanwhile)
    await prune(store, FIRST, Rule(keep=KEPT))
    row = await store.thread(FIRST)
    assert row is not None
    assert row.head_id == moved[0].ref.id
    assert (await verify(store)).problem is None


async def test_what_a_rule_says() -> None:
    """Exactly one thing."""
    for rule in (Rule(), Rule(keep=1, branches=True), Rule(keep=1, before=datetime.now(UTC))):
        with pytest.raises(InvalidInput):
            rule.check()


async def test_nobody(any_store: Store) -> None:
    """A thread that isn't there."""
    with pytest.raises(ThreadNotFound):
        await prune(any_store, "nobody", Rule(keep=1))
    assert (await prune_all(any_store, Rule(keep=1))).pruned == ()
