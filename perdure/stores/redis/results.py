"""Cached results, and blobs.

A result is found under the digest of its scope and key: a hash, with a field for each checkpoint that holds an answer.
That field is written before the checkpoint is committed, with the checkpoint's digest, and counts once it is: so no
commit is without its result, and no result without its commit.
"""

import json
import zlib
from collections.abc import Iterable, Sequence

from perdure.budget import Usage
from perdure.canonical import canonical, digest
from perdure.checkpoint import Checkpoint
from perdure.errors import IntegrityError
from perdure.stores import records
from perdure.stores.base import CachedResult
from perdure.stores.packing import packed, unpacked
from perdure.stores.redis.keys import Keys
from perdure.stores.redis.part import Part, pairs
from perdure.stores.redis.server import Command


class Results(Part):
    """What was recorded for whoever asks the same again."""

    async def result(self, scope: str, key: str) -> CachedResult | None:
        name = digest(scope, key)
        stored = pairs(await self._ask("HGETALL", self._keys.result(name)))
        candidates = [_read(scope, key, field, value) for field, value in stored.items()]
        # Ids sort by time: the newest comes first.
        for found, committed_as in sorted(candidates, key=lambda one: one[0].checkpoint_id, reverse=True):
            if records.is_fresh(found) and (not committed_as or await self._counts(found, name, committed_as)):
                return found
        return None

    async def _counts(self, found: CachedResult, name: str, committed_as: str) -> bool:
        """Whether it was committed, with a checkpoint of this digest; that one may be lost."""
        part = self._keys.part
        link, is_kept = await self._ask_all(
            [
                ("HGET", part(found.thread_id, "links"), found.checkpoint_id),
                ("SISMEMBER", part(found.thread_id, "requests"), _member(name, found.checkpoint_id)),
            ]
        )
        if not is_kept or link is None:
            return bool(is_kept)
        return records.link(found.thread_id, found.checkpoint_id, link).digest == committed_as

    async def put_result(self, result: CachedResult) -> None:
        server, name = await self._ready(), request(result)
        if result.thread_id:
            mine = self._keys.part(result.thread_id, "requests")
            await server.tell_all([("SADD", mine, _member(name, result.checkpoint_id))])
        field, value = _field(result.thread_id, result.checkpoint_id, ""), _written(result)
        expires = records.moment(result.expires_at) if result.expires_at else ""
        await server.run("remember", [self._keys.result(name)], field, value, expires)

    async def stray_results(self, thread_id: str) -> list[str]:
        return sorted(id.decode() for id in await self._run("strays", thread_id))

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
    key, field = keys.result(request(result)), _field(checkpoint.thread_id, checkpoint.id, checkpoint.digest)
    lasting: Command = ("PEXPIREAT", key, records.moment(result.expires_at)) if result.expires_at else ("PERSIST", key)
    return [("HSETNX", key, field, _written(result)), lasting]


def withdrawing(keys: Keys, thread_id: str, forgotten: Iterable[Sequence[bytes]]) -> list[Command]:
    """The commands that remove the results of a thread's checkpoints, given as request, checkpoint and its digest."""
    commands: list[Command] = []
    for name, checkpoint_id, committed_as in forgotten:
        fields = [_field(thread_id, checkpoint_id.decode(), of) for of in (committed_as.decode(), "")]
        commands.append(("HDEL", keys.result(name.decode()), *fields))
    return commands


def _member(name: str, checkpoint_id: str) -> str:
    """A result as the thread of its checkpoint keeps it."""
    return f"{name}:{checkpoint_id}"


def _field(thread_id: str, checkpoint_id: str, digest: str) -> str:
    """Where a result stands: with which checkpoint of which digest it counts (without a digest: at once)."""
    return canonical([thread_id, checkpoint_id, digest]).decode()


ALONE = _field("", "", "")  # where a result stands that belongs to no checkpoint


def _written(result: CachedResult) -> bytes:
    about = {
        "usage": result.usage.model_dump(exclude_defaults=True), "expires": result.expires_at,
        "valued": result.value is not None,
    }  # fmt: skip
    return canonical(about) + b"\0" + packed(result.value or b"")


def _read(scope: str, key: str, field: str, stored: bytes) -> tuple[CachedResult, str]:
    """A result, and the digest of the checkpoint with which it counts. Raises IntegrityError."""
    try:
        thread_id, checkpoint_id, committed_as = json.loads(field)
        about, _, value = stored.partition(b"\0")
        told = json.loads(about)
        found = CachedResult(
            scope=scope, key=key, thread_id=thread_id, checkpoint_id=checkpoint_id, usage=Usage(**told["usage"]),
            value=unpacked(value) if told["valued"] else None, expires_at=told["expires"],
        )  # fmt: skip
        return found, committed_as
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        raise IntegrityError(
            f"The cached result {key[:12]}… can't be read: {error}.", table="results", row=digest(scope, key)
        ) from error
