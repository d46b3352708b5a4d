"""The checkpointer: states go in as deltas and come out whole, and neither costs more than a few times their size."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import waypoints
from perdure.canonical import canonical
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import READ_FACTOR, READ_FLOOR, Change, Checkpointer, Position, snapshot_digest
from perdure.delta import Delta, Values, apply
from perdure.errors import CheckpointNotFound, ConcurrentModification, IntegrityError
from perdure.stores import Store, open_store
from perdure.stores.base import Line
from tests.properties import brief, scalars, texts, words
from tests.threads import History, checkpoint_id, name, noise


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """A store of its own, of either kind."""
    store = open_store(f"memory://{tmp_path}" if request.param == "memory" else f"sqlite:///{tmp_path / 'store.db'}")
    await store.migrate()
    yield store
    await store.close()


# ── what was committed is what is loaded ─────────────────────────────────────────────────────────────────────────

operations: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"op": st.just("set"), "value": scalars}),
    st.fixed_dictionaries({"op": st.just("append"), "items": st.lists(scalars, max_size=2)}),
)
merges = st.fixed_dictionaries({"op": st.just("merge"), "value": st.dictionaries(words, scalars, max_size=2)})
put = st.builds(lambda name, text: {"id": name, "content": text}, words, texts)
messages = st.fixed_dictionaries(
    {"op": st.just("messages"), "put": st.lists(put, max_size=2), "drop": st.lists(words, max_size=1)}
)
deltas: st.SearchStrategy[Delta] = st.fixed_dictionaries(
    {}, optional={"s": st.fixed_dictionaries({"op": st.just("set"), "value": scalars}), "m": merges, "t": messages}
)


@brief
@given(st.lists(st.tuples(deltas, texts, st.lists(texts, max_size=2)), min_size=1, max_size=8))
async def test_a_cold_load_is_the_warm_state(store: Store, steps: list[tuple[Delta, str, list[str]]]) -> None:
    """Every checkpoint of any history, loaded by a process that has seen nothing, is what its commit returned.

    That holds whatever the deltas, the metadata and the names of the nodes are.
    """
    history = History(store)
    for delta, note, nodes in steps:
        await history.commit(delta, metadata={"note": note}, nodes=tuple(nodes))
    for position in history.positions:
        assert (
            await Checkpointer(store).load(history.thread_id, position.ref.id, expect=position.ref.digest) == position
        )
    found = [c async for c in store.walk(history.thread_id)]
    assert [(c.delta, c.metadata, c.nodes) for c in found] == [
        (delta, {"note": note}, tuple(nodes)) for delta, note, nodes in steps
    ]


class Family:
    """Threads that are committed to, forked and rewound through one checkpointer, with what each state has to be.

    That is known without a store: the parent's state with the delta applied, back to nothing at the root.
    """

    def __init__(self, store: Store) -> None:
        self.checkpointer = Checkpointer(store)
        self.members: list[tuple[Position, Values]] = []
        self.heads: dict[str, Position] = {}

    async def do(self, what: str, which: int, delta: Delta) -> None:
        """One piece of work on the member of this number, or on the head of its thread."""
        if not self.members:
            await self._commit(name(), None, {}, delta)
            return
        at, state = self.members[which % len(self.members)]
        if what == "fork":
            await self._commit(name(), at, state, delta)
        elif what == "rewind":
            await self._commit(at.thread_id, at, state, delta, replaces=self.heads[at.thread_id].ref.id, branch=which)
        else:
            head = self.heads[at.thread_id]
            (state,) = [state for member, state in self.members if member is head]
            await self._commit(at.thread_id, head, state, delta)

    async def _commit(self, thread: str, on: Position | None, state: Values, delta: Delta, **more: Any) -> None:
        change = Change(thread_id=thread, checkpoint_id=checkpoint_id(), source="step", turn=1, delta=delta)
        self.heads[thread] = await self.checkpointer.commit(on, change, **more)
        self.members.append((self.heads[thread], apply(state, delta)))


sets = st.builds(lambda length: {"op": "set", "value": "x" * length}, st.sampled_from([9_000, 3_000, 10]))
appends = st.builds(lambda items: {"op": "append", "items": items}, st.lists(scalars, max_size=3))
changing: st.SearchStrategy[Delta] = st.fixed_dictionaries(
    {"s": sets | st.just({"op": "unset"})},
    optional={"a": appends | st.just({"op": "set", "value": []}), "m": merges, "t": messages},
)
works = st.tuples(st.sampled_from(["commit", "fork", "rewind"]), st.integers(0, 99), changing)


@brief
@given(st.lists(works, min_size=12, max_size=30))
async def test_every_state_is_the_fold_of_its_deltas(store: Store, pieces: list[tuple[str, int, Delta]]) -> None:
    """For any updates, forks and rewinds: each checkpoint, loaded cold, is all deltas from the root applied in turn.

    So it is where it was made, loaded from the nearest state that is known there. It is read at no more than its
    factor, and every snapshot is the whole state at its checkpoint.
    """
    family = Family(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(waypoints, "_SPACING", 2)
        patch.setattr(waypoints, "_MOST", 3)
        for piece in pieces:
            await family.do(*piece)
    for position, state in family.members:
        assert position.values == state
        assert await family.checkpointer.load(position.thread_id, position.ref.id) == position
        cold = Checkpointer(store)
        assert await cold.load(position.thread_id, position.ref.id, expect=position.ref.digest) == position
        line = await store.line(position.thread_id, position.ref.id)
        assert line is not None
        assert read_by(line) == position.since_base <= READ_FACTOR * len(canonical(state)) + READ_FLOOR
        assert position.state_size == len(canonical(state))
    whole = {position.ref.id: (position.ref.digest, canonical(state)) for position, state in family.members}
    for thread in family.heads:
        for snapshot in await store.snapshots(thread):
            digest, written = whole[snapshot.checkpoint_id]
            assert (snapshot.state, snapshot.digest) == (written, snapshot_digest(digest, written))


async def test_a_step_on_the_same_worker_reads_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What commits left is there for the next steps of their threads; repeated commits don't push it out."""
    shared, reads, ask = Checkpointer(store, cache_bytes=4_000), list[str](), store.line

    async def line(thread_id: str, checkpoint_id: str) -> Line | None:
        reads.append(thread_id)
        return await ask(thread_id, checkpoint_id)

    monkeypatch.setattr(store, "line", line)
    threads = [History(store) for _ in range(3)]
    for _ in range(10):
        for history in threads:
            if history.head:
                assert await shared.load(history.thread_id, history.head.ref.id) == history.head
            change = history.change({"s": {"op": "set", "value": noise(1_000)}})
            done, *_ = [await shared.commit(history.head, change) for _ in range(5)]
            history.positions.append(done)
    assert reads == []


