"""Copying a thread: the copy is laid out beside its place, then becomes the thread at once."""

from collections.abc import Sequence
from secrets import token_hex

from perdure.canonical import Json, canonical
from perdure.errors import StoreUnreachable
from perdure.stores import records, refusals
from perdure.stores.base import ThreadRow
from perdure.stores.redis import labels
from perdure.stores.redis.keys import COPIED, place
from perdure.stores.redis.part import pairs
from perdure.stores.redis.removal import Removal
from perdure.stores.redis.server import Command
from perdure.stores.redis.threads import PATIENCE, read_row, row_fields, too_slow

_ATTEMPTS = 3
_PAGE = 200
_LEFT = 3600  # seconds after which a copy that was given up is gone


class Copying(Removal):
    """Copying."""

    async def copy_thread(self, source: str, target: str) -> None:
        for _ in range(_ATTEMPTS):
            outline = await self._outline(source)
            row = read_row(source, outline.row)
            if row is None:
                raise refusals.no_thread(source)
            if await self.thread(target):
                raise refusals.thread_exists(target)
            token = token_hex(8)
            whole = await self._lay_out(source, target, outline.ids, token)
            if whole and (await self._outline(source)).removed == outline.removed:
                await self._adopt(row, target, token)
                return
        raise StoreUnreachable(f"So much is removed from {source} that it can't be copied now.")

    async def _lay_out(self, source: str, target: str, ids: Sequence[str], token: str) -> bool:
        """Write the copy where nobody looks for it; False where something of it is no longer there."""
        names = dict(zip(COPIED, self._laid_out(target, token), strict=True))
        for at in range(0, len(ids), _PAGE):
            page, links, bodies, snapshots = await self._stored_rows(source, ids[at : at + _PAGE])
            commands: list[Command] = []
            for name, link, body, snapshot in zip(page, links, bodies, snapshots, strict=True):
                if link is None:
                    return False
                entry = records.entry(source, name, (link, body)).of_thread(target)
                commands += _entry(names, entry, snapshot) + labels.announcing(self._keys, entry.checkpoint)
            await self._tell(*commands)
        receipts = pairs(await self._ask("HGETALL", self._keys.part(source, "receipts")))
        await self._tell(*(command for key, value in receipts.items() for command in _receipt(names, key, value)))
        await self._tell(*(("EXPIRE", name, _LEFT) for name in names.values()))
        return True

    def _laid_out(self, target: str, token: str) -> list[str]:
        return [self._keys.part(target, f"copy-{token}-{name}") for name in COPIED]

    async def _adopt(self, row: ThreadRow, target: str, token: str) -> None:
        fresh = {"thread_id": target, "lineage": target, "lease": "", "audited": 0, "audit_digest": ""}
        copy = row.model_copy(update=fresh)
        order: dict[str, Json] = {"token": token, "row": row_fields(copy), "patience": PATIENCE}
        origin = row.origin_thread, row.origin_id
        if row.origin_thread:  # the copy of a fork is a fork
            order["noted"] = await self._note(origin, target, token, anyhow=True)
        await self._announce_thread(target)
        keys = [*self._keys.thread(target), *self._laid_out(target, token)]
        [told] = await (await self._ready()).run("adopt", keys, canonical(order))
        if told != b"done" and row.origin_thread:
            await self._unnote(origin, target, token)
        if told == b"late":
            raise too_slow(target)
        if told == b"exists":
            raise refusals.thread_exists(target)


def _entry(names: dict[str, str], entry: records.Entry, snapshot: bytes | None) -> list[Command]:
    c, stored = entry.checkpoint, records.record(entry)
    commands: list[Command] = [
        ("HSET", names["links"], c.id, stored.link), ("HSET", names["checkpoints"], c.id, stored.body),
        ("ZADD", names["steps"], 0, place(c.step, c.id)),
        *(("ZADD", names["labels"], 0, label) for label in labels.own(c)),
    ]  # fmt: skip
    if snapshot is not None:
        commands.append(("HSET", names["snapshots"], c.id, snapshot))
    return commands


def _receipt(names: dict[str, str], key: str, value: bytes) -> list[Command]:
    return [("HSET", names["receipts"], key, value), ("ZADD", names["receipt-keys"], 0, key)]
