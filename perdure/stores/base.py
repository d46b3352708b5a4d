"""What a checkpoint store can do: the one seam between the engine and a database."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from perdure.audit import AuditEntry, AuditHead, AuditRow
from perdure.budget import Usage
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint, Layer
from perdure.effects import Effect, EffectStatus
from perdure.values import Value


class ThreadRow(Value):
    """A thread as the store knows it.

    ``lineage`` names what it shares cached results and one-time tokens with: itself and its forks.

    ``branch`` counts its rewinds. ``dry_run``: it is a fork that does nothing outside. ``audited`` and ``audit_digest``
    say how its audit ends.
    """

    thread_id: str
    agent: str
    tenant: str
    lineage: str
    branch: int
    turn: int
    head_id: str
    schema_version: int  # of the head
    closed: bool
    dry_run: bool = False
    audited: int = 0
    audit_digest: str = ""
    origin_thread: str = ""  # of a fork: where it comes from
    origin_id: str = ""
    lease: str = ""  # who may write alone and until when, as JSON of perdure.lease.Lease; empty: everybody
    created_at: str
    updated_at: str

    @property
    def audit_end(self) -> AuditHead:
        """The end of its audit."""
        return AuditHead(number=self.audited, digest=self.audit_digest)


class Snapshot(Value):
    """The whole state at a checkpoint, as canonical JSON bytes; ``digest`` binds it to the checkpoint's digest."""

    checkpoint_id: str
    state: bytes
    digest: str


class CachedResult(Value):
    """What a call came to, under the key of its request. Scope and key name it.

    A model's answer is kept once, in the delta of the checkpoint that is named here; the result of a node or a tool
    is kept as ``value`` (JSON bytes) until ``expires_at`` (ISO 8601, UTC; empty: for ever).
    """

    scope: str
    key: str
    thread_id: str = ""
    checkpoint_id: str = ""
    usage: Usage = Usage()
    value: bytes | None = None
    expires_at: str = ""


class Receipt(Value):
    """What a call returned, as JSON bytes, under its idempotency key."""

    key: str
    result: bytes


class EffectRow(Value):
    """A ledger entry with what its compensation needs: arguments, their digest, and the receipt, as JSON bytes.

    ``tokens`` are the digests of its one-time tokens. They are told to ``Store.claim`` and not read back.
    """

    thread_id: str
    entry: Effect
    arguments: bytes
    arguments_digest: str
    receipt: bytes | None = None
    tokens: tuple[str, ...] = ()


class Step(Value):
    """One commit: a checkpoint and everything that must become true with it, in one transaction.

    ``extends`` is the head that the commit replaces: the checkpoint's parent, but for a rewind, whose parent lies
    further back. None: the thread is new; then ``lineage`` is that of the thread it was forked from, or empty.
    ``branch`` is set where the commit begins a new branch of the thread. ``dry_run`` is that of a new thread.

    ``since_base`` is how much has to be read to materialise its state: the snapshot at ``base_id`` and the deltas after
    it; ``state_size`` is how long that state is. The checkpointer decides by them about snapshots.
    """

    checkpoint: Checkpoint
    extends: str | None = None
    agent: str = ""
    tenant: str = ""
    lineage: str = ""
    dry_run: bool = False
    branch: int | None = None
    base_id: str | None = None
    since_base: int
    state_size: int
    snapshot: Snapshot | None = None
    result: CachedResult | None = None
    receipt: Receipt | None = None
    clears: tuple[str, ...] = ()


class Line(NamedTuple):
    """A checkpoint with its ancestors back to the nearest snapshot (or the root), oldest first, across forks.

    Of the ancestors only what makes the state: there may be thousands of them.
    """

    snapshot: Snapshot | None
    layers: tuple[Layer, ...]
    last: Checkpoint
    base_id: str | None
    since_base: int
    state_size: int


