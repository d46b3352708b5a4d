"""Connecting to Temporal: Temporal's own settings, our data converter, patience, and errors that say what to do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import temporalio.client
from temporalio.client import (
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from perdure.errors import Conflict, InvalidInput, PerdureError, TemporalUnreachable, ThreadNotFound
from perdure.failures import from_failure
from perdure.wire import data_converter

T = TypeVar("T")

_NOBODY = "Is a worker running? `perdure worker` starts one, `perdure doctor` checks."
_TIMED_OUT = frozenset({RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED})


async def connect(
    *, address: str = "", namespace: str = "", profile: str = "", attempts: int = 3
) -> temporalio.client.Client:
    """A Temporal client from the arguments, else ``TEMPORAL_*`` and Temporal's profile file.

    Raises TemporalUnreachable after ``attempts`` tries, with growing pauses.
    """
    config = ClientConfig.load_client_connect_config(profile=profile or None)
    options: dict[str, Any] = dict(config)
    options.update({name: value for name, value in (("target_host", address), ("namespace", namespace)) if value})
    options.setdefault("target_host", "localhost:7233")
    retrying = AsyncRetrying(
        retry=retry_if_exception_type((RuntimeError, RPCError)),
        stop=stop_after_attempt(attempts), wait=wait_exponential_jitter(initial=0.2, max=2.0), reraise=True,
    )  # fmt: skip
    try:
        return await retrying(temporalio.client.Client.connect, data_converter=data_converter, **options)
    except (RuntimeError, RPCError) as error:
        raise TemporalUnreachable(
            f"No Temporal server answers at {options['target_host']}.",
            hint="Start one with `perdure dev`, or name yours with --address or TEMPORAL_ADDRESS.",
        ) from error


async def ask(thread_id: str, call: Callable[[], Awaitable[T]], *, patience: float = 30.0) -> T:
    """Run one call to a thread, for at most ``patience`` seconds; every way it can fail as one of our errors."""
    try:
        async with asyncio.timeout(patience):
            return await call()
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise TemporalUnreachable(f"Thread {thread_id} doesn't answer.", hint=_NOBODY) from error
    except WorkflowUpdateFailedError as error:
        raise _refusal(error.cause) from error
    except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise TemporalUnreachable(f"Thread {thread_id} can't be asked: {error}.", hint=_NOBODY) from error
    except RPCError as error:
        raise rpc_error(thread_id, error) from error


def rpc_error(thread_id: str, error: RPCError) -> PerdureError:
    """What Temporal's refusal of a call means for a thread."""
    if error.status == RPCStatusCode.NOT_FOUND:
        return ThreadNotFound(f"There is no thread {thread_id}.", hint="`perdure list` shows what there is.")
    if error.status == RPCStatusCode.ALREADY_EXISTS:
        return Conflict(f"There is a thread {thread_id} already.", hint="Send to it, or choose another id.")
    if error.status == RPCStatusCode.INVALID_ARGUMENT:
        return InvalidInput(f"Temporal refuses the call: {error.message}.")
    if error.status in _TIMED_OUT or "no poller" in error.message.lower():
        return TemporalUnreachable(f"Thread {thread_id} doesn't answer.", hint=_NOBODY)
    return TemporalUnreachable(f"Temporal: {error.message}.")


def _refusal(cause: BaseException | None) -> PerdureError:
    if isinstance(cause, ApplicationError) or cause is not None:
        return from_failure(cause)
    return Conflict("The update was refused.")
