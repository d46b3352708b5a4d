"""A simulation of many agents at work: what waits for what, with the measured costs of a step.

An agent goes through its steps one after the other. A step is two activities, and each of them three updates of its
workflow by the server (activity completed, workflow task started, workflow task completed) with the worker's own work
between them. An update has the history shard of its workflow to itself while the database writes.
"""

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from random import Random
from statistics import quantiles

from benchmarks.scale import Costs

_UPDATES = 3  # of an activity
_ACTIVITIES = 2  # of a step
_WARM = 0.25  # of the time, before anything is counted


class Pool:
    """So many of something; who finds none waits in line."""

    def __init__(self, size: int) -> None:
        self.free = size
        self.line: deque[Process] = deque()


Process = Generator["Pool | float", None, None]


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A deployment. Without ``server_cores`` the server shares the ``cores`` with the workers, of which each process
    uses one at a time. ``update_seconds``: how long the database writes; 0 where that is in the server's own CPU."""

    agents: int
    workers: int
    cores: int
    server_cores: int = 0
    shards: int = 1
    update_seconds: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """Steps a second, and the seconds of a step: half of them take less than ``median``, 99 % less than ``slow``."""

    rate: float
    median: float
    slow: float


def simulate(costs: Costs, setup: Setup, *, seconds: float, seed: int = 1) -> Simulated:
    """So many seconds of simulated time."""
    world = _World(costs, setup, Random(seed))
    world.run(seconds)
    done = [took for at, took in world.steps if at > seconds * _WARM]
    cuts = quantiles(done, n=100)
    return Simulated(rate=len(done) / (seconds * (1 - _WARM)), median=cuts[49], slow=cuts[98])


class _World:
    def __init__(self, costs: Costs, setup: Setup, random: Random) -> None:
        self.steps: list[tuple[float, float]] = []  # when each ended, and how long it took
        self._costs, self._setup, self._random = costs, setup, random
        self._now = 0.0
        self._events: list[tuple[float, int, Process]] = []
        self._numbers = count()
        self._cores = Pool(setup.cores)
        self._server = Pool(setup.server_cores) if setup.server_cores else self._cores
        self._processes = [Pool(1) for _ in range(setup.workers)]
        self._shards = [Pool(1) for _ in range(setup.shards)]
        for _ in range(setup.agents):
            self._resume(self._agent())

    def run(self, seconds: float) -> None:
        while self._events and self._events[0][0] < seconds:
            self._now, _, process = heappop(self._events)
            self._resume(process)

    def _resume(self, process: Process) -> None:
        """Let it go on until it has to wait."""
        for asked in process:
            if not isinstance(asked, Pool):
                heappush(self._events, (self._now + asked, next(self._numbers), process))
                return
            if not asked.free:
                asked.line.append(process)
                return
            asked.free -= 1

    def _release(self, pool: Pool) -> None:
        if pool.line:
            self._resume_later(pool.line.popleft())
        else:
            pool.free += 1

    def _resume_later(self, process: Process) -> None:
        heappush(self._events, (self._now, next(self._numbers), process))

    def _agent(self) -> Process:
        process, shard = self._random.choice(self._processes), self._random.choice(self._shards)
        work = self._costs.worker / _ACTIVITIES / 2
        yield self._random.random() * (self._costs.worker + self._costs.server)  # they don't begin in step
        while True:
            begun = self._now
            for _ in range(_ACTIVITIES):
                yield from self._worked(process, work)  # the activity
                for number in range(_UPDATES):
                    if number == _UPDATES - 1:
                        yield from self._worked(process, work)  # the workflow
                    yield from self._updated(shard)
            self.steps.append((self._now, self._now - begun))

    def _worked(self, process: Pool, seconds: float) -> Process:
        yield process
        yield self._cores
        yield self._some(seconds)
        self._release(self._cores)
        self._release(process)

    def _updated(self, shard: Pool) -> Process:
        yield self._server
        yield self._some(self._costs.server / _ACTIVITIES / _UPDATES)
        self._release(self._server)
        if self._setup.update_seconds:
            yield shard
            yield self._some(self._setup.update_seconds)
            self._release(shard)

    def _some(self, mean: float) -> float:
        """Times of work are never all the same: half of it is, and the rest is exponential."""
        return mean / 2 + self._random.expovariate(2 / mean)
