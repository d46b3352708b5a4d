"""Entries of the ledger as they are stored: read, and changed where they are still what was read.

An entry moves by the rules of ``perdure.stores.ledger``, here: a script then puts it in the place of the one that was
read, or tells that somebody else was quicker.
"""

from collections import Counter
from typing import NamedTuple

from perdure.canonical import Json, canonical
from perdure.effects import OPEN
from perdure.errors import IntegrityError, StoreUnreachable
from perdure.stores import ledger, refusals, sealed
from perdure.stores.base import EffectRow
from perdure.stores.ledger import Move
from perdure.stores.packing import packed
from perdure.stores.redis.keys import pair
from perdure.stores.redis.part import ATTEMPTS, Part, pause
from perdure.stores.sealed import Sealed

# An open effect is listed before it is one. The server refuses to change it too long after that, and only takes what is
# listed and isn't open for something that came to nothing when it is older still: so no open effect is missed.
PATIENCE = 60  # seconds
GIVEN_UP = 120


class Standing(NamedTuple):
    """An entry as it stood when it was read."""

    stored: Sealed
    row: EffectRow
    mark: str


class Found(NamedTuple):
    """What a script has read: the time of the thread's server in seconds, and the entries with their places."""

    at: int
    entries: list[tuple[str, Standing]]


class Entries(Part):
    """Reading and changing."""

    async def _found(self, thread_id: str, *what: str | int) -> Found:
        at, counted, stored = await self._run("effects", thread_id, *what)
        if what[0] == "turns" and len(set(counted)) > 1:
            raise await self._half(thread_id)
        return Found(at, [(place.decode(), _standing(thread_id, key, *parts)) for key, place, *parts in stored])

    async def _stands(self, thread_id: str, key: str) -> Standing | None:
        found = await self._found(thread_id, "key", key)
        return found.entries[0][1] if found.entries else None

    async def _change(self, thread_id: str, key: str, move: Move, *, head: str = "", kept: bytes | None = None) -> None:
        """Let an entry move, if it is there; ``kept`` is what its call returned, for the commit.

        Raises ConcurrentModification where ``head`` is given and is not the head.
        """
        for attempt in range(ATTEMPTS):
            await pause(attempt)
            before = await self._stands(thread_id, key)
            after = ledger.moved(before.row, move) if before else None
            if not head and kept is None and (before is None or after == before.row):
                return
            changed = sealed.changed(before.stored, after, before.mark) if before and after else None
            if await self._put(thread_id, key, before, changed, head=head, kept=kept, opens=_is_open(after)):
                return
        raise busy(thread_id, key)

    async def _put(
        self, thread_id: str, key: str, before: Standing | None, after: Sealed | None, *, head: str = "",
        kept: bytes | None = None, place: str = "", opens: bool = False,
    ) -> bool:  # fmt: skip
        """Put an entry in the place of what it was; False where it no longer is. Raises ConcurrentModification."""
        order: dict[str, Json] = {"key": key, "patience": PATIENCE}
        if head:
            order["head"] = head
        if place:
            order["place"] = place
        if opens:
            order["noted"] = await self._list_open(thread_id, key)
        stood, stands = before.stored.entry if before else b"", after or Sealed(b"", b"", None)
        told, *rest = await self._run(
            "entry", thread_id, canonical(order), stood, stands.entry, stands.receipt or b"",
            stands.arguments if place else b"", packed(kept) if kept is not None else b"",
        )  # fmt: skip
        if told == b"moved":
            raise refusals.too_late(thread_id, head, rest[0].decode())
        return bool(told == b"done")

    async def _list_open(self, thread_id: str, key: str) -> int:
        """List an effect among the open ones of all threads; when that was."""
        at = (await self._found(thread_id, "key", key)).at
        await self._tell(("HSET", self._keys.open, pair(thread_id, key), at))
        return at

    async def _half(self, thread_id: str) -> IntegrityError:
        """Which entry is known by one key and not by another, or twice by one."""
        places, entries, calls = await self._ask_all(
            [
                ("ZRANGE", self._keys.part(thread_id, "turns"), 0, -1),
                ("HKEYS", self._keys.part(thread_id, "effects")),
                ("HKEYS", self._keys.part(thread_id, "arguments")),
            ]
        )
        one, other, third = Counter(place.split(b":", 3)[-1] for place in places), Counter(entries), Counter(calls)
        [key, *_] = sorted((one | other | third) - (one & other & third)) or [b""]
        return _damaged(thread_id, key.decode(errors="replace"), "a part of it is missing")


def _standing(thread_id: str, key: bytes, entry: bytes, arguments: bytes | None, receipt: bytes | None) -> Standing:
    name = key.decode(errors="replace")
    if arguments is None:
        raise _damaged(thread_id, name, "a part of it is missing")
    stored = Sealed(entry, arguments, receipt)
    return Standing(stored, *sealed.opened(thread_id, name, stored))


def _is_open(row: EffectRow | None) -> bool:
    return row is not None and row.entry.status in OPEN


def busy(thread_id: str, key: str) -> StoreUnreachable:
    """Others were quicker again and again."""
    return StoreUnreachable(f"So much is written to the effect {key} of {thread_id} that it can't be changed now.")


def _damaged(thread_id: str, key: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"Thread {thread_id}: the effect {key} can't be read: {why}.",
        hint="Run `perdure db verify`.", table="effects", row=key,
    )  # fmt: skip
