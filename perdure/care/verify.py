"""Verification of a store: every digest recomputed from the root, every link followed, the first bad row named."""

import json
from collections.abc import AsyncIterator, Sequence

from perdure.audit import AuditHead, check_end, follow
from perdure.canonical import Json, canonical
from perdure.checkpoint import Checkpoint, layer_of
from perdure.checkpointer import Checkpointer, snapshot_digest, verify_line
from perdure.delta import Values, apply
from perdure.effects import OPEN, arguments_digest
from perdure.errors import CheckpointNotFound, IntegrityError, ThreadNotFound
from perdure.stores.base import EffectRow, Snapshot, Store, ThreadRow
from perdure.values import Value

_PAGE = 1_000  # threads whose rows are held at once


class Problem(Value):
    """The first row that is wrong: where it is, and what is wrong with it."""

    table: str
    thread_id: str
    row: str  # a checkpoint's id, an effect's key, a line's number; in the table of threads the thread's own id
    what: str


class Report(Value):
    """What was verified. The counts include what came before the problem, if there is one."""

    store: str
    threads: int = 0
    checkpoints: int = 0
    snapshots: int = 0
    effects: int = 0
    audit: int = 0  # lines
    bytes: int = 0  # of deltas, in their canonical form
    problem: Problem | None = None


async def verify(store: Store, thread_id: str = "") -> Report:
    """Verify a thread, or all of them, up to the first bad row. Raises ThreadNotFound, StoreUnreachable."""
    if thread_id:
        await _require(store, thread_id)
        return await _verify_thread(store, thread_id, Report(store=store.url))
    report = Report(store=store.url)
    async for row in all_threads(store):
        report = await _verify_thread(store, row.thread_id, report)
        if report.problem:
            break
    return report


async def all_threads(store: Store) -> AsyncIterator[ThreadRow]:
    """Every thread by id, a page at a time."""
    after = ""
    while page := await store.threads(after=after, limit=_PAGE):
        for row in page:
            yield row
        after = page[-1].thread_id


async def _require(store: Store, thread_id: str) -> None:
    """Raise ThreadNotFound where nothing is left of a thread; one that has lost only its row is a problem to name."""
    if await store.thread(thread_id) is not None:
        return
    async for _ in store.walk(thread_id):
        return
    raise ThreadNotFound(f"The store has no thread {thread_id}.", hint="Is PERDURE_STORE right?")


async def _verify_thread(store: Store, thread_id: str, so_far: Report) -> Report:
    check = _Check(store, thread_id)
    problem = await check.problem()
    if problem and check.origin:  # a fork shows what is wrong where it comes from: that is named there
        problem = (await verify(store, check.origin)).problem or problem
    return Report(
        store=so_far.store, threads=so_far.threads + 1, checkpoints=so_far.checkpoints + len(check.seen),
        snapshots=so_far.snapshots + check.snapshots, effects=so_far.effects + check.effects,
        audit=so_far.audit + check.audit_end.number, bytes=so_far.bytes + check.bytes, problem=problem,
    )  # fmt: skip


