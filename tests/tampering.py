"""Somebody who gets at a store's rows without Perdure: what `db verify` must find and `db repair` must mend."""

from typing import Any, Protocol

from perdure.stores import Store
from perdure.stores.memory import MemoryStore
from perdure.stores.records import Record


class Hands(Protocol):
    """What can be done to one thread's rows. Nothing is sealed anew."""

    async def drop(self, checkpoint_id: str) -> None:
        """Delete a checkpoint's row; its snapshot stays."""

    async def change(self, checkpoint_id: str) -> None:
        """Change what a checkpoint's row holds."""

    async def swap(self, one: str, other: str) -> None:
        """Let two checkpoints' rows change places."""

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        """Delete a snapshot."""

    async def change_snapshot(self, checkpoint_id: str) -> None:
        """Change the state that a snapshot holds."""

    async def move_head(self, checkpoint_id: str) -> None:
        """Say that the thread stands elsewhere."""

    async def drop_thread(self) -> None:
        """Delete the thread's row alone, as far as the backend can have checkpoints without it."""


def hands(store: Store, thread_id: str) -> Hands:
    """Hands on a thread."""
    if isinstance(store, MemoryStore):
        return _MemoryHands(store, thread_id)
    raise NotImplementedError(store)


class _MemoryHands:
    def __init__(self, store: MemoryStore, thread_id: str) -> None:
        self._thread: Any = store._threads[thread_id]

    async def drop(self, checkpoint_id: str) -> None:
        del self._thread.checkpoints[checkpoint_id]

    async def change(self, checkpoint_id: str) -> None:
        stored = self._thread.checkpoints[checkpoint_id]
        self._thread.checkpoints[checkpoint_id] = Record(stored.link, stored.body[:-1] + bytes([stored.body[-1] ^ 1]))

    async def swap(self, one: str, other: str) -> None:
        rows = self._thread.checkpoints
        rows[one], rows[other] = rows[other], rows[one]

    async def drop_snapshot(self, checkpoint_id: str) -> None:
        del self._thread.snapshots[checkpoint_id]

    async def change_snapshot(self, checkpoint_id: str) -> None:
        snapshot = self._thread.snapshots[checkpoint_id]
        self._thread.snapshots[checkpoint_id] = snapshot.model_copy(update={"state": b'{"text":"forged"}'})

    async def move_head(self, checkpoint_id: str) -> None:
        self._thread.row = self._thread.row.model_copy(update={"head_id": checkpoint_id})

    async def drop_thread(self) -> None:
        self._thread.row = None
