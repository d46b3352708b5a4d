"""Perdure beside its peers: agent layers on the same Temporal server, and engines that need none."""

from collections.abc import Mapping
from functools import partial

from benchmarks.bench import Bench
from benchmarks.experiment import Curve, Experiment, Outcome
from benchmarks.experiments.steps import loops, metered
from benchmarks.measure import Contest, Spread, compete
from benchmarks.process import SubjectProcess

_PEERS = ("conversation", "openai_agents", "pydantic_ai")
_ON_TEMPORAL = ("handwritten", "perdure", *_PEERS)
_LIMITS = {"openai_agents": 0.5, "pydantic_ai": 0.5}  # at 50 steps
_LIMITED = 50
_ROUNDS = {50: 8, 200: 2}  # by steps
_QUICK = {10: 2}
_FAR = 1000  # steps; too far for whoever keeps copies of the conversation in the history


async def run_peers(bench: Bench) -> Outcome:
    """All in turns, each in its own process: each on the server of its documentation, then all on one tuned server."""
    outcome, server = Outcome(), await bench.tuned()
    await _as_documented(bench, outcome)
    subjects = {name: bench.subject(name, server) for name in _ON_TEMPORAL}
    contests: dict[int, Contest] = {}
    for steps, rounds in bench.pick(_ROUNDS, _QUICK).items():
        contests[steps] = contest = await compete(
            {name: partial(metered, subject, server, steps) for name, subject in subjects.items()}, rounds=rounds
        )
        outcome.keep(f"{steps} steps", contest)
        _compare(outcome, contest, steps)
    for name in _PEERS:  # the others have their curves from experiments of their own
        outcome.curves += [
            _curve(contests, name, "step_ms", "step_seconds"), _curve(contests, name, "history_bytes", "history_bytes")
        ]  # fmt: skip
    if not bench.quick:
        await _go_far(outcome, subjects)
    return outcome


async def _as_documented(bench: Bench, outcome: Outcome) -> None:
    """`temporal server start-dev`, as it is, for the peers; the server of `perdure dev` for Perdure."""
    plain, tuned = await bench.varied(tuning={}, pragmas={}, file=False), await bench.tuned()
    subjects = {name: bench.subject(name, plain, name=f"{name} as documented") for name in _LIMITS}
    subjects["perdure"] = bench.subject("perdure", tuned, name="perdure as documented")
    steps = bench.pick(_LIMITED, min(_QUICK))
    contest = await loops(subjects, bench.pick(5, 1), steps=steps)
    outcome.keep("as documented", contest)
    for name, limit in _LIMITS.items():
        ratio = contest.ratio("perdure", name, "step_seconds")
        outcome.found(f"Perdure against {name}, each as documented, time of a step, {steps} steps", ratio, limit=limit)
    for name in subjects:
        spread = contest.spread(name, "step_seconds").scaled(1e3)
        outcome.found(f"{name}, as documented, time of a step, {steps} steps", spread, unit="ms")
    for subject in subjects.values():
        await subject.end()


def _compare(outcome: Outcome, contest: Contest, steps: int) -> None:
    for name in _PEERS:
        ratio = contest.ratio("perdure", name, "step_seconds")
        outcome.found(f"Perdure against {name}, one server, time of a step, {steps} steps", ratio)
    for name in _PEERS:
        ratio = contest.ratio("handwritten", name, "step_seconds")
        outcome.found(f"handwritten against {name}, time of a step, {steps} steps", ratio)
    for name in _ON_TEMPORAL:
        spread = contest.spread(name, "step_seconds").scaled(1e3)
        outcome.found(f"{name}, time of a step, {steps} steps", spread, unit="ms")
        for key, whose in (("cpu_seconds", "its own"), ("server_cpu_seconds", "the server's")):
            spread = contest.spread(name, key).scaled(1e3 / steps)
            outcome.found(f"{name}, CPU time of a step, {whose}, {steps} steps", spread, unit="ms")
        spread = contest.spread(name, "history_bytes").scaled(1 / steps)
        outcome.found(f"{name}, history a step, {steps} steps", spread, unit="bytes")


