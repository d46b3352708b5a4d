"""Stores that are wrong in one way each, and the checks of the conformance suite that tell."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from uuid import uuid4

from perdure.audit import AuditEntry, AuditHead
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint, layer_of
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
        return short and short._replace(layers=tuple(map(layer_of, way[::-1])), snapshot=None, base_id=None)


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


class Unchained(MemoryStore):
    """Chains the lines of each call from nothing."""

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        self._change(thread_id, audit_digest="")
        return await super().append_audit(thread_id, entries)


class Garrulous(MemoryStore):
    """Writes a line as often as it is told."""

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        new = [entry.model_copy(update={"id": f"{entry.id} {uuid4()}"}) for entry in entries]
        return await super().append_audit(thread_id, new)


class Polite(MemoryStore):
    """Says nothing where there is no thread to audit."""

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        there = await self.thread(thread_id)
        return await super().append_audit(thread_id, entries) if there else AuditHead()


class Generous(MemoryStore):
    """Takes no tokens."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        return await super().claim(row.model_copy(update={"tokens": ()}), head=head)


class Local(MemoryStore):
    """Knows a thread's tokens, and not those of its lineage."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        tokens = tuple(f"{row.thread_id} {token}" for token in row.tokens)
        return await super().claim(row.model_copy(update={"tokens": tokens}), head=head)


class Strict(MemoryStore):
    """Never gives back a token."""

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        kept = dict(self._tokens)
        await super().fail(thread_id, key, error)
        self._tokens = dict.fromkeys(kept, (thread_id, "nobody"))


class Merciful(MemoryStore):
    """Gives back the tokens of a thread that is deleted."""

    async def delete_thread(self, thread_id: str) -> None:
        await super().delete_thread(thread_id)
        self._tokens = {name: holder for name, holder in self._tokens.items() if holder[0] != thread_id}


class Wasteful(MemoryStore):
    """Takes the tokens of a claim that it refuses."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        if thread := await self.thread(row.thread_id):
            self._use_tokens(thread.lineage, row)
        return await super().claim(row, head=head)


class Earnest(MemoryStore):
    """Takes a dry run for one that isn't."""

    async def commit(self, step: Step) -> bool:
        return await super().commit(step.model_copy(update={"dry_run": False}))


class Confused(MemoryStore):
    """Enters a simulated call as one that was made."""

    async def record_simulated(self, row: EffectRow, *, head: str) -> None:
        if await self.claim(row, head=head) is None and row.receipt is not None:
            await self.finish(row.thread_id, Receipt(key=row.entry.key, result=row.receipt), head=head)


class Sceptical(MemoryStore):
    """Doesn't believe that what had failed was done after all."""

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str = "", by: str = "") -> None:
        row = await self.thread(thread_id)
        await super().finish(thread_id, receipt, head=head or (row.head_id if row else ""), by=by)


class Anonymous(MemoryStore):
    """Forgets who found out that something was done."""

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str = "", by: str = "") -> None:
        await super().finish(thread_id, receipt, head=head)


class Shortsighted(MemoryStore):
    """Finds what is in doubt, and not what needs attention."""

    async def open_effects(self, *, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[EffectRow]:
        found = await super().open_effects(after=after, limit=limit)
        return [row for row in found if row.entry.status == "in_doubt"]


class Fixed(MemoryStore):
    """Lets an effect stay in the saga that it was in when it was over."""

    async def join_saga(self, thread_id: str, key: str, saga: str) -> None:
        row = await self.effect(thread_id, key)
        if row and row.entry.status == "attempted":
            await super().join_saga(thread_id, key, saga)


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
    Unchained: ("test_lines_are_read_as_they_were_written",),
    Garrulous: ("test_a_line_is_written_once",),
    Polite: ("test_no_thread_has_no_audit",),
    Generous: ("test_a_token_is_for_one_call",),
    Local: ("test_it_is_spent_on_all_branches_and_in_forks",),
    Strict: ("test_a_call_that_failed_frees_it_once",),
    Merciful: ("test_it_outlives_its_thread",),
    Wasteful: ("test_a_claim_that_comes_too_late_uses_none",),
    Earnest: ("test_a_thread_is_a_dry_run_from_its_beginning",),
    Confused: ("test_a_simulated_call_is_in_the_ledger",),
    Sceptical: ("test_what_was_done_is_known_after_its_step", "failed"),
    Anonymous: ("test_who_found_out_is_kept",),
    Shortsighted: ("test_open_effects_are_found_in_all_threads",),
    Fixed: ("test_an_effect_joins_a_saga", "done"),
}
