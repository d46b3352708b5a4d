"""`perdure` as people run it: a process in a folder of its own, without what the environment of the tests says."""

import asyncio
import itertools
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.world import eventually

PERDURE = str(Path(sys.executable).with_name("perdure"))
_LED_ASTRAY = ("PERDURE_", "TEMPORAL_", "OPENAI_", "COVERAGE_")
_numbers = itertools.count(1)
_PATIENCE = 20.0  # seconds; everything here takes one or two


class Program:
    """A running `perdure`."""

    def __init__(self, process: Process, folder: Path, name: str) -> None:
        self.process = process
        self._folder = folder
        self._name = name

    @property
    def out(self) -> str:
        """Standard output so far."""
        return (self._folder / f"{self._name}.out").read_text()

    @property
    def err(self) -> str:
        """Standard error so far."""
        return (self._folder / f"{self._name}.err").read_text()

    async def says(self, text: str) -> None:
        """Wait until it has said this, on either stream. Fails at once where it ended without."""

        async def look() -> tuple[bool, bool, str]:
            ended = self.process.returncode is not None
            said = self.out + self.err
            return text in said, ended, said

        found, _, said = await eventually(look, lambda seen: seen[0] or seen[1], within=_PATIENCE)
        assert found, f"{self._name} ended with {self.process.returncode} before it said {text!r}: {said}"

    async def ends(self, number: signal.Signals | None = None) -> int:
        """Wait for its end, after a signal if one is named; the exit code."""
        if number is not None:
            self.process.send_signal(number)
        async with asyncio.timeout(_PATIENCE):
            return await self.process.wait()


@asynccontextmanager
async def perdure(
    *arguments: str, folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """The program with these arguments, in the folder; killed at the end if it still runs."""
    name = f"{arguments[0]}-{next(_numbers)}"
    with (folder / f"{name}.out").open("wb") as out, (folder / f"{name}.err").open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            PERDURE, *arguments, cwd=folder, env=plain_environment(environment), stdin=DEVNULL, stdout=out, stderr=err
        )
    try:
        yield Program(process, folder, name)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def run(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> Program:
    """The program with these arguments, run to its end."""
    async with perdure(*arguments, folder=folder, environment=environment) as program:
        await program.ends()
    return program


def plain_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would lead a program out of the test's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LED_ASTRAY)}
    return {**kept, "TEMPORAL_CONFIG_FILE": os.devnull, "NO_PROXY": "127.0.0.1,localhost", **(more or {})}


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def gone(pid: int) -> None:
    """Wait until there is no such process."""

    async def look() -> bool:
        return is_alive(pid)

    await eventually(look, lambda alive: not alive, within=_PATIENCE)
