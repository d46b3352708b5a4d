"""A worker process as a test sees it."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from tests.crash.points import Point

_PATIENCE = 60.0  # seconds for anything a process is waited for; far beyond what it takes on a busy machine


class WorkerProcess:
    """Started, struck, waited for. What it has told so far is in ``told``."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log
        self.told: list[dict[str, Any]] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(
        cls, *, address: str, app: str, environment: dict[str, str], log: Path, at: Point | None = None
    ) -> "WorkerProcess":
        """Start it, and return once it works."""
        options = ["--address", address, "--app", app, *(["--point", at.model_dump_json()] if at else [])]
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.crash.worker", *options,
                stdout=PIPE, stderr=errors, env={**os.environ, **environment}, cwd=Path(__file__).parents[2],
            )  # fmt: skip
        worker = cls(process, log)
        try:
            await worker.tells("ready")
        except BaseException:
            await worker.end()
            raise
        return worker

    async def tells(self, key: str, value: object = None) -> dict[str, Any]:
        """Wait until it has told something of this key (and value); fails with its log where it ends before that."""
        async with asyncio.timeout(_PATIENCE):
            while (found := self._found(key, value)) is None:
                assert not self._reading.done(), f"it ended without telling {key}: {self._said()}"
                await self._news.wait()
        return found

    async def dies(self) -> None:
        """Wait for its end; it must be SIGKILL's."""
        async with asyncio.timeout(_PATIENCE):
            await self._reading
            code = await self._process.wait()
        assert code == -signal.SIGKILL, f"it ended with {code}: {self._said()}"

    async def kill(self) -> None:
        """Kill it from outside."""
        assert self._process.returncode is None, f"it is dead already: {self._said()}"
        self._process.kill()
        await self.dies()

    async def end(self) -> None:
        """At the end of a test: whatever state it is in, it goes."""
        if self._process.returncode is None:
            self._process.kill()
        await self._reading
        await self._process.wait()

    def stand_still(self) -> None:
        """SIGSTOP: it keeps its connections and its transactions, and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def _found(self, key: str, value: object) -> dict[str, Any] | None:
        return next((said for said in self.told if key in said and value in (None, said[key])), None)

    def _said(self) -> str:
        return f"{self.told}\n{self._log.read_text()}"

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.told.append(json.loads(line))
            self._tell()
        asyncio.get_running_loop().call_soon(self._tell)  # once this task is done, which is news as well

    def _tell(self) -> None:
        """Wake whoever waits for news; the next news gets an event of its own."""
        self._news.set()
        self._news = asyncio.Event()
