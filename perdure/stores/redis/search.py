"""Finding checkpoints by their metadata.

Each entry of somebody's metadata is a label. A thread keeps which of its checkpoints have it, in the transaction that
commits them; across threads that is written beforehand, so what is found there is looked up before it is believed.
"""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple

from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.stores import records
from perdure.stores.redis.checkpoints import Checkpoints
from perdure.stores.redis.keys import read_labelled, read_listed

_PAGE = 200


class _Place(NamedTuple):
    """Where a label says that a checkpoint is, and from when."""

    thread_id: str
    id: str
    at: int  # milliseconds since 1970


class _Span(NamedTuple):
    """Where the checkpoints with one label are listed, and between which bounds."""

    key: str
    oldest: str
    newest: str


class Search(Checkpoints):
    """Searching."""

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        if not metadata:  # everything has none of its entries: nothing leads there but reading all
            return heapq.nlargest(limit, [c async for c in self._everything(thread_id)], key=records.age)
        labels = [records.label(name, value) for name, value in metadata.items()]
        found: list[Checkpoint] = []
        async for page in self._pages([self._span(label, thread_id) for label in labels], thread_id):
            found += [c for c in await self._looked_up(page) if records.has(c, metadata)]
            if len(found) >= limit:
                break
        return found[:limit]

    def _span(self, label: str, thread_id: str) -> _Span:
        if thread_id:
            return _Span(self._keys.part(thread_id, "labels"), f"[{label}:", f"({label};")  # ; comes after :
        return _Span(self._keys.label(label), "-", "+")

    async def _pages(self, spans: Sequence[_Span], thread_id: str) -> AsyncIterator[list[_Place]]:
        """What is listed under the rarest of the labels, the newest first."""
        counts = await self._ask_all([("ZLEXCOUNT", *span) for span in spans])
        _, (key, oldest, start) = min(zip(counts, spans, strict=True))
        newest: bytes | str = start
        while page := await self._ask("ZREVRANGEBYLEX", key, newest, oldest, "LIMIT", 0, _PAGE):
            yield [_place(member, thread_id) for member in page]
            newest = b"(" + page[-1]

    async def _looked_up(self, places: Sequence[_Place]) -> list[Checkpoint]:
        """Those of the checkpoints that are there, from that time, in this order."""
        by_thread: dict[str, list[str]] = defaultdict(list)
        for place in places:
            by_thread[place.thread_id].append(place.id)
        found = await asyncio.gather(*(self._entries(thread_id, ids) for thread_id, ids in by_thread.items()))
        there = {_place_of(entry.checkpoint): entry.checkpoint for page in found for entry in page}
        return [there[place] for place in places if place in there]

    async def _everything(self, thread_id: str) -> AsyncIterator[Checkpoint]:
        names = [thread_id] if thread_id else await self._thread_ids()
        for name in names:
            async for checkpoint in self.walk(name):
                yield checkpoint

    async def _thread_ids(self) -> list[str]:
        names: list[str] = []
        while page := await self.threads(after=names[-1] if names else ""):
            names += [row.thread_id for row in page]
        return names


def _place(member: bytes, thread_id: str) -> _Place:
    if thread_id:
        _, at, checkpoint_id = read_labelled(member.decode())
        return _Place(thread_id, checkpoint_id, at)
    at, checkpoint_id, listed_of = read_listed(member)
    return _Place(listed_of, checkpoint_id, at)


def _place_of(checkpoint: Checkpoint) -> _Place:
    return _Place(checkpoint.thread_id, checkpoint.id, max(records.moment(checkpoint.created_at), 0))
