"""Where workflow tasks run: in the event loop of their worker."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class InLoop(ThreadPoolExecutor):
    """Runs what it is given in the running event loop, as soon as that has its turn.

    A workflow task of ours takes a millisecond of Python and waits for nothing. In a thread of its own it doesn't run
    beside the loop, for want of a second interpreter, and both ways there and back take as long as half of the task.
    The SDK's threads are there to find workflow code that never ends: people's code, which we don't have.

    It is a ThreadPoolExecutor because the SDK asks for one; it never has a thread.
    """

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """See base class. Raises RuntimeError where no loop runs."""
        future: Future[T] = Future()
        loop = asyncio.get_running_loop()
        # Not at once: whoever submits is a task in the middle of a step, and no loop may step two tasks at a time. And
        # in a context of its own, as in a thread.
        loop.call_soon(_run, loop, future, lambda: fn(*args, **kwargs), context=Context())
        return future


def _run(loop: asyncio.AbstractEventLoop, future: "Future[Any]", work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)
    finally:
        asyncio._set_running_loop(loop)  # each workflow has a loop of its own, and leaves none as the running one
