"""What a SQL store does in one transaction to add to a thread's audit: its end stands in the thread's row."""

from collections.abc import Sequence

from perdure.audit import AuditEntry, AuditHead, chained, unknown
from perdure.stores import refusals, rows
from perdure.stores.database import Transaction


async def append(tx: Transaction, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
    """See ``perdure.stores.base.Store.append_audit``. Of two at once, one waits for the thread's row."""
    row = await tx.one("thread_to_change", thread_id=thread_id)
    if row is None:
        raise refusals.no_thread(thread_id)
    end = rows.thread(row).audit_end
    ids = [entry.id.encode() for entry in entries]
    known = {row["id"].decode() for row in await tx.all("lines_known", thread_id=thread_id, keys=ids)} if ids else ()
    lines = chained(thread_id, end, unknown(entries, known))
    if not lines:
        return end
    for line in lines:
        tx.later("add_line", **rows.audit_values(line))
    tx.later("set_audit_end", **rows.audit_values(lines[-1]))
    return lines[-1].head
