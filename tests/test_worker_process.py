"""`perdure worker` as a process: what it insists on before it begins, how it is, and how it ends."""

import asyncio
import json
import os
import shlex
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from perdure.contracts import TurnResult
from perdure.errors import Conflict, NotSetUp, StoreOutdated, StoreUnreachable, TemporalUnreachable, UsageError
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.stores import open_store
from perdure.testing import ModelServer
from perdure.workers.connect import connect
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.process import serve
from tests import places
from tests.desk import APP, SCRIPT, lines, write_app
from tests.programs import perdure, run
from tests.test_embedded import free_port, taken_port
from tests.world import TEMPORAL, eventually

DESK = "perdure.examples.orders.desk:app"  # an app that this process may import


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    """One server for the tests that leave it alone."""
    async with EmbeddedServer(home=tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest_asyncio.fixture(scope="module")
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT) as model:
        yield model


class Site:
    """A folder with the app and a store, and what a worker in it is told by its environment."""

    def __init__(self, folder: Path, address: str, model: ModelServer) -> None:
        self.folder = folder
        self.address = address
        self.port = free_port()
        self.settings = Settings(store=f"sqlite:///{folder / 'store.db'}", home=folder, task_queue=folder.name)
        self.environment = {
            "PERDURE_APP": APP,
            "PERDURE_HEALTH_PORT": str(self.port),
            "PERDURE_STORE": self.settings.store,
            "PERDURE_TASK_QUEUE": self.settings.task_queue,
            "TEMPORAL_ADDRESS": address,
            "OPENAI_API_KEY": "offline",
            "OPENAI_BASE_URL": model.base_url,
        }
        write_app(folder)

    async def migrate(self) -> None:
        store = open_store(self.settings.store)
        await store.migrate()
        await store.close()

    async def client(self) -> Client:
        return await Client.connect(address=self.address, settings=self.settings)

    async def health(self) -> tuple[int, dict[str, Any]]:
        """Status and body; 0 where nobody listens."""
        async with httpx2.AsyncClient(trust_env=False, verify=False) as browser:  # no TLS, so no certificates to load
            try:
                answer = await browser.get(f"http://127.0.0.1:{self.port}/health")
            except httpx2.TransportError:
                return 0, {}
        return answer.status_code, answer.json()

    async def is_well(self) -> None:
        """Wait until the worker says that it is."""
        await eventually(self.health, lambda seen: seen[0] == 200)


@pytest.fixture
def site(tmp_path: Path, server: EmbeddedServer, model: ModelServer) -> Site:
    return Site(tmp_path, server.address, model)


