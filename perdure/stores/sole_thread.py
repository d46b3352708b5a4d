"""A thread that has something nobody else may touch, and uses it for whoever asks, one after another."""

import asyncio
import weakref
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, NamedTuple, TypeVar

_C = TypeVar("_C")
_T = TypeVar("_T")


class SoleThread(Generic[_C]):
    """The thread, from outside. It begins with the first work that is asked for, and keeps no process from its end.

    ``opens`` makes what it has, ``closes`` lets go of it; both are called in the thread.
    """

    def __init__(self, name: str, opens: Callable[[], _C], closes: Callable[[_C], None]) -> None:
        self._name = name
        self._opens = opens
        self._closes = closes
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._thread: Thread | None = None

    async def do(self, work: Callable[[_C], _T]) -> _T:
        """Do work in the thread, and return or raise what it comes to.

        Who is cancelled doesn't wait for the end of it: then it is done whole, or not begun.
        """
        if self._jobs is None:
            self._jobs = self._begin()
        result: _T = await _asked(self._jobs, work)
        return result

    async def close(self) -> None:
        """Let go of what the thread has, when all that was asked of it is done, and wait for its end."""
        jobs, thread = self._jobs, self._thread
        self._jobs = self._thread = None
        if jobs is not None and thread is not None:
            await _asked(jobs, None)
            thread.join()  # it has said that it ends

    def _begin(self) -> "SimpleQueue[_Job | None]":
        jobs: SimpleQueue[_Job | None] = SimpleQueue()
        # It knows its jobs and not who gives them, so that whoever drops this object ends the thread.
        self._thread = Thread(
            target=_serve, args=(jobs, self._opens, self._closes), name=self._name, daemon=True
        )  # fmt: skip
        self._thread.start()
        weakref.finalize(self, jobs.put, None).atexit = False
        return jobs


def _asked(jobs: "SimpleQueue[_Job | None]", work: Callable[[Any], Any] | None) -> "Future[Any]":
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    jobs.put(_Job(work, future, loop))
    return future


class _Job(NamedTuple):
    work: Callable[[Any], Any] | None  # None: it is the last one
    future: "Future[Any]"
    loop: AbstractEventLoop

    def tell(self, result: Any, error: BaseException | None) -> None:
        """Tell whoever waits, in their own thread."""
        with suppress(RuntimeError):  # their loop has ended meanwhile
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)


def _serve(jobs: "SimpleQueue[_Job | None]", opens: Callable[[], Any], closes: Callable[[Any], None]) -> None:
    mine: Any = None
    while (job := jobs.get()) is not None and job.work is not None:
        if job.future.cancelled():
            continue
        try:
            if mine is None:
                mine = opens()
            result, error = job.work(mine), None
        except BaseException as raised:
            result, error = None, raised
        job.tell(result, error)
        del job, result, error  # what they hold is not to live on while nobody asks for anything
    try:
        if mine is not None:
            closes(mine)
    finally:
        if job is not None:
            job.tell(None, None)


def _settle(future: "Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