class _Check:
    """One thread. Every method raises IntegrityError that names the first bad row it meets."""

    def __init__(self, store: Store, thread_id: str) -> None:
        self.seen: dict[str, tuple[str, int]] = {}  # checkpoint -> its digest and step, once they are known to be right
        self.snapshots = self.effects = self.bytes = 0
        self.audit_end = AuditHead()  # as far as its lines have been followed
        self.origin = ""  # the thread whose checkpoints this one goes back to
        self._store = store
        self._loader = Checkpointer(store, cache_bytes=0)  # what it has cached it would not read from the store
        self._thread_id = thread_id
        self._snapshots: dict[str, Snapshot] = {}  # those that were not met yet
        self._begun = False  # a root was met, or the checkpoint that a fork begins with
        self._cuts: list[int] = []  # the steps at which ancestors were removed
        self._continued: set[str] = set()
        self._states: dict[str, Values] = {}  # at the ends of lines, as far as they have been followed
        self._labels: dict[bytes, tuple[dict[str, Json], set[str]]] = {}  # who has which metadata

    async def problem(self) -> Problem | None:
        """The first bad row."""
        try:
            await self._run()
        except IntegrityError as error:
            return Problem(table=error.table, thread_id=self._thread_id, row=error.row, what=error.message)
        return None

    async def _run(self) -> None:
        before = await self._store.thread(self._thread_id)
        if before is None:
            raise _bad("threads", self._thread_id, "Its row is gone.")
        self._snapshots = {
            snapshot.checkpoint_id: snapshot for snapshot in await self._store.snapshots(self._thread_id)
        }
        async for checkpoint in self._store.walk(self._thread_id):
            await self._check_links(checkpoint, before)
            await self._follow(checkpoint)
            await self._check_snapshot(checkpoint)
            if checkpoint.metadata:
                labels = self._labels.setdefault(canonical(checkpoint.metadata), (checkpoint.metadata, set()))
                labels[1].add(checkpoint.id)
        for orphan in self._snapshots:
            raise _bad("snapshots", orphan, "Its checkpoint doesn't exist.")
        row = await self._check_head(before)
        await self._check_ends()
        await self._check_labels()
        for stray in await self._store.stray_results(self._thread_id):
            raise _bad("results", stray, "A cached result names it, and it doesn't exist.")
        await self._check_effects(row)
        await self._check_audit(row)

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _check_links(self, checkpoint: Checkpoint, thread: ThreadRow) -> None:
        parent = await self._parent(checkpoint, thread)
        expected = checkpoint.step if checkpoint.cut else parent[1] + 1 if parent else 0
        if checkpoint.step != expected:
            raise _bad("checkpoints", checkpoint.id, f"It is step {checkpoint.step}, and should be {expected}.")
        if checkpoint.size != (size := len(canonical(checkpoint.delta))):
            raise _bad("checkpoints", checkpoint.id, f"It says {checkpoint.size} bytes, and has {size}.")
        try:
            if not checkpoint.cut:  # its digest is over that of a parent that was removed: its snapshot vouches for it
                verify_line(self._thread_id, parent, (layer_of(checkpoint),))
        except IntegrityError as error:
            what = f"Step {checkpoint.step} doesn't match its digest."
            raise _bad("checkpoints", checkpoint.id, what) from error
        self.seen[checkpoint.id] = (checkpoint.digest, checkpoint.step)
        self.bytes += checkpoint.size

    async def _parent(self, checkpoint: Checkpoint, thread: ThreadRow) -> tuple[str, int] | None:
        """Digest and step of the parent; None for a root, and where the parent was removed."""
        if checkpoint.cut:
            if checkpoint.parent_id in self.seen:
                raise _bad("checkpoints", checkpoint.id, f"It is cut, but its parent {checkpoint.parent_id} exists.")
            self._cuts.append(checkpoint.step)
            return None
        if checkpoint.parent_id and not checkpoint.parent_thread:
            if (parent := self.seen.get(checkpoint.parent_id)) is None:
                raise _bad("checkpoints", checkpoint.id, f"Its parent {checkpoint.parent_id} doesn't exist.")
            return parent
        if self._begun:
            raise _bad("checkpoints", checkpoint.id, "It has no parent, and the thread has a root already.")
        self._begun = True
        self.origin = checkpoint.parent_thread
        if (thread.origin_thread, thread.origin_id) != (self.origin, checkpoint.parent_id or ""):
            origin = f"{thread.origin_thread} {thread.origin_id}".strip() or "nowhere"
            what = f"It comes from {origin}, but its first checkpoint from {self.origin or 'nowhere'}."
            raise _bad("threads", self._thread_id, what)
        if thread.dry_run != bool(checkpoint.facts.get("dry_run")):
            what = f"It says it {'is' if thread.dry_run else 'is no'} dry run, and its first checkpoint doesn't."
            raise _bad("threads", self._thread_id, what)
        return await self._parent_elsewhere(checkpoint) if self.origin else None

    async def _parent_elsewhere(self, checkpoint: Checkpoint) -> tuple[str, int]:
        assert checkpoint.parent_id is not None, "a fork begins with a parent"
        try:
            parent = await self._store.checkpoint(self.origin, checkpoint.parent_id)
        except IntegrityError as error:
            what = f"Its parent {checkpoint.parent_id} in {self.origin} can't be read: {error.message}"
            raise _bad("checkpoints", checkpoint.id, what) from error
        if parent is None:
            what = f"Its parent {checkpoint.parent_id} in {self.origin} doesn't exist."
            raise _bad("checkpoints", checkpoint.id, what)
        return parent.digest, parent.step

    async def _follow(self, checkpoint: Checkpoint) -> None:
        """The state at the checkpoint, made from its parent's."""
        if checkpoint.cut:
            self._states[checkpoint.id] = self._state_in_snapshot(checkpoint)
            return
        values: Values = {}
        if checkpoint.parent_id:
            # A line that branches off leaves behind a state that was not kept: such a one is read again.
            kept = self._states.pop(checkpoint.parent_id, None)
            values = kept if kept is not None else await self._load_parent(checkpoint)
            if not checkpoint.parent_thread:
                self._continued.add(checkpoint.parent_id)
        self._states[checkpoint.id] = apply(values, checkpoint.delta)

    def _state_in_snapshot(self, checkpoint: Checkpoint) -> Values:
        snapshot = self._snapshots.get(checkpoint.id)
        if snapshot is None:
            what = "Its ancestors were removed, and the snapshot that stands in their place is missing."
            raise _bad("checkpoints", checkpoint.id, what)
        _check_digest(checkpoint, snapshot)
        state: Values = json.loads(snapshot.state)
        return state

    async def _check_snapshot(self, checkpoint: Checkpoint) -> None:
        snapshot = self._snapshots.pop(checkpoint.id, None)
        if snapshot is None:
            return
        _check_digest(checkpoint, snapshot)
        if snapshot.state != canonical(self._states[checkpoint.id]):
            raise _bad("snapshots", checkpoint.id, "It is not the state that the deltas make.")
        if checkpoint.parent_id and not checkpoint.cut:
            await self._load_parent(checkpoint)  # the last loaded from the snapshot before: a missing one shows here
        self.snapshots += 1

    # ── what belongs to them ─────────────────────────────────────────────────────────────────────────────────────

    async def _check_head(self, before: ThreadRow) -> ThreadRow:
        row = await self._store.thread(self._thread_id)
        if row is None:
            raise _bad("threads", self._thread_id, "Its row is gone.")
        moved = row != before  # somebody writes to the thread: then what was its head is enough
        head = before.head_id if moved and row.head_id not in self.seen else row.head_id
        if head not in self.seen:
            raise _bad("threads", self._thread_id, f"Its head {head} doesn't exist.")
        if head in self._continued and not moved:
            raise _bad("threads", self._thread_id, f"Its head {head} is not the end of a line.")
        return row

    async def _check_ends(self) -> None:
        """The state at the end of each line is what everybody gets who loads it: so its snapshots are there too."""
        for end, values in self._states.items():
            if await self._load(self._thread_id, end) != values:
                raise _bad("checkpoints", end, "What is loaded is not the state that the deltas make.")

    async def _check_labels(self) -> None:
        """Whoever searches for metadata finds all checkpoints that have it, and no other."""
        for metadata, having in self._labels.values():
            found = await self._store.find(metadata, thread_id=self._thread_id, limit=len(self.seen) + 1)
            for checkpoint in found:
                if any(checkpoint.metadata.get(name) != value for name, value in metadata.items()):
                    raise _bad("labels", checkpoint.id, "It is found by metadata that it doesn't have.")
            for missed in sorted(having - {checkpoint.id for checkpoint in found}):
                raise _bad("labels", missed, "It is not found by its metadata.")

    async def _check_effects(self, thread: ThreadRow) -> None:
        rows = await self._store.effects(self._thread_id)
        for row in rows:
            await self._check_effect(row, thread)
        if opened := [row.entry.key for row in rows if row.entry.status in OPEN]:
            await self._check_open(opened)

    async def _check_open(self, keys: Sequence[str]) -> None:
        """Whoever asks for what is open in all threads finds what is open here, unless it was settled meanwhile."""
        missed, after = set(keys), (self._thread_id, "")
        while missed and after[0] == self._thread_id:
            page = await self._store.open_effects(after=after, limit=len(keys))
            missed -= {row.entry.key for row in page if row.thread_id == self._thread_id}
            after = (page[-1].thread_id, page[-1].entry.key) if page else ("", "")
        for key in sorted(missed):
            row = await self._store.effect(self._thread_id, key)
            if row is None or row.entry.status in OPEN:
                raise _bad("effects", key, "It is open, and not found among the open ones.")

    async def _check_audit(self, thread: ThreadRow) -> None:
        """Every line follows from the one before, and the last is the one that the thread tells of."""
        while True:
            while page := await self._store.audit(self._thread_id, after=self.audit_end.number, limit=_PAGE):
                self.audit_end = follow(self._thread_id, self.audit_end, page)
            if self.audit_end == thread.audit_end:
                return
            again = await self._store.thread(self._thread_id)
            if again is None or again.audit_end == thread.audit_end:
                check_end(self.audit_end, thread.audit_end)
                return
            thread = again  # lines were added meanwhile

    async def _check_effect(self, row: EffectRow, thread: ThreadRow) -> None:
        entry = row.entry
        if row.arguments_digest != arguments_digest(entry.tool, row.arguments):
            raise _bad("effects", entry.key, "Its arguments don't match their digest.")
        if entry.checkpoint_id in self.seen:
            if entry.step != (step := self.seen[entry.checkpoint_id][1]):
                raise _bad("effects", entry.key, f"It says step {entry.step}, and its checkpoint is step {step}.")
        elif not self._may_be_removed(row, thread) and not await self._is_there(entry.checkpoint_id):
            raise _bad("effects", entry.key, f"Its checkpoint {entry.checkpoint_id} doesn't exist.")
        self.effects += 1

    async def _is_there(self, checkpoint_id: str) -> bool:
        """Not met on the way, it may be one that was committed meanwhile."""
        return await self._store.checkpoint(self._thread_id, checkpoint_id) is not None

    def _may_be_removed(self, row: EffectRow, thread: ThreadRow) -> bool:
        """The ledger stays when checkpoints are removed: those before a cut, and branches that a rewind left."""
        known = bool(row.entry.checkpoint_id)
        return not known or row.entry.branch < thread.branch or row.entry.step < max(self._cuts, default=0)

    async def _load_parent(self, checkpoint: Checkpoint) -> Values:
        assert checkpoint.parent_id is not None, "only who has one is asked"
        if not checkpoint.parent_thread:
            return await self._load(self._thread_id, checkpoint.parent_id)
        return await self._load(checkpoint.parent_thread, checkpoint.parent_id, told_of=checkpoint.id)

    async def _load(self, thread_id: str, checkpoint_id: str, *, told_of: str = "") -> Values:
        """The state at a checkpoint as everybody gets it; a failure is told of the checkpoint, or of one after it."""
        try:
            return (await self._loader.load(thread_id, checkpoint_id)).values
        except (IntegrityError, CheckpointNotFound) as error:
            what = f"The state at {checkpoint_id} can't be loaded: {error.message}"
            if isinstance(error, IntegrityError) and error.table == "snapshots":
                raise _bad("snapshots", error.row, what) from error
            raise _bad("checkpoints", told_of or checkpoint_id, what) from error


def _check_digest(checkpoint: Checkpoint, snapshot: Snapshot) -> None:
    if snapshot.digest != snapshot_digest(checkpoint.digest, snapshot.state):
        raise _bad("snapshots", checkpoint.id, "It doesn't match its digest.")


def _bad(table: str, row: str, what: str) -> IntegrityError:
    return IntegrityError(what, table=table, row=row)
