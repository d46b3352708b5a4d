"""Repair of a thread: what the store has lost is made again from what the workflow's history tells.

A checkpoint that is made again is the one that was there, or it is not written: its digest proves it. What the digest
doesn't cover (metadata, facts, the time) the history tells too. Only what something in the store still needs is made
again: what was pruned on purpose stays away. Snapshots are made again from the deltas, without a history.
"""

from collections.abc import AsyncIterator

from perdure.audit import AuditEntry
from perdure.canonical import canonical
from perdure.care.chronicle import Chronicle, Written
from perdure.care.rebuilding import rebuild
from perdure.care.verify import Problem, verify
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Checkpointer, digest_of, snapshot_digest, step_of
from perdure.delta import Values, apply, fold
from perdure.errors import CheckpointNotFound, IntegrityError, ThreadNotFound, Unprovable
from perdure.stores.base import Snapshot, Step, Store
from perdure.values import Value

_ALL = 2**31 - 1  # checkpoints of a path


class Missed(Value):
    """What could not be made again, and why. ``step`` is None where nobody knows it."""

    id: str
    step: int | None = None
    why: str


class Repaired(Value):
    """What a repair came to.

    ``whole`` counts the checkpoints that are as the history tells; ``unneeded`` those that are not there, and nothing
    that is goes back to them: pruned, or the lost end of a line that a rewind left. ``problem`` is the first row that
    is still wrong; ``head`` is empty where there is no thread to have one. ``audited`` are lines of the audit that were
    written again.
    """

    thread_id: str
    whole: int = 0
    unneeded: int = 0
    rebuilt: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    missed: tuple[Missed, ...] = ()
    head: str = ""
    head_moved: bool = False
    audited: int = 0
    problem: Problem | None = None


async def repair(store: Store, told: Chronicle, *, everything: bool = False) -> Repaired:
    """Make again what the store has lost of a thread, and let its head be the newest of its line.

    ``everything``: also what nothing in the store needs. Raises ThreadNotFound where neither the store nor the history
    has the thread, StoreUnreachable.
    """
    work = _Repair(store, told, everything)
    await work.run()
    return await work.report()


