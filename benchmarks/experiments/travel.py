"""Resume, fork and query: what they cost where the thread is long."""

from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.experiment import Experiment, Outcome
from benchmarks.measure import compete
from benchmarks.places import Server
from benchmarks.process import SubjectProcess

_LENGTHS = ((10, 1000), (5, 50))  # steps of the short and of the long thread; full, quick
_IDLE = "1s"


async def run_resume(bench: Bench) -> Outcome:
    """Each round a new process takes up the same thread for one step."""
    outcome, server = Outcome(), await bench.tuned()
    lengths = bench.pick(*_LENGTHS)
    threads = {(steps, idle): _Parked(bench, server, steps, idle) for steps in lengths for idle in ("1h", _IDLE)}
    for parked in threads.values():
        await parked.make()
    contest = await compete({_name(*key): parked.resume for key, parked in threads.items()}, rounds=bench.pick(8, 1))
    outcome.keep("resume", contest)
    short, long = lengths
    for idle in ("1h", _IDLE):
        ratio = contest.ratio(_name(long, idle), _name(short, idle), "seconds")
        outcome.found(f"next step of a thread that is {_state(idle)}, {long} steps against {short}", ratio, limit=1.3)
    for key in threads:
        outcome.found(_name(*key), contest.spread(_name(*key), "seconds").scaled(1e3), unit="ms")
    return outcome


class _Parked:
    """A thread that no worker has; its store is one file, whoever serves it."""

    def __init__(self, bench: Bench, server: Server, steps: int, idle: str) -> None:
        self._bench, self._server, self._idle = bench, server, idle
        self._store = f"sqlite:///{bench.folder('store')}.db"
        self._made = steps
        self._thread = ""

    async def make(self) -> None:
        worker = self._process(serve=True)
        made = await worker.ask("loop", steps=self._made)
        self._thread = made["thread"]
        await self._park(worker)

    async def resume(self) -> dict[str, Any]:
        worker = self._process(serve=False)
        told = await worker.ask("resume", thread=self._thread, made=self._made)
        self._made += 1
        await self._park(worker)
        return told

    async def _park(self, worker: SubjectProcess) -> None:
        if self._idle == _IDLE:
            await worker.ask("completed", thread=self._thread)
        await worker.end()

    def _process(self, *, serve: bool) -> SubjectProcess:
        return self._bench.subject("perdure", self._server, store=self._store, idle=self._idle, serve=serve)


def _state(idle: str) -> str:
    return "completed" if idle == _IDLE else "open"


def _name(steps: int, idle: str) -> str:
    return f"{steps} steps, {_state(idle)}"


async def run_fork(bench: Bench) -> Outcome:
    """Forks from the middle of a long thread, and new threads, in one process."""
    outcome, (short, long) = Outcome(), bench.pick(*_LENGTHS)
    perdure = bench.subject("perdure", await bench.tuned(), cache="off")
    threads = {steps: (await perdure.ask("loop", steps=steps))["thread"] for steps in (short, long)}
    contest = await compete(
        {
            "start": partial(perdure.ask, "begin"),
            "fork": partial(perdure.ask, "fork", thread=threads[long], made=long // 2),
            "short fork": partial(perdure.ask, "fork", thread=threads[short], made=short // 2),
        },
        rounds=bench.pick(20, 3), warmups=2,
    )  # fmt: skip
    outcome.keep("fork", contest)
    ratio = contest.ratio("fork", "start", "seconds")
    outcome.found(
        f"fork from the middle of {long} steps against a new thread, until the model is asked", ratio, limit=1.5
    )
    outcome.found(f"the same from the middle of {short} steps", contest.ratio("short fork", "start", "seconds"))
    for name in contest.samples:
        outcome.found(name, contest.spread(name, "seconds").scaled(1e3), unit="ms")
    return outcome


async def run_query(bench: Bench) -> Outcome:
    """Both threads are in the cache of the same worker."""
    outcome, (short, long) = Outcome(), bench.pick(*_LENGTHS)
    perdure = bench.subject("perdure", await bench.tuned())
    threads = {steps: (await perdure.ask("loop", steps=steps))["thread"] for steps in (short, long)}
    contest = await compete(
        {f"{steps} steps": partial(perdure.ask, "query", thread=thread) for steps, thread in threads.items()},
        rounds=bench.pick(100, 10), warmups=5,
    )  # fmt: skip
    outcome.keep("query", contest)
    ratio = contest.ratio(f"{long} steps", f"{short} steps", "seconds")
    outcome.found(f"query `checkpoint`, {long} steps against {short}", ratio, limit=1.2)
    for name in contest.samples:
        outcome.found(name, contest.spread(name, "seconds").scaled(1e3), unit="ms")
    return outcome


EXPERIMENTS = (
    Experiment(
        name="resume", title="Cold resume", run=run_resume,
        about="A thread stands still and no worker runs. Then a worker starts in a new process and the thread gets a "
        "message: measured from there until the next step (a model call and a tool call) is done and the model is "
        "asked again. A thread that is open is replayed from its history; one that has completed starts from the "
        "store.",
    ),
    Experiment(
        name="fork", title="Fork", run=run_fork,
        about="From asking for a fork, or for a new thread, until its first model call starts. The cache of answers is "
        "off, or the fork would not ask the model.",
    ),
    Experiment(
        name="query", title="Query", run=run_query,
        about="Round trip of the query `checkpoint` to a thread that the worker has in its cache.",
    ),
)  # fmt: skip
