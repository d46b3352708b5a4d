"""One-time tokens: which call of a lineage has used them.

They have a key of their own, on a cluster maybe on another node than the ledger of a thread. So a token is taken before
the entry is written: who dies in between has used it, and takes it again when the same call is made again.
"""

import json
from secrets import token_hex
from typing import Any, NamedTuple

from perdure.canonical import canonical, digest
from perdure.errors import IntegrityError
from perdure.stores import refusals, sealed
from perdure.stores.base import EffectRow
from perdure.stores.redis.entries import Entries, busy
from perdure.stores.redis.part import ATTEMPTS, pause

_SEAL = 32  # hexadecimal digits


class Holder(NamedTuple):
    """The call that has used a token."""

    thread_id: str
    key: str


class Tokens(Entries):
    """Using them."""

    async def _use_tokens(self, lineage: str, row: EffectRow) -> None:
        """Let the tokens be this call's, under a new mark. Raises TokenSpent; then none is.

        A call that has clearly failed may be attempted again just when another call takes its token. So the other one
        changes the mark of the failed entry before it takes the token, as it was before: of the two, the one that
        comes second finds the token or the entry changed.
        """
        where, mine = self._keys.tokens(lineage), Holder(row.thread_id, row.entry.key)
        tokens = sorted(set(row.tokens))
        for attempt in range(ATTEMPTS):
            await pause(attempt)
            known = await self._ask("HMGET", where, *tokens)
            change: list[str | bytes] = []
            for token, stored in zip(tokens, known, strict=True):
                holder = _read(lineage, token, stored) if stored is not None else mine
                if holder != mine:
                    await self._disown(mine, holder)
                change += [token, stored or b"", _written(lineage, token, mine)]
            if await (await self._ready()).run("swap", [where], *change):
                return
        raise busy(row.thread_id, row.entry.key)

    async def _disown(self, mine: Holder, holder: Holder) -> None:
        """Make sure that a call that has failed must look for its token anew. Raises TokenSpent where it hasn't."""
        for attempt in range(ATTEMPTS):
            await pause(attempt)
            stands = await self._stands(*holder)
            if stands is None or stands.row.entry.status != "failed":
                raise refusals.token_spent(*mine, *holder)
            if await self._put(*holder, stands, sealed.changed(stands.stored, stands.row, token_hex(8))):
                return
        raise busy(*holder)


def _written(lineage: str, token: str, holder: Holder) -> bytes:
    mark = token_hex(8)
    return canonical([_seal(lineage, token, *holder, mark), *holder, mark])


def _read(lineage: str, token: str, stored: bytes) -> Holder:
    """Who has used a token. Raises IntegrityError."""
    try:
        seal, thread_id, key, mark = json.loads(stored)
        if seal == _seal(lineage, token, thread_id, key, mark):
            return Holder(thread_id, key)
    except (ValueError, TypeError, AttributeError) as error:
        raise _damaged(lineage, token) from error
    raise _damaged(lineage, token)


def _seal(*parts: Any) -> str:
    return digest(*parts)[:_SEAL]


def _damaged(lineage: str, token: str) -> IntegrityError:
    return IntegrityError(
        f"The lineage {lineage}: who has used the token {token} can't be read.", table="tokens", row=token
    )
