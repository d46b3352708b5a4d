"""`perdure doctor`: what it finds where all is well, and where something is missing."""

import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
from psycopg import sql
from structlog.testing import capture_logs

from perdure.app import load_app
from perdure.security.signing import SigningKey
from perdure.settings import Settings
from perdure.starters.service import Service
from perdure.stores import open_store
from perdure.testing import ModelServer, Script
from perdure.workers.connect import connect_embedded
from perdure.workers.doctor import Check, examine, exit_code
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.health import Health
from perdure.workers.process import log_cautions
from perdure.workers.worker import build_worker
from tests import postgres
from tests.programs import run
from tests.threads import History

APP = "perdure.examples.orders.desk:app"


@pytest_asyncio.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(home=tmp_path_factory.mktemp("home")) as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a folder in which nothing is yet."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return Settings(home=tmp_path, store=f"sqlite:///{tmp_path / 'store.db'}", task_queue=tmp_path.name, app=APP)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def outcomes(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.outcome for check in checks}


async def test_where_all_is_well_it_says_so(
    settings: Settings, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every check finds what it looks for, down to the worker that polls and the model that answers."""
    store = open_store(settings.store)
    await store.migrate()
    client = await connect_embedded(server.address)
    async with ModelServer(Script(models=["one", "two"])) as model:
        monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
        async with build_worker(client, app=load_app(APP), store=store, settings=settings):
            await Service(client).require(settings.task_queue)  # the server has seen it
            checks = await examine(settings, address=server.address)
    await store.close()
    found = by_name(checks)
    assert [name for name, outcome in outcomes(checks).items() if outcome != "ok"] == ["Durability", "Approvals"]
    assert "in anybody's name" in found["Approvals"].found
    assert "synchronous=normal" in found["Durability"].found
    assert exit_code(checks) == 0
    assert list(found) == [
        "Python", "Temporal executable", "Temporal server", "Namespace", "Search attributes", "Worker", "Store",
        "Durability", "App", "Approvals", "Model",
    ]  # fmt: skip
    assert found["Temporal server"].found.startswith(server.address)
    assert found["Worker"].found.startswith(f"task queue {settings.task_queue}: ")
    assert found["App"].found == f"{APP} with orders; tools: 7"
    assert found["Model"].found.endswith("2 models")


async def test_it_says_whether_decisions_are_signed(settings: Settings, tmp_path: Path) -> None:
    """Whose keys there are; that there is none, so that nobody can approve; and what is wrong with them."""

    async def found() -> Check:
        signed = settings.model_copy(update={"approver_keys": tmp_path / "keys"})
        return by_name(await examine(signed, address="127.0.0.1:1"))["Approvals"]

    assert (await found()).outcome == "problem"
    (tmp_path / "keys").mkdir()
    assert ((await found()).outcome, "perdure keys new" in (await found()).mend) == ("warning", True)
    for name in ("ann", "bob"):
        SigningKey.new(name).save(tmp_path / "keys")
    assert ((await found()).outcome, (await found()).found) == ("ok", "only signed decisions count; keys of ann, bob")
    (tmp_path / "keys" / "ann.pub").write_text("ann hunter2")
    assert ((await found()).outcome, "ann.pub: line 1" in (await found()).found) == ("problem", True)


async def test_what_is_missing_comes_with_what_to_do(settings: Settings, server: EmbeddedServer) -> None:
    """No worker and no model: cautions. No schema: a problem. And looking has made nothing."""
    checks = await examine(settings, address=server.address)
    found = by_name(checks)
    assert found["Worker"].outcome == "warning"
    assert "perdure worker" in found["Worker"].mend
    assert found["Model"].outcome == "warning"
    assert "OPENAI_API_KEY" in found["Model"].mend
    assert found["Store"].outcome == "problem"
    assert "perdure db migrate" in found["Store"].mend
    assert exit_code(checks) == 6
    assert not (settings.home / "store.db").exists()

    (settings.home / "store.db").touch()
    checks = await examine(settings, address=server.address)
    assert "Run `perdure db migrate`" in by_name(checks)["Store"].mend
    assert exit_code(checks) == 1


@pytest.fixture(params=["postgres", "redis"])
def server_url(request: pytest.FixtureRequest) -> str:
    """An empty store on a database server."""
    fresh: Callable[[], str] = request.getfixturevalue(f"{request.param}_url")
    return fresh()


async def test_a_store_on_a_server_is_looked_at(settings: Settings, server_url: str) -> None:
    """Without its schema, a problem; with it, how much there is, and each thing that its configuration can lose."""
    served = settings.model_copy(update={"store": server_url})
    found = by_name(await examine(served, address="127.0.0.1:1"))
    assert (found["Store"].outcome, found["Store"].code) == ("problem", 1)
    assert "perdure db migrate" in found["Store"].mend
    assert "Durability" not in found

    store = open_store(server_url)
    await store.migrate()
    await History(store).commit({})
    cautions = await store.cautions()
    found = by_name(await examine(served, address="127.0.0.1:1"))
    assert (found["Store"].outcome, found["Store"].found) == ("ok", f"{store.url}, 1 threads, 1 checkpoints")
    assert found["Durability"].outcome == ("warning" if cautions else "ok")
    assert all(caution in found["Durability"].found for caution in cautions)
    await store.close()


@pytest.mark.parametrize("url", ["postgresql://me:secret@127.0.0.1:1/x?patience=0.5", "redis://me:secret@127.0.0.1:1"])
async def test_a_store_out_of_reach_is_a_problem(settings: Settings, url: str) -> None:
    """Exit code 6; where it was looked for is told, its password isn't."""
    found = by_name(await examine(settings.model_copy(update={"store": url}), address="127.0.0.1:1"))["Store"]
    assert (found.outcome, found.code) == ("problem", 6)
    assert "127.0.0.1:1" in found.found
    assert "secret" not in found.found


async def test_a_store_that_cant_be_written_to_is_a_problem(
    settings: Settings, postgres_url: Callable[[], str]
) -> None:
    """A replica, or a role that may only read: a worker would fail at its first commit."""
    url = postgres_url()
    store = open_store(url)
    await store.migrate()
    await store.close()
    with psycopg.connect(url, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
    read_only = settings.model_copy(update={"store": f"{url}&patience=0.5" if "?" in url else f"{url}?patience=0.5"})
    found = by_name(await examine(read_only, address="127.0.0.1:1"))["Store"]
    assert found.outcome == "problem"
    assert "read-only" in found.found


async def test_a_worker_says_at_its_start_what_can_be_lost(tmp_path: Path) -> None:
    """The same sentences as the doctor's, a warning each, once."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    with capture_logs() as logs:
        await log_cautions(store)
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("warning", caution) for caution in await store.cautions()
    ]
    assert len(logs) == 1
    await store.close()


async def test_health_tells_of_a_store_that_is_gone(server: EmbeddedServer) -> None:
    """A worker whose database is away isn't well, and is well again when it is back; a probe isn't kept waiting."""
    with postgres.server() as own:
        store = open_store(own.url)
        await store.migrate()
        health = Health(await connect_embedded(server.address), store)
        health.worker = "running"
        assert (await health.look())["store"] == "ok"
        own.stop()
        began = time.monotonic()
        seen = await health.look()
        assert (seen["status"], seen["temporal"]) == ("unhealthy", "ok")
        assert seen["store"] != "ok"
        assert time.monotonic() - began < 2.9
        own.start()
        assert (await health.look())["status"] == "ok"
        await store.close()


async def test_without_a_server_the_rest_is_still_looked_at(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Temporal out of reach is exit code 6; a silent model and an app that can't be loaded are told too."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    broken = settings.model_copy(update={"app": "nowhere:app", "temporal": "/nowhere/temporal"})
    checks = await examine(broken, address="127.0.0.1:1", namespace="other")
    found = by_name(checks)
    assert "Worker" not in found
    assert (found["Temporal server"].outcome, found["Temporal server"].code) == ("problem", 6)
    assert (found["App"].outcome, found["App"].code) == ("problem", 1)
    assert found["Temporal executable"].outcome == "warning"
    assert found["Model"].outcome == "warning"
    assert "127.0.0.1:1" in found["Model"].found
    assert exit_code(checks) == 6


async def test_a_model_that_refuses_the_key_is_a_caution(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has no list of models may serve them all the same."""
    async with ModelServer() as model:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{model.url}/elsewhere")
        found = by_name(await examine(settings, address="127.0.0.1:1"))["Model"]
    assert (found.outcome, "answers 404" in found.found) == ("warning", True)


async def test_the_command_prints_one_document_or_a_table(tmp_path: Path, server: EmbeddedServer) -> None:
    """JSON on standard output whatever an app prints as it is imported; the exit code tells a problem."""
    (tmp_path / "loud.py").write_text("from perdure import App\nprint('I am imported')\napp = App(agents=[])\n")
    where = ("doctor", "--address", server.address, "--app", "loud:app", "--store", "sqlite:///store.db")
    program = await run(*where, "-o", "json", folder=tmp_path)
    checks = [Check.model_validate(each) for each in json.loads(program.out)]
    assert outcomes(checks)["App"] == "ok"
    assert "I am imported" in program.err
    assert program.process.returncode == exit_code(checks) == 6

    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await store.migrate()
    await store.close()
    program = await run(*where, folder=tmp_path)
    assert program.process.returncode == 0
    assert "No worker serves the task queue perdure." in program.out
