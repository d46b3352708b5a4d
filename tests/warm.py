"""A warm `perdure`: a process that has imported everything, and of which each command is a fork.

A command is a process of its own, with its own arguments, environment, streams and exit code, as a stranger would
start it; only the half second in which Python imports the same modules again is spared, hundreds of times.
"""

import asyncio
import atexit
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from perdure.starters.cli.index import LISTED
from perdure.values import Value

_USED = (
    "perdure.app", "perdure.care.repair", "perdure.care.upgrade", "perdure.care.verify",
    "perdure.examples.orders.desk", "perdure.starters.archive", "perdure.starters.cli", "perdure.starters.client",
    "perdure.stores.open", "perdure.stores.sql_store", "rich.console", "rich.table",
    "temporalio.client", "temporalio.contrib.pydantic", "temporalio.envconfig",
)  # fmt: skip
_PROGRAM = """#!{python} -IS
import json, os, socket, sys
order = dict(arguments=sys.argv[1:], environment=dict(os.environ), folder=os.getcwd())
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
    door.connect({door!r})
    socket.send_fds(door, [json.dumps(order).encode() + b"\\n"], [0, 1, 2])
    sys.exit(int(door.recv(16)))
"""
_running: dict[int, "Warm"] = {}  # by process: a fork of the tests gets one of its own


class _Order(Value):
    arguments: list[str]
    environment: dict[str, str]
    folder: str


class Warm:
    """The process, from the side of the tests."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="warm-")
        self._door = str(Path(self._folder.name) / "door")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, self._door], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n", "the warm process did not start"
        atexit.register(self.close)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    async def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, *, terminal: int | None = None
    ) -> tuple[int, str, str]:
        """Run a command to its end: exit code, standard output, standard error.

        On a terminal it reads from there and writes its errors there; the terminal's end is closed here.
        """
        order = _Order(arguments=list(arguments), environment=dict(environment), folder=str(folder)).model_dump_json()
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        source = os.open(os.devnull, os.O_RDONLY) if terminal is None else terminal
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
            door.connect(self._door)
            streams = [source, out_end, err_end if terminal is None else terminal]
            socket.send_fds(door, [order.encode() + b"\n"], streams)
            for end in (source, out_end, err_end):
                os.close(end)
            try:
                told = await asyncio.gather(
                    asyncio.to_thread(_read, out), asyncio.to_thread(_read, err), asyncio.to_thread(door.recv, 16)
                )
            except asyncio.CancelledError:  # its time is up: whoever reads in a thread must come to an end
                door.shutdown(socket.SHUT_RDWR)
                raise
        return int(told[2]), told[0].decode(), told[1].decode()

    def program(self, folder: Path) -> Path:
        """Put a program there that is `perdure` for a shell: it hands over its arguments, environment and streams."""
        program = folder / "perdure"
        program.write_text(_PROGRAM.format(python=sys.executable, door=self._door))
        program.chmod(0o755)
        return program


def warm() -> Warm:
    """The warm process of this one."""
    if os.getpid() not in _running:
        _running[os.getpid()] = Warm()
    return _running[os.getpid()]


def _read(end: int) -> bytes:
    with os.fdopen(end, "rb") as stream:
        return stream.read()


# ── the process itself ───────────────────────────────────────────────────────────────────────────────────────────────


def _serve(path: str) -> None:
    """Fork for each command, until whoever started this is gone."""
    commands = {f"perdure.starters.cli.{listed.module}" for listed in LISTED.values()}
    for name in (*_USED, *commands):
        import_module(name)
    assert threading.active_count() == 1, "a process with threads can't be forked"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door, selectors.DefaultSelector() as waiting:
        door.bind(path)
        door.listen(64)
        waiting.register(door, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while all(key.fileobj is door for key, _ in waiting.select()):
            caller, _ = door.accept()
            if os.fork() == 0:
                waiting.close()
                door.close()
                _attend(caller)
            caller.close()


def _attend(caller: socket.socket) -> None:
    """Run one command in a process of its own; tell its exit code. Whoever hangs up has it killed."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    data, streams, _, _ = socket.recv_fds(caller, 65_536, 3)
    while not data.endswith(b"\n"):
        data += caller.recv(65_536)
    command = os.fork()
    if command == 0:
        caller.close()
        _become(_Order.model_validate_json(data), streams)
    for stream in (0, 1, *streams):
        os.close(stream)
    threading.Thread(target=_kill_when_left, args=(caller, command), daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    caller.sendall(str(code).encode())
    os._exit(0)


def _kill_when_left(caller: socket.socket, command: int) -> None:
    with suppress(OSError):  # it has ended meanwhile
        if not caller.recv(1):
            os.kill(command, signal.SIGKILL)


def _become(order: "_Order", streams: list[int]) -> None:
    """This process is the command from now on."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    # In place of the tests' folder: a command finds modules where it was started.
    sys.path[:1] = [path for path in order.environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv = ["perdure", *order.arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import_module("perdure.starters.cli").main()


if __name__ == "__main__":
    _serve(sys.argv[1])
