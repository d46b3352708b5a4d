"""The ledger of effects, and receipts."""

from collections.abc import Sequence
from secrets import token_hex

from perdure.effects import OPEN, Effect, EffectStatus
from perdure.errors import IntegrityError
from perdure.stores import ledger, refusals, sealed
from perdure.stores.base import EffectRow, Receipt
from perdure.stores.packing import unpacked
from perdure.stores.redis.entries import GIVEN_UP, Standing, busy
from perdure.stores.redis.keys import KEY_FROM, read_pair, turn_bound, turn_place
from perdure.stores.redis.part import ATTEMPTS, pause
from perdure.stores.redis.threads import Threads
from perdure.stores.redis.tokens import Tokens
from perdure.stores.rows import now


class Ledger(Threads, Tokens):
    """Effects and receipts of threads. Of two changes at once, one comes first."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        mark = token_hex(8)  # so that a claim is recognised when somebody else has changed its entry since
        lineage = await self._lineage(row.thread_id, head) if row.tokens else ""
        stands = await self._stands(row.thread_id, row.entry.key) if row.tokens else None
        before: EffectRow | None = None
        for attempt in range(ATTEMPTS):
            await pause(attempt)
            if stands and stands.mark == mark:
                return before
            before = stands.row if stands else None
            after = ledger.next_attempt(before) if before else ledger.first_attempt(row, now())
            if row.tokens and after != before:
                await self._use_tokens(lineage, row)
            if await self._attempt(stands, after, mark, head):
                return before
            stands = await self._stands(row.thread_id, row.entry.key)
        raise busy(row.thread_id, row.entry.key)

    async def _attempt(self, stands: Standing | None, after: EffectRow, mark: str, head: str) -> bool:
        """Write what an attempt makes of an entry; where it makes nothing of it, only the head is checked."""
        if stands is None:
            return await self._enter(after, mark, head)
        changed = sealed.changed(stands.stored, after, mark) if after != stands.row else stands.stored
        return await self._put(after.thread_id, after.entry.key, stands, changed, head=head)

    async def _enter(self, row: EffectRow, mark: str, head: str) -> bool:
        """Make a new entry; False where there is one."""
        written = sealed.written(row, mark)
        return await self._put(row.thread_id, row.entry.key, None, written, head=head, place=_place(row.entry))

    async def _lineage(self, thread_id: str, head: str) -> str:
        row = await self.thread(thread_id)
        if row is None or row.head_id != head:
            raise refusals.too_late(thread_id, head, row.head_id if row else "")
        return row.lineage

    async def record_simulated(self, row: EffectRow, *, head: str) -> None:
        await self._enter(ledger.simulated(row, now()), token_hex(8), head)

    async def join_saga(self, thread_id: str, key: str, saga: str) -> None:
        await self._change(thread_id, key, ledger.join(saga))

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        await self._change(thread_id, key, ledger.fail(error, now()))

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str = "") -> None:
        move = ledger.finish(receipt.result, now())
        await self._change(thread_id, receipt.key, move, head=head, kept=receipt.result)

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str = "", by: str = "") -> None:
        move = ledger.finish(receipt.result, now(), late=not head, by=by)
        await self._change(thread_id, receipt.key, move, head=head)

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        await self._change(thread_id, key, ledger.settle(status, error=error, by=by, now=now()))

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def receipts(self, thread_id: str, keys: Sequence[str]) -> dict[str, bytes]:
        if not keys:
            return {}
        found = await self._ask("HMGET", self._keys.part(thread_id, "receipts"), *keys)
        return {key: unpacked(stored) for key, stored in zip(keys, found, strict=True) if stored is not None}

    async def receipts_under(self, thread_id: str, prefix: str) -> dict[str, bytes]:
        begin, end = f"[{prefix}".encode(), f"({prefix}".encode() + b"\xff"  # a byte that no text has
        found = await self._run("receipts", thread_id, begin, end)
        return {key.decode(): unpacked(stored) for key, stored in found}

    async def effect(self, thread_id: str, key: str) -> EffectRow | None:
        stands = await self._stands(thread_id, key)
        return stands.row if stands else None

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        begin, end = ("-", "+") if turn is None else (f"[{turn_bound(turn)}", f"({turn_bound(turn + 1)}")
        found = await self._found(thread_id, "turns", begin, end, KEY_FROM)
        for place, stands in found.entries:
            if place != _place(stands.row.entry):
                key = stands.row.entry.key
                raise IntegrityError(f"The effect {key} is listed in a wrong place.", table="effects", row=key)
        return sorted((stands.row for _, stands in found.entries), key=ledger.age)

    async def open_effects(self, *, after: tuple[str, str] = ("", ""), limit: int = 1000) -> list[EffectRow]:
        listed = await self._ask("HGETALL", self._keys.open)
        stamps = {read_pair(field): (field, stamp) for field, stamp in listed.items()}
        rows: list[EffectRow] = []
        for place in sorted(place for place in stamps if place > after):
            if len(rows) >= limit:
                break
            at, entries = await self._found(place[0], "key", place[1])
            open_ones = [stands.row for _, stands in entries if stands.row.entry.status in OPEN]
            rows += open_ones
            field, stamp = stamps[place]
            if not open_ones and at - int(stamp) > GIVEN_UP:
                await (await self._ready()).run("swap", [self._keys.open], field, stamp, b"")
        return rows


def _place(entry: Effect) -> str:
    return turn_place(entry.turn, entry.step, entry.index, entry.key)
