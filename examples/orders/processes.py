"""The demo's worker: a process of its own, because it is going to be killed."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Mapping
from pathlib import Path

from perdure.workers.leash import Leash

APP = "perdure.examples.orders.desk:app"

# `perdure worker`, also where the executable is not on the path.
_COMMAND = (sys.executable, "-c", "from perdure.starters.cli import main; main()", "worker")
_GRACE = 10.0  # seconds a worker gets to end when it is told to; it needs one or two
_POLL = 0.05
_LAST_WORDS = 15  # lines
_LED_ASTRAY = ("PERDURE_", "TEMPORAL_", "OPENAI_")


class WorkerDied(Exception):
    """The worker ended though nobody told it to."""


class WorkerProcess:
    """``perdure worker`` with an environment; its words go to a file."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._environment = environment
        self._process: Process | None = None
        self._leash: Leash | None = None
        self._wanted = False

    @property
    def pid(self) -> int:
        """The process that was started last. Raises RuntimeError before the first."""
        return self._latest().pid

    async def start(self) -> None:
        """Start one more process; what it says is added to the log."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C in the terminal reaches the demo alone, which ends everything in good order.
            self._process = await asyncio.create_subprocess_exec(
                *_COMMAND, env=dict(self._environment), cwd=self.log.parent,
                stdin=DEVNULL, stdout=log, stderr=STDOUT, start_new_session=True,
            )  # fmt: skip
        self._wanted = True
        self._leash = await Leash.tie(self._process.pid)

    async def kill(self) -> None:
        """SIGKILL: the process can't say good-bye, finish, or write anything down."""
        self._wanted = False
        os.kill(self.pid, signal.SIGKILL)
        await self._gone()

    async def stop(self) -> None:
        """Ask it to end, and insist after a while. Nothing happens where none runs."""
        self._wanted = False
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except TimeoutError:
            process.kill()
        await self._gone()

    async def watch(self) -> None:
        """Never return; raise WorkerDied when a process ends that nobody has told to."""
        while True:
            process = self._latest()
            code = await process.wait()
            if process is self._process and self._wanted:
                raise WorkerDied(f"The worker, process {process.pid}, ended by itself with exit code {code}.")
            await asyncio.sleep(_POLL)

    def _latest(self) -> Process:
        if self._process is None:
            raise RuntimeError("The worker has not been started.")
        return self._process

    async def _gone(self) -> None:
        await self._latest().wait()
        leash, self._leash = self._leash, None
        if leash is not None:
            await leash.untie()


def last_words(log: Path) -> str:
    """The end of a log, if there is any."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-_LAST_WORDS:])


def worker_environment(
    home: Path, *, address: str, store: str, task_queue: str, shop: str, model: Mapping[str, str]
) -> dict[str, str]:
    """This process's environment, without what would lead a worker out of the demo's world."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LED_ASTRAY)}
    profiles = home / "temporal.toml"
    profiles.touch()  # empty, in place of the user's own: that may name another server and its keys
    direct = ",".join(filter(None, [kept.get("NO_PROXY") or kept.get("no_proxy"), "127.0.0.1,localhost"]))
    return {
        **kept,
        "PERDURE_APP": APP,
        "PERDURE_HOME": str(home),
        "PERDURE_STORE": store,
        "PERDURE_TASK_QUEUE": task_queue,
        "PERDURE_HEARTBEAT": "2",  # a dead worker is noticed after two seconds instead of ten
        "PERDURE_STICKY": "1",  # and its threads are taken over after one instead of five
        "PERDURE_SHUTDOWN": "1",
        "TEMPORAL_ADDRESS": address,
        "TEMPORAL_CONFIG_FILE": str(profiles),
        "ORDERS_SHOP_URL": shop,
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONUNBUFFERED": "1",
        **model,
    }
