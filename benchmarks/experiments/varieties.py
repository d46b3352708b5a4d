"""The same loop with one thing changed: where the tool runs, how the server is set up, whether there is a sandbox."""

from benchmarks.bench import Bench
from benchmarks.experiment import Experiment, Outcome
from benchmarks.experiments.steps import loops
from benchmarks.process import SubjectProcess
from perdure.workers.embedded import PRAGMAS, TUNING

_STEPS = (50, 10)  # full, quick
_ROUNDS = (12, 2)


async def run_beside(bench: Bench) -> Outcome:
    """The tool as a local activity."""
    outcome, server = Outcome(), await bench.tuned()
    subjects = {
        "handwritten": bench.subject("handwritten", server),
        "beside": bench.subject("perdure", server, name="beside", beside=True),
        "handwritten, the tool beside it too": bench.subject("handwritten", server, name="floor", beside=True),
    }
    steps = bench.pick(*_STEPS)
    contest = await loops(subjects, bench.pick(*_ROUNDS), steps=steps)
    outcome.keep("beside", contest)
    ratio = contest.ratio("beside", "handwritten", "step_seconds")
    outcome.found(f"Perdure, its tool beside the workflow, against handwritten, {steps} steps", ratio, limit=0.75)
    floor = contest.ratio("handwritten, the tool beside it too", "handwritten", "step_seconds")
    outcome.found("the floor: handwritten with its tool beside it, against the same", floor)
    for name in subjects:
        outcome.found(name, contest.spread(name, "step_seconds").scaled(1e3), unit="ms")
    return outcome


async def run_embedded(bench: Bench) -> Outcome:
    """Each on the server that its user would start."""
    outcome = Outcome()
    subjects = {
        "handwritten": bench.subject("handwritten", await bench.documented()),
        "perdure": bench.subject("perdure", await bench.tuned()),
        "handwritten on Perdure's server": bench.subject("handwritten", await bench.tuned(), name="floor"),
    }
    steps = bench.pick(*_STEPS)
    contest = await loops(subjects, bench.pick(*_ROUNDS), steps=steps)
    outcome.keep("embedded", contest)
    ratio = contest.ratio("perdure", "handwritten", "step_seconds")
    outcome.found(f"Perdure on its embedded server against handwritten on start-dev, {steps} steps", ratio, limit=0.25)
    floor = contest.ratio("handwritten on Perdure's server", "handwritten", "step_seconds")
    outcome.found("the floor: handwritten on Perdure's embedded server, against the same", floor)
    for name in subjects:
        outcome.found(name, contest.spread(name, "step_seconds").scaled(1e3), unit="ms")
    return outcome


async def run_settings(bench: Bench) -> Outcome:
    """Perdure as it is against Perdure with one thing set otherwise, on one server."""
    outcome, server = Outcome(), await bench.tuned()

    def perdure(name: str, *, store: str = "", settings: dict[str, object] | None = None, **options: object) -> None:
        own = {"task_queue": name} | (settings or {})  # each has a store of its own, so none may take another's tasks
        subjects[name] = bench.subject("perdure", server, store=store, name=name, settings=own, **options)

    subjects: dict[str, SubjectProcess] = {}
    perdure("defaults")
    perdure("a store on PostgreSQL", store=await bench.database())
    perdure("cache of the model off", cache="off")
    perdure("the tool beside the workflow", beside=True)
    perdure("messages compressed", compressed=True)
    perdure("two threads for the SDK's core", core_threads=2)
    perdure("heartbeat=1", settings={"heartbeat": 1.0})
    perdure("history_events=200", settings={"history_events": 200})
    perdure("max_cached_workflows=0", settings={"max_cached_workflows": 0})
    contest = await loops(subjects, bench.pick(7, 1), steps=bench.pick(*_STEPS))
    outcome.keep("settings", contest)
    for name in subjects:
        if name != "defaults":
            outcome.found(f"{name}, against the defaults", contest.ratio(name, "defaults", "step_seconds"))
        bytes_a_step = contest.spread(name, "history_bytes").scaled(1 / bench.pick(*_STEPS))
        outcome.found(f"{name}, history a step", bytes_a_step, unit="bytes")
    return outcome


async def run_server(bench: Bench) -> Outcome:
    """The tuned server against others with one setting left at its default."""
    outcome = Outcome()
    servers = {
        "tuned": await bench.tuned(),
        **{f"without {key}": await bench.varied(tuning=_without(TUNING, key)) for key in _singly()},
        "without one partition": await bench.varied(tuning=_without(TUNING, *_PARTITIONS)),
        "without WAL": await bench.varied(pragmas={}),
        "with synchronous=full": await bench.varied(pragmas=PRAGMAS | {"synchronous": "full"}),
        "with SQLite's own cache": await bench.varied(pragmas=_without(PRAGMAS, "cache_size", "wal_autocheckpoint")),
        "in memory": await bench.varied(file=False),
        "as documented": await bench.documented(),
    }
    subjects = {name: bench.subject("handwritten", server, name=name) for name, server in servers.items()}
    subjects["in the sandbox"] = bench.subject("handwritten", servers["tuned"], name="sandbox", sandbox=True)
    contest = await loops(subjects, bench.pick(4, 1), steps=bench.pick(*_STEPS))
    outcome.keep("server", contest)
    for name in subjects:
        if name != "tuned":
            outcome.found(f"{name}, against tuned", contest.ratio(name, "tuned", "step_seconds"))
        outcome.found(name, contest.spread(name, "step_seconds").scaled(1e3), unit="ms")
    return outcome


_PARTITIONS = ("matching.numTaskqueueReadPartitions", "matching.numTaskqueueWritePartitions")


def _singly() -> list[str]:
    """Settings that make sense each by itself."""
    return [key for key in TUNING if key not in _PARTITIONS]


def _without(settings: dict[str, str], *keys: str) -> dict[str, str]:
    return {key: value for key, value in settings.items() if key not in keys}


EXPERIMENTS = (
    Experiment(
        name="beside", title="A tool beside the workflow", run=run_beside,
        about="The tool is declared `@tool(beside=True)`: a short read that runs as a local activity, in the worker "
        "that has the workflow. The workflow written by hand calls its tool as an activity, as ever; the floor is the "
        "same with its tool as a local activity.",
    ),
    Experiment(
        name="embedded", title="The embedded server", run=run_embedded,
        about="Perdure on the server that `perdure dev` starts; the workflow written by hand on "
        "`temporal server start-dev --db-filename FILE`, as Temporal documents it.",
    ),
    Experiment(
        name="settings", title="What Perdure's own settings are worth", run=run_settings,
        about="The loop on the tuned server with one thing set otherwise than it comes. `max_cached_workflows=0` is a "
        "worker that has to replay the whole history at each workflow task.",
    ),
    Experiment(
        name="server", title="What the settings of the server are worth", run=run_server,
        about="The workflow written by hand on the tuned server, and on the same server with one setting left at its "
        "default. The sandbox is that of the SDK, in which workflows run by default; Perdure's holds no foreign code "
        "and runs outside.",
    ),
)  # fmt: skip
