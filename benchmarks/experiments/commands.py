"""How soon the command line answers."""

import asyncio
import os
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.experiment import Experiment, Outcome
from benchmarks.measure import compete
from benchmarks.process import SubjectFailed

_PYTHON = sys.executable
_PERDURE = str(Path(sys.executable).with_name("perdure"))
_FLOOR = "import temporalio.client"


async def run_commands(bench: Bench) -> Outcome:
    """All in turns, each in a process of its own."""
    outcome, server = Outcome(), await bench.tuned()
    perdure = bench.subject("perdure", server)
    thread = (await perdure.ask("loop", steps=2))["thread"]
    contenders = {
        "perdure --help": partial(_run, _PERDURE, "--help"),
        "perdure status": partial(_run, _PERDURE, "status", thread, "--address", server.address),
        _FLOOR: partial(_run, _PYTHON, "-c", _FLOOR),
        "python": partial(_run, _PYTHON, "-c", "pass"),
    }
    contest = await compete(contenders, rounds=bench.pick(15, 3))
    outcome.keep("commands", contest)
    for name, limit in (("perdure --help", 0.35), ("perdure status", 0.6), (_FLOOR, None), ("python", None)):
        outcome.found(f"`{name}`", contest.spread(name, "seconds"), unit="s", limit=limit)
    for name in ("perdure --help", "perdure status"):
        outcome.found(f"`{name}` against `{_FLOOR}`", contest.ratio(name, _FLOOR, "seconds"))
    return outcome


async def _run(*command: str) -> dict[str, float]:
    """Seconds of a command from its start to its end. Raises SubjectFailed where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PERDURE_", "TEMPORAL_"))}
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(*command, stdout=DEVNULL, stderr=PIPE, env=environment)
    _, said = await process.communicate()
    seconds = time.perf_counter() - begun
    if process.returncode:
        raise SubjectFailed(f"{' '.join(command[1:3])} ended with {process.returncode}: {said.decode()[-300:].strip()}")
    return {"seconds": seconds}


EXPERIMENTS = (
    Experiment(
        name="cli", title="The command line", run=run_commands,
        about="Wall time of a whole process, from its start to its end, on a warm server with a worker. These targets "
        "are absolute; the ratio to Python importing Temporal's client says how much of it is Perdure's own.",
    ),
)  # fmt: skip