async def test_going_back_reads_a_stretch(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a thread was made, any of its states is read from the nearest one that was kept, however long it is.

    Few are kept: the stretch doubles with the thread. Who has not made it reads it whole.
    """
    history, lines, stretches = History(store), list[str](), list[int]()
    line, path = store.line, store.path

    async def read_line(thread_id: str, checkpoint_id: str) -> Line | None:
        lines.append(checkpoint_id)
        return await line(thread_id, checkpoint_id)

    async def read_path(thread_id: str, checkpoint_id: str, *, limit: int) -> list[Checkpoint]:
        stretches.append(limit)
        return await path(thread_id, checkpoint_id, limit=limit)

    for number in range(700):
        await history.commit({"t": {"op": "messages", "put": [{"id": str(number), "content": "x"}]}})
    monkeypatch.setattr(store, "line", read_line)
    monkeypatch.setattr(store, "path", read_path)
    for position in history.positions[100:650:37]:
        assert await history.checkpointer.load(history.thread_id, position.ref.id) == position
    assert (lines, set(stretches)) == ([], {64})
    middle = history.positions[350]
    assert await Checkpointer(store).load(history.thread_id, middle.ref.id) == middle
    assert lines == [middle.ref.id]


@pytest.mark.parametrize("limit", [{"cache_bytes": 3_500}, {"cache_states": 3}])
async def test_the_cache_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]) -> None:
    """Of many threads the ones used last are remembered, as many as fit."""
    checkpointer = Checkpointer(store, **limit)
    asked: list[str] = []
    ask = store.line

    async def line(thread_id: str, checkpoint_id: str) -> Line | None:
        asked.append(thread_id)
        return await ask(thread_id, checkpoint_id)

    monkeypatch.setattr(store, "line", line)
    threads = [History(store) for _ in range(5)]
    for history in threads:
        history.checkpointer = checkpointer
        await history.commit({"s": {"op": "set", "value": noise(1_000)}})
    for history in threads:
        assert history.head is not None
        await checkpointer.load(history.thread_id, history.head.ref.id)
    for history in reversed(threads):
        assert history.head is not None
        await checkpointer.load(history.thread_id, history.head.ref.id)
    every = [history.thread_id for history in threads]
    assert asked == [*every, *reversed(every[:2])]  # each was pushed out by those after it; the last three stay


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────

LARGE = 1_500


def changes(kind: str, size: int, number: int) -> Delta:
    """One step of a history of this kind."""
    text = noise(size)
    shapes: dict[str, Delta] = {
        "append": {"a": {"op": "append", "items": [text]}},
        "talk": {"t": {"op": "messages", "put": [{"id": f"new-{number}", "content": text}]}},
        "overwrite": {"s": {"op": "set", "value": text}},
        "merge": {"m": {"op": "merge", "value": {f"k{number % 3}": {"deep": text}}}},
        "replace": {"t": {"op": "messages", "put": [{"id": f"m{number % 3}", "content": text}]}},
        "compact": {"t": {"op": "set", "value": [{"id": "all", "content": text[:20]}]}},
        "forget": {"a": {"op": "set", "value": []}, "s": {"op": "set", "value": ""}, "m": {"op": "set", "value": {}}},
    }
    return shapes[kind]


kinds = st.sampled_from(["append", "talk", "overwrite", "merge", "replace", "compact", "forget"])
phases = st.lists(st.tuples(kinds, st.integers(0, LARGE), st.integers(1, 12)), min_size=1, max_size=6)


def read_by(line: Line) -> int:
    """Bytes that a load of this line reads: its snapshot, and the deltas after it."""
    layers = line.layers[1:] if line.snapshot else line.layers
    return sum(len(layer.delta) for layer in layers) + (len(line.snapshot.state) if line.snapshot else 0)


async def cost(history: History) -> tuple[int, int, int, int]:
    """Bytes of: the deltas, the snapshots, what a cold load of the head reads, the state at the head."""
    assert history.head is not None
    checkpoints = [c async for c in history.store.walk(history.thread_id)]
    snapshots = await history.store.snapshots(history.thread_id)
    line = await history.store.line(history.thread_id, history.head.ref.id)
    assert line is not None
    return (
        sum(len(canonical(c.delta)) for c in checkpoints), sum(len(s.state) for s in snapshots), read_by(line),
        len(canonical(history.head.values)),
    )  # fmt: skip


@brief
@given(phases)
async def test_snapshots_pay_for_themselves(store: Store, phases: list[tuple[str, int, int]]) -> None:
    """In any history: all snapshots are at most half of all deltas, and a load reads at most three times the state.

    The state's size is known exactly without being measured.
    """
    history = History(store)
    for kind, size, count in phases:
        for number in range(count):
            await history.commit(changes(kind, size, number))
        deltas, snapshots, read, state = await cost(history)
        assert snapshots <= deltas / 2
        assert read <= READ_FACTOR * state + READ_FLOOR
        assert history.head is not None
        assert (history.head.since_base, history.head.state_size) == (read, state)


@pytest.mark.parametrize("kind", ["overwrite", "merge", "replace"])
async def test_overwriting_is_read_from_a_snapshot(store: Store, kind: str) -> None:
    """Two hundred overwrites of the same kilobyte: snapshots are taken, and the property above is not met by luck."""
    history = History(store)
    for number in range(200):
        await history.commit(changes(kind, 1_000, number))
    deltas, snapshots, read, state = await cost(history)
    assert deltas > 200_000
    assert 0 < snapshots <= deltas / 2
    assert read <= READ_FACTOR * state + READ_FLOOR


async def test_what_only_grows_has_no_snapshot(store: Store) -> None:
    """An append-only thread is its own deltas: nothing is written twice."""
    history = History(store)
    for _ in range(100):
        await history.loop(200, 500)
    deltas, snapshots, read, state = await cost(history)
    assert snapshots == 0
    assert read == deltas < 1.2 * state


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_commit_is_recognised_or_refused(store: Store) -> None:
    """The same change again is done already; other content under its id, or another change on its head, is refused."""
    history = History(store)
    root = await history.commit({})
    change = history.change({"s": {"op": "set", "value": 1}})
    done = await history.checkpointer.commit(root, change)
    assert await Checkpointer(store).commit(root, change) == done
    other = replace(change, delta={"s": {"op": "set", "value": 2}})
    for wrong in (other, replace(other, checkpoint_id=history.change({}).checkpoint_id)):
        with pytest.raises(ConcurrentModification):
            await history.checkpointer.commit(root, wrong)
    assert await Checkpointer(store).load(history.thread_id, done.ref.id) == done
    assert [c.ref async for c in store.walk(history.thread_id)] == [root.ref, done.ref]


async def test_the_wrong_checkpoint_is_refused(store: Store) -> None:
    """A checkpoint that isn't there, and one that the caller knows by another digest."""
    history = History(store)
    position = await history.commit({})
    with pytest.raises(CheckpointNotFound, match="has no checkpoint"):
        await Checkpointer(store).load(history.thread_id, "nowhere")
    with pytest.raises(IntegrityError, match="the thread knows it as 0000"):
        await history.checkpointer.load(history.thread_id, position.ref.id, expect="0" * 64)
