"""The lock on a home folder: one embedded server over its files at a time.

Two locks of the operating system, so that no death leaves anything to clean up and no reused process number can
deceive: ``owner.lock`` is held by the process that started the server, ``server.lock`` by the server itself, which
inherits it. The owner's gone and the server's held: an orphan, which is ended before another server may start.
The process numbers inside are for people.
"""

import asyncio
import fcntl
import os
import signal
from contextlib import suppress
from pathlib import Path

from perdure.errors import Conflict

_POLL = 0.05  # seconds
_GRACE = 10.0  # seconds an orphan gets to end by itself; it needs one or two


class HomeLock:
    """Exclusive use of a home folder, from ``take`` to ``release``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._owner = -1
        self.server = -1  # descriptor for the server to inherit

    async def take(self) -> None:
        """Take the folder; an orphaned server in it is ended first. Raises Conflict if another process has it."""
        self._home.mkdir(parents=True, exist_ok=True)
        self._owner = _open(self._home / "owner.lock")
        if not _locked(self._owner):
            number = _read(self._owner)
            self.release()
            raise Conflict(
                f"A Temporal server over {self._home} is running already, started by process {number or 'unknown'}.",
                hint="Use that one, end it, or choose another folder with PERDURE_HOME.",
            )
        _write(self._owner, os.getpid())
        self.server = _open(self._home / "server.lock")
        try:
            await self._end_orphan()
            os.ftruncate(self.server, 0)  # never a number of another run beside a lock of this one
        except BaseException:
            self.release()
            raise

    def name_server(self, pid: int) -> None:
        """Note the process that holds the server's lock."""
        _write(self.server, pid)

    def release(self) -> None:
        """Give the folder back. Twice is once."""
        for descriptor in (self._owner, self.server):
            if descriptor >= 0:
                os.close(descriptor)
        self._owner = self.server = -1

    async def _end_orphan(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            if _locked(self.server):
                return
            with suppress(ProcessLookupError, ValueError):  # it ends just now; its owner died before it had a name
                os.kill(int(_read(self.server)), number)
            with suppress(TimeoutError):
                async with asyncio.timeout(_GRACE):
                    while not _locked(self.server):  # noqa: ASYNC110 - a lock can't be awaited
                        await asyncio.sleep(_POLL)
        if not _locked(self.server):
            raise Conflict(f"Process {_read(self.server)}, a Temporal server over {self._home}, does not end.")


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(descriptor: int) -> str:
    return os.pread(descriptor, 20, 0).decode().strip()


def _write(descriptor: int, number: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{number}\n".encode(), 0)