async def temporal(*arguments: str) -> None:
    """Temporal's own command line."""
    process = await asyncio.create_subprocess_exec(TEMPORAL, *arguments, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


@asynccontextmanager
async def bare_server() -> AsyncIterator[str]:
    """A Temporal server that nobody has prepared for us; its address."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        TEMPORAL, "server", "start-dev", "--headless", "--port", str(port), "--log-level", "never",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await connect(address=(address := f"127.0.0.1:{port}"), attempts=10)
        yield address
    finally:
        process.kill()
        await process.wait()


async def test_what_it_lacks_it_names_and_each_command_mends_it(tmp_path: Path, model: ModelServer) -> None:
    """Namespace, search attributes, schema: one after another, each with the command that is right here."""
    async with bare_server() as address:
        site = Site(tmp_path, address, model)
        with pytest.raises(NotSetUp, match="no namespace 'nowhere'") as missing:
            await serve(DESK, site.settings, address=address, namespace="nowhere")
        assert missing.value.hint.endswith(f"operator namespace create --address {address} --namespace nowhere")

        program = await run("worker", folder=tmp_path, environment=site.environment)
        assert program.process.returncode == 1
        assert "lacks the search attributes PerdureAgent" in program.err
        await temporal(*shlex.split(program.err.partition("temporal ")[2]))

        (tmp_path / "store.db").touch()
        with pytest.raises(StoreOutdated, match="Run `perdure db migrate`"):
            await serve(DESK, site.settings, address=address)
        await site.migrate()

        async with perdure("worker", folder=tmp_path, environment=site.environment) as worker:
            await site.is_well()
            assert await worker.ends(signal.SIGTERM) == 0


async def test_a_search_attribute_of_the_wrong_type_is_named(tmp_path: Path, model: ModelServer) -> None:
    """It can't be created, so the message doesn't say so."""
    async with bare_server() as address:
        where = ("--address", address, "--name", "PerdureStep", "--type", "Keyword")
        await temporal("operator", "search-attribute", "create", *where)
        with pytest.raises(NotSetUp, match=r"PerdureStep .* is of type Keyword, but has to be Int"):
            await serve(DESK, Site(tmp_path, address, model).settings, address=address)


async def test_it_tells_in_one_line_what_it_can_not_do(site: Site) -> None:
    """On standard error, with the exit code of its kind, and nothing on standard output."""
    program = await run("worker", folder=site.folder, environment=site.environment | {"PERDURE_APP": "nowhere:app"})
    assert program.process.returncode == 2
    assert program.err.startswith("perdure: The app 'nowhere:app' can't be imported")
    assert len(program.err.splitlines()) == 1
    assert program.out == ""


async def test_each_obstacle_is_an_error_of_its_kind(site: Site) -> None:
    """No app, no server, no store: before anything is polled or made."""
    with pytest.raises(UsageError, match="--app MODULE:ATTR"):
        await serve("", site.settings)
    with pytest.raises(TemporalUnreachable, match=r"at 127\.0\.0\.1:1\."):
        await serve(DESK, site.settings, address="127.0.0.1:1")
    with pytest.raises(StoreUnreachable, match="There is no store"):
        await serve(DESK, site.settings, address=site.address)
    assert not (site.folder / "store.db").exists()


async def test_a_taken_health_port_is_told(site: Site) -> None:
    """A worker whose health nobody can ask would be killed and started for ever."""
    await site.migrate()
    with taken_port() as port, pytest.raises(Conflict, match=f"can't have port {port}"):
        await serve(DESK, site.settings.model_copy(update={"health_port": port}), address=site.address)


async def test_told_to_stop_it_lets_a_running_activity_finish(site: Site) -> None:
    """SIGTERM in the middle of a tool: no new work, unhealthy, the tool's result recorded, exit 0. The next worker
    goes on from there, and the tool never runs twice."""
    await site.migrate()
    client = await site.client()
    attempts = site.folder / "attempts"
    async with perdure("worker", folder=site.folder, environment=site.environment) as worker:
        await site.is_well()
        thread, accepted = await client.start("orders", "Please hold.")
        await eventually(_reader(attempts), bool)
        worker.process.send_signal(signal.SIGTERM)
        _, found = await eventually(site.health, lambda seen: seen[0] == 503)
        assert found == {"status": "unhealthy", "worker": "stopping", "temporal": "ok", "store": "ok"}
        (site.folder / "go").touch()
        assert await worker.ends() == 0
    assert "activity cancelled" not in worker.err
    async with perdure("worker", folder=site.folder, environment=site.environment) as worker:
        result = await client.wait(thread, accepted.message_id)
        assert isinstance(result, TurnResult)
        assert (result.outcome, result.answer) == ("answered", "Held.")
        assert await worker.ends(signal.SIGTERM) == 0
    assert len(lines(attempts)) == 1
    await client.close()


async def test_told_twice_it_ends_at_once(site: Site) -> None:
    """Whoever presses Ctrl-C again does not want to wait; what was under way is tried again under the same key."""
    await site.migrate()
    client = await site.client()
    attempts = site.folder / "attempts"
    hasty = site.environment | {"PERDURE_HEARTBEAT": "1"}
    async with perdure("worker", folder=site.folder, environment=hasty) as worker:
        await worker.says("worker started")  # the client waits a while for a worker, but not for a slow machine
        thread, accepted = await client.start("orders", "Please hold.")
        await eventually(_reader(attempts), bool)
        worker.process.send_signal(signal.SIGINT)
        await worker.says("worker stops")
        assert await worker.ends(signal.SIGINT) == 128 + signal.SIGINT
    (site.folder / "go").touch()
    async with perdure("worker", folder=site.folder, environment=hasty) as worker:
        result = await client.wait(thread, accepted.message_id)
        assert isinstance(result, TurnResult)
        assert result.answer == "Held."
        assert await worker.ends(signal.SIGTERM) == 0
    assert len(lines(attempts)) == 2
    assert len(set(lines(attempts))) == 1
    await client.close()


async def test_its_health_says_what_is_wrong(tmp_path: Path, model: ModelServer) -> None:
    """Well while it serves; 503 that names Temporal once that is gone. Told to stop then, it still ends well; and its
    log is JSON to the last line, the words of the SDK's core among them."""
    (tmp_path / "server").mkdir()
    async with EmbeddedServer(home=tmp_path / "server") as server:
        site = Site(tmp_path, server.address, model)
        await site.migrate()
        async with perdure("worker", folder=tmp_path, environment=site.environment | {"PERDURE_LOG": "json"}) as worker:
            await site.is_well()
            assert await site.health() == (200, {"status": "ok", "worker": "running", "temporal": "ok", "store": "ok"})
            os.kill(server.pid, signal.SIGKILL)
            _, found = await eventually(site.health, lambda seen: seen[0] == 503)
            assert found["temporal"].startswith("Temporal: ")
            assert (found["status"], found["worker"], found["store"]) == ("unhealthy", "running", "ok")
            assert await worker.ends(signal.SIGTERM) == 0
    assert worker.out == ""
    told = [json.loads(line) for line in worker.err.splitlines()]
    caution, *events = [line for line in told if line["logger"] == "perdure.worker"]
    assert (caution["level"], caution["store"]) == ("warning", site.settings.store)
    assert [line["event"] for line in events] == [
        "worker started", "worker stops", "worker stopped",
    ]  # fmt: skip


async def test_its_health_names_the_store(site: Site) -> None:
    """A store that lost its schema serves nobody."""
    await site.migrate()
    async with perdure("worker", folder=site.folder, environment=site.environment):
        await site.is_well()
        file = places.SqlitePlace(Path(site.settings.store.removeprefix("sqlite:///")))
        places.run(file, "DELETE FROM schema_migrations")
        status, found = await site.health()
        assert status == 503
        assert "perdure db migrate" in found["store"]


def _reader(path: Path) -> Any:
    async def read() -> list[str]:
        return lines(path)

    return read
