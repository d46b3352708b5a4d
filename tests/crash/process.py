"""A worker process as a test sees it."""

import asyncio
import json
import multiprocessing
import os
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from tests.crash.worker import Duty, work

_PATIENCE = 60.0  # seconds for anything a process is waited for; far beyond what it takes on a busy machine
# One process imports everything and has no threads; each worker is forked from it, which saves it a second of CPU.
_NURSERY = multiprocessing.get_context("forkserver")
_NURSERY.set_forkserver_preload(
    [
        "__main__", "tests.crash.worker", "perdure.examples.orders.desk",
        # What these import only when they are used:
        "perdure.stores.sqlite", "httpcore2", "anyio._backends._asyncio",
    ]
)  # fmt: skip


class WorkerProcess:
    """Started, struck, waited for. What it has said so far is in ``said``."""

    def __init__(self, duty: Duty) -> None:
        self.said: list[dict[str, Any]] = []
        self._log = duty.log
        self._ended = False
        self._news = asyncio.Event()
        self._hears, says = _NURSERY.Pipe(duplex=False)
        self._process = _born(duty, says)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._hears.fileno(), self._hear)
        self._loop.add_reader(self._process.sentinel, self._end)

    async def says(self, key: str, value: object = None, *, since: int = 0) -> dict[str, Any]:
        """Wait until it has said something under this key (with this value), not counting the first ``since`` things;
        fails with its log if it ends before."""
        async with asyncio.timeout(_PATIENCE):
            while not (found := self._found(key, value, since)):
                assert not self._ended, f"it ended without a word of {key}: {self._last_words()}"
                await self._news.wait()
        return found

    async def says_often(self, key: str, count: int, *, since: int = 0) -> None:
        """Wait until it has said so many things under this key, not counting the first ``since`` things."""
        async with asyncio.timeout(_PATIENCE):
            while sum(key in said for said in self.said[since:]) < count:
                assert not self._ended, f"it ended before: {self._last_words()}"
                await self._news.wait()

    async def dies(self) -> None:
        """Wait for its end; it must be SIGKILL's."""
        await self._ends()
        code = self._process.exitcode
        assert code == -signal.SIGKILL, f"it ended with {code}: {self._last_words()}"

    async def dies_at(self, point: str) -> None:
        """Wait for it to be struck at its point, which is its end."""
        await self.dies()
        assert {"reached": point} in self.said, self.said

    async def is_killed(self) -> None:
        """Kill it, now."""
        assert not self._ended, f"it is dead already: {self._last_words()}"
        self._send(signal.SIGKILL)
        await self.dies()

    async def goes(self) -> None:
        """At the end of a test, whatever state it is in: it goes."""
        if not self._ended:
            self._send(signal.SIGKILL)
        await self._ends()
        self._process.close()

    def stands_still(self) -> None:
        """SIGSTOP: it keeps its connections and its transactions, and does nothing."""
        self._send(signal.SIGSTOP)

    async def goes_on(self) -> None:
        """SIGCONT; until it says that it goes on, where it says that it stops: one that comes before the SIGSTOP, sent
        right after those words, is lost."""
        self._send(signal.SIGCONT)
        while self._found("reached") and not self._found("goes_on"):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), timeout=0.1)
            self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    async def _ends(self) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not self._ended:
                await self._news.wait()

    def _found(self, key: str, value: object = None, since: int = 0) -> dict[str, Any] | None:
        return next((said for said in self.said[since:] if key in said and value in (None, said[key])), None)

    def _last_words(self) -> str:
        return f"{self.said}\n{self._log.read_text()}"

    def _hear(self) -> None:
        try:
            while self._hears.poll():
                self.said.append(json.loads(self._hears.recv_bytes()))
        except EOFError:
            self._loop.remove_reader(self._hears.fileno())
        self._tell()

    def _end(self) -> None:
        self._hear()  # to the last word
        self._loop.remove_reader(self._hears.fileno())
        self._loop.remove_reader(self._process.sentinel)
        self._hears.close()
        self._process.join()
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        """Wake whoever waits for news; the next news gets an event of its own."""
        self._news.set()
        self._news = asyncio.Event()


def _born(duty: Duty, says: Connection) -> BaseProcess:
    process = _NURSERY.Process(target=work, args=(duty.model_dump_json(), says), daemon=True)
    process.start()
    says.close()  # so that its end is heard
    return process
