"""The scale plan's arithmetic: from the measured cost of one step and of one thread that waits, what many of them need.

``Costs`` are measured, ``Assumed`` are not; everything else here is computed from the two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil

DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What one step, and one thread that waits for an approval, cost. CPU in seconds, sizes in bytes.

    ``updates`` are Temporal's transactions on a workflow a step; ``commits`` those of the checkpoint store. A thread is
    started (up to its wait) and woken (up to its answer, with replay, since its workflow isn't in memory any more).
    """

    worker: float
    server: float
    history: float
    events: float
    updates: float
    store: float
    temporal: float
    commits: float = 2.0
    thread_history: float
    thread_store: float
    thread_temporal: float
    start_worker: float
    start_server: float
    wake_worker: float
    wake_server: float


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What was not measured here, with its reason in docs/scale.md."""

    update_seconds: float = 0.004  # one transaction of Temporal's on a replicated SQL database in the same region
    shard_use: float = 0.1  # of a shard's time: so few that its updates hardly ever wait for one another
    core_use: float = 0.6  # of a core's time, on average, so that peaks and the loss of a machine fit
    primary: float = 10_000.0  # small writing transactions a second that one SQL primary takes
    partition: float = 70.0  # tasks a second through one partition of a task queue
    colds: float = 0.02  # of the workflow tasks: those of workflows that no worker has in memory


ASSUMED = Assumed()


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What so many waiting threads and so many steps a second need."""

    workers: int  # processes, each of which uses one core
    server_cores: int
    shards: int
    partitions: int
    temporal_writes: float  # transactions a second
    store_writes: float
    primaries: int  # of Temporal's database
    store_primaries: int
    waiting_bytes: float  # in Temporal's database, of the threads that wait
    waiting_store: float
    daily_history: float  # bytes of history and of checkpoints that a day adds
    daily_store: float


def needs(costs: Costs, threads: float, rate: float, assumed: Assumed = ASSUMED) -> Needs:
    """What ``threads`` that wait and ``rate`` steps a second need."""
    updates, commits = rate * costs.updates, rate * costs.commits
    return Needs(
        workers=at_least_one(rate * costs.worker / assumed.core_use),
        server_cores=at_least_one(rate * costs.server / assumed.core_use),
        shards=power_of_two(updates * assumed.update_seconds / assumed.shard_use),
        partitions=at_least_one(rate * 2 * assumed.colds / assumed.partition),
        temporal_writes=updates, store_writes=commits,
        primaries=at_least_one(updates / assumed.primary), store_primaries=at_least_one(commits / assumed.primary),
        waiting_bytes=threads * costs.thread_temporal, waiting_store=threads * costs.thread_store,
        daily_history=rate * DAY * costs.temporal, daily_store=rate * DAY * costs.store,
    )  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """Something that a deployment has so much of: the steps a second at which it is used up, and what to do then."""

    what: str
    full: Callable[[Costs, Assumed], float]
    then: str


LIMITS = (
    Limit(
        "two cores for everything",
        lambda costs, _: 2 / (costs.worker + costs.server),
        "worker and server on machines of their own",
    ),
    Limit("one worker process", lambda costs, _: 1 / costs.worker, "more worker processes: they share the task queue"),
    Limit(
        "a server of 8 cores",
        lambda costs, _: 8 / costs.server,
        "more history hosts; frontend and matching on others",
    ),
    Limit(
        "64 history shards, as in docker-compose.yml",
        lambda costs, assumed: 64 * assumed.shard_use / (costs.updates * assumed.update_seconds),
        "more shards; their number is set when the cluster's database is made, so it is chosen for what is to come",
    ),
    Limit(
        "one primary of Temporal's database",
        lambda costs, assumed: assumed.primary / costs.updates,
        "a database that is itself sharded, by the history shard",
    ),
    Limit(
        "one primary of the checkpoint store",
        lambda costs, assumed: assumed.primary / costs.commits,
        "a store for each group of tenants",
    ),
    Limit(
        "4 partitions of the task queue",
        lambda _, assumed: 4 * assumed.partition / (2 * assumed.colds),
        "more partitions, or a task queue for each group of tenants",
    ),
)  # fmt: skip


def bottlenecks(costs: Costs, assumed: Assumed = ASSUMED) -> list[tuple[float, Limit]]:
    """The limits in the order in which a growing deployment meets them, each with its steps a second."""
    return sorted(((limit.full(costs, assumed), limit) for limit in LIMITS), key=lambda pair: pair[0])


def first_met(costs: Costs, rates: Sequence[float], assumed: Assumed = ASSUMED) -> dict[float, list[Limit]]:
    """By steps a second: the limits that are met between the rate before and this one."""
    met: dict[float, list[Limit]] = {}
    below = 0.0
    for rate in rates:
        met[rate] = [limit for full, limit in bottlenecks(costs, assumed) if below < full <= rate]
        below = rate
    return met


def at_least_one(needed: float) -> int:
    """Rounded up."""
    return max(1, ceil(needed))


def power_of_two(needed: float) -> int:
    """The next power of two: Temporal replicates only between clusters whose numbers of shards divide each other."""
    return int(2 ** max(0, ceil(needed) - 1).bit_length())