class _Repair:
    """One thread. ``_whole`` are checkpoints that are as they were, with the id of the parent that they need."""

    def __init__(self, store: Store, told: Chronicle, everything: bool) -> None:
        self._store = store
        self._told = told
        self._everything = everything
        self._thread_id = told.thread_id
        self._written = {written.ref.id: written for written in told.written}
        self._loader = Checkpointer(store, cache_bytes=0)
        self._whole: dict[str, str | None] = {}
        self._damaged: set[str] = set()
        self._snapshots: dict[str, Snapshot] = {}
        self._founding = False  # the thread's row is gone: each restored checkpoint becomes the head
        self._rebuilt: list[str] = []
        self._resnapped: list[str] = []
        self._missed: dict[str, Missed] = {}
        self._head_moved = False
        self._audited = 0

    async def run(self) -> None:
        """All of it."""
        await self._found()
        while await self._round():
            pass
        await self._mend_snapshots()
        await self._mend_head()
        await self._mend_audit()

    async def report(self) -> Repaired:
        """What it came to. Raises ThreadNotFound."""
        row = await self._store.thread(self._thread_id)
        if row is None and not self._missed:
            raise ThreadNotFound(f"Neither the store nor Temporal has a thread {self._thread_id}.")
        problem = (await verify(self._store, self._thread_id)).problem if row else None
        absent = self._written.keys() - self._whole.keys() - self._missed.keys()
        return Repaired(
            thread_id=self._thread_id, whole=len(self._whole) - len(self._rebuilt), unneeded=len(absent),
            rebuilt=tuple(self._rebuilt), snapshots=tuple(self._resnapped), missed=tuple(self._missed.values()),
            head=row.head_id if row else "", head_moved=self._head_moved, audited=self._audited,
            problem=problem,
        )  # fmt: skip

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _found(self) -> None:
        """A thread whose row alone is gone begins again with its first checkpoint: that tells where it comes from."""
        self._founding = await self._store.thread(self._thread_id) is None
        if self._founding:
            async for checkpoint in self._store.walk(self._thread_id):
                await self._put(await self._as_it_stands(checkpoint.id))
                return

    async def _round(self) -> bool:
        """Make again what is found to be needed; whether anything came of it, since then more may be found."""
        before = len(self._rebuilt)
        await self._look()
        needed = await self._needed()
        for written in self._told.written:
            if written.ref.id in needed:
                await self._rebuild(written)
        return len(self._rebuilt) > before

    async def _look(self) -> None:
        """Which of the checkpoints that the history tells of are there, as they were."""
        self._snapshots = await self._readable_snapshots()
        for written in self._told.written:
            try:
                found = await self._store.checkpoint(self._thread_id, written.ref.id)
            except IntegrityError:
                self._damaged.add(written.ref.id)
                continue
            if found is not None and await self._is_right(found, written):
                self._whole[found.id] = None if found.cut or found.parent_thread else found.parent_id
            elif found is not None:
                self._damaged.add(found.id)

    async def _is_right(self, found: Checkpoint, written: Written) -> bool:
        if found.digest != written.ref.digest or found.size != len(canonical(found.delta)):
            return False
        if found.cut:  # its parent was removed, and with it what its digest was made of
            return True
        if found.parent_id != written.parent or found.parent_thread != written.parent_thread:
            return False
        parent = await self._digest(written)
        return parent is None or digest_of(parent, found) == found.digest

    async def _digest(self, written: Written) -> str | None:
        """The digest of the parent; None where nobody knows it."""
        if written.parent is None:
            return ""
        if ref := self._told.refs.get(written.parent):
            return ref.digest
        try:
            parent = await self._store.checkpoint(written.parent_thread or self._thread_id, written.parent)
        except IntegrityError:
            return None
        return parent.digest if parent else None

    async def _readable_snapshots(self) -> dict[str, Snapshot]:
        try:
            return {snapshot.checkpoint_id: snapshot for snapshot in await self._store.snapshots(self._thread_id)}
        except IntegrityError:
            return {}

    async def _needed(self) -> set[str]:
        """What is not there as it was, though the thread stands on it or something there goes back to it."""
        row = await self._store.thread(self._thread_id)
        open_ends: list[str | None] = [*self._damaged, *self._whole.values()]
        open_ends += [parent async for parent in self._strangers()]
        open_ends += await self._store.stray_results(self._thread_id)
        open_ends += list(self._written) if self._everything or row is None else [row.head_id]
        needed: set[str] = set()
        while open_ends:
            name = open_ends.pop()
            if name is None or name in needed or name in self._whole:
                continue
            if (written := self._written.get(name)) is not None:
                needed.add(name)
                if not written.parent_thread and not self._was_cut(written):
                    open_ends.append(written.parent)
            elif not await self._is_there(name):
                self._miss(name, "The history that Temporal still has doesn't tell of it.")
        return needed

    async def _strangers(self) -> AsyncIterator[str | None]:
        """The parents of checkpoints that the history doesn't tell of, as far as they can be read."""
        try:
            async for checkpoint in self._store.walk(self._thread_id):
                if checkpoint.id not in self._written and not checkpoint.cut and not checkpoint.parent_thread:
                    yield checkpoint.parent_id
        except IntegrityError as error:
            if error.row not in self._written:
                self._miss(error.row, "It is damaged, and the history that Temporal still has doesn't tell of it.")

    async def _is_there(self, checkpoint_id: str) -> bool:
        try:
            return await self._store.checkpoint(self._thread_id, checkpoint_id) is not None
        except IntegrityError:
            return False

    def _was_cut(self, written: Written) -> bool:
        """A damaged row whose ancestors were removed: its snapshot still stands for them."""
        snapshot = self._snapshots.get(written.ref.id)
        if written.ref.id not in self._damaged or written.parent in self._whole or snapshot is None:
            return False
        return snapshot.digest == snapshot_digest(written.ref.digest, snapshot.state)

    async def _rebuild(self, written: Written) -> None:
        try:
            step = await self._step(written)
        except (Unprovable, CheckpointNotFound, IntegrityError) as error:
            self._miss(written.ref.id, error.message)
            return
        await self._put(step)
        checkpoint = step.checkpoint
        self._damaged.discard(checkpoint.id)
        self._missed.pop(checkpoint.id, None)
        self._whole[checkpoint.id] = None if checkpoint.cut or checkpoint.parent_thread else checkpoint.parent_id
        self._rebuilt.append(checkpoint.id)

    async def _step(self, written: Written) -> Step:
        """Raises Unprovable, or CheckpointNotFound and IntegrityError where the state before it can't be loaded."""
        if self._was_cut(written):
            raise Unprovable("Its ancestors were removed, and with them what its digest was made of.")
        parent = None
        if written.parent is not None:
            parent = await self._loader.load(written.parent_thread or self._thread_id, written.parent)
        checkpoint = rebuild(self._thread_id, written, parent)
        return step_of(parent, checkpoint, apply(parent.values if parent else {}, checkpoint.delta))

    async def _put(self, step: Step) -> None:
        """Write; a thread without a row gets one, with what the history tells."""
        if not self._founding:
            await self._store.restore(step, head=False)
            return
        checkpoint, lineage = step.checkpoint, ""
        if checkpoint.parent_thread and (origin := await self._store.thread(checkpoint.parent_thread)):
            lineage = origin.lineage
        told = self._told
        row = {
            "agent": told.agent, "tenant": told.tenant, "branch": told.branch, "lineage": lineage,
            "dry_run": told.dry_run,
        }  # fmt: skip
        await self._store.restore(step.model_copy(update=row), head=True)

    def _miss(self, checkpoint_id: str, why: str) -> None:
        known = self._written.get(checkpoint_id)
        ref = known.ref if known else self._told.refs.get(checkpoint_id)
        self._missed[checkpoint_id] = Missed(id=checkpoint_id, step=ref.step if ref else None, why=why)

    async def _as_it_stands(self, checkpoint_id: str) -> Step:
        """A checkpoint that is there, as it would be written. Raises IntegrityError."""
        line = await self._store.line(self._thread_id, checkpoint_id)
        assert line is not None, "who asks has seen it"
        return Step(
            checkpoint=line.last, base_id=line.base_id, since_base=line.since_base,
            state_size=line.state_size, snapshot=line.snapshot if line.base_id == checkpoint_id else None,
        )  # fmt: skip

    # ── snapshots ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _mend_snapshots(self) -> None:
        """Make each snapshot again that is missing or not what the deltas make, one after the other."""
        tried: set[str] = set()
        while await self._store.thread(self._thread_id) is not None:
            problem = (await verify(self._store, self._thread_id)).problem
            if problem is None or problem.table != "snapshots" or problem.thread_id != self._thread_id:
                return
            if problem.row in tried:
                return
            tried.add(problem.row)
            await self._snap(problem.row)

    async def _snap(self, checkpoint_id: str) -> None:
        try:
            checkpoint = await self._store.checkpoint(self._thread_id, checkpoint_id)
            values = await self._folded(checkpoint_id)
        except (IntegrityError, CheckpointNotFound) as error:
            self._miss_snapshot(checkpoint_id, error.message)
            return
        if checkpoint is None or values is None:
            self._miss_snapshot(checkpoint_id, "its checkpoint is gone, or what it was made from was removed.")
            return
        state = canonical(values)
        snapshot = Snapshot(checkpoint_id=checkpoint_id, state=state, digest=snapshot_digest(checkpoint.digest, state))
        step = Step(
            checkpoint=checkpoint,
            base_id=checkpoint_id,
            since_base=len(state),
            state_size=len(state),
            snapshot=snapshot,
        )
        await self._store.restore(step, head=False)
        self._resnapped.append(checkpoint_id)

    def _miss_snapshot(self, checkpoint_id: str, why: str) -> None:
        if checkpoint_id not in self._missed:  # else it is said already what is missing there
            self._miss(checkpoint_id, f"The snapshot at it: {why}")

    async def _folded(self, checkpoint_id: str) -> Values | None:
        """The state that the deltas make, from the root or from a cut; None where the checkpoint itself is one."""
        path = await self._store.path(self._thread_id, checkpoint_id, limit=_ALL)
        if not path or path[0].cut:
            return None
        values: Values = {}
        for number, checkpoint in enumerate(path):
            if checkpoint.cut:
                values = (await self._loader.load(checkpoint.thread_id, checkpoint.id)).values
                path = path[:number]
                break
        return fold(values, (checkpoint.delta for checkpoint in reversed(path)))

    # ── the head ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def _mend_head(self) -> None:
        """The head is what was committed last, or where that is lost, the newest before it that is there.

        A head that the history doesn't tell of stays: somebody has written since.
        """
        row, newest = await self._store.thread(self._thread_id), self._newest()
        if row is None or newest is None:
            return
        if row.head_id != newest and (row.head_id in self._written or not await self._is_there(row.head_id)):
            step = await self._as_it_stands(newest)
            branch = max(row.branch, self._told.branch)
            await self._store.restore(step.model_copy(update={"branch": branch}), head=True)
            self._head_moved = True
        if self._founding and self._told.closed:
            await self._store.close_thread(self._thread_id)

    def _newest(self) -> str | None:
        """The newest checkpoint that is there, on the line of the one that was committed last."""
        name = self._told.written[-1].ref.id if self._told.written else None
        while name is not None and name not in self._whole:
            written = self._written.get(name)
            name = written.parent if written and not written.parent_thread else None
        return name

    # ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _mend_audit(self) -> None:
        """Write again what is missing at the end of the audit. One that is not the beginning of what the history tells
        stays as it is: what was changed in it must be seen."""
        told = self._told.audit
        if not told or await self._store.thread(self._thread_id) is None:
            return
        try:
            there = await self._audit()
        except IntegrityError:
            return
        if tuple(there) == told[: len(there)] and len(there) < len(told):
            await self._store.append_audit(self._thread_id, told[len(there) :])
            self._audited = len(told) - len(there)

    async def _audit(self) -> list[AuditEntry]:
        lines: list[AuditEntry] = []
        while page := await self._store.audit(self._thread_id, after=len(lines)):
            lines += [row.entry for row in page]
        return lines
