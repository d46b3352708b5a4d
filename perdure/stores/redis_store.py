"""The store on Redis or Valkey.

What is one thread's own is changed by Lua scripts over keys of one slot: each is atomic, also on a cluster, and a
commit is one of them. Every command may be sent again when its answer was lost: a commit is recognised by its
checkpoint, a copy by a token, a change of the ledger by what the entry has become, a line of the audit by its id, and
the others say how something is, not how it changes.

What a server keeps when it crashes is a matter of its configuration: ``cautions`` says what that can lose, and so does
docs/redis.md.
"""

from collections import Counter
from typing import Any

from perdure.stores.redis.audits import Audits
from perdure.stores.redis.cautions import cautions
from perdure.stores.redis.copying import Copying
from perdure.stores.redis.ledger import Ledger
from perdure.stores.redis.part import SCHEMA
from perdure.stores.redis.results import ALONE, Results
from perdure.stores.redis.search import Search
from perdure.stores.redis.server import Command, Server
from perdure.stores.rows import now

_PREFIX = "perdure"
_COUNTED = {
    "checkpoints": "HLEN", "snapshots": "HLEN", "receipts": "HLEN", "effects": "HLEN", "labels": "ZCARD",
    "tokens": "HLEN", "audit": "LLEN",
}  # fmt: skip
_PAGE = 500  # keys


class RedisStore(Copying, Search, Ledger, Audits, Results):
    """See ``perdure.stores.base.Store``. Several stores can share a server under different prefixes."""

    def __init__(self, server: Server, prefix: str = _PREFIX) -> None:
        super().__init__(server, prefix)
        self.url = server.url

    @classmethod
    def from_url(cls, url: str, prefix: str = _PREFIX) -> "RedisStore":
        """The store at ``redis://``, ``rediss://`` (TLS) or ``unix://``. Nothing is sent before the first use.

        The URL may say ``?prefix=…``, ``cluster=yes``, ``wait=N`` (replicas that have to confirm each write), and what
        the driver knows, such as ``db`` and ``max_connections``. Raises InvalidInput.
        """
        server, options = Server.at(url, prefix)
        return cls(server, options.prefix)

    async def migrate(self, *, partitions: int = 0) -> list[str]:
        await self._applied()
        # Written to also when nothing is missing: who may only read learns it here.
        new = await self._server.tell_all([("HSETNX", self._keys.schema, name, now()) for name in SCHEMA])
        return [name for name, is_new in zip(SCHEMA, new, strict=True) if is_new]

    async def missing_migrations(self) -> list[str]:
        applied = await self._applied()
        return [name for name in SCHEMA if name not in applied]

    async def cautions(self) -> list[str]:
        return await cautions(self._server)

    async def close(self) -> None:
        await self._server.close()

    async def sizes(self) -> dict[str, Any]:
        """Looks at every key of the server: for people who ask, not for programs that run."""
        server = await self._ready()
        found = await server.keys(f"*{self._keys.prefix}:*")
        keys = [(key, kind) for key in found if (kind := self._keys.kind(key))]
        rows: Counter[str] = Counter(dict.fromkeys(("threads", *_COUNTED, "results", "blobs"), 0))
        memory = 0
        for at in range(0, len(keys), _PAGE):
            page = keys[at : at + _PAGE]
            memory += sum(size or 0 for size in await server.ask_all([_memory(key) for key, _ in page]))
            counts = [(name, command) for key, kind in page for name, command in _counting(key, kind)]
            answers = await server.ask_all([command for _, command in counts])
            for (name, _), count in zip(counts, answers, strict=True):
                rows[name] += count
        return {"rows": dict(rows), "bytes": memory}


def _memory(key: bytes) -> Command:
    return ("MEMORY", "USAGE", key)


def _counting(key: bytes, kind: str) -> list[tuple[str, Command]]:
    """What a key adds to the numbers of rows. Results that wait for their commit don't count."""
    if kind in _COUNTED:
        return [(kind, (_COUNTED[kind], key))]
    counting: dict[str, list[tuple[str, Command]]] = {
        "thread": [("threads", ("HEXISTS", key, "head_id"))],
        "requests": [("results", ("SCARD", key))],
        "result": [("results", ("HEXISTS", key, ALONE))],
        "blob": [("blobs", ("EXISTS", key))],
    }
    return counting.get(kind, [])
