"""Bytes of a step: in Temporal's history, and in the store."""

from collections.abc import Mapping
from functools import partial

from benchmarks import workload
from benchmarks.bench import Bench
from benchmarks.experiment import Curve, Experiment, Outcome, exact
from benchmarks.measure import Contest, Measure, Missing, Spread, compete
from benchmarks.process import SubjectProcess

_SUBJECTS = ("handwritten", "perdure")
_LENGTHS = (50, 200, 1000)  # steps
_QUICK = (10, 50)


async def run_history(bench: Bench) -> Outcome:
    """Counted, so one loop of each length is enough."""
    outcome, server = Outcome(), await bench.tuned()
    subjects = {name: bench.subject(name, server) for name in _SUBJECTS}
    short, longer, *_ = lengths = bench.pick(_LENGTHS, _QUICK)
    long = lengths[-1]
    contests = {steps: await _once(subjects, steps) for steps in lengths}
    for steps, contest in contests.items():
        outcome.keep(f"{steps} steps", contest)
    outcome.found(
        f"history bytes a step, Perdure against handwritten, {short} steps",
        contests[short].ratio("perdure", "handwritten", "history_bytes"), limit=1.2,
    )  # fmt: skip
    growth = _over(_per_step(contests[long], "perdure", long), _per_step(contests[short], "perdure", short))
    outcome.found(f"history bytes a step, Perdure, {long} steps against {short}", growth, limit=1.05)
    for name in _SUBJECTS:
        for steps, contest in contests.items():
            outcome.found(f"{name}, history a step, {steps} steps", _per_step(contest, name, steps), unit="bytes")
        for unit in ("events", "bytes"):
            more = _growth(contests, name, f"history_{unit}", short, longer)
            outcome.found(f"{name}, what each further step adds, {short} to {longer} steps", more, unit=unit)
        points = {steps: _per_step(contest, name, steps) for steps, contest in contests.items()}
        outcome.curves.append(_curve(name, "history_bytes", points))
    return outcome


async def run_store(bench: Bench) -> Outcome:
    """One loop on each of two databases; LangGraph's on the same ones, as it is and with its deltas."""
    outcome, server = Outcome(), await bench.tuned()
    steps = bench.pick(1000, 50)
    payload = exact(workload.payload(steps))
    outcome.found(f"payload of {steps} steps", payload, unit="bytes")
    for kind in ("sqlite", "postgres"):
        stores = {name: await bench.database() if kind == "postgres" else "" for name in ("perdure", "plain", "delta")}
        subjects = {
            "perdure": bench.subject("perdure", server, store=stores["perdure"]),
            "plain": _langgraph(bench, kind, stores["plain"], delta=False),
            "delta": _langgraph(bench, kind, stores["delta"], delta=True),
        }
        contest = await _once(subjects, steps)
        outcome.keep(kind, contest)
        _compare(outcome, contest, kind, payload)
        for subject in subjects.values():
            await subject.end()
    return outcome


def _langgraph(bench: Bench, saver: str, store: str, *, delta: bool) -> SubjectProcess:
    name = f"langgraph{' with DeltaChannel' if delta else ''}"
    return bench.subject("langgraph", store=store, name=name, saver=saver, delta=delta)


def _compare(outcome: Outcome, contest: Contest, kind: str, payload: Spread) -> None:
    ours, plain, delta = (contest.spread(name, "store_bytes") for name in ("perdure", "plain", "delta"))
    outcome.found(f"{kind}: Perdure's store against the payload", _over(ours, payload), limit=3)
    outcome.found(f"{kind}: LangGraph's against Perdure's", _over(plain, ours), limit=200, at_least=True)
    outcome.found(
        f"{kind}: LangGraph's with DeltaChannel against Perdure's", _over(delta, ours), limit=4, at_least=True
    )
    for name, measured in (("Perdure", ours), ("LangGraph", plain), ("LangGraph with DeltaChannel", delta)):
        outcome.found(f"{kind}: {name}", measured, unit="bytes")


async def _once(subjects: dict[str, SubjectProcess], steps: int) -> Contest:
    contenders = {name: partial(subject.ask, "loop", steps=steps) for name, subject in subjects.items()}
    return await compete(contenders, rounds=1, warmups=0)


def _per_step(contest: Contest, name: str, steps: int) -> Measure:
    return contest.spread(name, "history_bytes").scaled(1 / steps)


def _growth(contests: Mapping[int, Contest], name: str, key: str, short: int, long: int) -> Measure:
    less, more = (contests[steps].spread(name, key) for steps in (short, long))
    if isinstance(less, Missing) or isinstance(more, Missing):
        return less if isinstance(less, Missing) else more
    return exact((more.median - less.median) / (long - short))


def _over(one: Measure, other: Measure) -> Measure:
    """The ratio of two counts."""
    if isinstance(one, Missing):
        return one
    return other if isinstance(other, Missing) else exact(one.median / other.median)


def _curve(name: str, figure: str, points: dict[int, Measure]) -> Curve:
    measured = {steps: value.median for steps, value in points.items() if isinstance(value, Spread)}
    return Curve(subject=name, figure=figure, points=measured)


EXPERIMENTS = (
    Experiment(
        name="history", title="History of a step", run=run_history,
        about="Bytes of all events of the loop's whole chain of runs in Temporal, what begins and ends it included, "
        "divided by its steps.",
    ),
    Experiment(
        name="store", title="Bytes in the store", run=run_store,
        about="What the database has grown by after one loop: of SQLite the file, once its write-ahead log has been "
        "taken in; of PostgreSQL tables, indexes and TOAST. The payload is what the model and the tool said. Perdure "
        "keeps two checkpoints a step, and so does LangGraph.",
    ),
)  # fmt: skip