class Store(Protocol):
    """A checkpoint store. Every method raises StoreUnreachable when the database doesn't answer."""

    url: str

    async def migrate(self, *, partitions: int = 0) -> list[str]:
        """Bring the schema up to date; the names of the migrations that ran.

        ``partitions``: where the database can, spread the tables that grow with every step over so many, by thread.
        """

    async def missing_migrations(self) -> list[str]:
        """The migrations that have not run yet, oldest first."""

    async def cautions(self) -> list[str]:
        """What the database's configuration can lose, a sentence each; empty where a commit is safe once it returns."""

    async def close(self) -> None:
        """Let go of connections."""

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def thread(self, thread_id: str) -> ThreadRow | None:
        """The thread's row."""

    async def threads(self, *, after: str = "", limit: int = 1000) -> list[ThreadRow]:
        """A page of threads by id, those after the given one."""

    async def forks(self, thread_id: str) -> list[ThreadRow]:
        """The threads that were forked from this one, by id."""

    async def close_thread(self, thread_id: str) -> None:
        """Mark the thread as closed."""

    async def set_lease(self, thread_id: str, lease: str) -> None:
        """Keep the thread's lease (empty: it has none)."""

    async def delete_thread(self, thread_id: str) -> None:
        """Remove the thread and all that is its own; no error where there is none.

        Raises Conflict where another thread is forked from it; nothing changes.
        """

    async def copy_thread(self, source: str, target: str) -> None:
        """Copy all checkpoints, snapshots and receipts, under the same ids. Effects, results and leases stay; the copy
        begins a lineage of its own.

        Raises ThreadNotFound, or Conflict where the target exists; nothing changes.
        """

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, step: Step) -> bool:
        """Make the step's checkpoint the head if what it extends is the head: True.

        False if this very checkpoint (same id, same digest) was committed before: nothing changes. Raises
        ConcurrentModification (with both versions) if another head stands there or the id has another digest, and
        CheckpointNotFound if the parent isn't there; nothing changes.
        """

    async def restore(self, step: Step, *, head: bool) -> None:
        """Put back a checkpoint that is missing or damaged, with its snapshot; with ``head`` make it the head (and the
        thread, where that is missing too). One that is there stays, if all is right that its digest covers."""

    async def remove(
        self, thread_id: str, checkpoint_ids: Sequence[str], roots: Sequence[Snapshot], *, head: str
    ) -> None:
        """Remove checkpoints for good, with their snapshots, cached results and receipts.

        ``roots`` is the whole state at each remaining checkpoint whose parent goes: that one is ``cut`` from then on.
        ``head`` is the head afterwards; empty: the one that it is by then. Raises Conflict where another thread is
        forked from a removed one, or something that stays goes back to it, and CheckpointNotFound where the head or a
        root wouldn't be there; nothing changes.
        """

    async def checkpoint(self, thread_id: str, checkpoint_id: str) -> Checkpoint | None:
        """One checkpoint."""

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        """A checkpoint with what it takes to materialise its state."""

    async def path(self, thread_id: str, checkpoint_id: str, *, limit: int) -> list[Checkpoint]:
        """A checkpoint and its ancestors, newest first, across forks; one query, whatever the length of the thread."""

    async def landmarks(
        self, thread_id: str, checkpoint_id: str, *, limit: int, in_turn: bool = False
    ) -> list[Checkpoint]:
        """Among so many checkpoints on the way back from this one, itself included, those that are no plain steps,
        newest first, across forks; reads nothing else of the steps. ``in_turn``: only those of its own turn."""

    async def ancestor(self, thread_id: str, checkpoint_id: str, step: int) -> Checkpoint | None:
        """The ancestor (or the checkpoint itself) of this step, across forks; reads no deltas on the way."""

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        """Checkpoints with all of these entries in their metadata, the newest first; of all threads, or of one."""

    def walk(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        """All checkpoints of a thread, of all its branches, by step, the root first; a page at a time, so memory stays
        bounded. Raises IntegrityError that names the row where one can't be read.
        """

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        """All snapshots of a thread, oldest first."""

    # ── results, receipts, effects ───────────────────────────────────────────────────────────────────────────────

    async def result(self, scope: str, key: str) -> CachedResult | None:
        """A cached result that has not expired."""

    async def put_result(self, result: CachedResult) -> None:
        """Keep a result that belongs to no commit; it takes the place of an older one."""

    async def stray_results(self, thread_id: str) -> list[str]:
        """Checkpoints of the thread, by id, that cached results name though they aren't there: they were lost."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        """Record that an attempt begins. None for the first attempt, else the row as it was before.

        An entry that is done, undone or in doubt is left as it is. Raises ConcurrentModification where ``head`` is no
        longer the thread's head: the step is over, and an attempt of its calls comes too late. Raises TokenSpent where
        another call of the thread's lineage has used one of the row's tokens and has not clearly failed; then nothing
        changes. With the entry the tokens are this call's.
        """

    async def record_simulated(self, row: EffectRow, *, head: str) -> None:
        """Enter a call of a dry run, with what answered it as its receipt; its status is ``simulated`` for good.

        A key's first entry stays. Raises ConcurrentModification as ``claim``.
        """

    async def join_saga(self, thread_id: str, key: str, saga: str) -> None:
        """Let an effect belong to a saga, whatever its status; no error where there is no such effect."""

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        """Record that a call clearly did nothing."""

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str = "") -> None:
        """Record what a call returned; a ledger entry under this key becomes ``done``. A key's first receipt stays.

        Raises ConcurrentModification where ``head`` is given and no longer the thread's head; nothing changes.
        """

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str = "", by: str = "") -> None:
        """Record that an effect is done, with a result that is not going to be committed. Raises as ``put_receipt``.

        ``by`` is who found out; nobody had to where the call itself has returned.

        Without ``head`` it is recorded also where the step is over: what was done outside is known to be done. So is
        what had been taken for not done: ``failed`` becomes ``done`` too.
        """

    async def receipts(self, thread_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        """Recorded results that have not been committed yet, by key."""

    async def receipts_under(self, thread_id: str, prefix: str) -> dict[str, bytes]:
        """All receipts whose key begins so, by key, in the order of the keys."""

    async def effect(self, thread_id: str, key: str) -> EffectRow | None:
        """One ledger entry."""

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        """The ledger of a thread, or of one of its turns, oldest first."""

    async def open_effects(self, *, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[EffectRow]:
        """A page of the effects of all threads that are in doubt or need attention, by thread and key, those after the
        given pair."""

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        """Set what is known of an effect, where that follows from what was known before; else nothing changes.

        ``attempted`` may become in doubt or failed; what is in doubt, done or failed; what is done, undone or in need
        of attention; what needs attention, done, undone, or in need of attention for another reason. So a settlement
        that comes late doesn't take back a later one.
        """

    # ── audit ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        """Write lines to the thread's audit, in one transaction; those whose id is there already are left out.

        The new end of the audit. Raises ThreadNotFound.
        """

    async def audit(self, thread_id: str, *, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        """A page of the thread's audit: the lines after this number. Raises IntegrityError that names a line that can't
        be read."""

    # ── blobs ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_blob(self, kind: str, blob: bytes) -> str:
        """Keep bytes under their digest (an agent's specification, a large tool result); the digest."""

    async def blob(self, digest: str) -> bytes | None:
        """Bytes by digest."""

    async def sizes(self) -> dict[str, Any]:
        """Rows and bytes by table, for `perdure doctor` and benchmarks: ``{"rows": {table: n}, "bytes": n}``."""
