"""Removing checkpoints and threads for good."""

from collections.abc import Sequence
from typing import NamedTuple

from perdure.canonical import Json, canonical
from perdure.checkpoint import Checkpoint
from perdure.errors import StoreUnreachable
from perdure.stores import records, refusals
from perdure.stores.base import Snapshot
from perdure.stores.records import Link
from perdure.stores.redis import labels, results
from perdure.stores.redis.checkpoints import Checkpoints, stored_snapshot
from perdure.stores.redis.keys import LABEL_ID_FROM, id_in, place
from perdure.stores.redis.part import pairs
from perdure.stores.redis.server import Command
from perdure.stores.redis.threads import head_fields

_ATTEMPTS = 20  # one for each commit that comes between looking and removing
_PAGE = 500  # commands sent at once


class Outline(NamedTuple):
    """The shape of a thread at one moment. ``written`` and ``removed`` count its changes."""

    row: dict[str, bytes]
    ids: tuple[str, ...]
    written: str
    removed: str
    links: dict[str, Link]


class Removal(Checkpoints):
    """Removing. What other keys know of the removed is taken out last: until then nobody finds it there anyway."""

    async def delete_thread(self, thread_id: str) -> None:
        row, maker = await self.thread(thread_id), await self._maker(thread_id)
        order = {"dead": await self._check_forks(thread_id)}
        told, *rest = await self._run("delete", thread_id, canonical(order))
        if told == b"forked":
            raise refusals.forked(thread_id, rest[0].decode())
        if row and row.origin_thread:
            await self._drop_note((row.origin_thread, row.origin_id), thread_id, maker)
        commands: list[Command] = [("ZREM", self._keys.threads, thread_id)]
        await self._withdraw(thread_id, rest[0], rest[1], commands)
        if await self.thread(thread_id):  # somebody has begun it anew meanwhile
            await self._announce_thread(thread_id)

    async def remove(
        self, thread_id: str, checkpoint_ids: Sequence[str], roots: Sequence[Snapshot], *, head: str
    ) -> None:
        for _ in range(_ATTEMPTS):
            outline = await self._outline(thread_id, links=True)
            if not outline.ids:
                return
            order = await self._removal(thread_id, outline, checkpoint_ids, roots, head)
            cut = await self._cut(thread_id, roots)
            told, *rest = await self._run("remove", thread_id, canonical(order), *cut)
            if told == b"forked":
                raise refusals.forked(thread_id, rest[0].decode())
            if told == b"done":
                await self._withdraw(thread_id, rest[0], rest[1], [])
                return
        raise StoreUnreachable(f"So much is written to {thread_id} that nothing of it can be removed now.")

    async def _removal(
        self, thread_id: str, outline: Outline, asked: Sequence[str], roots: Sequence[Snapshot], head: str
    ) -> dict[str, Json]:
        """What the script has to know, if the thread is whole afterwards. Raises Conflict, CheckpointNotFound."""
        gone = [name for name in dict.fromkeys(asked) if name in outline.links]
        dead = await self._check_forks(thread_id, gone)
        stays = head or outline.row.get("head_id", b"").decode()
        records.check_removal(thread_id, outline.links, set(gone), roots, stays)
        [stands] = await self._entries(thread_id, [stays])
        return {
            "gone": gone, "places": [place(outline.links[name].step, name) for name in gone],
            "written": outline.written, "dead": dead, "roots": [root.checkpoint_id for root in roots],
            "label_id_from": LABEL_ID_FROM, "row": _standing(stands.checkpoint, outline),
        }  # fmt: skip

    async def _cut(self, thread_id: str, roots: Sequence[Snapshot]) -> list[bytes]:
        """Link, body and snapshot of each root, as they are without ancestors."""
        entries = await self._entries(thread_id, [root.checkpoint_id for root in roots])
        out: list[bytes] = []
        for entry, root in zip(entries, roots, strict=True):
            out += [*records.record(entry.cut(root)), stored_snapshot(root)]
        return out

    async def _outline(self, thread_id: str, *, links: bool = False) -> Outline:
        row, places, written, removed, flat = await self._run("outline", thread_id, "links" if links else "")
        return Outline(
            row=pairs(row), ids=tuple(map(id_in, places)), written=written.decode(), removed=removed.decode(),
            links={name: records.link(thread_id, name, stored) for name, stored in pairs(flat).items()},
        )  # fmt: skip

    async def _withdraw(
        self, thread_id: str, members: list[bytes], forgotten: list[list[bytes]], commands: list[Command]
    ) -> None:
        commands = [
            *commands, *labels.listing(self._keys, thread_id, (member.decode() for member in members), "ZREM"),
            *results.withdrawing(self._keys, thread_id, forgotten),
        ]  # fmt: skip
        for at in range(0, len(commands), _PAGE):
            await self._tell(*commands[at : at + _PAGE])


def _standing(head: Checkpoint, outline: Outline) -> list[str]:
    """The fields of the row that follow the head; a thread without a row doesn't get one by this."""
    return head_fields(head) if "head_id" in outline.row else []
