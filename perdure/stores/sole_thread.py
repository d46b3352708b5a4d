"""A thread that has something only one may touch at a time, and uses it for whoever asks, one after another.

What is done in no time may be done at once instead, by whoever asks, while the thread has nothing to do.
"""

import asyncio
import weakref
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Generic, NamedTuple, TypeVar

_C = TypeVar("_C")
_T = TypeVar("_T")


class Missed(Enum):
    """The type of MISSED."""

    MISSED = "missed"


MISSED = Missed.MISSED


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
        self._held = _Held[_C]()

    async def do(self, work: Callable[[_C], _T]) -> _T:
        """Do work in the thread, and return or raise what it comes to.

        Who is cancelled doesn't wait for the end of it: then it is done whole, or not begun.
        """
        if self._jobs is None:
            self._jobs = self._begin()
        result: _T = await _asked(self._jobs, work)
        return result

    def at_once(self, work: Callable[[_C], _T]) -> _T | Missed:
        """Do work here and now, and return or raise what it comes to; MISSED where the thread is busy, or has nothing
        yet. Handing it to the thread and back takes longer than most work does, and everybody waits for work that
        takes long."""
        held = self._held
        if not held.lock.acquire(blocking=False):
            return MISSED
        try:
            return MISSED if held.mine is None else work(held.mine)
        finally:
            held.lock.release()

    def later(self, work: Callable[[_C], object]) -> None:
        """Let the thread do work for which nobody waits. What it raises is lost."""
        if self._jobs is not None:
            self._jobs.put(_Job(work, None, None))

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
            target=_serve, args=(jobs, self._held, self._opens, self._closes), name=self._name, daemon=True
        )  # fmt: skip
        self._thread.start()
        weakref.finalize(self, jobs.put, None).atexit = False
        return jobs


def _asked(jobs: "SimpleQueue[_Job | None]", work: Callable[[Any], Any] | None) -> "Future[Any]":
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    jobs.put(_Job(work, future, loop))
    return future


class _Held(Generic[_C]):
    """What the thread has, once it has it; the lock is held by whoever uses it."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.mine: _C | None = None


class _Job(NamedTuple):
    work: Callable[[Any], Any] | None  # None: it is the last one
    future: "Future[Any] | None"  # None: nobody waits for it
    loop: AbstractEventLoop | None

    @property
    def is_given_up(self) -> bool:
        return self.future is not None and self.future.cancelled()

    def tell(self, result: Any, error: BaseException | None) -> None:
        """Tell whoever waits, in their own thread."""
        if self.loop is None or self.future is None:
            return
        with suppress(RuntimeError):  # their loop has ended meanwhile
            self.loop.call_soon_threadsafe(_settle, self.future, result, error)


def _serve(
    jobs: "SimpleQueue[_Job | None]", held: _Held[Any], opens: Callable[[], Any], closes: Callable[[Any], None]
) -> None:  # fmt: skip
    while (job := jobs.get()) is not None and job.work is not None:
        if job.is_given_up:
            continue
        try:
            with held.lock:
                if held.mine is None:
                    held.mine = opens()
                result, error = job.work(held.mine), None
        except BaseException as raised:
            result, error = None, raised
        job.tell(result, error)
        del job, result, error  # what they hold is not to live on while nobody asks for anything
    try:
        with held.lock:
            mine, held.mine = held.mine, None
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
