"""A subject's process as the driver sees it."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.subject import Place

ROOT = Path(__file__).resolve().parent.parent
_READY = 120.0  # seconds until it must be ready
_PATIENCE = 900.0  # seconds for one answer
_GRACE = 30.0  # seconds for its end
_TAIL = 2  # lines of its last words in an error
_LINE = 1 << 24  # bytes; asyncio's own limit of a line is 64 KB


class SubjectFailed(Exception):
    """A subject can't do what it was asked; the text says why."""


class SubjectProcess:
    """A subject in a process of its own, started by ``begin``, or else by its first question.

    ``module``: of ``benchmarks.subjects``. What it says on standard error is kept in its folder, as ``log``.
    """

    def __init__(self, module: str, place: Place, *, name: str = "") -> None:
        self.name = name or module
        self.place = place
        self.versions: dict[str, str] = {}
        self.log = place.folder / "log"
        self.start_seconds = 0.0  # from its start until it was ready
        self._module = module
        self._process: Process | None = None
        self._beginning: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Its number. Raises RuntimeError where it doesn't run."""
        if self._process is None:
            raise RuntimeError(f"{self.name} doesn't run")
        return self._process.pid

    def begin(self) -> None:
        """Start it and don't wait: several get ready side by side. Where it fails, its first question tells."""
        self._beginning = asyncio.create_task(self._start())

    async def _start(self) -> None:
        """Start it and wait until it is ready. Raises SubjectFailed."""
        self.place.folder.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"benchmarks.subjects.{self._module}", cwd=ROOT, env=_environment(),
                stdin=PIPE, stdout=PIPE, stderr=log, limit=_LINE,
                start_new_session=True,  # Ctrl-C is the driver's; where the driver dies, the input ends
            )  # fmt: skip
        ready = await self._exchange(self.place.line(), _READY)
        self.start_seconds = time.perf_counter() - begun
        self.versions = ready["ready"]["versions"]

    async def ask(self, do: str, *, patience: float = _PATIENCE, **given: Any) -> dict[str, Any]:
        """Its answer to one question, within so many seconds. Raises SubjectFailed."""
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            await beginning
        elif self._process is None:
            await self._start()
        answer = await self._exchange(json.dumps({"do": do, **given}), patience)
        if "error" in answer:
            raise SubjectFailed(f"{self.name}: {answer['error']}")
        return answer

    async def end(self) -> None:
        """End it and wait for its end; kill it where it doesn't. Twice is once."""
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            with suppress(SubjectFailed):
                await beginning
        await self._close()

    async def _close(self) -> int | None:
        """Its exit code; None where it didn't run."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_GRACE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        return process.returncode

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def cpu_seconds(self) -> float:
        """What it has used of the processors so far, in user and system mode."""
        return cpu_seconds(self.pid)

    async def _exchange(self, line: str, patience: float) -> dict[str, Any]:
        assert self._process is not None
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            async with asyncio.timeout(patience):
                stdin.write(line.encode() + b"\n")
                await stdin.drain()
                answer = await stdout.readline()
        except TimeoutError:
            self.kill()
            raise SubjectFailed(f"{self.name} did not answer within {patience:.0f} seconds") from None
        except ConnectionError:
            answer = b""
        if not answer:
            code = await self._close()
            raise SubjectFailed(f"{self.name} ended with {code}: {self._last_words()}")
        told: dict[str, Any] = json.loads(answer)
        return told

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return " | ".join(line.strip() for line in lines[-_TAIL:]) or "without a word"


def cpu_seconds(pid: int) -> float:
    """What a process has used of the processors so far, in user and system mode; Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment() -> dict[str, str]:
    """Without what would lead elsewhere: another server, another store, another model."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("TEMPORAL_", "PERDURE_", "OPENAI_"))
    }
