"""Verification of a store: every digest recomputed from the root, every link followed, the first bad row named."""

from perdure.canonical import canonical
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Checkpointer, snapshot_digest, verify_line
from perdure.delta import Values, apply
from perdure.effects import arguments_digest
from perdure.errors import IntegrityError, ThreadNotFound
from perdure.stores.base import EffectRow, Snapshot, Store, ThreadRow
from perdure.values import Value


class Problem(Value):
    """The first row that is wrong: where it is, and what is wrong with it."""

    table: str
    thread_id: str
    row: str  # a checkpoint's id, an effect's key; in the table of threads the thread's own id
    what: str


class Report(Value):
    """What was verified. The counts include what came before the problem, if there is one."""

    store: str
    threads: int = 0
    checkpoints: int = 0
    snapshots: int = 0
    effects: int = 0
    bytes: int = 0  # of deltas, in their canonical form
    problem: Problem | None = None


async def verify(store: Store, thread_id: str = "") -> Report:
    """Verify a thread, or all of them, up to the first bad row. Raises ThreadNotFound, StoreUnreachable."""
    if thread_id and await store.thread(thread_id) is None:
        raise ThreadNotFound(f"The store has no thread {thread_id}.", hint="Is PERDURE_STORE right?")
    report = Report(store=store.url)
    for name in [thread_id] if thread_id else await store.threads():
        report = await _verify_thread(store, name, report)
        if report.problem:
            break
    return report


async def _verify_thread(store: Store, thread_id: str, so_far: Report) -> Report:
    check = _Check(store, thread_id)
    problem = None
    try:
        await check.run()
    except IntegrityError as error:
        problem = Problem(table=error.table, thread_id=thread_id, row=error.row, what=error.message)
    return Report(
        store=so_far.store, threads=so_far.threads + 1, checkpoints=so_far.checkpoints + len(check.seen),
        snapshots=so_far.snapshots + check.snapshots, effects=so_far.effects + check.effects,
        bytes=so_far.bytes + check.bytes, problem=problem,
    )  # fmt: skip


class _Check:
    """One thread. Every method raises IntegrityError that names the first bad row it meets."""

    def __init__(self, store: Store, thread_id: str) -> None:
        self.seen: dict[str, tuple[str, int]] = {}  # checkpoint -> its digest and step, once they are known to be right
        self.snapshots = self.effects = self.bytes = 0
        self._store = store
        self._loader = Checkpointer(store, cache_bytes=0)  # what it has cached it would not read from the store
        self._thread_id = thread_id
        self._continued: set[str] = set()
        self._states: dict[str, Values] = {}  # at the ends of lines, as far as they have been followed

    async def run(self) -> None:
        before = await self._store.thread(self._thread_id)
        snapshots = {snapshot.checkpoint_id: snapshot for snapshot in await self._store.snapshots(self._thread_id)}
        async for checkpoint in self._store.walk(self._thread_id):
            self._check_links(checkpoint)
            await self._follow(checkpoint)
            if (snapshot := snapshots.pop(checkpoint.id, None)) is not None:
                await self._check_snapshot(checkpoint, snapshot)
        for orphan in snapshots:
            raise _bad("snapshots", orphan, "Its checkpoint doesn't exist.")
        await self._check_head(before)
        for row in await self._store.effects(self._thread_id):
            self._check_effect(row)

    def _check_links(self, checkpoint: Checkpoint) -> None:
        parent = self.seen.get(checkpoint.parent_id) if checkpoint.parent_id else None
        if checkpoint.parent_id and parent is None:
            raise _bad("checkpoints", checkpoint.id, f"Its parent {checkpoint.parent_id} doesn't exist.")
        if parent is None and self.seen:
            raise _bad("checkpoints", checkpoint.id, "It has no parent, and the thread has a root already.")
        expected = parent[1] + 1 if parent else 0
        if checkpoint.step != expected:
            raise _bad("checkpoints", checkpoint.id, f"It is step {checkpoint.step}, and should be {expected}.")
        if checkpoint.size != (size := len(canonical(checkpoint.delta))):
            raise _bad("checkpoints", checkpoint.id, f"It says {checkpoint.size} bytes, and has {size}.")
        try:
            verify_line(self._thread_id, parent, (checkpoint,))
        except IntegrityError as error:
            what = f"Step {checkpoint.step} doesn't match its digest."
            raise _bad("checkpoints", checkpoint.id, what) from error
        self.seen[checkpoint.id] = (checkpoint.digest, checkpoint.step)
        self.bytes += checkpoint.size

    async def _follow(self, checkpoint: Checkpoint) -> None:
        values: Values = {}
        if checkpoint.parent_id:
            # A line that branches off leaves behind a state that was not kept: such a one is read again.
            kept = self._states.pop(checkpoint.parent_id, None)
            values = kept if kept is not None else await self._load(checkpoint.parent_id)
            self._continued.add(checkpoint.parent_id)
        self._states[checkpoint.id] = apply(values, checkpoint.delta)

    async def _check_snapshot(self, checkpoint: Checkpoint, snapshot: Snapshot) -> None:
        if snapshot.digest != snapshot_digest(checkpoint.digest, snapshot.state):
            raise _bad("snapshots", checkpoint.id, "It doesn't match its digest.")
        if snapshot.state != canonical(self._states[checkpoint.id]):
            raise _bad("snapshots", checkpoint.id, "It is not the state that the deltas make.")
        if checkpoint.parent_id:  # the last that is loaded from the snapshot before: a missing one shows here
            await self._load(checkpoint.parent_id)
        self.snapshots += 1

    async def _check_head(self, before: ThreadRow | None) -> None:
        row = await self._store.thread(self._thread_id)
        if row is None:
            raise _bad("threads", self._thread_id, "It is gone.")
        moved = row != before  # somebody writes to the thread: then what was its head is enough
        head = before.head_id if moved and before and row.head_id not in self.seen else row.head_id
        if head not in self.seen:
            raise _bad("threads", self._thread_id, f"Its head {head} doesn't exist.")
        if head in self._continued and not moved:
            raise _bad("threads", self._thread_id, f"Its head {head} is not the end of a line.")
        if await self._load(head) != self._states.get(head) and not moved:
            raise _bad("checkpoints", head, "What is loaded is not the state that the deltas make.")

    async def _load(self, checkpoint_id: str) -> Values:
        try:
            return (await self._loader.load(self._thread_id, checkpoint_id)).values
        except IntegrityError as error:
            raise _bad("checkpoints", checkpoint_id, f"Its state can't be loaded: {error.message}") from error

    def _check_effect(self, row: EffectRow) -> None:
        if row.arguments_digest != arguments_digest(row.entry.tool, row.arguments):
            raise _bad("effects", row.entry.key, "Its arguments don't match their digest.")
        self.effects += 1


def _bad(table: str, row: str, what: str) -> IntegrityError:
    return IntegrityError(what, table=table, row=row)
