"""Finding checkpoints by their metadata.

Each entry of somebody's metadata is a label. A thread keeps which of its checkpoints have it, in the transaction that
commits them; across threads that is written beforehand, so what is found there is looked up before it is believed.
"""

import asyncio
import heapq
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence

from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.stores import records
from perdure.stores.redis.checkpoints import Checkpoints
from perdure.stores.redis.keys import read_label, read_pair

_PAGE = 200


class Search(Checkpoints):
    """Searching."""

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        labels = [records.label(name, value) for name, value in metadata.items()]
        if not labels:  # everything has none of them: nothing leads there but reading all
            return heapq.nlargest(limit, [c async for c in self._everything(thread_id)], key=records.age)
        found: dict[tuple[str, str], Checkpoint] = {}
        pages = self._of_thread(thread_id, labels) if thread_id else self._of_all(labels)
        async for page in pages:
            found |= {(c.thread_id, c.id): c for c in page if records.has(c, metadata)}
            if len(found) >= limit:
                break
        return list(found.values())[:limit]

    async def _of_thread(self, thread_id: str, labels: Sequence[str]) -> AsyncIterator[list[Checkpoint]]:
        """Pages of checkpoints with the rarest of the labels, the newest first."""
        key = self._keys.part(thread_id, "labels")
        counts = await self._ask_all([("ZLEXCOUNT", key, f"[{label}:", f"({label};") for label in labels])
        _, label = min(zip(counts, labels, strict=True))
        newest = f"({label};"  # the character after the colon
        while page := await self._ask("ZREVRANGEBYLEX", key, newest, f"[{label}:", "LIMIT", 0, _PAGE):
            entries = await self._entries(thread_id, [read_label(member)[1] for member in page])
            yield [entry.checkpoint for entry in entries]
            newest = b"(" + page[-1]

    async def _of_all(self, labels: Sequence[str]) -> AsyncIterator[list[Checkpoint]]:
        """The same over all threads. What is committed meanwhile moves the pages: nothing is shown twice."""
        counts = await self._ask_all([("ZCARD", self._keys.label(label)) for label in labels])
        _, label = min(zip(counts, labels, strict=True))
        seen: set[bytes] = set()
        at = 0
        while page := await self._ask("ZREVRANGE", self._keys.label(label), at, at + _PAGE - 1):
            fresh = [member for member in page if member not in seen]
            seen.update(fresh)
            at += len(page)
            yield await self._looked_up([read_pair(member) for member in fresh])

    async def _looked_up(self, places: Sequence[tuple[str, str]]) -> list[Checkpoint]:
        """Those of the checkpoints (id, thread) that are there, in this order."""
        by_thread: dict[str, list[str]] = defaultdict(list)
        for checkpoint_id, thread_id in places:
            by_thread[thread_id].append(checkpoint_id)
        found = await asyncio.gather(*(self._entries(thread_id, ids) for thread_id, ids in by_thread.items()))
        there = {
            (entry.checkpoint.id, entry.checkpoint.thread_id): entry.checkpoint for page in found for entry in page
        }
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
