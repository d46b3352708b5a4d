"""Stores that are wrong in one way each, and the checks of the conformance suite that tell."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.effects import EffectStatus
from perdure.errors import ConcurrentModification
from perdure.stores.base import CachedResult, EffectRow, Line, Receipt, Snapshot, Step, ThreadRow
from perdure.stores.memory import MemoryStore


class Unfenced(MemoryStore):
    """Commits on whatever head there is."""

    async def commit(self, step: Step) -> bool:
        row = await self.thread(step.checkpoint.thread_id)
        return await super().commit(step.model_copy(update={"extends": row.head_id if row else None}))


class Hasty(MemoryStore):
    """Keeps the result of a commit that it refuses."""

    async def commit(self, step: Step) -> bool:
        try:
            return await super().commit(step)
        except ConcurrentModification:
            if step.result:
                await self.put_result(step.result)
            raise


class Forgetful(MemoryStore):
    """Does a commit again that it has seen before."""

    async def commit(self, step: Step) -> bool:
        if not await super().commit(step):
            await self.restore(step, head=True)
        return True


class Parochial(MemoryStore):
    """Reads no further back than its own thread."""

    async def path(self, thread_id: str, checkpoint_id: str, *, limit: int) -> list[Checkpoint]:
        return [c for c in await super().path(thread_id, checkpoint_id, limit=limit) if c.thread_id == thread_id]


class Longwinded(MemoryStore):
    """Never begins a line at a snapshot."""

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        way = await self.path(thread_id, checkpoint_id, limit=10_000)
        short = await super().line(thread_id, checkpoint_id)
        return short and short.model_copy(update={"checkpoints": tuple(way[::-1]), "snapshot": None, "base_id": None})


class Straight(MemoryStore):
    """Knows nothing of the branches that rewinds left."""

    async def thread(self, thread_id: str) -> ThreadRow | None:
        row = await super().thread(thread_id)
        return row and row.model_copy(update={"branch": 0})


class Careless(MemoryStore):
    """Takes every attempt for the first."""

    async def claim(self, row: EffectRow, *, head: str) -> None:
        await super().claim(row, head=head)


class Obliging(MemoryStore):
    """Settles whatever it is told to."""

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        await super().settle(thread_id, key, "in_doubt")
        await super().settle(thread_id, key, status, error=error, by=by)


class Late(MemoryStore):
    """Takes the receipt of a call whose step is over."""

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str = "") -> None:
        await super().put_receipt(thread_id, receipt)


class Timeless(MemoryStore):
    """Keeps results for ever."""

    async def put_result(self, result: CachedResult) -> None:
        await super().put_result(result.model_copy(update={"expires_at": ""}))


class Patterned(MemoryStore):
    """Reads patterns into prefixes."""

    async def receipts_under(self, thread_id: str, prefix: str) -> dict[str, bytes]:
        found = await super().receipts_under(thread_id, "")
        return {key: result for key, result in found.items() if fnmatchcase(key, f"{prefix}*")}


class Loose(MemoryStore):
    """Takes 1 for true."""

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        everything = await super().find({}, thread_id=thread_id, limit=10_000)
        return [c for c in everything if all(c.metadata.get(name) == metadata[name] for name in metadata)][:limit]


class Untidy(MemoryStore):
    """Deletes a thread, and leaves what its calls returned."""

    async def delete_thread(self, thread_id: str) -> None:
        left = await self.receipts_under(thread_id, "")
        await super().delete_thread(thread_id)
        for key, result in left.items():
            await self.put_receipt(thread_id, Receipt(key=key, result=result))


class Rough(MemoryStore):
    """Removes checkpoints, and cuts nothing."""

    async def remove(self, thread_id: str, checkpoint_ids: object, roots: object, *, head: str) -> None:
        kept = [c async for c in self.walk(thread_id)]
        await self.delete_thread(thread_id)
        gone = set(checkpoint_ids) if isinstance(checkpoint_ids, list) else set()
        for c in kept:
            if c.id not in gone:
                await self.restore(Step(checkpoint=c, since_base=c.size, state_size=c.size), head=c.id == head)


class Lazy(MemoryStore):
    """Keeps no snapshots."""

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        return []


# Which check tells, and with which arguments besides the store.
CHECKED: dict[type[MemoryStore], tuple[str, ...]] = {
    Unfenced: ("test_a_commit_on_an_old_head_is_refused",),
    Hasty: ("test_a_commit_on_an_old_head_is_refused",),
    Forgetful: ("test_a_commit_done_again_changes_nothing",),
    Parochial: ("test_paths_go_back_across_threads",),
    Longwinded: ("test_a_line_begins_at_the_nearest_snapshot",),
    Straight: ("test_a_rewind_moves_the_head_to_another_branch",),
    Careless: ("test_a_later_attempt_learns_how_it_stood",),
    Obliging: ("test_a_settlement_follows_from_what_was_known", "attempted"),
    Late: ("test_a_receipt_for_an_old_head_is_refused", "put_receipt"),
    Timeless: ("test_an_expired_result_is_not_found",),
    Patterned: ("test_receipts_are_listed_under_a_prefix",),
    Loose: ("test_values_are_the_same_json_or_not",),
    Untidy: ("test_a_deleted_thread_leaves_nothing",),
    Rough: ("test_what_stays_is_read_from_the_cut_on",),
    Lazy: ("test_what_a_commit_brings_becomes_true_with_it",),
}
