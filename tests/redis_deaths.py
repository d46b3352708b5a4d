"""Processes that die in the middle: ``python -m tests.redis_deaths URL DEED`` kills one before each command of a deed.

Each process makes a store of its own under ``prefix=DEED-N``, furnishes it in the same way, and kills itself before it
sends the Nth command of the deed, where a pipeline counts for as many commands as it has. The last one comes through.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from perdure.audit import AuditEntry
from perdure.budget import Usage
from perdure.canonical import canonical
from perdure.checkpointer import Change, Checkpointer, snapshot_digest
from perdure.effects import Effect, arguments_digest
from perdure.stores.base import CachedResult, EffectRow, Receipt, Snapshot
from perdure.stores.redis.server import Command, Server
from perdure.stores.redis_store import RedisStore

THREAD, FORK, COPY = "thread", "fork", "copy"
ROOT, MIDDLE, NEXT, FIRST = (f"01a1fc1a-4c92-7f4b-bca9-00000000000{n}" for n in range(4))
_AT = "2024-05-06T07:08:09.000+00:00"
_PADDING = "".join(chr(33 + n * 7919 % 90) for n in range(9_000)).replace('"', "_").replace("\\", "_")


async def furnish(store: RedisStore) -> None:
    """A thread of two checkpoints, with an effect that was attempted and a part that waits to be merged."""
    await store.migrate()
    checkpointer = Checkpointer(store)
    text = {"text": {"op": "set", "value": _PADDING}}
    at = await checkpointer.commit(None, _change(THREAD, ROOT, text), result=_result(THREAD, ROOT))
    at = await checkpointer.commit(at, _change(THREAD, MIDDLE, {}))
    await store.claim(call("effect", tokens=("a",)), head=MIDDLE)
    await store.put_receipt(THREAD, Receipt(key="part", result=b"1"), head=MIDDLE)


async def commit(store: RedisStore) -> None:
    """With everything that a step may bring: a snapshot, metadata, a result, an effect's receipt, a part."""
    head = await Checkpointer(store).load(THREAD, MIDDLE)
    await Checkpointer(store).commit(
        head, _change(THREAD, NEXT, {"text": {"op": "set", "value": "short"}}), result=_result(THREAD, NEXT),
        receipt=Receipt(key="effect", result=b"{}"), clears=("part",),
    )  # fmt: skip


async def fork(store: RedisStore) -> None:
    """The first commit of another thread."""
    parent = await Checkpointer(store).load(THREAD, ROOT)
    await Checkpointer(store).commit(
        parent, _change(FORK, FIRST, {}), lineage=THREAD, agent="a", result=_result(FORK, FIRST)
    )


async def remove(store: RedisStore) -> None:
    """The beginning of the thread."""
    at = await Checkpointer(store).load(THREAD, MIDDLE)
    state = canonical(at.values)
    snapshot = Snapshot(checkpoint_id=MIDDLE, state=state, digest=snapshot_digest(at.ref.digest, state))
    await store.remove(THREAD, [ROOT], [snapshot], head=MIDDLE)


async def delete(store: RedisStore) -> None:
    """All of it."""
    await store.delete_thread(THREAD)


async def copy(store: RedisStore) -> None:
    """All of it, under another name."""
    await store.copy_thread(THREAD, COPY)


async def audit(store: RedisStore) -> None:
    """Two lines."""
    await store.append_audit(THREAD, [AuditEntry(id=f"line-{n}", at=_AT, kind="request.opened") for n in range(2)])


async def claim(store: RedisStore) -> None:
    """A call that needs two one-time tokens, one of which a call has used that failed."""
    await store.fail(THREAD, "effect", "no")
    await store.claim(call("other", tokens=("a", "b")), head=MIDDLE)


async def doubt(store: RedisStore) -> None:
    """Nobody knows how the call ended: that is to be found among the open effects of all threads."""
    await store.settle(THREAD, "effect", "in_doubt", error="lost")


DEEDS = {deed.__name__: deed for deed in (commit, fork, remove, delete, copy, audit, claim, doubt)}


def call(key: str, *, tokens: tuple[str, ...]) -> EffectRow:
    """A call on the head that needs tokens."""
    entry = Effect(key=key, tool="pay", effect="idempotent", turn=1, step=1, index=0, checkpoint_id=MIDDLE)
    digest = arguments_digest("pay", b"{}")
    return EffectRow(thread_id=THREAD, entry=entry, arguments=b"{}", arguments_digest=digest, tokens=tokens)


def _change(thread_id: str, checkpoint_id: str, delta: Any) -> Change:
    return Change(
        thread_id=thread_id, checkpoint_id=checkpoint_id, source="step", turn=1, delta=delta, metadata={"all": True}
    )


def _result(thread_id: str, checkpoint_id: str) -> CachedResult:
    return CachedResult(
        scope="s", key=checkpoint_id, thread_id=thread_id, checkpoint_id=checkpoint_id, usage=Usage(calls=1)
    )


def _die_before(number: int) -> None:
    """From now on, count commands, and send each of them alone."""
    left = number
    send = Server._send

    async def one_by_one(self: Server, commands: Sequence[Command]) -> list[Any]:
        nonlocal left
        answers: list[Any] = []
        for command in commands:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            answers += await send(self, [command])
        return answers

    Server._send = one_by_one  # type: ignore[method-assign]


async def _live(url: str, deed: str, number: int) -> None:
    store = RedisStore.from_url(f"{url}?prefix={deed}-{number}")
    await furnish(store)
    _die_before(number)
    await DEEDS[deed](store)


def main(url: str, deed: str) -> None:
    """One process for each command, until one survives."""
    for number in range(100):
        child = os.fork()
        if not child:
            asyncio.run(_live(url, deed, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(*sys.argv[1:])
