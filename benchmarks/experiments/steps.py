"""Time of a step, against the workflow written by hand."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from benchmarks.bench import Bench
from benchmarks.experiment import Curve, Experiment, Outcome
from benchmarks.measure import Contest, Spread, compete
from benchmarks.places import Server
from benchmarks.process import SubjectProcess, cpu_seconds

_ROUNDS = {10: 15, 50: 25, 200: 5, 1000: 1}  # by steps
_QUICK = {5: 1, 20: 2}
_TARGET_AT = 50


async def run_steps(bench: Bench) -> Outcome:
    """Both on one tuned server, each in its own process, in turns."""
    outcome, server = Outcome(), await bench.tuned()
    subjects = {name: bench.subject(name, server) for name in ("handwritten", "perdure")}
    points: dict[str, dict[int, float]] = {name: {} for name in subjects}
    for steps, rounds in bench.pick(_ROUNDS, _QUICK).items():
        contest = await compete(
            {name: partial(metered, subject, server, steps) for name, subject in subjects.items()}, rounds=rounds
        )
        outcome.keep(f"{steps} steps", contest)
        ratio = contest.ratio("perdure", "handwritten", "step_seconds")
        outcome.found(f"Perdure against handwritten, {steps} steps", ratio, limit=1.15 if steps == _TARGET_AT else None)
        for name in subjects:
            measured = contest.spread(name, "step_seconds").scaled(1e3)
            outcome.found(f"{name}, {steps} steps", measured, unit="ms")
            for key, whose in (("cpu_seconds", "its own"), ("server_cpu_seconds", "the server's")):
                cpu = contest.spread(name, key).scaled(1e3 / steps)
                outcome.found(f"{name}, {steps} steps, {whose} CPU time", cpu, unit="ms")
            if isinstance(measured, Spread):
                points[name][steps] = measured.median
    outcome.curves += [Curve(subject=name, figure="step_ms", points=points[name]) for name in subjects]
    return outcome


async def metered(subject: SubjectProcess, server: Server, steps: int) -> dict[str, Any]:
    """A loop, and what the server has used of the processors meanwhile."""
    used = cpu_seconds(server.pid)
    told = await subject.ask("loop", steps=steps)
    return told | {"server_cpu_seconds": cpu_seconds(server.pid) - used}


async def run_throughput(bench: Bench) -> Outcome:
    """Many agents at once."""
    outcome, server = Outcome(), await bench.tuned()
    subjects = {name: bench.subject(name, server) for name in ("handwritten", "perdure")}
    agents, steps = bench.pick((50, 20), (10, 5))
    contest = await loops(subjects, bench.pick(5, 1), steps=steps, agents=agents)
    outcome.keep("throughput", contest)
    outcome.found(
        f"Perdure against handwritten, {agents} agents × {steps} steps, steps a second",
        contest.ratio("handwritten", "perdure", "span_seconds"), limit=0.9, at_least=True,
    )  # fmt: skip
    for name in subjects:
        outcome.found(name, contest.rate(name, "span_seconds", agents * steps), unit="steps/s")
    return outcome


async def loops(subjects: Mapping[str, SubjectProcess], rounds: int, **given: int) -> Contest:
    """Let subjects loop in turns."""
    return await compete({name: partial(one.ask, "loop", **given) for name, one in subjects.items()}, rounds=rounds)


EXPERIMENTS = (
    Experiment(
        name="steps", title="Time of a step", run=run_steps,
        about="One agent alone. Perdure and the workflow written by hand run on one server, tuned as `perdure dev` "
        "starts it, in turns. Measured by the server's own time stamps, from the first model call being scheduled to "
        "the end of the workflow task that takes the last answer.",
    ),
    Experiment(
        name="throughput", title="Many agents at once", run=run_throughput,
        about="All start at the same moment; steps a second from the first model call of any to the last answer of "
        "any, by the server's time stamps. One worker each, in one process.",
    ),
)  # fmt: skip
