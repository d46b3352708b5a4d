"""`perdure doctor`: what it finds where all is well, and where something is missing."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from perdure.app import load_app
from perdure.settings import Settings
from perdure.stores import open_store
from perdure.testing import ModelServer, Script
from perdure.workers.connect import connect_embedded
from perdure.workers.doctor import Check, examine, exit_code
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.worker import build_worker
from tests.programs import run

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
            checks = await examine(settings, address=server.address)
    await store.close()
    found = by_name(checks)
    assert set(outcomes(checks).values()) == {"ok"}
    assert exit_code(checks) == 0
    assert list(found) == [
        "Python", "Temporal executable", "Temporal server", "Namespace", "Search attributes", "Worker", "Store", "App",
        "Model",
    ]  # fmt: skip
    assert found["Temporal server"].found.startswith(server.address)
    assert found["Worker"].found.startswith(f"task queue {settings.task_queue}: ")
    assert found["App"].found == f"{APP} with orders; tools: 7"
    assert found["Model"].found.endswith("2 models")


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
