"""What a checkpoint store can do: the one seam between the engine and a database."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from perdure.budget import Usage
from perdure.checkpoint import Checkpoint
from perdure.effects import Effect, EffectStatus
from perdure.values import Value


class ThreadRow(Value):
    """A thread as the store knows it."""

    thread_id: str
    agent: str
    tenant: str
    lineage: str
    branch: int
    turn: int
    head_id: str
    closed: bool
    created_at: str
    updated_at: str


class Snapshot(Value):
    """The whole state at a checkpoint, as canonical JSON bytes; ``digest`` binds it to the checkpoint's digest."""

    checkpoint_id: str
    state: bytes
    digest: str


class CachedResult(Value):
    """A model answer under the key of its request: the checkpoint whose delta holds it. Scope and key name it."""

    scope: str
    key: str
    thread_id: str
    checkpoint_id: str
    usage: Usage


class Receipt(Value):
    """What a call returned, as JSON bytes, under its idempotency key."""

    key: str
    result: bytes


class EffectRow(Value):
    """A ledger entry with what its compensation needs: arguments, their digest, and the receipt, as JSON bytes."""

    thread_id: str
    entry: Effect
    arguments: bytes
    arguments_digest: str
    receipt: bytes | None = None


class Step(Value):
    """One commit: a checkpoint and everything that must become true with it, in one transaction.

    ``since_base`` is how much has to be read to materialise its state: the snapshot at ``base_id`` and the deltas after
    it; ``state_size`` is how long that state is. The checkpointer decides by them about snapshots.
    """

    checkpoint: Checkpoint
    agent: str = ""
    tenant: str = ""
    base_id: str | None = None
    since_base: int
    state_size: int
    snapshot: Snapshot | None = None
    result: CachedResult | None = None
    receipt: Receipt | None = None
    clears: tuple[str, ...] = ()


class Line(Value):
    """A checkpoint with its ancestors back to the nearest snapshot (or the root), oldest first."""

    snapshot: Snapshot | None
    checkpoints: tuple[Checkpoint, ...]
    base_id: str | None
    since_base: int
    state_size: int


class Store(Protocol):
    """A checkpoint store. Every method raises StoreUnreachable when the database doesn't answer."""

    url: str

    async def migrate(self) -> list[str]:
        """Bring the schema up to date; the names of the migrations that ran."""

    async def missing_migrations(self) -> list[str]:
        """The migrations that have not run yet, oldest first."""

    async def close(self) -> None:
        """Let go of connections."""

    async def thread(self, thread_id: str) -> ThreadRow | None:
        """The thread's row."""

    async def threads(self) -> list[str]:
        """All thread ids, in order."""

    async def close_thread(self, thread_id: str) -> None:
        """Mark the thread as closed."""

    async def commit(self, step: Step) -> bool:
        """Make the step's checkpoint the head if its parent is the head: True.

        False if this very checkpoint (same id, same digest) was committed before: nothing changes. Raises
        ConcurrentModification if another head stands there or the id has another digest; nothing changes.
        """

    async def checkpoint(self, thread_id: str, checkpoint_id: str) -> Checkpoint | None:
        """One checkpoint."""

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        """A checkpoint with what it takes to materialise its state."""

    async def history(self, thread_id: str, *, limit: int, before_step: int | None = None) -> list[Checkpoint]:
        """A page of checkpoints, newest first."""

    def walk(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        """All checkpoints of a thread by step, the root first; a page at a time, so memory stays bounded.

        Raises IntegrityError that names the row where one can't be read.
        """

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        """All snapshots of a thread, oldest first."""

    async def result(self, scope: str, key: str) -> CachedResult | None:
        """A cached model answer."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        """Record that an attempt begins. None for the first attempt, else the row as it was before.

        An entry that is done, undone or in doubt is left as it is. Raises ConcurrentModification where ``head`` is no
        longer the thread's head: the step is over, and an attempt of its calls comes too late.
        """

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        """Record that a call clearly did nothing."""

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str) -> None:
        """Record what a call returned; a ledger entry under this key becomes ``done``.

        Raises ConcurrentModification where ``head`` is no longer the thread's head; nothing changes.
        """

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str) -> None:
        """Record that an effect is done, with a result that is not going to be committed. Raises as ``put_receipt``."""

    async def receipts(self, thread_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Recorded results that have not been committed yet, by key."""

    async def effect(self, thread_id: str, key: str) -> EffectRow | None:
        """One ledger entry."""

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        """The ledger of a thread, or of one of its turns, oldest first."""

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        """Set what is known of an effect, where that follows from what was known before; else nothing changes.

        ``attempted`` may become in doubt; what is in doubt, done or failed; what is done, undone or in need of
        attention; what needs attention, done or undone. So a settlement that comes late doesn't take back a later one.
        """

    async def put_blob(self, kind: str, blob: bytes) -> str:
        """Keep bytes under their digest (an agent's specification, a large tool result); the digest."""

    async def blob(self, digest: str) -> bytes | None:
        """Bytes by digest."""

    async def sizes(self) -> dict[str, Any]:
        """Rows and bytes by table, for `perdure doctor` and benchmarks."""
