"""A thread as a check writes it: every commit is known, so that what is read can be held against it."""

import itertools
from random import Random
from typing import Any, NamedTuple, cast

from perdure.canonical import Json, canonical
from perdure.checkpoint import Checkpoint, new_id
from perdure.checkpointer import Change, Checkpointer, Position, snapshot_digest
from perdure.delta import Delta
from perdure.stores.base import Snapshot, Step, Store

_numbers = itertools.count(1)
_random = Random(5)
_BESIDE = ("replaces", "branch", "lineage", "agent", "tenant", "result", "receipt", "clears")
BULK = "x" * 9_000  # characters; where such a value is overwritten by a short one, a snapshot is due


def checkpoint_id() -> str:
    """The next checkpoint id. Ids sort by their order."""
    return new_id(next(_numbers), _random)


def put(value: Json, channel: str = "value") -> Delta:
    """A delta that sets a channel."""
    return {channel: {"op": "set", "value": value}}


def add(*items: Json, channel: str = "items") -> Delta:
    """A delta that appends to a channel."""
    return {channel: {"op": "append", "items": list(items)}}


def snapshot_of(position: Position) -> Snapshot:
    """The whole state at a position."""
    state = canonical(position.values)
    return Snapshot(checkpoint_id=position.ref.id, state=state, digest=snapshot_digest(position.ref.digest, state))


class Draft(NamedTuple):
    """A step that was not committed, and where the thread stands once it is."""

    step: Step
    position: Position


class Writer:
    """Writes one thread of a store. ``drafts`` has what was committed, oldest first."""

    def __init__(self, store: Store, thread_id: str = "", *, origin: Position | None = None) -> None:
        self.store = store
        self.thread_id = thread_id or f"thread-{next(_numbers):06}"
        self.drafts: list[Draft] = []
        self._origin = origin

    @property
    def head(self) -> Position:
        """Where the thread stands."""
        return self.drafts[-1].position

    @property
    def positions(self) -> list[Position]:
        """Everywhere it has stood."""
        return [draft.position for draft in self.drafts]

    @property
    def ids(self) -> list[str]:
        """The ids of its checkpoints, oldest first."""
        return [position.ref.id for position in self.positions]

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Its checkpoints as they were committed, oldest first."""
        return [draft.step.checkpoint for draft in self.drafts]

    async def draft(self, delta: Delta | None = None, *, on: Position | None = None, **fields: Any) -> Draft:
        """The next step, on the head or on another position; ``fields`` are those of a change and of its commit."""
        parent = on or (self.head if self.drafts else self._origin)
        beside = {name: fields.pop(name) for name in _BESIDE if name in fields}
        usual: dict[str, Any] = {"source": "step", "turn": 1, "checkpoint_id": checkpoint_id()}
        change = Change(thread_id=self.thread_id, delta=delta or {}, **(usual | fields))
        desk = _Desk()
        position = await Checkpointer(cast("Store", desk)).commit(parent, change, **beside)
        return Draft(desk.step, position)

    async def commit(self, delta: Delta | None = None, **fields: Any) -> Position:
        """Commit the next step."""
        draft = await self.draft(delta, **fields)
        assert await self.store.commit(draft.step) is True
        self.drafts.append(draft)
        return draft.position

    async def grow(self, steps: int) -> None:
        """So many small steps; none of them has a snapshot."""
        for _ in range(steps):
            await self.commit(add(len(self.drafts)))

    async def take_snapshot(self) -> Position:
        """Two steps, the second of which has a snapshot."""
        await self.commit(put(BULK))
        position = await self.commit(put(""))
        assert position.base_id == position.ref.id
        return position

    async def rewind(self, to: Position, *, branch: int, **fields: Any) -> Position:
        """Move the head back: a step on an earlier position, which replaces the head and begins a branch."""
        usual: dict[str, Any] = {"source": "rewind", "turn": to.turn}
        return await self.commit(on=to, replaces=self.head.ref.id, branch=branch, **(usual | fields))

    async def fork(self, at: Position, thread_id: str = "", **fields: Any) -> "Writer":
        """Another thread, whose first step is on a position of this one."""
        row = await self.store.thread(self.thread_id)
        fork = Writer(self.store, thread_id, origin=at)
        usual: dict[str, Any] = {"source": "fork", "turn": at.turn, "lineage": row.lineage if row else ""}
        await fork.commit(**(usual | fields))
        return fork


class _Desk:
    """In a store's place: keeps the step that a checkpointer would commit."""

    step: Step

    async def commit(self, step: Step) -> bool:
        self.step = step
        return True
