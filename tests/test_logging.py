"""Logs: one form for everybody who writes, lines that say what they are about, and nothing said twice."""

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from perdure import Agent, App, ToolContext, tool
from perdure.errors import InvalidInput
from perdure.logging import configure_logging
from perdure.settings import Settings
from perdure.testing import ModelFault, Rule, Script, call, say
from tests.conftest import MakeWorld

secret = "sk-do-not-print"
flaws: list[Exception] = []


@tool(effect="idempotent")
async def look(ctx: ToolContext, at: str) -> str:
    """Look at something; the first time it may go wrong."""
    password = secret
    structlog.get_logger("people").info("looking", at=at)
    logging.getLogger("library").warning("looked at %s", at)
    if flaws:
        raise flaws.pop()
    return at + password[:0]


app = App(agents=[Agent(name="desk", model="m", tools=[look])])
script = Script(rules=[Rule(when="look", replies=[call("look", at="the sea"), say("Seen.")])], fallback=say("Hi."))


@pytest.fixture
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """The logs of this process, in the form that the test asks for (JSON); as they were, afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = list(root.handlers), root.level
    configure_logging(Settings(log=getattr(request, "param", "json")), stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def run_turn(make_world: MakeWorld, script: Script, message: str) -> str:
    async with make_world(app, script) as world:
        thread, accepted = await world.client.start("desk", message, thread=world.thread())
        await world.client.wait(thread, accepted.message_id)
    return thread


async def test_lines_of_an_activity_say_thread_turn_step_and_checkpoint(
    make_world: MakeWorld, log: io.StringIO
) -> None:
    """Ours and any library's alike, so that one search finds everything about a thread."""
    thread = await run_turn(make_world, script, "look")
    said = {line["logger"]: line for line in lines(log) if line["logger"] in ("people", "library")}
    assert {name: line["event"] for name, line in said.items()} == {"people": "looking", "library": "looked at the sea"}
    for line in said.values():
        assert (line["thread"], line["turn"], line["step"], line["attempt"]) == (thread, 1, 2, 1)
        assert line["activity"] == "tool:look"
        assert re.fullmatch(r"[0-9a-f-]{36}", line["checkpoint"])
        assert line["timestamp"].endswith("Z")


async def test_a_failure_on_purpose_is_one_line(make_world: MakeWorld, log: io.StringIO) -> None:
    """The model's refusal: said once, with its reason and where, and without the SDK's pages of traceback."""
    refusing = script.model_copy(update={"faults": [ModelFault(mode="status", status=401)]})
    thread = await run_turn(make_world, refusing, "look")
    failed = [line for line in lines(log) if "fail" in line["event"].lower() or "exception" in line]
    assert len(failed) == 1
    assert "401" in failed[0]["error"]
    assert (failed[0]["thread"], failed[0]["activity"]) == (thread, "call_model")
    assert "Traceback" not in log.getvalue()


async def test_a_failure_by_accident_keeps_its_traceback_but_no_values(make_world: MakeWorld, log: io.StringIO) -> None:
    """A bug in a tool has to be found; what its variables held is nobody's business."""
    flaws.append(ZeroDivisionError("oh"))
    thread = await run_turn(make_world, script, "look")
    (told,) = [line for line in lines(log) if "exception" in line]
    assert "ZeroDivisionError: oh" in told["exception"]
    assert "in look" in told["exception"]
    assert (told["thread"], told["activity"]) == (thread, "tool:look")
    assert secret not in log.getvalue()


@workflow.defn
class Talker:
    """Says something, waits, and says something: on a worker that keeps nothing, each wait is a replay."""

    @workflow.run
    async def run(self) -> None:
        for number in range(3):
            workflow.logger.info("number %d", number)
            await workflow.execute_activity(fail_on_purpose, number, start_to_close_timeout=timedelta(seconds=10))


@activity.defn
async def fail_on_purpose(number: int) -> None:
    if activity.info().attempt == 1 and number == 1:
        raise ApplicationError("not yet")
    activity.logger.info("done")


async def test_a_workflow_says_it_once_however_often_it_is_replayed(
    environment: WorkflowEnvironment, log: io.StringIO, tmp_path: Path
) -> None:
    """And its lines name the thread, which is the workflow id; nothing of Temporal's own is mixed into the words."""
    client: Client = environment.client
    queue = tmp_path.name
    async with Worker(
        client, task_queue=queue, workflows=[Talker], activities=[fail_on_purpose], max_cached_workflows=0,
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):  # fmt: skip
        await client.execute_workflow(Talker.run, id=queue, task_queue=queue)
    spoken = [line for line in lines(log) if line["logger"].startswith("temporalio.workflow")]
    assert [line["event"] for line in spoken] == ["number 0", "number 1", "number 2"]
    done = [line for line in lines(log) if line["logger"] == "temporalio.activity"]
    assert [(line["event"], line["attempt"]) for line in done] == [("done", 1), ("done", 2), ("done", 1)]
    assert {line["thread"] for line in [*spoken, *done]} == {queue}


@pytest.mark.parametrize("log", ["text"], indirect=True)
def test_text_is_for_people(log: io.StringIO) -> None:
    """A line with its time, level, words and fields; no colours where there is no terminal; libraries keep quiet."""
    structlog.get_logger("perdure.test").info("hello", thread="t1")
    logging.getLogger("httpx2").info("HTTP Request: POST")
    logging.getLogger("perdure.test").debug("too much")
    (line,) = log.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[info     \] hello +\[perdure.test\] thread=t1", line)


def test_the_core_repeats_itself_in_vain(log: io.StringIO) -> None:
    """Ten pollers that lost their server are one line; another message, or anybody else's, still gets through."""
    core = logging.getLogger("temporalio.core")
    for words in ("lost", "lost", "found", "lost"):
        core.warning(words)
    for _ in range(2):
        logging.getLogger("library").warning("lost")
    assert [line["event"] for line in lines(log)] == ["lost", "found", "lost", "lost"]


@pytest.mark.parametrize("settings", [{"log": "xml"}, {"log_level": "loud"}])
def test_an_unknown_form_or_level_is_refused(settings: dict[str, str]) -> None:
    """With the name of the variable, and before anything is changed."""
    before = list(logging.getLogger().handlers)
    with pytest.raises(InvalidInput, match="PERDURE_LOG"):
        configure_logging(Settings().model_copy(update=settings))
    assert logging.getLogger().handlers == before
