"""The checkpointer: materialised states in, checkpoints out.

It keeps the states it has seen (by checkpoint id) in memory, so that a step on the same worker reads nothing.
"""

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from perdure.approvals import stamp
from perdure.canonical import Json, canonical, digest
from perdure.checkpoint import Checkpoint, Frontier, Layer, Ref, Source, layer_of
from perdure.delta import Delta, Values, apply, fold, growth
from perdure.errors import CheckpointNotFound, IntegrityError
from perdure.stores.base import CachedResult, Line, Receipt, Snapshot, Step, Store
from perdure.waypoints import Waypoints

CACHE_BYTES = 64 * 2**20  # of JSON; twice that in memory, and 2.5 KB a state
CACHE_STATES = 1_000
READ_FACTOR = 3  # see _snapshot_pays
READ_FLOOR = 4096

_NOTHING = Frontier()


@dataclass(frozen=True, kw_only=True)
class Position:
    """A checkpoint with its state as it is stored: sealed, and in the version of the state that wrote it.

    The last three fields are what the next commit has to know to decide about a snapshot.
    """

    thread_id: str
    ref: Ref
    parent_id: str | None
    turn: int = 0
    schema_version: int = 1
    next: Frontier = _NOTHING
    values: dict[str, Any]
    base_id: str | None = None
    since_base: int = 0
    state_size: int = 0


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a step wants to commit."""

    thread_id: str
    checkpoint_id: str
    source: Source
    nodes: tuple[str, ...] = ()
    turn: int
    schema_version: int = 1
    next: Frontier = _NOTHING
    metadata: Mapping[str, Json] = field(default_factory=dict)
    facts: Mapping[str, Json] = field(default_factory=dict)
    delta: Delta


class Checkpointer:
    """Loads states and commits steps. Safe for concurrent use by the activities of one process.

    It keeps the latest ``cache_states`` states of as many threads, while they have at most ``cache_bytes``.
    """

    def __init__(self, store: Store, *, cache_bytes: int = CACHE_BYTES, cache_states: int = CACHE_STATES) -> None:
        self.store = store
        self._limit = cache_bytes
        self._states = cache_states
        self._cached: OrderedDict[tuple[str, str], Position] = OrderedDict()
        self._bytes = 0
        self._waypoints: dict[str, Waypoints] = {}  # of threads of which a state is cached

    async def load(self, thread_id: str, checkpoint_id: str, *, expect: str = "") -> Position:
        """The state at a checkpoint; ``expect`` is the digest the caller knows it by, or its beginning.

        Raises CheckpointNotFound, or IntegrityError if what is stored doesn't match its digests.
        """
        position = self._cached.get((thread_id, checkpoint_id))
        if position is None:
            position = await self._from_waypoint(thread_id, checkpoint_id) or await self._read(thread_id, checkpoint_id)
            self._remember(thread_id, position)
        else:
            self._cached.move_to_end((thread_id, checkpoint_id))
        if not position.ref.digest.startswith(expect):
            raise IntegrityError(
                f"Checkpoint {checkpoint_id} of {thread_id} has digest {position.ref.digest[:12]}…, "
                f"the thread knows it as {expect[:12]}….",
                hint="Run `perdure db verify`.",
            )
        return position

    async def _read(self, thread_id: str, checkpoint_id: str) -> Position:
        line = await self.store.line(thread_id, checkpoint_id)
        if line is None:
            raise CheckpointNotFound(f"Thread {thread_id} has no checkpoint {checkpoint_id}.")
        return _materialised(thread_id, line)

    async def _from_waypoint(self, thread_id: str, checkpoint_id: str) -> Position | None:
        """The state at a checkpoint from an earlier one that is known; None where none is near."""
        if (waypoints := self._waypoints.get(thread_id)) is None:
            return None
        if (kept := waypoints.get(checkpoint_id)) is not None:
            return kept
        stretch = await self.store.path(thread_id, checkpoint_id, limit=waypoints.spacing)
        for length, checkpoint in enumerate(stretch, 1):
            if checkpoint.cut or checkpoint.parent_thread:
                return None
            if (start := waypoints.get(checkpoint.parent_id)) is not None:
                return _onward(start, stretch[length - 1 :: -1])
        return None

    async def commit(
        self,
        parent: Position | None,
        change: Change,
        *,
        replaces: str = "",
        branch: int | None = None,
        lineage: str = "",
        dry_run: bool = False,
        agent: str = "",
        tenant: str = "",
        result: CachedResult | None = None,
        receipt: Receipt | None = None,
        clears: tuple[str, ...] = (),
    ) -> Position:
        """Commit a change on its parent and return the new position.

        The parent is the head; None where the thread is new, and a position of another thread where it is a fork.
        ``replaces`` is the head where the parent is not: a rewind, which begins a new ``branch``. The same change
        committed before is no error. Raises ConcurrentModification if the head has moved.
        """  # fmt: skip
        values = apply(parent.values if parent else {}, change.delta)
        checkpoint = _checkpoint(parent, change)
        forks = bool(checkpoint.parent_thread)
        step = step_of(parent, checkpoint, values).model_copy(
            update={
                "extends": None if forks else replaces or checkpoint.parent_id, "agent": agent, "tenant": tenant,
                "branch": branch, "lineage": lineage, "dry_run": dry_run, "result": result, "receipt": receipt,
                "clears": clears,
            }
        )  # fmt: skip
        await self.store.commit(step)
        position = _position(step, values)
        self._remember(change.thread_id, position)
        self._waypoints.setdefault(change.thread_id, Waypoints()).passed(position)
        return position

    def _remember(self, thread_id: str, position: Position) -> None:
        # States of one thread share their items, so the parent's place in the cache is what the child takes over.
        if position.parent_id:
            self._forget((thread_id, position.parent_id))
        self._forget((thread_id, position.ref.id))
        self._cached[(thread_id, position.ref.id)] = position
        self._bytes += position.state_size
        while (self._bytes > self._limit or len(self._cached) > self._states) and len(self._cached) > 1:
            thread, _ = oldest = next(iter(self._cached))
            self._forget(oldest)
            self._waypoints.pop(thread, None)

    def _forget(self, key: tuple[str, str]) -> None:
        if (position := self._cached.pop(key, None)) is not None:
            self._bytes -= position.state_size


def verify_line(thread_id: str, parent: tuple[str, int] | None, layers: Iterable[Layer]) -> None:
    """Recompute the chain of consecutive checkpoints from (parent digest, parent step).

    Raises IntegrityError that names the first bad row.
    """
    before, step = parent or ("", -1)
    for layer in layers:
        if layer.step != step + 1 or not layer.is_on(before):
            raise IntegrityError(
                f"Thread {thread_id}: checkpoint {layer.id} (step {layer.step}) doesn't match its digest.",
                table="checkpoints", row=layer.id,
            )  # fmt: skip
        before, step = layer.digest, layer.step


def snapshot_digest(checkpoint_digest: str, state: bytes) -> str:
    """What binds a snapshot to its checkpoint."""
    return digest(checkpoint_digest, state)


def _materialised(thread_id: str, line: Line) -> Position:
    """Fold a line into a state, checking every digest on the way."""
    layers, values, parent = line.layers, Values(), None
    if line.base_id is not None:
        base, *rest = layers
        layers, values, parent = tuple(rest), _snapshot_state(thread_id, base, line.snapshot), (base.digest, base.step)
    verify_line(thread_id, parent, layers)
    # Parsed at once: each is canonical JSON, now that its digest is known to be right.
    deltas = json.loads(b"[" + b",".join(layer.delta for layer in layers) + b"]")
    last = line.last
    return Position(
        thread_id=thread_id, ref=last.ref, parent_id=last.parent_id, turn=last.turn,
        schema_version=last.schema_version, next=last.next, values=fold(values, deltas), base_id=line.base_id,
        since_base=line.since_base, state_size=line.state_size,
    )  # fmt: skip


def _onward(position: Position, checkpoints: Sequence[Checkpoint]) -> Position:
    """The state after some more checkpoints, oldest first, checking every digest on the way."""
    verify_line(position.thread_id, (position.ref.digest, position.ref.step), map(layer_of, checkpoints))
    for checkpoint in checkpoints:
        values = apply(position.values, checkpoint.delta)
        position = _position(step_of(position, checkpoint, values), values)
    return position


def _position(step: Step, values: Values) -> Position:
    """Where a thread stands after a step."""
    c = step.checkpoint
    return Position(
        thread_id=c.thread_id, ref=c.ref, parent_id=c.parent_id, turn=c.turn, schema_version=c.schema_version,
        next=c.next, values=values, base_id=step.base_id, since_base=step.since_base, state_size=step.state_size,
    )  # fmt: skip


def _snapshot_state(thread_id: str, base: Layer, snapshot: Snapshot | None) -> Values:
    """The state at the checkpoint that a line begins with. Raises IntegrityError."""
    why = ""
    if snapshot is None:
        why = "is missing"
    elif snapshot.digest != snapshot_digest(base.digest, snapshot.state):
        why = "doesn't match its digest"
    else:
        state: Values = json.loads(snapshot.state)
        return state
    raise IntegrityError(f"Thread {thread_id}: the snapshot at {base.id} {why}.", table="snapshots", row=base.id)


def _checkpoint(parent: Position | None, change: Change) -> Checkpoint:
    elsewhere = parent is not None and parent.thread_id != change.thread_id
    draft = Checkpoint(
        thread_id=change.thread_id, id=change.checkpoint_id, parent_id=parent.ref.id if parent else None,
        parent_thread=parent.thread_id if parent and elsewhere else "", step=parent.ref.step + 1 if parent else 0,
        source=change.source, nodes=change.nodes, turn=change.turn, schema_version=change.schema_version,
        next=change.next, metadata=dict(change.metadata), facts=dict(change.facts), delta=change.delta,
        created_at=stamp(datetime.now(UTC)), size=len(canonical(change.delta)), digest="",
    )  # fmt: skip
    return draft.model_copy(update={"digest": digest_of(parent.ref.digest if parent else "", draft)})


def digest_of(parent: str, c: Checkpoint) -> str:
    """The digest that a checkpoint must have on a parent of this digest (empty: it has none)."""
    layer = layer_of(c)
    return digest(parent, layer.header, layer.delta)


def step_of(head: Position | None, checkpoint: Checkpoint, values: Values) -> Step:
    """The checkpoint as a store takes it: how much is read to get at its state, and the snapshot that is due there.

    ``head`` is the position of its parent, ``values`` the state after it.
    """
    since = checkpoint.size + (head.since_base if head else 0)
    before, size = (head.values, head.state_size) if head else ({}, len(canonical({})))
    size += growth(before, checkpoint.delta, values)
    base = head.base_id if head else None
    if not _snapshot_pays(since, size):
        return Step(checkpoint=checkpoint, base_id=base, since_base=since, state_size=size)
    state = canonical(values)
    snapshot = Snapshot(checkpoint_id=checkpoint.id, state=state, digest=snapshot_digest(checkpoint.digest, state))
    return Step(
        checkpoint=checkpoint, base_id=checkpoint.id, since_base=len(state), state_size=size, snapshot=snapshot
    )  # fmt: skip


def _snapshot_pays(reads: int, size: int) -> bool:
    """Whether loading would read so much more than the state that a snapshot pays.

    ``reads`` is the last snapshot and the deltas after it. So loading reads at most three times the state (and 4 KB).
    A snapshot is a third of what it replaces, its predecessor and the deltas since: all snapshots together
    are at most half of all deltas. A state that only grows is its own deltas and never needs one.
    """
    return reads > READ_FACTOR * size + READ_FLOOR