async def _go_far(outcome: Outcome, subjects: Mapping[str, SubjectProcess]) -> None:
    """What ends those that keep the conversation in the history, if anything does."""
    keepers = {name: subjects[name] for name in _PEERS}
    contest = await compete(
        {name: partial(one.ask, "loop", steps=_FAR) for name, one in keepers.items()}, rounds=1, warmups=0
    )
    outcome.keep(f"{_FAR} steps", contest)
    for name in keepers:
        outcome.found(f"{name}, {_FAR} steps", contest.spread(name, "seconds"), unit="s")


async def run_engines(bench: Bench) -> Outcome:
    """One database each, of both kinds; Perdure has a Temporal server besides."""
    outcome, server = Outcome(), await bench.tuned()
    steps, rounds = bench.pick((50, 8), (10, 2))
    for kind in ("sqlite", "postgres"):
        subjects = {}
        for name, module, options in _engines(kind):
            store = await bench.database() if kind == "postgres" else ""
            needed = server if module == "perdure" else None
            subjects[name] = bench.subject(module, needed, store=store, name=name, **options)
        contest = await loops(subjects, rounds, steps=steps)
        outcome.keep(kind, contest)
        for name in subjects:
            spread = contest.spread(name, "seconds").scaled(1e3 / steps)
            outcome.found(f"{kind}: {name}, time of a step, {steps} steps", spread, unit="ms")
        for name in subjects:
            spread = contest.spread(name, "store_bytes").scaled(1 / steps)
            outcome.found(f"{kind}: {name}, store a step, {steps} steps", spread, unit="bytes")
        for subject in subjects.values():
            await subject.end()
    return outcome


def _engines(kind: str) -> list[tuple[str, str, dict[str, object]]]:
    """What takes part: its name, the subject's module, its options."""
    return [
        ("perdure", "perdure", {}),
        ("langgraph", "langgraph", {"saver": kind, "delta": False}),
        ("langgraph with DeltaChannel", "langgraph", {"saver": kind, "delta": True}),
        ("dbos", "dbos", {}),
    ]


def _curve(contests: Mapping[int, Contest], name: str, figure: str, key: str) -> Curve:
    """By the number of steps, where it was measured; seconds are of one step already, bytes of all."""
    points: dict[int, float] = {}
    for steps, contest in contests.items():
        spread = contest.spread(name, key).scaled(1e3 if figure == "step_ms" else 1 / steps)
        if isinstance(spread, Spread):
            points[steps] = spread.median
    return Curve(subject=name, figure=figure, points=points)


EXPERIMENTS = (
    Experiment(
        name="peers", title="Agent layers on Temporal", run=run_peers,
        about="One agent alone, in turns: each on the server that its documentation tells to start (`perdure dev`; "
        "`temporal server start-dev`), then all on one tuned server. `openai_agents` is the OpenAI Agents SDK by "
        "`temporalio-openai-agents`, `pydantic_ai` is Pydantic AI with `TemporalDurability`, each as its documentation "
        "sets it up, so with workflows in the SDK's sandbox; tracing is off, and no limit of turns is in the way. "
        "`conversation` is the workflow written by hand, but each model call is given the whole conversation. Times "
        "are by the server's own time stamps. What `handwritten` needs against a peer is the floor of any design on "
        "Temporal. `openai_agents`, `pydantic_ai` and `conversation` keep a copy of the conversation for each model "
        f"call in the history, so {_FAR:,} steps end at Temporal's limits: the reason is what the server gave.",
    ),
    Experiment(
        name="engines", title="Engines without Temporal", run=run_engines,
        about="One agent alone, on a database of its own, in turns: LangGraph with durability `sync`, as it is and "
        "with its `DeltaChannel`; DBOS, a recorded step for each call. They run in one process beside their database; "
        "Perdure's workflow is on a Temporal server besides. Wall clock from the start of the loop to its answer. "
        "PostgreSQL and SQLite keep their own defaults for what a crash may lose, as each library sets them: LangGraph "
        "and DBOS wait for the disk at each commit, Perdure on SQLite does at the claims of irreversible effects.",
    ),
)  # fmt: skip
