"""What the store in memory keeps of a thread."""

from typing import Any

from perdure.audit import AuditHead, AuditRow
from perdure.stores.base import Snapshot, Step, ThreadRow
from perdure.stores.records import Record
from perdure.stores.sealed import Sealed


class Kept:
    """All that is one thread's own. Checkpoints and effects are kept as bytes: nobody can change what was written."""

    def __init__(self) -> None:
        self.row: ThreadRow | None = None
        self.checkpoints: dict[str, Record] = {}
        self.snapshots: dict[str, Snapshot] = {}
        self.receipts: dict[str, bytes] = {}
        self.effects: dict[str, Sealed] = {}
        self.audit: list[AuditRow] = []

    def row_at(self, step: Step, origin: tuple[str, str]) -> ThreadRow:
        """The thread's row when the step's checkpoint is its head; a new one where there is none."""
        c = step.checkpoint
        fields: dict[str, Any] = {
            "head_id": c.id, "turn": c.turn, "schema_version": c.schema_version, "updated_at": c.created_at,
        }  # fmt: skip
        if step.branch is not None:
            fields["branch"] = step.branch
        if self.row is not None:
            return self.row.model_copy(update=fields)
        origin_thread, origin_id = origin if origin[0] else ("", "")
        end = self.audit[-1].head if self.audit else AuditHead()
        new: dict[str, Any] = {
            "thread_id": c.thread_id, "agent": step.agent, "tenant": step.tenant,
            "lineage": step.lineage or c.thread_id, "branch": 0, "closed": False, "dry_run": step.dry_run,
            "audited": end.number, "audit_digest": end.digest, "origin_thread": origin_thread, "origin_id": origin_id,
            "created_at": c.created_at,
        }  # fmt: skip
        return ThreadRow(**(new | fields))

    def bytes(self) -> int:
        """About what it takes up."""
        checkpoints = sum(len(record.link) + len(record.body) for record in self.checkpoints.values())
        snapshots = sum(len(snapshot.state) for snapshot in self.snapshots.values())
        effects = sum(len(part or b"") for stored in self.effects.values() for part in stored)
        audit = sum(len(line.model_dump_json()) for line in self.audit)
        return checkpoints + snapshots + effects + audit + sum(map(len, self.receipts.values()))
