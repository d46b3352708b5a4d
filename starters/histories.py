"""Reading what Temporal still has of a thread: the activities of all runs of its workflow, for `perdure db repair`."""

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from perdure.approvals import stamp
from perdure.canonical import Json
from perdure.care.chronicle import Call, Run
from perdure.contracts import WORKFLOW, ThreadInput
from perdure.errors import Failed
from perdure.failures import describe, root
from perdure.starters.connect import rpc_error
from perdure.starters.ids import checked_id

_LOCAL_ACTIVITY = "core_local_activity"  # the marker in which the SDK keeps the result of a local activity


async def read_runs(temporal: Client, thread_id: str) -> list[Run]:
    """The runs of a thread's workflow whose histories Temporal still has, oldest first.

    Raises TemporalUnreachable, or Failed where a payload can't be decoded.
    """
    checked_id(thread_id)
    try:
        wanted = await _known(temporal, thread_id)
        found: dict[str, tuple[int, Run, str]] = {}
        while wanted:
            if (run_id := wanted.pop()) in found:
                continue
            reader = HistoryReader(temporal.data_converter)
            if not await _read(temporal, thread_id, run_id, reader):
                continue
            found[run_id] = (reader.started, reader.run(), run_id)
            wanted += [reader.continued] if reader.continued else []
    except RPCError as error:
        raise rpc_error(thread_id, error) from error
    return [run for _, run, _ in sorted(found.values(), key=lambda known: (known[0], known[2]))]


async def _known(temporal: Client, thread_id: str) -> list[str]:
    """The ids of the runs: those listed, and the latest, which may not be listed yet."""
    known = [run.run_id async for run in temporal.list_workflows(f"WorkflowId = '{thread_id}'")]
    try:
        known.append((await temporal.get_workflow_handle(thread_id).describe()).run_id)
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
    return known


async def _read(temporal: Client, thread_id: str, run_id: str, reader: "HistoryReader") -> bool:
    """Whether there is a history, and it is that of a thread."""
    handle = temporal.get_workflow_handle(thread_id, run_id=run_id)
    try:
        async for event in handle.fetch_history_events():
            await reader.read(event)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:  # it is listed for a while after its history is gone
            return False
        raise
    return reader.given is not None


class HistoryReader:
    """Reads the events of one run."""

    def __init__(self, converter: DataConverter) -> None:
        self.given: ThreadInput | None = None
        self.started = 0  # nanoseconds
        self.continued = ""  # the run before this one
        self._converter = converter
        self._scheduled: dict[int, tuple[str, Sequence[Payload]]] = {}
        self._calls: list[Call] = []

    def run(self) -> Run:
        """What was read."""
        assert self.given is not None, "only a run that began is asked for"
        return Run(given=self.given, calls=tuple(self._calls))

    async def read(self, event: HistoryEvent) -> None:
        """One event. Raises Failed where it can't be decoded."""
        match event.event_type:
            case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                began = event.workflow_execution_started_event_attributes
                if began.workflow_type.name == WORKFLOW:
                    self.given = ThreadInput.model_validate(await self._plain(began.input.payloads))
                self.started = event.event_time.ToNanoseconds()
                self.continued = began.continued_execution_run_id
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                task = event.activity_task_scheduled_event_attributes
                self._scheduled[event.event_id] = (task.activity_type.name, task.input.payloads)
            case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                done = event.activity_task_completed_event_attributes
                await self._ended(event, done.scheduled_event_id, result=await self._plain(done.result.payloads))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                await self._ended(event, failed.scheduled_event_id, **await self._error(failed.failure))
            case EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                late = event.activity_task_timed_out_event_attributes
                await self._ended(event, late.scheduled_event_id, **await self._error(late.failure))
            case EventType.EVENT_TYPE_MARKER_RECORDED:
                await self._marked(event)

    async def _ended(self, event: HistoryEvent, scheduled: int, **outcome: Any) -> None:
        name, payloads = self._scheduled.pop(scheduled)
        task = await self._plain(payloads)
        self._calls.append(Call(activity=name, at=_time(event), task=task, **outcome))

    async def _marked(self, event: HistoryEvent) -> None:
        """A local activity: the marker tells its name and its result, not what it was given."""
        marker = event.marker_recorded_event_attributes
        if marker.marker_name != _LOCAL_ACTIVITY or not marker.details["result"].payloads:
            return
        name = json.loads(marker.details["data"].payloads[0].data)["activity_type"]
        result = await self._plain(marker.details["result"].payloads)
        self._calls.append(Call(activity=name, at=_time(event), result=result))

    async def _plain(self, payloads: Sequence[Payload]) -> Json:
        """The one value, as plain data; None where there is none."""
        if not payloads:
            return None
        value = (await self._converter.decode(payloads))[0]
        if isinstance(value, RawValue):
            raise Failed("A payload of the history can't be read.", hint="Is the codec that wrote it configured?")
        return value

    async def _error(self, failure: Failure) -> dict[str, str]:
        """The error as the workflow saw it."""
        cause = root(await self._converter.decode_failure(failure))
        kind = cause.type if isinstance(cause, ApplicationError) else ""
        return {"error": describe(cause), "error_type": kind or ""}


def _time(event: HistoryEvent) -> str:
    return stamp(event.event_time.ToDatetime(tzinfo=UTC))
