"""An event loop of one's own in a thread, for asynchronous code that others call from anywhere."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnLoop:
    """Runs coroutines one beside the other, for callers in any thread and any event loop. It begins with the first."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it and wait, blocking the caller."""
        return asyncio.run_coroutine_threadsafe(work, self._running()).result()

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it and wait, as a coroutine of the caller's loop. Where that is cancelled, so is the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._running()))

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Run the last thing there is to do, and end; the next call begins anew. Nothing happens where none began."""
        with self._starting:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            last.close()
            return
        try:
            asyncio.run_coroutine_threadsafe(last, loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: a program that never closes its saver can end all the same.
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="perdure-bridge", daemon=True
                )
                self._thread.start()
            return self._loop
