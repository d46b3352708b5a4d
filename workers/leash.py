"""A leash on a child process: if this process dies, by whatever signal, the child is told to end.

Neither a process group nor an exit handler does that for a parent that was killed, and Linux's parent-death signal
exists nowhere else. So a shell waits at a pipe whose other end only this process has.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from contextlib import suppress

_WATCH = 'read -r _; kill -TERM "$1" 2>/dev/null'


class Leash:
    """Ties one process to this one, from ``tie`` to ``untie``."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def tie(cls, pid: int) -> "Leash":
        """Tie the process of this number."""
        # A session of its own: Ctrl-C at a terminal must not cut the leash before it is needed.
        command = ("/bin/sh", "-c", _WATCH, "leash", str(pid))
        return cls(await asyncio.create_subprocess_exec(*command, stdin=PIPE, start_new_session=True))

    async def untie(self) -> None:
        """Let go, once the process has ended: its number may soon be another's."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
