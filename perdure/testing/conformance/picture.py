"""Everything that can be read from a store, so that a check can tell that nothing changed."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from perdure.errors import PerdureError
from perdure.stores.base import CachedResult, Store

_ALL = 10_000  # more than a check writes
Request = tuple[str, str]  # scope and key of a cached result


async def picture(store: Store, requests: Iterable[Request] = ()) -> dict[str, Any]:
    """All threads with all that is theirs, how many rows there are, and what is cached for the requests."""
    rows = await store.threads(limit=_ALL)
    seen: dict[str, Any] = {row.thread_id: await thread_picture(store, row.thread_id) for row in rows}
    results = {request: await store.result(*request) for request in requests}
    return {"threads": seen, "rows": (await store.sizes())["rows"], "results": results}


async def thread_picture(store: Store, thread_id: str) -> dict[str, Any]:
    """All that is one thread's: row, checkpoints and what each leads to, snapshots, receipts, ledger, audit."""
    row = await store.thread(thread_id)
    walked = [checkpoint async for checkpoint in store.walk(thread_id)]
    return {
        "row": row,
        "checkpoints": walked,
        "one by one": [await store.checkpoint(thread_id, checkpoint.id) for checkpoint in walked],
        "lines": [await store.line(thread_id, checkpoint.id) for checkpoint in walked],
        "path": await store.path(thread_id, row.head_id, limit=_ALL) if row else [],
        "found": [await store.find(c.metadata, thread_id=thread_id, limit=_ALL) for c in walked if c.metadata],
        "forks": await store.forks(thread_id),
        "snapshots": await store.snapshots(thread_id),
        "receipts": await store.receipts_under(thread_id, ""),
        "effects": await store.effects(thread_id),
        "audit": await store.audit(thread_id, limit=_ALL),
    }


@asynccontextmanager
async def refused(
    store: Store, kind: type[PerdureError], *, results: Iterable[CachedResult] = ()
) -> AsyncIterator[pytest.ExceptionInfo[PerdureError]]:
    """What is done inside is refused with this error, and changes nothing."""
    requests = [(result.scope, result.key) for result in results]
    before = await picture(store, requests)
    with pytest.raises(kind) as refusal:
        yield refusal
    assert await picture(store, requests) == before
