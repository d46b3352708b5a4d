"""The real `perdure` in a world: run to its end, on a pipe or on a terminal, and what came of it."""

import asyncio
import json
import os
import pty
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.programs import PERDURE, plain_environment
from tests.warm import warm
from tests.world import World

_ROOT = Path(__file__).resolve().parent.parent  # from here, `--app tests.clerk:app` finds the agents
_PATIENCE = 30.0  # seconds; a command takes half of one


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The one document on standard output."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """One document a line."""
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Commands against a world's server, store and task queue."""

    def __init__(self, world: World, **environment: str) -> None:
        self.environment = plain_environment(
            {
                "TEMPORAL_ADDRESS": world.temporal.service_client.config.target_host,
                "PERDURE_STORE": world.settings.store_url(),
                "PERDURE_TASK_QUEUE": world.settings.task_queue,
                "PERDURE_HOME": str(world.settings.home),
                **environment,
            }
        )

    async def __call__(self, *arguments: str) -> Done:
        """Run a command; nobody can be asked, and nobody looks."""
        async with asyncio.timeout(_PATIENCE):
            return Done(*await warm().run(arguments, self.environment, _ROOT))

    async def json(self, *arguments: str) -> Any:
        """Run a command that must succeed; its document."""
        done = await self(*arguments, "-o", "json")
        assert done.code == 0, done
        return done.json()

    async def on_terminal(self, *arguments: str, types: str) -> Done:
        """Run a command on a terminal where somebody types this; ``err`` is everything the terminal showed."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, types.encode())
            async with asyncio.timeout(_PATIENCE):
                (code, out, _), shown = await asyncio.gather(
                    warm().run(arguments, self.environment, _ROOT, terminal=theirs), asyncio.to_thread(_read_all, ours)
                )
        finally:
            os.close(ours)
        return Done(code, out, shown)

    @asynccontextmanager
    async def running(self, *arguments: str) -> AsyncIterator[Process]:
        """A command that is running; killed at the end if it still does."""
        process = await asyncio.create_subprocess_exec(
            PERDURE, *arguments, cwd=_ROOT, env=self.environment, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


def _read_all(terminal: int) -> str:
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # on Linux a terminal that nobody has open any more is an error, not an end
            return shown.decode()
        if not part:
            return shown.decode()
        shown += part
