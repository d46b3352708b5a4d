"""What a command costs before it does anything: the modules it imports, and what it asks the server."""

import inspect
import json
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer.main

from perdure.starters.cli import app as cli
from perdure.starters.cli.index import LISTED
from tests.clerk import app, script
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.programs import plain_environment

ROOT = Path(__file__).resolve().parent.parent
# Runs a command; on standard error, at the end, what it has imported.
MODULES = """
import json, sys
from perdure.starters.cli import run
code = run(sys.argv[1:])
sys.stderr.write(json.dumps(sorted(sys.modules)))
sys.exit(code)
"""
# Runs a command; on standard error, at the end, how often it has called which service of Temporal.
CALLS = """
import json, sys
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig
calls = MetricBuffer(10_000)
Runtime.set_default(Runtime(telemetry=TelemetryConfig(metrics=calls)))
from perdure.starters.cli import run
code = run(sys.argv[1:])
sys.stderr.write(json.dumps([
    made.attributes["operation"] for made in calls.retrieve_updates() if made.metric.name == "temporal_request"
]))
sys.exit(code)
"""
DOOR = {
    "perdure", "perdure.errors", "perdure.starters", "perdure.starters.cli", "perdure.starters.cli.index",
    "perdure.starters.cli.output", "perdure.workers", "perdure.workers.tuning",
}  # fmt: skip
# What belongs to the store, to a worker, or to writing agents.
ELSEWHERE = {
    "cryptography", "docstring_parser", "httpx2", "jsonpatch", "langchain_core", "openai",
    "perdure.activities", "perdure.app", "perdure.checkpointer", "perdure.examples", "perdure.graph",
    "perdure.starters.archive", "perdure.starters.client", "perdure.starters.travel", "perdure.stores",
    "perdure.testing", "perdure.tool", "perdure.workers.worker", "perdure.workflows", "psycopg",
    "redis", "sqlite3", "starlette", "structlog", "temporalio.testing", "temporalio.worker", "uvicorn",
}  # fmt: skip
DRAWS_HELP = {"rich.markdown", "rich.traceback", "typer.rich_utils"}


async def told(program: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """Run a command inside a program, in a process of its own; what the program tells about it."""
    process = await create_subprocess_exec(
        sys.executable, "-c", program, *arguments, stdout=PIPE, stderr=PIPE, cwd=ROOT,
        env=environment or plain_environment(),
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return json.loads(err)


async def test_help_imports_nothing_that_it_lists() -> None:
    """`perdure --help` imports of ours only what lists the commands, and no library but the one that draws help."""
    modules = set(await told(MODULES, "--help"))
    assert {name for name in modules if name.partition(".")[0] == "perdure"} == DOOR
    assert {"asyncio", "google", "pydantic", "pydantic_core", "temporalio", "tenacity", *ELSEWHERE} & modules == set()


@pytest.mark.parametrize(("form", "spared"), [("text", DRAWS_HELP), ("json", {"rich"})])
async def test_status_imports_what_it_uses(make_world: MakeWorld, form: str, spared: set[str]) -> None:
    """`perdure status` imports neither a store nor what runs agents, and where a program reads, nothing that draws."""
    async with make_world(app, script) as world:
        thread, _ = await world.begin("clerk", "hello")
        modules = await told(MODULES, "status", thread, "-o", form, environment=Cli(world).environment)
    assert (ELSEWHERE | spared) & set(modules) == set()
    assert "temporalio.client" in modules


async def test_status_asks_the_server_once(make_world: MakeWorld) -> None:
    """`perdure status` connects, asks its one question, and nothing else."""
    async with make_world(app, script) as world:
        thread, _ = await world.begin("clerk", "hello")
        calls = await told(CALLS, "status", thread, environment=Cli(world).environment)
    assert Counter(calls) == {"GetSystemInfo": 1, "QueryWorkflow": 1}


@pytest.mark.parametrize("name", LISTED)
def test_a_command_is_listed_as_it_describes_itself(name: str) -> None:
    """What `perdure --help` says of a command is the first paragraph of its own help."""
    text = inspect.cleandoc(typer.main.get_group(cli).commands[name].help or "")
    assert LISTED[name].help == " ".join(text.partition("\n\n")[0].split())
