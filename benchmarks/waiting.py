"""Threads that wait for a person's yes: what both sides of that experiment share.

A thread is one step of the workload with a gate: the model asks for a call, somebody has to approve it, the tool runs,
the model answers.
"""

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from temporalio.client import Client

from benchmarks import workload

CACHED = 500  # workflows that a worker keeps in memory: fewer than wait
SIGNAL = "approve"
_AT_ONCE = 50  # requests in flight: enough to keep two cores busy, few enough that none of them waits for long
_POLL = 0.1  # seconds

Item = TypeVar("Item")


async def spread(work: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
    """Do something with each item, a bounded number at a time."""
    rest = iter(items)

    async def one_after_another() -> None:
        for item in rest:
            await work(item)

    await asyncio.gather(*(one_after_another() for _ in range(_AT_ONCE)))


class Waiting:
    """Threads of one subject. ``prefix`` begins the ids of their workflows, which are numbered from 1.

    ``runs`` counts, by thread, how often its tool has run.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.runs: Counter[str] = Counter()
        self.ids: list[str] = []
        self._prefix = f"{prefix}-{uuid4().hex[:8]}"
        self._numbers = count(1)

    def more(self, until: int) -> list[str]:
        """Ids for as many more threads as bring their number up to ``until``."""
        new = [f"{self._prefix}-{next(self._numbers)}" for _ in range(until - len(self.ids))]
        self.ids += new
        return new

    async def waits(self, thread: str) -> None:
        """Until nothing of a thread is under way: it has no activity and no workflow task, and so waits for a signal."""
        while True:
            told = (await self.client.get_workflow_handle(thread).describe()).raw_description
            if not told.pending_activities and not told.HasField("pending_workflow_task"):
                return
            await asyncio.sleep(_POLL)

    async def approve(self, said: Mapping[str, str]) -> None:
        """Send the same signal to all of them."""
        await spread(lambda thread: self.client.get_workflow_handle(thread).signal(SIGNAL, said), self.ids)

    async def until(self, query: str) -> None:
        """Until all of them are as a visibility query says. It is not asked before all tools have run."""
        while self.runs.total() < len(self.ids):
            await asyncio.sleep(_POLL)
        while (await self.client.count_workflows(query)).count < len(self.ids):
            await asyncio.sleep(_POLL)

    async def told(self, answer: Callable[[str], Awaitable[str]]) -> dict[str, int]:
        """What came of them, looked at one by one: how many there are, how many have the model's answer, and how many
        tools ran exactly once."""
        answered: list[str] = []

        async def look(thread: str) -> None:
            if await answer(thread) == workload.ANSWER:
                answered.append(thread)

        await spread(look, self.ids)
        once = sum(self.runs[thread] == 1 for thread in self.ids)
        return {"threads": len(self.ids), "answered": len(answered), "once": once, "runs": self.runs.total()}


def resident() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
