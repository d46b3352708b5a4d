"""Asking a thread through Temporal: patience, and errors that say what to do."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from temporalio.client import (
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from perdure.errors import Conflict, InvalidInput, PerdureError, TemporalUnreachable, ThreadNotFound
from perdure.failures import from_failure

T = TypeVar("T")

NOBODY = "Is a worker running? `perdure worker` starts one, `perdure doctor` checks."
_ONE_TRY = timedelta(seconds=5)  # a worker answers in milliseconds, one that stands still never
_CUT = 2  # times in a row that a connection may end in the middle of an answer
_TIMED_OUT = frozenset({RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED})


async def ask(thread_id: str, call: Callable[[], Awaitable[T]], *, patience: float = 30.0) -> T:
    """Run one call to a thread, for at most ``patience`` seconds; every way it can fail as one of our errors."""
    try:
        async with asyncio.timeout(patience):
            return await call()
    except (TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError) as error:
        raise TemporalUnreachable(f"Thread {thread_id} doesn't answer.", hint=NOBODY) from error
    except WorkflowAlreadyStartedError as error:
        raise _taken(thread_id) from error
    except WorkflowUpdateFailedError as error:
        raise _refusal(error.cause) from error
    except (WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise TemporalUnreachable(f"Thread {thread_id} can't be asked: {error}.", hint=NOBODY) from error
    except RPCError as error:
        raise rpc_error(thread_id, error) from error


async def insist(call: Callable[[timedelta], Awaitable[T]]) -> T:
    """Ask again and again, with a short time-out for each try; the caller sets the end.

    Only for questions: a worker that was stopped in its tracks may have taken one along; the next goes to another.
    """
    while True:
        try:
            return await call(_ONE_TRY)
        except RPCError as error:
            if error.status not in _TIMED_OUT:
                raise


async def whole(question: Callable[[], Awaitable[T]]) -> T:
    """The answer to a question that changes nothing. Temporal's server ends each connection after some minutes, in the
    middle of an answer too: then it is asked again. Raises RPCError."""
    for _ in range(_CUT):
        try:
            return await question()
        except RPCError as error:
            if error.status != RPCStatusCode.CANCELLED:
                raise
    return await question()


def rpc_error(thread_id: str, error: RPCError) -> PerdureError:
    """What Temporal's refusal of a call means for a thread."""
    if error.status == RPCStatusCode.NOT_FOUND:
        return ThreadNotFound(f"There is no thread {thread_id}.", hint="`perdure list` shows what there is.")
    if error.status == RPCStatusCode.ALREADY_EXISTS:
        return _taken(thread_id)
    if error.status == RPCStatusCode.INVALID_ARGUMENT:
        return InvalidInput(f"Temporal refuses the call: {error.message}.")
    if error.status in _TIMED_OUT or "no poller" in error.message.lower():
        return TemporalUnreachable(f"Thread {thread_id} doesn't answer.", hint=NOBODY)
    return TemporalUnreachable(f"Temporal: {error.message}.")


def _taken(thread_id: str) -> Conflict:
    return Conflict(f"There is a thread {thread_id} already.", hint="Send to it, or choose another id.")


def _refusal(cause: BaseException | None) -> PerdureError:
    if isinstance(cause, ApplicationError) or cause is not None:
        return from_failure(cause)
    return Conflict("The update was refused.")
