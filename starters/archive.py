"""Threads as the store has them: what can be known of a thread without Temporal, or when Temporal has forgotten it."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from perdure.audit import AuditHead, AuditRow, check_end, follow
from perdure.canonical import Json
from perdure.canonical import digest as canonical_digest
from perdure.checkpoint import Checkpoint
from perdure.contracts import RewindPlan, Status, StatusAnswer
from perdure.delta import Values, same
from perdure.effects import OPEN, Effect, together
from perdure.errors import CheckpointNotFound, IntegrityError, ThreadNotFound
from perdure.settings import Settings
from perdure.starters.branches import Branches, Tree
from perdure.starters.compare import Comparison, compare
from perdure.starters.entries import Difference, HistoryEntry, Place, difference, entry
from perdure.starters.ids import checked_id
from perdure.starters.unsettled import OpenEffect, unsettled
from perdure.travel import PAGE, check_target, line, named, rewind_plan, still_held, way_back

if TYPE_CHECKING:
    from perdure.checkpointer import Checkpointer
    from perdure.stores.base import Store, ThreadRow


class Archive:
    """Reads the store that the settings name; it is opened at the first question, and must be there.

    Where a checkpoint is asked for, any name that ``perdure.travel.named`` understands will do.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Checkpointer | None = None

    async def close(self) -> None:
        """Let go of the store's connections."""
        if self._opened is not None:
            await self._opened.store.close()

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def thread(self, thread_id: str) -> "ThreadRow":
        """The thread's row. Raises ThreadNotFound, StoreUnreachable."""
        row = await self._store.thread(checked_id(thread_id))
        if row is None:
            raise ThreadNotFound(f"The store has no thread {thread_id}.", hint="Is PERDURE_STORE right?")
        return row

    async def status(self, thread_id: str) -> StatusAnswer:
        """What a thread without a workflow does: it waits for a message, unless a person has to settle something.

        Raises ThreadNotFound.
        """
        row = await self.thread(thread_id)
        head = await self._store.checkpoint(thread_id, row.head_id)
        unsettled = [effect for effect in await self.effects(thread_id) if effect.status in OPEN]
        return StatusAnswer(
            thread_id=thread_id, agent=row.agent, status=_status(row, unsettled), turn=row.turn,
            step=head.step if head else 0, next=head.next.nodes if head else (),
            attention=tuple(f"{e.key}: {e.label()} ({e.status})" for e in unsettled), dry_run=row.dry_run,
            audit=row.audit_end,
        )  # fmt: skip

    async def effects(self, thread_id: str) -> list[Effect]:
        """The ledger, oldest first; empty for a thread that the store doesn't have."""
        return [row.entry for row in await self._store.effects(checked_id(thread_id))]

    async def open_effects(self, *, agent: str = "", tenant: str = "") -> list[OpenEffect]:
        """What of all threads a person has to settle, the oldest first; of one agent or tenant, if given."""
        return await unsettled(self._store, agent=agent, tenant=tenant)

    async def saga(self, thread_id: str, *, turn: int | None = None, name: str = "") -> list[Effect]:
        """What a rollback of a turn or of a saga deals with, by the ledger; see ``perdure.effects.together``."""
        held = await still_held(self._store, thread_id, await self.effects(thread_id))
        return list(together(held, turn, name)[1])

    async def audit(self, thread_id: str) -> AsyncGenerator[AuditRow, None]:
        """The thread's audit, each line once it is known to be what was written there.

        Raises ThreadNotFound, and IntegrityError that names the first line that isn't, also where lines were cut off.
        """
        told, end = (await self.thread(thread_id)).audit_end, AuditHead()
        while True:
            while page := await self._store.audit(thread_id, after=end.number):
                for row in page:
                    end = follow(thread_id, end, [row])
                    yield row
            if end.number > told.number:  # the thread has gone on meanwhile, or somebody else has added lines
                told = (await self.thread(thread_id)).audit_end
                if told.number > end.number:
                    continue
            check_end(end, told)
            return

    async def tree(self, thread_id: str) -> Tree:
        """The branches of a thread, and the threads that were forked from it. Raises ThreadNotFound."""
        row, branches = await self.thread(thread_id), Branches()
        async for checkpoint in self._store.walk(thread_id):
            branches.add(checkpoint)
        forks: dict[str, list[str]] = {}
        for fork in await self._store.forks(thread_id):
            forks.setdefault(fork.origin_id, []).append(fork.thread_id)
        return Tree(
            thread_id=thread_id, origin_thread=row.origin_thread, origin_id=row.origin_id,
            branches=branches.grow(row.head_id, forks),
        )  # fmt: skip

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def checkpoint(self, thread_id: str, at: str = "") -> Checkpoint:
        """The checkpoint of this name (default: the head), which may belong to a thread that this one was forked from.

        Raises ThreadNotFound, CheckpointNotFound, AmbiguousCheckpoint.
        """
        return await named(self._store, await self.thread(thread_id), at)

    async def state(self, thread_id: str, at: str = "") -> Values:
        """The state at a checkpoint (default: the head), checked against its digests; sensitive values redacted.

        Raises ThreadNotFound, CheckpointNotFound, AmbiguousCheckpoint, IntegrityError.
        """
        return await self._state(await self.checkpoint(thread_id, at))

    async def diff(self, before: tuple[str, str], after: tuple[str, str]) -> Difference:
        """How the state differs between two checkpoints, each given by its thread and its name. Raises as ``state``."""
        return await self._diff(await self.checkpoint(*before), await self.checkpoint(*after))

    async def compare(self, thread_id: str, other: str, *, at: str = "", other_at: str = "") -> Comparison:
        """Two branches since their common past: how their states differ, what each has cost, what each did outside.

        Of two threads, or of one thread at two of its checkpoints (default: the heads). Raises as ``state``.
        """
        ours, theirs = await self.checkpoint(thread_id, at), await self.checkpoint(other, other_at)
        return await compare(self._store, ours, theirs, await self._diff(ours, theirs))

    async def history(
        self, thread_id: str, *, limit: int, before: str = "", where: Mapping[str, Json], all_branches: bool = False
    ) -> list[HistoryEntry]:
        """A page of the head's line, newest first, across forks; with ``all_branches`` also what rewinds have left.

        ``before`` is a checkpoint; ``where`` are entries of the metadata. Raises ThreadNotFound, CheckpointNotFound,
        AmbiguousCheckpoint.
        """
        row = await self.thread(thread_id)
        end = await named(self._store, row, before) if before else None
        found: list[Checkpoint] = []
        page = PAGE if where else min(limit, PAGE)
        async with aclosing(self._everything(row, end) if all_branches else self._back(row, end, page)) as checkpoints:
            async for checkpoint in checkpoints:
                if _has(checkpoint, where):
                    found.append(checkpoint)
                if len(found) == limit:
                    break
        left = await self._left(row, found) if all_branches or (end and not await self._rests_on(row, end)) else set()
        return await self._entries(found, left)

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        """Checkpoints with all of these entries in their metadata, newest first. Raises ThreadNotFound."""
        if thread_id:
            await self.thread(thread_id)
        found = await self._store.find(metadata, thread_id=thread_id, limit=limit)
        return [checkpoint.model_copy(update={"delta": _redacted(checkpoint.delta)}) for checkpoint in found]

    async def rewind_plan(self, thread_id: str, to: str) -> RewindPlan:
        """What a rewind would do. Raises InvalidInput where the checkpoint is not on the way back from the head."""
        row = await self.thread(thread_id)
        target = await named(self._store, row, to)
        way = await way_back(self._store, thread_id, row.head_id, target.id)
        return rewind_plan(await self.effects(thread_id), way)

    async def rewind_target(self, thread_id: str, to: str) -> str:
        """The id of the checkpoint that a rewind may go back to. Raises as ``rewind_plan``."""
        row = await self.thread(thread_id)
        target = await named(self._store, row, to)
        await check_target(self._store, thread_id, row.head_id, target.id)
        return target.id

    async def blob(self, digest: str) -> bytes:
        """A large tool result by the digest that its message names. Raises CheckpointNotFound, IntegrityError."""
        found = await self._store.blob(digest)
        if found is None:
            raise CheckpointNotFound(f"The store has no blob {digest}.")
        if canonical_digest(found) != digest:
            raise IntegrityError(f"The blob {digest} doesn't match its digest.", table="blobs", row=digest)
        return found

    # ── how ──────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _diff(self, one: Checkpoint, other: Checkpoint) -> Difference:
        return difference(_place(one), await self._state(one), _place(other), await self._state(other))

    async def _state(self, checkpoint: Checkpoint) -> Values:
        position = await self._checkpointer.load(checkpoint.thread_id, checkpoint.id)
        values: Values = _redacted(position.values)
        return values

    async def _back(self, row: "ThreadRow", end: Checkpoint | None, page: int) -> AsyncGenerator[Checkpoint, None]:
        """The line back from the head, or from before a checkpoint."""
        if end is None:
            start = (row.thread_id, row.head_id)
        elif end.parent_id is not None and not end.cut:
            start = (end.parent_thread or end.thread_id, end.parent_id)
        else:
            return
        async for checkpoint in line(self._store, *start, page=page):
            yield checkpoint

    async def _everything(self, row: "ThreadRow", end: Checkpoint | None) -> AsyncGenerator[Checkpoint, None]:
        """What the thread itself ever was, the highest step first, then what it was forked from; before a step."""
        for checkpoint in reversed([c async for c in self._store.walk(row.thread_id)]):
            if end is None or checkpoint.step < end.step:
                yield checkpoint
        if row.origin_id:
            async for checkpoint in line(self._store, row.origin_thread, row.origin_id):
                if end is None or checkpoint.step < end.step:
                    yield checkpoint

    async def _entries(self, found: list[Checkpoint], left: set[str]) -> list[HistoryEntry]:
        """Each with the effects that were made on it; one query for each of their threads."""
        made: dict[tuple[str, str], list[Effect]] = {}
        for thread_id in {checkpoint.thread_id for checkpoint in found}:
            for effect in await self.effects(thread_id):
                made.setdefault((thread_id, effect.checkpoint_id), []).append(effect)
        return [
            entry(
                checkpoint, made.get((checkpoint.thread_id, checkpoint.id), []), left=checkpoint.id in left,
                delta=_redacted(checkpoint.delta),
            )
            for checkpoint in found
        ]  # fmt: skip

    async def _rests_on(self, row: "ThreadRow", checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint is on the head's line, and with it all that came before."""
        there = await self._store.ancestor(row.thread_id, row.head_id, checkpoint.step)
        return there is not None and there.id == checkpoint.id

    async def _left(self, row: "ThreadRow", found: list[Checkpoint]) -> set[str]:
        """Those of them that are not on the head's line."""
        down_to = min((checkpoint.step for checkpoint in found), default=0)
        on_line = {c.id async for c in line(self._store, row.thread_id, row.head_id, down_to=down_to)}
        return {checkpoint.id for checkpoint in found} - on_line

    @property
    def _store(self) -> "Store":
        return self._checkpointer.store

    @property
    def _checkpointer(self) -> "Checkpointer":
        if self._opened is None:
            from perdure.checkpointer import Checkpointer  # and with it the database's driver: only when needed
            from perdure.stores.open import open_existing

            self._opened = Checkpointer(open_existing(self._settings.store_url()))
        return self._opened


def _status(row: "ThreadRow", unsettled: list[Effect]) -> Status:
    if row.closed:
        return "closed"
    if any(effect.status == "in_doubt" for effect in unsettled):
        return "in_doubt"
    return "needs_attention" if unsettled else "idle"


def _place(checkpoint: Checkpoint) -> Place:
    return Place(thread_id=checkpoint.thread_id, checkpoint_id=checkpoint.id, step=checkpoint.step)


def _has(checkpoint: Checkpoint, where: Mapping[str, Json]) -> bool:
    metadata = checkpoint.metadata
    return all(name in metadata and same(metadata[name], value) for name, value in where.items())


def _redacted(values: dict[str, Any]) -> dict[str, Any]:
    from perdure.security.sealing import redact  # and with it the cryptography: only when needed

    shown: dict[str, Any] = redact(values)
    return shown
