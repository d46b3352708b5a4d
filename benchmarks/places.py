"""Where subjects run: Temporal servers and databases of our own, which end with the driver, however that ends."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psycopg
from temporalio.client import Client
from temporalio.service import RPCError

from perdure.settings import Settings
from perdure.workers.embedded import PRAGMAS, TUNING, EmbeddedServer, temporal_executable
from perdure.workers.leash import Leash
from perdure.workers.ports import HOST, free_port
from tests import postgres

_POLL = 0.02
_PATIENCE = 30.0  # seconds for a start
# A database that is meant to keep what it was given: PostgreSQL's own defaults where the tests' servers are hasty.
_SAFE = {
    "fsync": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "shared_buffers": "128MB",
}


@dataclass(frozen=True)
class Server:
    """A Temporal server that runs: HOST:PORT, and its process."""

    address: str
    pid: int


@asynccontextmanager
async def tuned(folder: Path) -> AsyncIterator[Server]:
    """The embedded server, exactly as `perdure dev` starts it."""
    async with EmbeddedServer(
        home=folder, settings=Settings(home=folder), port=free_port(), ui_port=free_port()
    ) as server:
        try:
            yield Server(server.address, server.pid)
        finally:
            os.kill(server.pid, signal.SIGKILL)  # a graceful end takes seconds, and its data is thrown away


@asynccontextmanager
async def documented(folder: Path) -> AsyncIterator[Server]:
    """`temporal server start-dev --db-filename FILE`, as Temporal documents it; nothing else but its ports."""
    async with started(folder, "--db-filename", str(folder / "temporal.db")) as server:
        yield server


@asynccontextmanager
async def varied(
    folder: Path, *, tuning: Mapping[str, str] = TUNING, pragmas: Mapping[str, str] = PRAGMAS, file: bool = True
) -> AsyncIterator[Server]:
    """The embedded server's tuning with something changed; without ``file`` in memory."""
    options = [part for pair in tuning.items() for part in ("--dynamic-config-value", "=".join(pair))]
    options += [part for pair in pragmas.items() for part in ("--sqlite-pragma", "=".join(pair))]
    options += ["--db-filename", str(folder / "temporal.db")] if file else []
    async with started(folder, *options) as server:
        yield server


@asynccontextmanager
async def started(folder: Path, *options: str) -> AsyncIterator[Server]:
    """`temporal server start-dev` with these options, once it answers. Raises TimeoutError."""
    port, ui_port = free_port(), free_port()
    command = [str(temporal_executable(Settings())), "server", "start-dev", "--ip", HOST, *options]
    command += ["--port", str(port), "--ui-port", str(ui_port), "--log-level", "error"]
    with _log(folder) as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=DEVNULL, stdout=DEVNULL, stderr=log, start_new_session=True
        )
    leash = await Leash.tie(process.pid)
    try:
        await _answers(f"{HOST}:{port}")
        yield Server(f"{HOST}:{port}", process.pid)
    finally:
        process.kill()
        await process.wait()
        await leash.untie()


def _log(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / "temporal.log").open("wb")


async def _answers(address: str) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            with suppress(RuntimeError, RPCError):  # nothing listens yet, or it has no namespace yet
                client = await Client.connect(address)
                async for _ in client.list_workflows(limit=1):
                    pass
                return
            await asyncio.sleep(_POLL)


class Postgres:
    """A PostgreSQL server, with a database for each who asks."""

    def __init__(self, server: postgres.Server) -> None:
        self._server = server
        self._made = 0

    def database(self) -> str:
        """The URL of an empty database."""
        self._made += 1
        name = f"bench_{self._made}"
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        return self._server.url.replace("/postgres?", f"/{name}?")


@asynccontextmanager
async def postgresql() -> AsyncIterator[Postgres]:
    """PostgreSQL with its own default settings, as far as they concern what is kept."""
    context = postgres.server(**_SAFE)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield Postgres(server)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
