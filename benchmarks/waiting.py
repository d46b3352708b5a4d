"""Threads that wait for a person's yes: what both sides of that experiment share.

A thread is one step of the workload with a gate: the model asks for a call, somebody has to approve it, the tool runs,
the model answers.
"""

import asyncio
import gc
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from temporalio import activity
from temporalio.client import Client

from benchmarks import workload

SIGNAL = "approve"
AT_ONCE = 50  # on their way: enough to keep two cores busy, and fewer than a worker keeps in memory
_POLL = 0.1  # seconds

Item = TypeVar("Item")


class Waiting:
    """Threads of one subject, the oldest first."""

    def __init__(self, client: Client, name: str, *, begin: Callable[[str], Awaitable[None]], finished: str) -> None:
        """``begin`` starts a thread of an id; ``finished`` is the visibility query for threads that have."""
        self._client = client
        self._runs: Counter[str] = Counter()  # by thread: how often its tool has run
        self._approved: dict[str, asyncio.Event] = {}  # by thread: until its tool runs
        self._answers: Counter[str] = Counter()  # how many threads came to it
        self._begin = begin
        self._finished = finished
        self._prefix = f"{name}-{uuid4().hex[:8]}"
        self._numbers = count(1)
        self._open: list[str] = []
        self._done = 0

    @property
    def oldest(self) -> str:
        """The thread that has waited longest."""
        return self._open[0]

    def ran(self) -> None:
        """The tool of a thread has run: called in its activity."""
        thread = str(activity.info().workflow_id)
        self._runs[thread] += 1
        self._approved[thread].set()

    async def suspend(self, threads: int) -> dict[str, Any]:
        """Start threads until so many wait: none of them has an activity or a workflow task under way then."""
        new = [f"{self._prefix}-{next(self._numbers)}" for _ in range(threads - len(self._open))]
        self._open += new
        clock = Clock()
        await spread(self._begin, new)
        await spread(self._waits, new)
        took = clock.took()
        events = (await self._client.get_workflow_handle(self._open[-1]).fetch_history()).events
        return {
            **took, "resident_bytes": resident(), "history_events": len(events),
            "history_bytes": sum(event.ByteSize() for event in events),
        }  # fmt: skip

    async def finish(
        self, threads: int, said: Mapping[str, str], answer: Callable[[str], Awaitable[str]]
    ) -> dict[str, Any]:
        """Send the same signal to the oldest so many, and wait until all have finished; then look at what came of each.
        The next one gets its signal when a tool has run: a flood would only push threads out of memory on their way.

        ``finished``: how many have so far. ``answered``: how many of all those came to the model's answer; ``once``: of
        how many the tool ran exactly once.
        """
        these, self._open = self._open[:threads], self._open[threads:]
        clock = Clock()

        async def approve(thread: str) -> None:
            self._approved[thread] = asyncio.Event()
            await self._client.get_workflow_handle(thread).signal(SIGNAL, said)
            await self._approved[thread].wait()

        await spread(approve, these)
        await self._until(self._done + len(these))
        took = clock.took()
        self._done += len(these)

        async def look(thread: str) -> None:
            self._answers[await answer(thread)] += 1

        await spread(look, these)
        once = sum(runs == 1 for runs in self._runs.values())
        return {**took, "finished": self._done, "answered": self._answers[workload.ANSWER], "once": once}

    async def _waits(self, thread: str) -> None:
        while True:
            told = (await self._client.get_workflow_handle(thread).describe()).raw_description
            if not told.pending_activities and not told.HasField("pending_workflow_task"):
                return
            await asyncio.sleep(_POLL)

    async def _until(self, wanted: int) -> None:
        """Until so many have finished, as visibility says."""
        finished = 0
        while finished < wanted:
            await asyncio.sleep(_POLL)
            finished = (await self._client.count_workflows(self._finished)).count


class Clock:
    """Seconds of wall time, and of this process's CPU, from its making on."""

    def __init__(self) -> None:
        self._begun, self._used = time.perf_counter(), time.process_time()

    def took(self) -> dict[str, float]:
        """Both, so far."""
        return {"seconds": time.perf_counter() - self._begun, "cpu_seconds": time.process_time() - self._used}


async def spread(work: Callable[[Item], Awaitable[None]], items: Iterable[Item]) -> None:
    """Do something with each item, a bounded number at a time."""
    rest = iter(items)

    async def one_after_another() -> None:
        for item in rest:
            await work(item)

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


def resident() -> int:
    """Bytes of memory that this process has now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
