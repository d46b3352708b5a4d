"""Cached results, and blobs.

A result is found under the digest of its scope and key: a hash, with a field for each checkpoint that holds an answer.
That field is written before the checkpoint is committed, with the checkpoint's digest, and counts once it is: so no
commit is without its result, and no result without its commit.
"""

import json
import zlib
from collections.abc import Mapping

from perdure.budget import Usage
from perdure.canonical import canonical, digest
from perdure.checkpoint import Checkpoint
from perdure.errors import IntegrityError
from perdure.stores import records
from perdure.stores.base import CachedResult
from perdure.stores.redis.keys import Keys, pair, read_pair
from perdure.stores.redis.part import Part, pairs
from perdure.stores.redis.server import Command
from perdure.stores.rows import packed, unpacked


class Results(Part):
    """What was recorded for whoever asks the same again."""

    async def result(self, scope: str, key: str) -> CachedResult | None:
        name = digest(scope, key)
        stored = pairs(await self._ask("HGETALL", self._keys.result(name)))
        # Ids sort by time: the newest comes first.
        for field in sorted(stored, key=lambda field: read_pair(field)[::-1], reverse=True):
            found, committed_as = _read(scope, key, field, stored)
            if records.is_fresh(found) and await self._counts(found, committed_as):
                return found
        return None

    async def _counts(self, found: CachedResult, committed_as: str) -> bool:
        """Whether its checkpoint was committed; what was put without one counts at once."""
        if not committed_as:
            return True
        link = await self._ask("HGET", self._keys.part(found.thread_id, "links"), found.checkpoint_id)
        return link is not None and records.link(found.thread_id, found.checkpoint_id, link).digest == committed_as

    async def put_result(self, result: CachedResult) -> None:
        server, name = await self._ready(), request(result)
        if result.thread_id:
            await server.tell_all([("HSET", self._keys.part(result.thread_id, "requests"), name, result.checkpoint_id)])
        field, value = pair(result.thread_id, result.checkpoint_id), _written(result, "")
        expires = records.moment(result.expires_at) if result.expires_at else ""
        await server.run("remember", [self._keys.result(name)], field, value, expires)

    async def put_blob(self, kind: str, blob: bytes) -> str:
        name = digest(blob)
        await self._tell(("SET", self._keys.blob(name), packed(blob)))
        return name

    async def blob(self, digest: str) -> bytes | None:
        stored = await self._ask("GET", self._keys.blob(digest))
        return unpacked(stored) if stored is not None else None


def request(result: CachedResult) -> str:
    """What a cached result is found by."""
    return digest(result.scope, result.key)


def announcing(keys: Keys, result: CachedResult, checkpoint: Checkpoint) -> list[Command]:
    """The commands that write a result before the commit that makes it true."""
    key, field = keys.result(request(result)), pair(checkpoint.thread_id, checkpoint.id)
    lasting: Command = ("PEXPIREAT", key, records.moment(result.expires_at)) if result.expires_at else ("PERSIST", key)
    return [("HSET", key, field, _written(result, checkpoint.digest)), lasting]


def withdrawing(keys: Keys, thread_id: str, requests: Mapping[str, bytes]) -> list[Command]:
    """The commands that remove the results of a thread's checkpoints, given as request -> checkpoint."""
    return [("HDEL", keys.result(name), pair(thread_id, id.decode())) for name, id in requests.items()]


def _written(result: CachedResult, committed_as: str) -> bytes:
    about = {
        "usage": result.usage.model_dump(exclude_defaults=True), "expires": result.expires_at, "digest": committed_as,
        "valued": result.value is not None,
    }  # fmt: skip
    return canonical(about) + b"\0" + packed(result.value or b"")


def _read(scope: str, key: str, field: str, stored: Mapping[str, bytes]) -> tuple[CachedResult, str]:
    """A result, and the digest of the checkpoint with which it counts."""
    thread_id, checkpoint_id = read_pair(field)
    try:
        about, _, value = stored[field].partition(b"\0")
        told = json.loads(about)
        found = CachedResult(
            scope=scope, key=key, thread_id=thread_id, checkpoint_id=checkpoint_id, usage=Usage(**told["usage"]),
            value=unpacked(value) if told["valued"] else None, expires_at=told["expires"],
        )  # fmt: skip
        return found, told["digest"]
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise IntegrityError(
            f"The cached result {key[:12]}… can't be read: {error}.", table="results", row=digest(scope, key)
        ) from error
