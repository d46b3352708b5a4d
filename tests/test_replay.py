"""Recorded threads replay: what the workflow does follows from its history alone, today and after every change."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions, _runner
from temporalio.worker.workflow_sandbox._importer import Importer
from temporalio.worker.workflow_sandbox._restrictions import RestrictionContext
from temporalio.workflow import NondeterminismError

from perdure.approvals import ApprovalRequest
from perdure.contracts import ToolPlan
from perdure.errors import PerdureError
from perdure.wire import data_converter
from perdure.workflows.batch import Batch
from perdure.workflows.display import Display
from perdure.workflows.gate import Gate, Passed
from perdure.workflows.journal import Journal
from perdure.workflows.record import Record, Turn
from perdure.workflows.step import Step
from perdure.workflows.thread import AgentThread
from perdure.workflows.travel import Travels
from perdure.workflows.turn import TurnRunner
from tests.impure import Impure
from tests.record_histories import FOLDER, RUNS, unpack

HISTORIES = {path.name.removesuffix(".json.gz"): path for path in sorted(FOLDER.glob("*.json.gz"))}

# Passed through is what the SDK passes through anyway: the standard library (whose clocks, dice and files the sandbox
# watches all the same), temporalio, and pydantic with its compiled core, which can't be loaded twice. The libraries
# below only look at types and docstrings. Of perdure nothing is: its modules are loaded inside.
SANDBOX = SandboxRestrictions.default.with_passthrough_modules("docstring_parser", "typing_inspection")


def replayer(runner: WorkflowRunner, thread: type = AgentThread) -> Replayer:
    """Set up as the worker is."""
    return Replayer(
        workflows=[thread],
        workflow_runner=runner,
        data_converter=data_converter,
        workflow_failure_exception_types=[ValidationError, PerdureError],
    )


@pytest.fixture(scope="module")
def sandbox() -> Iterator[WorkflowRunner]:
    """One sandbox for all histories: the SDK would load perdure twice for each of them, which takes seconds."""
    loaded = Importer(SANDBOX, RestrictionContext())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_runner, "Importer", lambda *_, **__: loaded)
        yield SandboxedWorkflowRunner(restrictions=SANDBOX)


async def replay(name: str, runner: WorkflowRunner, thread: type = AgentThread) -> None:
    """Replay one history. Raises what went wrong."""
    await replayer(runner, thread).replay_workflow(unpack(HISTORIES[name]))


def types(history: WorkflowHistory) -> list[int]:
    """What happened, in order."""
    return [event.event_type for event in history.events]


# ── what is recorded ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_behaviour_is_recorded() -> None:
    """One history for each run of each scene, and none of a scene that is no more."""
    assert {name.rpartition("-")[0] or name for name in HISTORIES} == set(RUNS)
    for scene, count in RUNS.items():
        assert len([name for name in HISTORIES if name.startswith(scene)]) >= count, scene


def test_the_recordings_are_what_they_are_called() -> None:
    """Those that depend on time, on a second run, or on the order of parallel calls hold what makes them so."""
    found = {name: types(unpack(path)) for name, path in HISTORIES.items()}
    assert found["continued-1"][-1] == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW
    started = unpack(HISTORIES["continued-2"]).events[0].workflow_execution_started_event_attributes
    assert b'"running"' in started.input.payloads[0].data, "in the middle of a turn"
    assert found["resumed-1"][-1] == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
    assert found["closed"][-1] == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
    assert EventType.EVENT_TYPE_TIMER_FIRED in found["expired"]
    assert EventType.EVENT_TYPE_MARKER_RECORDED in found["parallel"], "a local activity merges its results"
    assert found["beside"].count(EventType.EVENT_TYPE_MARKER_RECORDED) == 4, "a call, two at once, and their merge"
    assert EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED in found["in_doubt"]
    for name, happened in found.items():
        assert EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT not in happened, name


@pytest.mark.parametrize("name", HISTORIES)
def test_a_recording_tells_nothing_of_the_machine(name: str) -> None:
    """No stack trace, no host, no path: whoever records them anew leaves nothing of theirs behind."""
    written = unpack(HISTORIES[name]).to_json()
    for word in ("stackTrace", "identity", "workerVersion", str(Path(__file__).parent.parent)):
        assert word not in written


# ── that they replay ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_history_replays(name: str) -> None:
    """As the worker runs it: outside the sandbox."""
    await replay(name, UnsandboxedWorkflowRunner())


@pytest.mark.parametrize("name", HISTORIES)
async def test_a_history_replays_in_the_sandbox(name: str, sandbox: WorkflowRunner) -> None:
    """With all of perdure loaded inside: it asks no clock, no dice and no file."""
    assert not [module for module in SANDBOX.passthrough_modules if module.partition(".")[0] == "perdure"]
    await replay(name, sandbox)


# ── that a replay can fail ───────────────────────────────────────────────────────────────────────────────────────────


async def test_the_sandbox_notices_who_looks_at_the_clock(sandbox: WorkflowRunner) -> None:
    """The same commands in the same order: outside the sandbox nobody would see it."""
    await replay("answered", UnsandboxedWorkflowRunner(), Impure)
    with pytest.raises(Exception, match=r"Cannot access time\.time"):
        await replay("answered", sandbox, Impure)


async def _no_gate(gate: Gate, plan: ToolPlan) -> Passed:
    return Passed(plan)


async def _not_written(journal: Journal) -> None:
    pass


def _no_further_level(request: ApprovalRequest, after: datetime) -> datetime:
    return request.expires_at + timedelta(days=1)


async def _slow_room(runner: TurnRunner) -> None:
    await workflow.sleep(1)


class _Backwards(Batch):
    def __init__(self, *place: Any, alone: bool) -> None:
        *before, plans = place
        super().__init__(*before, plans[::-1], alone=alone)  # type: ignore[misc]


class _BackwardsStep(Step):
    def __init__(self, record: Record, turn: Turn, display: Display) -> None:
        record.next = record.next[::-1]
        super().__init__(record, turn, display)


async def _no_look_at_the_plan(self: Travels, *_: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "place", "change"),
    [
        ("approved", "perdure.workflows.gate.Gate.passed", _no_gate),
        ("rejected", "perdure.workflows.journal.Journal.written", _not_written),
        ("escalated", "perdure.workflows.gate._due", _no_further_level),
        ("answered", "perdure.workflows.turn.TurnRunner._room", _slow_room),
        ("parallel", "perdure.workflows.step.Batch", _Backwards),
        ("graph", "perdure.workflows.turn.Step", _BackwardsStep),
        ("rewound", "perdure.workflows.travel.Travels._undo", _no_look_at_the_plan),
    ],
)
async def test_a_change_of_commands_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, place: str, change: Any
) -> None:
    """A call without its gate, or before it is written why; a timer more, or a later one; parallel calls in another
    order: the history doesn't fit any longer."""
    monkeypatch.setattr(place, change)
    with pytest.raises(NondeterminismError):
        await replay(name, UnsandboxedWorkflowRunner())
