"""`perdure dev`: everything in one process, which may be stopped or killed and goes on where it was."""

import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from perdure.contracts import StatusAnswer, TurnResult
from perdure.errors import Conflict, DefinitionError
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.testing import ModelServer
from perdure.workers.dev import develop
from perdure.workers.dev_record import DevRecord
from tests.desk import APP, SCRIPT, lines, write_app
from tests.programs import Program, gone, is_alive, perdure, run
from tests.test_embedded import free_port, taken_port
from tests.world import eventually


@pytest_asyncio.fixture(scope="module")
async def model() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT) as model:
        yield model


class Site:
    """A folder with an app in it, where `perdure dev` is run."""

    def __init__(self, folder: Path, model: ModelServer) -> None:
        self.folder = folder
        self.home = folder / ".perdure"
        self.environment = {
            "PERDURE_HEARTBEAT": "1",
            "OPENAI_API_KEY": "offline",
            "OPENAI_BASE_URL": model.base_url,
        }
        write_app(folder)

    @asynccontextmanager
    async def dev(self, *options: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Program]:
        """`perdure dev`, once it serves. Where it is killed, its server ends before this does."""
        told = {**self.environment, **(environment or {})}
        async with perdure("dev", "--app", APP, *options, folder=self.folder, environment=told) as program:
            await program.says("Temporal UI")
            server = self.server
            yield program
        await gone(server)

    @property
    def record(self) -> DevRecord:
        """What dev.json says."""
        return DevRecord.model_validate_json((self.home / "dev.json").read_text())

    @property
    def server(self) -> int:
        """The process of Temporal."""
        return int((self.home / "server.lock").read_text())

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        settings = Settings(home=self.home, store=self.record.store)
        client = await Client.connect(address=self.record.address, settings=settings)
        yield client
        await client.close()

    def is_left_tidy(self) -> bool:
        """Neither a record of a process that has ended, nor a half written one."""
        return not list(self.home.glob("dev.json*"))


@pytest.fixture
def site(tmp_path: Path, model: ModelServer) -> Site:
    return Site(tmp_path, model)


async def test_a_thread_waits_for_approval_across_a_stop(site: Site) -> None:
    """SIGTERM while a person is asked: exit 0, nothing left running. The next start serves the same thread, and the
    approval it waited for ends it."""
    async with site.dev() as dev:
        assert site.record.pid == dev.process.pid
        assert (site.record.app, site.record.store) == (APP, f"sqlite:///{site.home / 'store.db'}")
        assert site.record.ui in dev.out
        assert "perdure start orders" in dev.out
        async with site.client() as client:
            thread, accepted = await client.start("orders", "Please pay.")
            status = await client.wait(thread, accepted.message_id)
            assert isinstance(status, StatusAnswer)
            assert status.status == "awaiting_approval"
        server = site.server
        assert await dev.ends(signal.SIGTERM) == 0
        assert not is_alive(server)
        assert site.is_left_tidy()
    assert lines(site.folder / "paid") == []

    async with site.dev() as dev:
        async with site.client() as client:
            await client.decide(thread, "approve", await client.request(thread), approver="finance")
            result = await client.wait(thread, accepted.message_id)
            assert isinstance(result, TurnResult)
            assert (result.outcome, result.answer) == ("answered", "Paid.")
        assert await dev.ends(signal.SIGHUP) == 0  # the terminal was closed
    assert len(lines(site.folder / "paid")) == 1
    assert site.is_left_tidy()


async def test_a_killed_one_takes_its_server_along_and_the_next_goes_on(site: Site) -> None:
    """SIGKILL in the middle of a tool. No orphan stays; dev.json of the dead process does no harm; the call is tried
    again under its own key."""
    attempts = site.folder / "attempts"

    async def tried() -> list[str]:
        return lines(attempts)

    async with site.dev() as dev:
        async with site.client() as client:
            thread, accepted = await client.start("orders", "Please hold.")
        await eventually(tried, bool)
        assert await dev.ends(signal.SIGKILL) == -signal.SIGKILL
    assert not site.is_left_tidy()
    (site.folder / "go").touch()
    async with site.dev() as dev:
        assert site.record.pid == dev.process.pid
        async with site.client() as client:
            result = await client.wait(thread, accepted.message_id)
            assert isinstance(result, TurnResult)
            assert result.answer == "Held."
        assert await dev.ends(signal.SIGTERM) == 0
    assert len(lines(attempts)) == 2
    assert len(set(lines(attempts))) == 1
    assert site.is_left_tidy()


async def test_a_second_one_is_refused_and_the_first_told_twice_ends_at_once(site: Site) -> None:
    """The second names the first and leaves it alone. Ctrl-C twice doesn't wait for a tool, and leaves no server."""
    async with site.dev() as dev:
        second = await run("dev", "--app", APP, folder=site.folder, environment=site.environment)
        assert second.process.returncode == 4
        assert f"process {dev.process.pid}" in second.err
        async with site.client() as client:
            await client.start("orders", "Please hold.")

        async def tried() -> list[str]:
            return lines(site.folder / "attempts")

        await eventually(tried, bool)
        dev.process.send_signal(signal.SIGINT)
        await dev.says("Stopping.")
        assert await dev.ends(signal.SIGINT) == 128 + signal.SIGINT
    assert site.is_left_tidy()


async def test_it_always_starts_its_own_server_and_says_what_leads_elsewhere(site: Site) -> None:
    """TEMPORAL_ADDRESS, keys and TLS of another server don't matter to it; who types next is warned."""
    port, ui_port = free_port(), free_port()
    misleading = {
        "TEMPORAL_ADDRESS": "temporal.invalid:7233",
        "TEMPORAL_API_KEY": "key",
        "OPENAI_API_KEY": "",
        "OPENAI_BASE_URL": "",
    }
    async with site.dev("--port", str(port), "--ui-port", str(ui_port), environment=misleading) as dev:
        assert site.record.address == f"127.0.0.1:{port}"
        assert site.record.ui == f"http://127.0.0.1:{ui_port}"
        assert (
            f"TEMPORAL_ADDRESS is temporal.invalid:7233: unset it there, or add --address 127.0.0.1:{port}." in dev.out
        )
        assert "No model is configured" in dev.out
        os.kill(site.server, signal.SIGKILL)
        assert await dev.ends() == 6
    assert "The embedded Temporal server died" in dev.err
    assert site.is_left_tidy()


async def test_what_it_can_not_do_it_says_before_it_begins(site: Site) -> None:
    """No app: how to name one, with one that is there. A wrong app, a taken port: told; nothing is left behind."""
    nameless = await run("dev", folder=site.folder, environment=site.environment)
    assert nameless.process.returncode == 2
    assert "--app perdure.examples.orders.desk:app" in nameless.err
    settings = Settings(home=site.home)
    with pytest.raises(DefinitionError, match="nowhere"):
        await develop("perdure.nowhere:app", settings)
    assert not site.home.exists()
    with taken_port() as port, pytest.raises(Conflict, match=f"Port {port} is taken"):
        await develop("perdure.examples.orders.desk:app", settings, port=port)
    assert sorted(path.name for path in site.home.iterdir()) == ["owner.lock", "server.lock"]
