"""An event loop of one's own in a thread, for asynchronous code that others call from anywhere."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """Runs coroutines one beside the other, for callers in any thread and any event loop. It begins with the first."""

    def __init__(self) -> None:
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it and wait, blocking the caller."""
        return asyncio.run_coroutine_threadsafe(work, self._running()).result()

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it and wait, as a coroutine of the caller's loop. Where that is cancelled, so is the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running()))

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run the last thing there is to do, and end; the next call begins anew. Where none began, nothing happens."""
        with self._changing:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None or not thread.is_alive():  # a thread doesn't come along into a fork
            last.close()
            return
        done = asyncio.run_coroutine_threadsafe(last, loop)
        done.add_done_callback(lambda _: loop.call_soon_threadsafe(loop.stop))
        if thread is not threading.current_thread():  # it may be the collector of garbage that closes
            thread.join()
            done.result()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._changing:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: a program that never closes its saver can end all the same.
                self._thread = threading.Thread(target=_serve, args=(self._loop,), name="perdure-bridge", daemon=True)
                self._thread.start()
            return self._loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
