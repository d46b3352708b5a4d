"""The unit costs of the scale plan, and its simulation against a run at a hundredth of the size."""

import os
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.experiment import Experiment, Outcome, exact
from benchmarks.places import Server
from benchmarks.process import SubjectProcess, cpu_seconds
from benchmarks.scale import Costs
from benchmarks.scale_simulation import Setup, simulate
from benchmarks.sizes import store_bytes

_PATIENCE = 3_600.0  # seconds for one question: thousands of threads are started for it
_STEPS = 20  # of each agent
_EVENTS = 2  # that one update of a workflow writes on average: an activity has six events, and three updates
_SIMULATED = 60.0  # seconds


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What something took: CPU seconds of the worker and of the server, and the bytes by which Temporal's database has
    grown. ``others``: how many cores were used by neither of the two, but somebody else on this machine."""

    told: dict[str, Any]
    worker: float
    server: float
    temporal: int
    others: float


async def run_scale(bench: Bench) -> Outcome:
    """Agents at work while nobody waits; threads that begin to wait; agents again; some of those who wait woken."""
    outcome, server = Outcome(), await bench.tuned()
    threads, woken = bench.pick((10_000, 1_000), (160, 50))
    agents = bench.pick((50, 10), (5, 2))
    work = bench.subject("perdure", server)
    wait = bench.subject("waiting_perdure", server, cached=bench.pick(500, 100))
    await work.ask("loop", steps=2)
    await wait.ask("suspend", threads=2)
    alone = {count: await spent(server, work, "loop", agents=count, steps=_STEPS) for count in agents}
    one = await work.ask("loop", steps=_STEPS)
    before = store_bytes(wait.place.store)
    started = await spent(server, wait, "suspend", threads=threads)
    store = (store_bytes(wait.place.store) - before) / threads
    beside = {count: await spent(server, work, "loop", agents=count, steps=_STEPS) for count in agents}
    finished = await spent(server, wait, "finish", threads=woken)
    costs = unit_costs(alone[agents[0]], agents[0] * _STEPS, one, started, threads, store, finished, woken)
    outcome.samples["costs"] = asdict(costs)
    outcome.samples["validation"] = [validation(costs, count, beside[count], threads) for count in agents]
    _find(outcome, costs)
    return outcome


async def spent(server: Server, subject: SubjectProcess, do: str, **given: Any) -> Spent:
    """Have a subject do something, and look at what it takes."""
    used, size = cpu_seconds(server.pid), _temporal_bytes(server)
    begun, all_used, subject_used = time.perf_counter(), _used_by_all(), subject.cpu_seconds()
    told = await subject.ask(do, patience=_PATIENCE, **given)
    ours = cpu_seconds(server.pid) - used + subject.cpu_seconds() - subject_used
    others = (_used_by_all() - all_used - ours) / (time.perf_counter() - begun)
    return Spent(
        told=told, worker=told["cpu_seconds"], server=cpu_seconds(server.pid) - used,
        temporal=_temporal_bytes(server) - size, others=max(0.0, others),
    )  # fmt: skip


def unit_costs(
    work: Spent, steps: int, one: dict[str, Any], started: Spent, threads: int, store: float, finished: Spent,
    woken: int,
) -> Costs:  # fmt: skip
    """All by one step, and by one thread."""
    events = one["loop_events"] / _STEPS
    return Costs(
        worker=work.worker / steps, server=work.server / steps, history=one["loop_bytes"] / _STEPS, events=events,
        updates=events / _EVENTS, store=work.told["store_bytes"] / steps, temporal=work.temporal / steps,
        thread_history=started.told["history_bytes"], thread_store=store, thread_temporal=started.temporal / threads,
        start_worker=started.worker / threads, start_server=started.server / threads,
        wake_worker=finished.worker / woken, wake_server=finished.server / woken,
    )  # fmt: skip


def validation(costs: Costs, agents: int, measured: Spent, threads: int) -> dict[str, float]:
    """Steps a second, as simulated from what was measured before anybody waited, and as measured beside who waits.

    Where other processes used this machine too, it is simulated as that much slower. Cores that nobody used are none of
    theirs: what holds agents up besides processors shows as a simulation that promises too much.
    """
    cores = os.cpu_count() or 1
    left = cores - measured.others
    simulated = simulate(costs, Setup(agents=agents, workers=1, cores=cores), seconds=_SIMULATED).rate * left / cores
    rate = agents * _STEPS / measured.told["span_seconds"]
    return {"agents": agents, "threads": threads, "left": left, "simulated": simulated, "measured": rate}


def _find(outcome: Outcome, costs: Costs) -> None:
    for what, value, unit in (
        ("CPU of the worker, a step", costs.worker * 1e3, "ms"),
        ("CPU of the server, a step", costs.server * 1e3, "ms"),
        ("CPU of the worker, a thread that begins to wait", costs.start_worker * 1e3, "ms"),
        ("CPU of the server, a thread that begins to wait", costs.start_server * 1e3, "ms"),
        ("CPU of the worker, a thread woken and finished", costs.wake_worker * 1e3, "ms"),
        ("CPU of the server, a thread woken and finished", costs.wake_server * 1e3, "ms"),
        ("Temporal's database, a step", costs.temporal, "bytes"),
        ("Temporal's database, a thread that waits", costs.thread_temporal, "bytes"),
        ("checkpoint store, a thread that waits", costs.thread_store, "bytes"),
    ):
        outcome.found(what, exact(value), unit=unit)
    for run in outcome.samples["validation"]:
        what = f"steps a second, {run['agents']} agents beside {run['threads']:,} that wait: simulated against measured"
        outcome.found(what, exact(run["simulated"] / run["measured"]))


def _used_by_all() -> float:
    """CPU seconds that all processes of this machine have used since it started; Linux only."""
    user, nice, system, _, _, *rest = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, *rest))) / os.sysconf("SC_CLK_TCK")


def _temporal_bytes(server: Server) -> int:
    """What the server's SQLite database holds, its write-ahead log included."""
    command = Path(f"/proc/{server.pid}/cmdline").read_text().split("\0")
    file = command[command.index("--db-filename") + 1]
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        (size,) = connection.execute(
            "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        ).fetchone()
    return int(size)


EXPERIMENTS = (
    Experiment(
        name="scale", title="The unit costs of the scale plan", run=run_scale,
        about="CPU time of each process and bytes of each database, divided by what was done. Then the simulation of "
        "[the scale plan](scale.md) is given these costs, and told to be this machine; what it says is held against "
        "what agents did while thousands of threads waited. A full run brings the tables of docs/scale.md up to date.",
    ),
)  # fmt: skip
