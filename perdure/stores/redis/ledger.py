"""The ledger of effects, and receipts."""

import zlib
from collections.abc import Sequence
from secrets import token_hex
from typing import Any

from perdure.canonical import Json, canonical
from perdure.effects import Effect, EffectStatus
from perdure.errors import IntegrityError
from perdure.stores import ledger, refusals
from perdure.stores.base import EffectRow, Receipt
from perdure.stores.ledger import AGAIN, Move
from perdure.stores.redis.keys import KEY_FROM, turn_bound, turn_place
from perdure.stores.redis.part import Part
from perdure.stores.rows import now, packed, unpacked

_DIGEST = 64  # hexadecimal digits


class Ledger(Part):
    """Effects and receipts of threads. Each change is one script: of two at once, one comes first."""

    async def claim(self, row: EffectRow, *, head: str) -> EffectRow | None:
        entry = ledger.first_attempt(row.entry, now())
        order = {
            "key": entry.key, "head": head, "again": AGAIN.model_dump(),
            "place": turn_place(entry.turn, entry.step, entry.index, entry.key),
            "token": token_hex(8),  # so that a claim whose answer was lost is recognised when it is made again
        }  # fmt: skip
        arguments = row.arguments_digest.encode().ljust(_DIGEST) + packed(row.arguments)
        told, *rest = await self._run("claim", row.thread_id, canonical(order), _written(entry), arguments)
        if told == b"moved":
            raise refusals.too_late(row.thread_id, head, rest[0].decode())
        return _read(row.thread_id, entry.key, *rest) if told == b"again" else None

    async def fail(self, thread_id: str, key: str, error: str) -> None:
        await self._move(thread_id, key, ledger.fail(error, now()))

    async def put_receipt(self, thread_id: str, receipt: Receipt, *, head: str = "") -> None:
        await self._record(thread_id, receipt, head, keep=True)

    async def finish(self, thread_id: str, receipt: Receipt, *, head: str) -> None:
        await self._record(thread_id, receipt, head, keep=False)

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
        found = await self._effects(thread_id, "key", key)
        return found[0] if found else None

    async def effects(self, thread_id: str, turn: int | None = None) -> list[EffectRow]:
        if turn is None:
            return await self._effects(thread_id, "turns", "-", "+", KEY_FROM)
        begin, end = f"[{turn_bound(turn)}", f"({turn_bound(turn + 1)}"
        return await self._effects(thread_id, "turns", begin, end, KEY_FROM)

    async def settle(self, thread_id: str, key: str, status: EffectStatus, *, error: str = "", by: str = "") -> None:
        await self._move(thread_id, key, ledger.settle(status, error=error, by=by, now=now()))

    async def _record(self, thread_id: str, receipt: Receipt, head: str, *, keep: bool) -> None:
        order: dict[str, Json] = {"key": receipt.key, "finish": ledger.finish(now()).model_dump(), "keep": keep}
        if head or not keep:
            order["head"] = head
        told, *rest = await self._run("receipt", thread_id, canonical(order), packed(receipt.result))
        if told == b"moved":
            raise refusals.too_late(thread_id, head, rest[0].decode())

    async def _move(self, thread_id: str, key: str, move: Move) -> None:
        await self._run("move", thread_id, canonical({"key": key, "move": move.model_dump()}))

    async def _effects(self, thread_id: str, *what: str | int) -> list[EffectRow]:
        found = await self._run("effects", thread_id, *what)
        return [_read(thread_id, key.decode(), *stored) for key, *stored in found]


def _written(entry: Effect) -> bytes:
    return canonical(entry.model_dump())


def _read(thread_id: str, key: str, entry: Any, arguments: Any, receipt: Any) -> EffectRow:
    """A ledger entry from what is stored of it. Raises IntegrityError."""
    try:
        return EffectRow(
            thread_id=thread_id, entry=Effect.model_validate_json(entry), arguments=unpacked(arguments[_DIGEST:]),
            arguments_digest=arguments[:_DIGEST].decode().rstrip(),
            receipt=unpacked(receipt) if receipt is not None else None,
        )  # fmt: skip
    except (ValueError, TypeError, zlib.error) as error:
        raise IntegrityError(
            f"Thread {thread_id}: the effect {key} can't be read: {error}.",
            hint="Run `perdure db verify`.", table="effects", row=key,
        ) from error  # fmt: skip
