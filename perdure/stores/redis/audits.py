"""The audit of a thread: a list of lines, whose end stands in the thread's row."""

import json
from collections.abc import Sequence

from perdure.audit import AuditEntry, AuditHead, AuditRow, chained, damaged, unknown
from perdure.canonical import Json, canonical
from perdure.errors import StoreUnreachable
from perdure.stores import refusals
from perdure.stores.redis.part import ATTEMPTS, pause
from perdure.stores.redis.threads import Threads


class Audits(Threads):
    """Adding lines, and reading them."""

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        ids = [entry.id for entry in entries]
        for attempt in range(ATTEMPTS):
            await pause(attempt)
            row = await self.thread(thread_id)
            if row is None:
                raise refusals.no_thread(thread_id)
            known = await self._ask("HMGET", self._keys.part(thread_id, "audit-ids"), *ids) if ids else []
            there = {name for name, number in zip(ids, known, strict=True) if number is not None}
            lines = chained(thread_id, row.audit_end, unknown(entries, there))
            if not lines:
                return row.audit_end
            if await self._append(thread_id, row.audit_end, lines):
                return lines[-1].head
        raise StoreUnreachable(f"So much is written to the audit of {thread_id} that nothing can be added now.")

    async def _append(self, thread_id: str, end: AuditHead, lines: Sequence[AuditRow]) -> bool:
        last = lines[-1].head
        order: dict[str, Json] = {
            "number": str(end.number), "digest": end.digest,
            "row": ["audited", str(last.number), "audit_digest", last.digest],
        }  # fmt: skip
        written = [part for line in lines for part in (line.entry.id, _written(line))]
        return bool(await self._run("audit", thread_id, canonical(order), *written))

    async def audit(self, thread_id: str, *, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        page, count, known = await self._run("lines", thread_id, after, after + limit - 1) if limit > 0 else ([], 0, 0)
        lines = [_read(thread_id, after + n, stored) for n, stored in enumerate(page, start=1)]
        ids = [line.entry.id for line in lines]
        numbers = await self._ask("HMGET", self._keys.part(thread_id, "audit-ids"), *ids) if ids else []
        for at, number in enumerate(numbers, start=after + 1):
            if number is None or int(number) != at:
                raise damaged(at, f"Line {at} is not found by its id.")
        if count != known:
            raise damaged(count + 1, f"There are {count} lines, and {known} ids of lines.")
        return lines


def _written(line: AuditRow) -> bytes:
    return canonical(line.model_dump(mode="json", exclude={"thread_id"}))


def _read(thread_id: str, number: int, stored: bytes) -> AuditRow:
    """A line from what is stored of it. Raises IntegrityError."""
    try:
        return AuditRow(thread_id=thread_id, **json.loads(stored))
    except (ValueError, TypeError) as error:
        raise damaged(number, f"Line {number} can't be read: {error}.") from error
