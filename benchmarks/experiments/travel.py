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
    outcome, server, (short, long) = Outcome(), await bench.tuned(), bench.pick(*_LENGTHS)
    parks = [_Park(bench, server, idle) for idle in ("1h", _IDLE)]
    for park in parks:
        await park.make((short, long))
    contest = await compete(
        {park.name(steps): partial(park.resume, steps) for park in parks for steps in (short, long)},
        rounds=bench.pick(6, 1), warmups=bench.pick(1, 0),
    )  # fmt: skip
    outcome.keep("resume", contest)
    for park in parks:
        ratio = contest.ratio(park.name(long), park.name(short), "cold_seconds")
        outcome.found(f"cold resume of a thread that is {park.state}, {long} steps against {short}", ratio, limit=1.3)
    for park in parks:
        ratio = contest.ratio(park.name(long), park.name(short), "seconds")
        outcome.found(f"of that, once the process is up: {park.state}, {long} steps against {short}", ratio)
    for park in parks:
        for name in (park.name(short), park.name(long)):
            outcome.found(name, contest.spread(name, "cold_seconds").scaled(1e3), unit="ms")
            up = contest.spread(name, "seconds").scaled(1e3)
            outcome.found(f"{name}, of that once the process is up", up, unit="ms")
    return outcome


class _Park:
    """Threads that no worker has, all open or all completed; their store is one file, whoever serves them."""

    def __init__(self, bench: Bench, server: Server, idle: str) -> None:
        self._bench, self._server, self._idle = bench, server, idle
        self._store = f"sqlite:///{bench.folder('store')}.db"
        self._threads: dict[int, str] = {}
        self._made: dict[int, int] = {}
        self.state = "completed" if idle == _IDLE else "open"

    def name(self, steps: int) -> str:
        """Of one of them, in the report."""
        return f"{steps} steps, {self.state}"

    async def make(self, lengths: tuple[int, ...]) -> None:
        """Make a thread of each length, then let go of them."""
        worker = self._process(serve=True)
        for steps in lengths:
            self._threads[steps], self._made[steps] = (await worker.ask("loop", steps=steps))["thread"], steps
        for steps in lengths:
            await self._settle(worker, steps)
        await worker.end()

    async def resume(self, steps: int) -> dict[str, Any]:
        """What it took a new process to make the next step, from its start and once it was up."""
        worker = self._process(serve=False)
        told = await worker.ask("resume", thread=self._threads[steps], made=self._made[steps])
        self._made[steps] += 1
        await self._settle(worker, steps)
        await worker.end()
        return told | {"cold_seconds": worker.start_seconds + told["seconds"]}

    async def _settle(self, worker: SubjectProcess, steps: int) -> None:
        if self.state == "completed":
            await worker.ask("completed", thread=self._threads[steps])

    def _process(self, *, serve: bool) -> SubjectProcess:
        return self._bench.subject("perdure", self._server, store=self._store, idle=self._idle, serve=serve)


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
        about="A thread stands still and no worker runs. Then a new process starts, and once it is up its worker, and "
        "the thread gets a message: measured from the start of the process until the next step (a model call and a "
        "tool call) is done and the model is asked again. A thread that is open is replayed from its history; one that "
        "has completed starts from the store. What comes after the process's own start is told apart.",
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
