"""Pruning of threads: old checkpoints are removed for good, behind a snapshot of the state that they had come to."""

from collections.abc import Mapping
from datetime import UTC, datetime

from perdure.approvals import stamp
from perdure.canonical import canonical
from perdure.care.verify import all_threads
from perdure.checkpointer import Checkpointer, snapshot_digest
from perdure.errors import Conflict, IntegrityError, InvalidInput, PerdureError, ThreadNotFound, Unreachable
from perdure.stores.base import Snapshot, Store
from perdure.values import Value


class Rule(Value):
    """What goes, by one of three measures.

    All but the newest ``keep`` checkpoints of the line that leads to the head, or those of it that were made before a
    moment; and with them what rewinds left on lines that begin before. Or ``branches``: only the lines that rewinds
    left. The head always stays.
    """

    keep: int | None = None
    before: datetime | None = None
    branches: bool = False

    def check(self) -> None:
        """Raise InvalidInput unless it says exactly one thing."""
        if [self.keep is not None, self.before is not None, self.branches].count(True) != 1:
            raise InvalidInput("Say exactly one of: how many to keep, before which time, or branches.")
        if self.keep is not None and self.keep < 1:
            raise InvalidInput("At least one checkpoint is kept: the head.")


class Pruned(Value):
    """What was removed of a thread, or (``dry_run``) would be: checkpoints, and the bytes of their deltas.

    ``root`` is the checkpoint that has no ancestors any more; empty where only branches went.
    """

    thread_id: str
    removed: int = 0
    bytes: int = 0
    kept: int = 0
    root: str = ""
    dry_run: bool = False


class Unpruned(Value):
    """A thread of which nothing was removed, and why."""

    thread_id: str
    why: str


class PruneReport(Value):
    """What was removed of threads (of each of which something was), and which of them refused."""

    store: str
    dry_run: bool = False
    pruned: tuple[Pruned, ...] = ()
    refused: tuple[Unpruned, ...] = ()


async def prune_all(store: Store, rule: Rule, *, dry_run: bool = False) -> PruneReport:
    """Prune all threads, one after the other. Raises InvalidInput, StoreUnreachable; what speaks against pruning one of
    them stands in the report."""
    rule.check()
    pruned: list[Pruned] = []
    refused: list[Unpruned] = []
    async for row in all_threads(store):
        try:
            one = await prune(store, row.thread_id, rule, dry_run=dry_run)
        except Unreachable:
            raise
        except PerdureError as error:
            refused.append(Unpruned(thread_id=row.thread_id, why=str(error)))
        else:
            pruned += [one] if one.removed else []
    return PruneReport(store=store.url, dry_run=dry_run, pruned=tuple(pruned), refused=tuple(refused))


async def prune(store: Store, thread_id: str, rule: Rule, *, dry_run: bool = False) -> Pruned:
    """Prune one thread. Raises InvalidInput, ThreadNotFound, IntegrityError, StoreUnreachable.

    Raises Conflict where another thread is forked from what would go, or somebody has gone on from it meanwhile; then
    nothing was removed.
    """
    rule.check()
    thread = await store.thread(thread_id)
    if thread is None:
        raise ThreadNotFound(f"The store has no thread {thread_id}.", hint="Is PERDURE_STORE right?")
    shape = await _shape(store, thread_id)
    line = _line(thread.head_id, shape)
    root = "" if rule.branches else _root(line, shape, rule)
    kept = set(line) if rule.branches else _from(root, shape)
    gone = [name for name in shape if name not in kept]
    await _check_forks(store, thread_id, set(gone))
    if gone and not dry_run:
        roots = [await _snapshot(store, thread_id, root)] if root else []
        await store.remove(thread_id, gone, roots, head="")
    return Pruned(
        thread_id=thread_id, removed=len(gone), bytes=sum(shape[name].size for name in gone), kept=len(kept),
        root=root, dry_run=dry_run,
    )  # fmt: skip


async def _check_forks(store: Store, thread_id: str, gone: set[str]) -> None:
    """Raise Conflict where another thread was forked from what would go: it reads its beginning there."""
    if hanging := [fork.thread_id for fork in await store.forks(thread_id) if fork.origin_id in gone]:
        raise Conflict(
            f"Threads were forked from what would go of {thread_id}: {', '.join(hanging)}.",
            hint="Keep more, or delete them first.",
        )


class _Point(Value):
    """A checkpoint without what it changed. ``parent`` is None where that is in another thread, or nowhere."""

    parent: str | None
    size: int
    created_at: str


async def _shape(store: Store, thread_id: str) -> dict[str, _Point]:
    """All checkpoints of a thread, parents before children."""
    return {
        c.id: _Point(
            parent=None if c.cut or c.parent_thread else c.parent_id, size=c.size, created_at=c.created_at
        )
        async for c in store.walk(thread_id)
    }  # fmt: skip


def _line(head: str, shape: Mapping[str, _Point]) -> list[str]:
    """From the head back to where the thread begins. Raises IntegrityError where it is broken."""
    line: list[str] = []
    name: str | None = head
    while name is not None:
        if name not in shape:
            raise IntegrityError(f"Checkpoint {name} is missing.", hint="Run `perdure db verify`.", row=name)
        line.append(name)
        name = shape[name].parent
    return line


def _root(line: list[str], shape: Mapping[str, _Point], rule: Rule) -> str:
    """The oldest checkpoint of the line that stays; empty where all of them do."""
    if rule.before is not None:
        moment = stamp(rule.before.astimezone(UTC))
        keep = next((n for n, name in enumerate(line) if shape[name].created_at < moment), len(line))
    else:
        keep = rule.keep or 1
    return line[max(keep, 1) - 1] if keep < len(line) else ""


def _from(root: str, shape: Mapping[str, _Point]) -> set[str]:
    """A checkpoint with all that comes after it; everything where none is named."""
    if not root:
        return set(shape)
    kept = {root}
    for name, point in shape.items():
        if point.parent in kept:
            kept.add(name)
    return kept


async def _snapshot(store: Store, thread_id: str, checkpoint_id: str) -> Snapshot:
    """The whole state at a checkpoint, loaded and checked."""
    position = await Checkpointer(store).load(thread_id, checkpoint_id)
    state = canonical(position.values)
    return Snapshot(checkpoint_id=checkpoint_id, state=state, digest=snapshot_digest(position.ref.digest, state))
