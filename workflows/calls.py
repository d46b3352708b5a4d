"""How the workflow calls activities: through the stubs of the contracts, with the retries each kind deserves."""

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.workflow import ActivityHandle

from perdure.contracts import Limits, NodeSpec, Stub, ToolSpec, Wire, lean
from perdure.failures import root

In = TypeVar("In", bound=Wire)
Out = TypeVar("Out")

_STORE_ATTEMPT = timedelta(seconds=30)  # one short transaction; longer means that the worker is gone
_STORE_DEADLINE = timedelta(hours=24)  # a store that is down for a day is an outage for people
_SURROUND = 30.0  # seconds for loading the state and committing, around a model's or a tool's own time-out
_PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=60))


def start(
    stub: Stub[In, Out], arg: In, *, summary: str, limits: Limits, attempt: float, deadline: float, attempts: int = 0,
    backoff: float = 1.0,
) -> ActivityHandle[Out]:  # fmt: skip
    """Start an activity. Times in seconds; ``attempts`` 0 means as many as fit in the deadline."""
    return workflow.start_activity(
        stub.name,
        lean(arg),
        result_type=stub.gives,
        start_to_close_timeout=timedelta(seconds=attempt + _SURROUND),
        schedule_to_close_timeout=timedelta(seconds=deadline + _SURROUND),
        heartbeat_timeout=timedelta(seconds=limits.heartbeat),
        retry_policy=RetryPolicy(
            initial_interval=timedelta(seconds=backoff), maximum_interval=timedelta(seconds=max(60, backoff)),
            maximum_attempts=attempts,
        ),
        summary=summary,
    )  # fmt: skip


def start_node(stub: Stub[In, Out], arg: In, spec: NodeSpec, *, summary: str, limits: Limits) -> ActivityHandle[Out]:
    """Run a node as its own specification says: ask its model, call its function."""
    return start(
        stub, arg, summary=summary, limits=limits, attempt=spec.timeout, deadline=spec.deadline,
        attempts=spec.attempts, backoff=spec.backoff,
    )  # fmt: skip


def start_tool(stub: Stub[In, Out], arg: In, spec: ToolSpec, *, summary: str, limits: Limits) -> ActivityHandle[Out]:
    """Run a tool, a compensation or a hook, as its own specification says; an irreversible one has one attempt."""
    if spec.beside:
        return workflow.start_local_activity(
            stub.name, lean(arg), result_type=stub.gives, summary=summary,
            start_to_close_timeout=timedelta(seconds=spec.timeout + _SURROUND),
            schedule_to_close_timeout=timedelta(seconds=spec.deadline + _SURROUND),
            retry_policy=RetryPolicy(maximum_attempts=spec.attempts),
        )  # fmt: skip
    return start(
        stub, arg, summary=summary, limits=limits, attempt=spec.timeout, deadline=spec.deadline,
        attempts=spec.attempts,
    )  # fmt: skip


async def side_by_side(work: Sequence[Coroutine[Any, Any, Out]]) -> list[Out]:
    """Run all to their end; one alone needs no task of its own, and mostly there is one."""
    if len(work) == 1:
        return [await work[0]]
    return list(await asyncio.gather(*work))


def give_up(handle: ActivityHandle[Out]) -> None:
    """Cancel an activity whose outcome nobody waits for any more."""
    handle.cancel()
    # Looked at once: else its failure is reported as an error that nobody dealt with, whenever memory is tidied up.
    handle.add_done_callback(lambda done: done.cancelled() or done.exception())


async def store_call(stub: Stub[In, Out], arg: In, *, summary: str, limits: Limits) -> Out:
    """An activity that only talks to the store."""
    result: Out = await workflow.execute_activity(
        stub.name, lean(arg), result_type=stub.gives, start_to_close_timeout=_STORE_ATTEMPT,
        schedule_to_close_timeout=_STORE_DEADLINE, retry_policy=_PATIENT, summary=summary,
        heartbeat_timeout=timedelta(seconds=limits.heartbeat),
    )  # fmt: skip
    return result


async def local_call(stub: Stub[In, Out], arg: In, *, summary: str) -> Out:
    """The same beside the workflow, without a round trip through the server."""
    result: Out = await workflow.execute_local_activity(
        stub.name, lean(arg), result_type=stub.gives, start_to_close_timeout=_STORE_ATTEMPT,
        schedule_to_close_timeout=_STORE_DEADLINE, retry_policy=_PATIENT, summary=summary,
    )  # fmt: skip
    return result


def error_type(error: FailureError) -> str:
    """The type of the error that ended an activity; empty where it isn't an application's (a time-out, say)."""
    cause = root(error)
    return (cause.type or "") if isinstance(cause, ApplicationError) else ""
