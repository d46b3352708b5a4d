"""What surrounds every activity: its task made whole, signs of life, log context, and our errors as Temporal carries
them."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from perdure.contracts import (
    NODE_PREFIX,
    RECONCILE_PREFIX,
    TOOL_PREFIX,
    UNDO_PREFIX,
    CallTool,
    Commit,
    Reconcile,
    RunNode,
    Undo,
    Wire,
    lean,
)
from perdure.errors import PerdureError, ToolGone
from perdure.failures import to_failure

log = structlog.get_logger("perdure.activity")

_NAMED: dict[str, type[Wire]] = {
    TOOL_PREFIX: CallTool,
    UNDO_PREFIX: Undo,
    RECONCILE_PREFIX: Reconcile,
    NODE_PREFIX: RunNode,
}


class ActivityGuard(Interceptor):
    """Installs the guard in a worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Guard(next)


class _Guard(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        # For good: an activity is a task of its own, and so has a context of its own.
        structlog.contextvars.bind_contextvars(activity=info.activity_type, attempt=info.attempt)
        try:
            task = whole_task(input.args[0], info)
        except PerdureError as error:
            raise _refused(error) from error
        input.args = [task]
        structlog.contextvars.bind_contextvars(**_where(task, info))
        with _signs_of_life(info):
            return await self._run(input)

    async def _run(self, input: ExecuteActivityInput) -> Any:
        try:
            result = await super().execute_activity(input)
            return lean(result) if isinstance(result, BaseModel) else result
        except PerdureError as error:
            raise _refused(error) from error
        except asyncio.CancelledError:
            log.info("activity cancelled")
            raise
        except Exception as error:
            log.warning("activity failed", error=str(error), kind=type(error).__name__)
            raise


def _refused(error: PerdureError) -> ApplicationError:
    log.info("activity refused", error=str(error), kind=type(error).__name__)
    return to_failure(error)


def whole_task(given: Any, info: activity.Info) -> Any:
    """The task with what its history leaves out: the thread is that of the workflow. One that is named for people's
    code is decoded first. Raises ToolGone for an activity that isn't ours."""
    task = _decoded(given, info.activity_type) if isinstance(given, list) else given
    commit = getattr(task, "commit", None)
    if isinstance(commit, Commit) and not commit.thread_id:
        return task.model_copy(update={"commit": commit.model_copy(update={"thread_id": info.workflow_id})})
    return task


def _decoded(raw: Sequence[RawValue], name: str) -> Wire:
    prefix = f"{name.partition(':')[0]}:"
    if prefix not in _NAMED:
        raise ToolGone(f"No activity is named {name!r} here.", hint="Is another program using this task queue?")
    task: Wire = activity.payload_converter().from_payload(raw[0].payload, _NAMED[prefix])
    return task.model_copy(update={"tool": name.removeprefix(prefix)}) if isinstance(task, CallTool) else task


@contextmanager
def _signs_of_life(info: activity.Info) -> Iterator[None]:
    """Tell Temporal that the attempt is alive: a killed worker is then noticed in seconds, not at the time-out.

    Cancellation reaches the activity the same way.
    """
    if info.is_local or not info.heartbeat_timeout:
        yield
        return
    every, loop = info.heartbeat_timeout.total_seconds() / 4, asyncio.get_running_loop()
    waiting: list[asyncio.TimerHandle] = []

    def beat() -> None:
        activity.heartbeat()
        waiting[:] = [loop.call_later(every, beat)]

    waiting.append(loop.call_later(every, beat))  # not a task of its own: most activities end before the first
    try:
        yield
    finally:
        waiting[0].cancel()


def _where(task: Any, info: activity.Info) -> dict[str, Any]:
    """Thread, turn, step and checkpoint of the task, for the log."""
    commit = getattr(task, "commit", None)
    if not isinstance(commit, Commit):
        return {"thread": getattr(task, "thread_id", "") or info.workflow_id}
    step = commit.head.step + 1 if commit.head else 0
    return {"thread": commit.thread_id, "turn": commit.turn, "step": step, "checkpoint": commit.id}
