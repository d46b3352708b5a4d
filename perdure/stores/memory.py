"""The store in memory, for tests and demos: what it holds ends with the process."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from perdure.audit import AuditEntry, AuditHead, AuditRow, chained, unknown
from perdure.canonical import Json, digest
from perdure.checkpoint import Checkpoint
from perdure.effects import OPEN, EffectStatus
from perdure.stores import ledger, records, refusals, sealed
from perdure.stores.base import CachedResult, EffectRow, Line, Receipt, Snapshot, Step, ThreadRow
from perdure.stores.kept import Kept
from perdure.stores.ledger import Move
from perdure.stores.records import Entry, Link, Record
from perdure.stores.rows import now


class MemoryStore:
    """See ``perdure.stores.base.Store``. Atomic, because no method waits for anything in the middle."""

    _named: ClassVar[dict[str, "MemoryStore"]] = {}

    def __init__(self, name: str = "") -> None:
        self.url = f"memory://{name}"
        self._threads: dict[str, Kept] = {}
        self._results: dict[tuple[str, str], CachedResult] = {}
        self._blobs: dict[str, bytes] = {}
        self._tokens: dict[tuple[str, str], tuple[str, str]] = {}  # lineage, token -> thread, key

    @classmethod
    def named(cls, name: str) -> "MemoryStore":
        """The store of this name: the same one for everybody in this process."""
        return cls._named.setdefault(name, cls(name))

    async def migrate(self, *, partitions: int = 0) -> list[str]:
        return []

    async def missing_migrations(self) -> list[str]:
        return []

    async def cautions(self) -> list[str]:
        return ["The store is in memory: it loses everything when the process ends."]

    async def close(self) -> None:
        return None

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def thread(self, thread_id: str) -> ThreadRow | None:
        return self._row(thread_id)

    async def threads(self, *, after: str = "", limit: int = 1000) -> list[ThreadRow]:
        return [row for row in self._rows() if row.thread_id > after][:limit]

    async def forks(self, thread_id: str) -> list[ThreadRow]:
        return self._forks(thread_id)

    async def close_thread(self, thread_id: str) -> None:
        self._change(thread_id, closed=True)

    async def set_lease(self, thread_id: str, lease: str) -> None:
        self._change(thread_id, lease=lease)

    async def delete_thread(self, thread_id: str) -> None:
        for fork in self._forks(thread_id):
            raise refusals.forked(thread_id, fork.thread_id)
        self._threads.pop(thread_id, None)
        self._results = {name: result for name, result in self._results.items() if result.thread_id != thread_id}

    async def copy_thread(self, source: str, target: str) -> None:
        row = self._row(source)
        if row is None:
            raise refusals.no_thread(source)
        if self._row(target) is not None:
            raise refusals.thread_exists(target)
        entries = {id: self._entry(source, id) for id in self._threads[source].checkpoints}
        moved = {id: entry.of_thread(target) for id, entry in entries.items()}
        copy = Kept()
        fresh = {"thread_id": target, "lineage": target, "lease": "", "audited": 0, "audit_digest": ""}
        copy.row = row.model_copy(update=fresh)
        copy.checkpoints = {id: records.record(entry) for id, entry in moved.items()}
        copy.snapshots = dict(self._threads[source].snapshots)
        copy.receipts = dict(self._threads[source].receipts)
        self._threads[target] = copy

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def commit(self, step: Step) -> bool:
        c = step.checkpoint
        row, known = self._row(c.thread_id), self._link(c.thread_id, c.id)
        head = row.head_id if row else ""
        if known is not None:
            if known.digest == c.digest:
                return False
            raise refusals.other_content(step, head)
        if (step.extends or "") != head:
            raise refusals.head_moved(step, head)
        if c.parent_id and not c.cut and self._link(c.parent_thread or c.thread_id, c.parent_id) is None:
            raise refusals.no_parent(step)
        written = records.record(Entry.of(step))  # whatever may fail comes before the first change
        thread = self._threads.setdefault(c.thread_id, Kept())
        thread.row = thread.row_at(step, (c.parent_thread, c.parent_id or ""))
        self._add(thread, step, written)
        if step.result:
            self._results[step.result.scope, step.result.key] = step.result
        if step.receipt:
            self._move(c.thread_id, step.receipt.key, ledger.finish(step.receipt.result, now()))
        for key in step.clears:
            thread.receipts.pop(key, None)
        return True

    async def restore(self, step: Step, *, head: bool) -> None:
        c = step.checkpoint
        written = records.record(Entry.of(step))
        thread = self._threads.setdefault(c.thread_id, Kept())
        there = thread.checkpoints.get(c.id)
        if there is not None and records.is_whole(there, c):
            written = there
        self._add(thread, step, written)
        if head:
            first = min(self._links(c.thread_id).values(), key=lambda link: link.step)
            thread.row = thread.row_at(step, (first.parent_thread, first.parent_id))

    async def remove(
        self, thread_id: str, checkpoint_ids: Sequence[str], roots: Sequence[Snapshot], *, head: str
    ) -> None:
        thread = self._threads.get(thread_id)
        if thread is None:
            return
        gone = set(checkpoint_ids) & thread.checkpoints.keys()
        head = head or (thread.row.head_id if thread.row else "")
        for fork in self._forks(thread_id):
            if fork.origin_id in gone:
                raise refusals.forked(thread_id, fork.thread_id)
        records.check_removal(thread_id, self._links(thread_id), gone, roots, head)
        cut = {root.checkpoint_id: self._entry(thread_id, root.checkpoint_id).cut(root) for root in roots}
        stands = self._entry(thread_id, head).checkpoint
        thread.checkpoints |= {id: records.record(entry) for id, entry in cut.items()}
        thread.snapshots |= {root.checkpoint_id: root for root in roots}
        for id in gone:
            del thread.checkpoints[id]
            thread.snapshots.pop(id, None)
            thread.receipts = {key: value for key, value in thread.receipts.items() if not records.belongs(key, id)}
        self._results = {
            name: result
            for name, result in self._results.items()
            if result.thread_id != thread_id or result.checkpoint_id not in gone
        }
        self._change(thread_id, head_id=head, turn=stands.turn, schema_version=stands.schema_version)

    async def checkpoint(self, thread_id: str, checkpoint_id: str) -> Checkpoint | None:
        there = self._link(thread_id, checkpoint_id) is not None
        return self._entry(thread_id, checkpoint_id).checkpoint if there else None

    async def line(self, thread_id: str, checkpoint_id: str) -> Line | None:
        found: list[Entry] = []
        for entry in self._back(thread_id, checkpoint_id):
            found.append(entry)
            if entry.checkpoint.id == found[0].base_id or entry.checkpoint.cut:
                break
        if not found:
            return None
        last = found[-1].checkpoint
        based = last.cut or last.id == found[0].base_id
        snapshot = self._threads[last.thread_id].snapshots.get(last.id) if based else None
        return records.line(found[::-1], snapshot)

    async def path(self, thread_id: str, checkpoint_id: str, *, limit: int) -> list[Checkpoint]:
        back = self._back(thread_id, checkpoint_id)
        return [entry.checkpoint for _, entry in zip(range(limit), back, strict=False)]

    async def landmarks(
        self, thread_id: str, checkpoint_id: str, *, limit: int, in_turn: bool = False
    ) -> list[Checkpoint]:
        return records.landmarks(await self.path(thread_id, checkpoint_id, limit=limit), in_turn=in_turn)

    async def ancestor(self, thread_id: str, checkpoint_id: str, step: int) -> Checkpoint | None:
        for entry in self._back(thread_id, checkpoint_id):
            if entry.checkpoint.step <= step:
                return entry.checkpoint if entry.checkpoint.step == step else None
        return None

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        places = [thread_id] if thread_id else list(self._threads)
        everything = [c for place in places for c in self._checkpoints(place)]
        return sorted((c for c in everything if records.has(c, metadata)), key=records.age, reverse=True)[:limit]

    async def walk(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        for _, id in sorted((link.step, id) for id, link in self._links(thread_id).items()):
            yield self._entry(thread_id, id).checkpoint

    async def snapshots(self, thread_id: str) -> list[Snapshot]:
        thread = self._threads.get(thread_id, Kept())

        steps = {id: link.step for id, link in self._links(thread_id).items()}
        return sorted(thread.snapshots.values(), key=lambda snapshot: steps.get(snapshot.checkpoint_id, -1))

    # ── results, receipts, effects ───────────────────────────────────────────────────────────────────────────────

    async def result(self, scope: str, key: str) -> CachedResult | None:
        found = self._results.get((scope, key))
        return found if found and records.is_fresh(found) else None

    async def put_result(self, result: CachedResult) -> None:
        self._results[result.scope, result.key] = result

    async def stray_results(self, thread_id: str) -> list[str]:
        there = self._threads.get(thread_id, Kept()).checkpoints
        named = {result.checkpoint_id for result in self._results.values() if result.thread_id == thread_id}
        return sorted(named - there.keys() - {""})

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        lineage = self._check_head(row.thread_id, head).lineage
        before = await self.effect(row.thread_id, row.entry.key)
        after = ledger.next_attempt(before) if before else ledger.first_attempt(row, now())
        if after != before:
            self._use_tokens(lineage, row)
            self._put(after)
        return before

    async def record_simulated(self, row: EffectRow, *, head: str) -> None:
        self._check_head(row.thread_id, head)
        if row.entry.key not in self._threads[row.thread_id].effects:
            self._put(ledger.simulated(row, now()))

    async def join_saga(self, thread_id: str, key: str, saga: str) -> None:
        self._move(thread_id, key, ledger.join(saga))

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        self._move(thread_id, key, ledger.fail(error, now()))

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str = "") -> None:
        if head:
            self._check_head(thread_id, head)
        self._move(thread_id, receipt.key, ledger.finish(receipt.result, now()))
        self._threads.setdefault(thread_id, Kept()).receipts.setdefault(receipt.key, receipt.result)

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str = "", by: str = "") -> None:
        if head:
            self._check_head(thread_id, head)
        self._move(thread_id, receipt.key, ledger.finish(receipt.result, now(), late=not head, by=by))

    async def receipts(self, thread_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        kept = self._threads.get(thread_id, Kept()).receipts
        return {key: kept[key] for key in keys if key in kept}

    async def receipts_under(self, thread_id: str, prefix: str) -> dict[str, bytes]:
        kept = self._threads.get(thread_id, Kept()).receipts
        return {key: kept[key] for key in sorted(kept) if key.startswith(prefix)}

    async def effect(self, thread_id: str, key: str) -> EffectRow | None:
        stored = self._threads.get(thread_id, Kept()).effects.get(key)
        return sealed.opened(thread_id, key, stored).row if stored else None

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        kept = self._effects(thread_id)
        return sorted((row for row in kept if turn is None or row.entry.turn == turn), key=ledger.age)

    async def open_effects(self, *, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[EffectRow]:
        found: list[EffectRow] = []
        for thread_id in sorted(name for name in self._threads if name >= after[0]):
            opened = (row for row in self._effects(thread_id) if row.entry.status in OPEN)
            rows = sorted((row for row in opened if (thread_id, row.entry.key) > after), key=lambda row: row.entry.key)
            found += rows
            if len(found) >= limit:
                break
        return found[:limit]

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        self._move(thread_id, key, ledger.settle(status, error=error, by=by, now=now()))

    # ── audit ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        row = self._row(thread_id)
        if row is None:
            raise refusals.no_thread(thread_id)
        kept = self._threads[thread_id].audit
        new = unknown(entries, {line.entry.id for line in kept})
        lines = chained(thread_id, row.audit_end, new)
        kept += lines
        end = lines[-1].head if lines else row.audit_end
        self._change(thread_id, audited=end.number, audit_digest=end.digest)
        return end

    async def audit(self, thread_id: str, *, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        kept = self._threads.get(thread_id, Kept()).audit
        return [line for line in kept if line.number > after][:limit]

    # ── blobs ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def put_blob(self, kind: str, blob: bytes) -> str:
        name = digest(blob)
        self._blobs[name] = bytes(blob)
        return name

    async def blob(self, digest: str) -> bytes | None:
        return self._blobs.get(digest)

    async def sizes(self) -> dict[str, Any]:
        threads = self._threads.values()
        checkpoints = [checkpoint for id in self._threads for checkpoint in self._checkpoints(id)]
        rows = {
            "threads": len(self._rows()),
            "checkpoints": len(checkpoints),
            "snapshots": sum(len(thread.snapshots) for thread in threads),
            "labels": sum(len(checkpoint.metadata) for checkpoint in checkpoints),
            "results": sum(map(records.is_fresh, self._results.values())),
            "receipts": sum(len(thread.receipts) for thread in threads),
            "effects": sum(len(thread.effects) for thread in threads),
            "tokens": len(self._tokens),
            "audit": sum(len(thread.audit) for thread in threads),
            "blobs": len(self._blobs),
        }
        return {"rows": rows, "bytes": sum(thread.bytes() for thread in threads) + sum(map(len, self._blobs.values()))}

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _row(self, thread_id: str) -> ThreadRow | None:
        thread = self._threads.get(thread_id)
        return thread.row if thread else None

    def _rows(self) -> list[ThreadRow]:
        rows = [thread.row for thread in self._threads.values() if thread.row]
        return sorted(rows, key=lambda row: row.thread_id)

    def _forks(self, thread_id: str) -> list[ThreadRow]:
        return [row for row in self._rows() if row.origin_thread == thread_id]

    def _change(self, thread_id: str, **fields: Any) -> None:
        thread = self._threads.get(thread_id)
        if thread and thread.row:
            thread.row = thread.row.model_copy(update=fields)

    def _check_head(self, thread_id: str, head: str) -> ThreadRow:
        row = self._row(thread_id)
        if row is None or row.head_id != head:
            raise refusals.too_late(thread_id, head, row.head_id if row else "")
        return row

    def _add(self, thread: Kept, step: Step, written: Record) -> None:
        thread.checkpoints[step.checkpoint.id] = written
        if step.snapshot:
            thread.snapshots[step.checkpoint.id] = step.snapshot

    def _link(self, thread_id: str, checkpoint_id: str) -> Link | None:
        thread = self._threads.get(thread_id)
        stored = thread.checkpoints.get(checkpoint_id) if thread else None
        return records.link(thread_id, checkpoint_id, stored.link) if stored else None

    def _links(self, thread_id: str) -> dict[str, Link]:
        stored = self._threads.get(thread_id, Kept()).checkpoints
        return {id: records.link(thread_id, id, record.link) for id, record in stored.items()}

    def _back(self, thread_id: str, checkpoint_id: str) -> Iterator[Entry]:
        """A checkpoint and its ancestors, as far as they are there."""
        while self._link(thread_id, checkpoint_id) is not None:
            entry = self._entry(thread_id, checkpoint_id)
            yield entry
            if entry.checkpoint.parent_id is None or entry.checkpoint.cut:
                return
            thread_id, checkpoint_id = entry.checkpoint.parent_thread or thread_id, entry.checkpoint.parent_id

    def _entry(self, thread_id: str, checkpoint_id: str) -> Entry:
        return records.entry(thread_id, checkpoint_id, self._threads[thread_id].checkpoints[checkpoint_id])

    def _checkpoints(self, thread_id: str) -> list[Checkpoint]:
        stored = self._threads.get(thread_id, Kept()).checkpoints
        return [self._entry(thread_id, id).checkpoint for id in stored]

    def _effects(self, thread_id: str) -> list[EffectRow]:
        stored = self._threads.get(thread_id, Kept()).effects
        return [sealed.opened(thread_id, key, entry).row for key, entry in stored.items()]

    def _put(self, row: EffectRow) -> None:
        self._threads[row.thread_id].effects[row.entry.key] = sealed.written(row, "")

    def _move(self, thread_id: str, key: str, move: Move) -> None:
        stored = self._threads.get(thread_id, Kept()).effects.get(key)
        if stored:
            self._put(ledger.moved(sealed.opened(thread_id, key, stored).row, move))

    def _use_tokens(self, lineage: str, row: EffectRow) -> None:
        """Let the tokens be this call's. Raises TokenSpent; then none is."""
        mine = row.thread_id, row.entry.key
        for token in row.tokens:
            thread_id, key = self._tokens.get((lineage, token), mine)
            stored = self._threads.get(thread_id, Kept()).effects.get(key)
            failed = stored and sealed.opened(thread_id, key, stored).row.entry.status == "failed"
            if (thread_id, key) != mine and not failed:
                raise refusals.token_spent(*mine, thread_id, key)
        self._tokens |= dict.fromkeys(((lineage, token) for token in row.tokens), mine)
