"""Threads that wait for people: what they cost while they wait, and how fast they finish once they may."""

from functools import partial

from benchmarks.bench import Bench
from benchmarks.experiment import Experiment, Outcome, exact
from benchmarks.measure import compete
from benchmarks.process import SubjectProcess
from benchmarks.waiting import AT_ONCE

_CACHED = (500, 100)  # workflows that a worker keeps in memory, of a full and of a quick run: fewer than wait
_WAITING = (1_000, 2_500, 5_000, 10_000)
_QUICK = (150, 400)
_PATIENCE = 1_800.0  # seconds for one question: thousands of threads are started or finished for it


async def run_waiting(bench: Bench) -> Outcome:
    """Perdure's threads all wait before the first of them is approved; then both finish some, in turns."""
    outcome, server, sizes = Outcome(), await bench.tuned(), bench.pick(_WAITING, _QUICK)
    cached = bench.pick(*_CACHED)
    perdure, hand = (bench.subject(f"waiting_{name}", server, cached=cached) for name in ("perdure", "handwritten"))
    found = bench.subject("waiting_handwritten", server, name="waiting_searched", cached=cached, searched=True)
    await _memory(outcome, perdure, sizes)
    rounds, batch = bench.pick((5, 400), (2, 50))
    for one in (hand, found):
        await one.ask("suspend", threads=(rounds + 1) * batch + cached, patience=_PATIENCE)
    subjects = {"perdure": perdure, "hand": hand, "found": found}
    contest = await compete(
        {name: partial(one.ask, "finish", threads=batch) for name, one in subjects.items()}, rounds=rounds
    )
    outcome.keep("finish", contest)
    outcome.found(
        "Perdure against handwritten, threads finished a second", contest.ratio("hand", "perdure", "seconds"),
        limit=0.8, at_least=True,
    )  # fmt: skip
    outcome.found(
        "the floor: handwritten that people find by its status, against handwritten",
        contest.ratio("hand", "found", "seconds"),
    )  # fmt: skip
    outcome.found("Perdure against the floor", contest.ratio("found", "perdure", "seconds"))
    for name, label in (("perdure", "Perdure"), ("hand", "handwritten"), ("found", "handwritten, found by its status")):
        outcome.found(label, contest.rate(name, "seconds", batch), unit="threads/s")
    await _all_of_them(outcome, perdure, sizes[-1], (rounds + 1) * batch)
    return outcome


async def _memory(outcome: Outcome, subject: SubjectProcess, sizes: tuple[int, ...]) -> None:
    """What the worker's process has while more and more threads wait, as a multiple of what it had at first."""
    told = {size: await subject.ask("suspend", threads=size, patience=_PATIENCE) for size in sizes}
    outcome.samples["suspend"] = told
    first = told[sizes[0]]["resident_bytes"]
    for size in sizes:
        outcome.found(f"worker, {size:,} threads waiting", exact(told[size]["resident_bytes"] / 2**20), unit="MB")
    outcome.found(
        f"memory of the worker, {sizes[-1]:,} threads waiting against {sizes[0]:,}",
        exact(told[sizes[-1]]["resident_bytes"] / first), limit=1.1,
    )  # fmt: skip


async def _all_of_them(outcome: Outcome, subject: SubjectProcess, threads: int, finished: int) -> None:
    """Finish the rest, and count: every thread has its answer, every tool ran once."""
    told = await subject.ask("finish", threads=threads - finished, patience=_PATIENCE)
    outcome.samples["rest"] = told
    for what, key in (
        ("have finished", "finished"),
        ("have the model's answer", "answered"),
        ("tool ran exactly once", "once"),
    ):
        outcome.found(
            f"of {threads:,} threads approved: {what}", exact(told[key]), unit="", limit=threads, at_least=True
        )


EXPERIMENTS = (
    Experiment(
        name="waiting", title="Threads that wait for an approval", run=run_waiting,
        about="A thread is one step with a gate: the model asks for a call, it waits for a yes, the tool runs, the "
        f"model answers. The worker keeps at most {_CACHED[0]} workflows in memory, so nearly all that wait are "
        "evicted, and come back by replay when their signal comes. Then threads are approved and finished, some "
        f"of Perdure's and some of the workflow written by hand in turns, the oldest first and at most {AT_ONCE} "
        "on their way at once, from the first signal sent until the last one has ended (of Perdure's: is idle "
        "again, as search says). What came of each is looked at afterwards: in the store, and in the result of "
        "the workflow written by hand, which keeps no audit, checks nobody's right to decide, and has no time-out. "
        "The floor is that workflow where it says in two search attributes that it waits, and that it goes on. "
        "Without that nobody finds what waits for them, and each such change costs the server a write.",
    ),
)  # fmt: skip
