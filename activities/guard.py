"""What surrounds every activity: signs of life, log context, and our errors as Temporal carries them."""

import asyncio
from contextlib import suppress
from typing import Any

import structlog
from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RawValue
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from perdure.contracts import lean
from perdure.errors import PerdureError
from perdure.failures import to_failure

log = structlog.get_logger("perdure.activity")


class ActivityGuard(Interceptor):
    """Installs the guard in a worker."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Guard(next)


class _Guard(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        beating = asyncio.create_task(_beat(info))
        with structlog.contextvars.bound_contextvars(
            activity=info.activity_type, attempt=info.attempt, **_where(input)
        ):
            try:
                result = await super().execute_activity(input)
                return lean(result) if isinstance(result, BaseModel) else result
            except PerdureError as error:
                log.info("activity refused", error=str(error), kind=type(error).__name__)
                raise to_failure(error) from error
            except asyncio.CancelledError:
                log.info("activity cancelled")
                raise
            except Exception as error:
                log.warning("activity failed", error=str(error), kind=type(error).__name__)
                raise
            finally:
                beating.cancel()
                with suppress(asyncio.CancelledError):
                    await beating


async def _beat(info: activity.Info) -> None:
    """Tell Temporal that the attempt is alive: a killed worker is then noticed in seconds, not at the time-out.

    Cancellation reaches the activity the same way.
    """
    if info.is_local or not info.heartbeat_timeout:
        return
    every = info.heartbeat_timeout.total_seconds() / 4
    while True:
        await asyncio.sleep(every)
        activity.heartbeat()


def _where(input: ExecuteActivityInput) -> dict[str, Any]:
    """Thread, turn, step and checkpoint of the task, for the log."""
    task = _task(input)
    commit = task.get("commit")
    if commit is None:
        return {"thread": task.get("thread_id") or activity.info().workflow_id}
    step = commit["head"]["step"] + 1 if commit.get("head") else 0
    return {"thread": commit["thread_id"], "turn": commit["turn"], "step": step, "checkpoint": commit["checkpoint_id"]}


def _task(input: ExecuteActivityInput) -> dict[str, Any]:
    """The activity's input as plain data; the dynamic one's isn't decoded yet."""
    argument = input.args[0] if input.args else None
    if isinstance(argument, BaseModel):
        return argument.model_dump()
    raw = argument[0] if isinstance(argument, list) and argument else None
    said = activity.payload_converter().from_payload(raw.payload) if isinstance(raw, RawValue) else None
    return said if isinstance(said, dict) else {}
