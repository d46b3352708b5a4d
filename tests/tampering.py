"""Somebody who gets at a store's rows without Perdure: what `db verify` must find and `db repair` must mend."""

from typing import Any, Protocol

from perdure.canonical import canonical
from perdure.checkpointer import snapshot_digest
from perdure.stores import Store
from perdure.stores.base import Snapshot
from perdure.stores.memory import MemoryStore
from perdure.stores.records import Entry, Record, entry, record


class Hands(Protocol):
    """What can be done to one thread's rows. Nothing is sealed anew but by ``forge``."""

    async def drop(self, checkpoint_id: str) -> None:
        """Delete a checkpoint's row; its snapshot stays."""

    async def change(self, checkpoint_id: str) -> None:
        """Change what a checkpoint's row holds."""

    async def swap(self, one: str, other: str) -> None:
        """Let two checkpoints' rows change places."""

    async def forge(self, checkpoint_id: str, **changes: Any) -> None:
        """Change fields of a checkpoint as somebody does who knows how rows are sealed."""

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        """Delete a snapshot."""

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        """Put a snapshot where one was, or none."""

    async def move_head(self, checkpoint_id: str) -> None:
        """Say that the thread stands elsewhere."""

    async def move_origin(self, thread_id: str, checkpoint_id: str) -> None:
        """Say that the thread comes from elsewhere."""

    async def drop_thread(self) -> None:
        """Delete the thread's row alone."""

    async def change_call(self, key: str) -> None:
        """Change the arguments of an effect."""


def hands(store: Store, thread_id: str) -> Hands:
    """Hands on a thread."""
    if isinstance(store, MemoryStore):
        return _MemoryHands(store, thread_id)
    raise NotImplementedError(store)


def forged_snapshot(checkpoint_id: str, digest: str) -> Snapshot:
    """Another state, bound to the checkpoint of this digest as a right one is."""
    state = canonical({"text": "forged"})
    return Snapshot(checkpoint_id=checkpoint_id, state=state, digest=snapshot_digest(digest, state))


class _MemoryHands:
    def __init__(self, store: MemoryStore, thread_id: str) -> None:
        self._thread_id = thread_id
        self._thread: Any = store._threads[thread_id]

    async def drop(self, checkpoint_id: str) -> None:
        del self._thread.checkpoints[checkpoint_id]

    async def change(self, checkpoint_id: str) -> None:
        stored = self._thread.checkpoints[checkpoint_id]
        self._thread.checkpoints[checkpoint_id] = Record(stored.link, stored.body[:-1] + bytes([stored.body[-1] ^ 1]))

    async def swap(self, one: str, other: str) -> None:
        rows = self._thread.checkpoints
        rows[one], rows[other] = rows[other], rows[one]

    async def forge(self, checkpoint_id: str, **changes: Any) -> None:
        known = entry(self._thread_id, checkpoint_id, self._thread.checkpoints[checkpoint_id])
        forged: Entry = known.model_copy(update={"checkpoint": known.checkpoint.model_copy(update=changes)})
        self._thread.checkpoints[checkpoint_id] = record(forged)

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        del self._thread.snapshots[checkpoint_id]

    async def put_snapshot(self, snapshot: Snapshot) -> None:
        self._thread.snapshots[snapshot.checkpoint_id] = snapshot

    async def move_head(self, checkpoint_id: str) -> None:
        self._thread.row = self._thread.row.model_copy(update={"head_id": checkpoint_id})

    async def move_origin(self, thread_id: str, checkpoint_id: str) -> None:
        self._thread.row = self._thread.row.model_copy(update={"origin_thread": thread_id, "origin_id": checkpoint_id})

    async def drop_thread(self) -> None:
        self._thread.row = None

    async def change_call(self, key: str) -> None:
        row = self._thread.effects[key]
        self._thread.effects[key] = row.model_copy(update={"arguments": canonical({"amount": 5_000})})
