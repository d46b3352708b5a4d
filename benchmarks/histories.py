"""Exact figures from a workflow's history in Temporal: its bytes, its events, and the server's own time stamps."""

import asyncio
from collections.abc import Iterator
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

_SCHEDULED = EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
_DONE = EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED
_TASK_DONE = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
_POLL = 0.02  # seconds


async def fetch_chain(client: Client, workflow_id: str) -> list[HistoryEvent]:
    """All events of a workflow, of all its runs from the first to the latest, in order.

    Follows the links from run to run, so it doesn't depend on what visibility knows already.
    """
    runs: list[list[HistoryEvent]] = []
    run_id: str | None = None
    while True:
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        runs.append(list(history.events))
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
        if not run_id:
            return [event for run in reversed(runs) for event in run]


async def figures(client: Client, workflow_id: str, steps: int, model: str) -> dict[str, Any]:
    """What a loop of so many steps has left; ``model`` is the activity type of its model calls.

    - ``history_bytes``, ``history_events``: of the whole chain of runs.
    - ``loop_bytes``, ``loop_events``: of the steps alone, from the first model call up to the last one.
    - ``step_seconds``: from the first model call being scheduled to the end of the workflow task that took the last
      answer, divided by steps; by the server's clock.
    """
    events, asked, answered = await _looped(client, workflow_id, model)
    loop = events[asked[0] : asked[-1]]
    seconds = _seconds(events[answered]) - _seconds(events[asked[0]])
    return {
        "history_bytes": sum(event.ByteSize() for event in events), "history_events": len(events),
        "loop_bytes": sum(event.ByteSize() for event in loop), "loop_events": len(loop),
        "step_seconds": seconds / steps,
    }  # fmt: skip


async def span(client: Client, workflow_ids: list[str], model: str) -> float:
    """Seconds from the first model call of any of these workflows to the last answer taken by one, by the server's
    clock."""
    begun, ended = [], []
    for workflow_id in workflow_ids:
        events, asked, answered = await _looped(client, workflow_id, model)
        begun.append(_seconds(events[asked[0]]))
        ended.append(_seconds(events[answered]))
    return max(ended) - min(begun)


async def _looped(client: Client, workflow_id: str, model: str) -> tuple[list[HistoryEvent], list[int], int]:
    """All events; where model calls were scheduled; and where the workflow task ends that took the last answer.

    Whoever queries a workflow may see that answer before this task is recorded: then its record is waited for.
    """
    while True:
        events = await fetch_chain(client, workflow_id)
        asked = [place for place, event in enumerate(events) if _type(event) == model]
        done = next(_places(events, asked[-1], _DONE), len(events))
        if (answered := next(_places(events, done, _TASK_DONE), None)) is not None:
            return events, asked, answered
        await asyncio.sleep(_POLL)


def _places(events: list[HistoryEvent], after: int, kind: "EventType.ValueType") -> Iterator[int]:
    return (place for place in range(after, len(events)) if events[place].event_type == kind)


def _type(event: HistoryEvent) -> str:
    """The type of the activity that the event schedules; empty for any other event."""
    if event.event_type != _SCHEDULED:
        return ""
    return event.activity_task_scheduled_event_attributes.activity_type.name


def _seconds(event: HistoryEvent) -> float:
    return event.event_time.seconds + event.event_time.nanos / 1e9
