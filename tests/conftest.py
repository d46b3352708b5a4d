"""One real Temporal server a session, with a virtual clock for each workflow; everything else is each test's own."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment

from perdure.app import App
from perdure.stores import Store, open_store
from perdure.testing import Script
from perdure.wire import data_converter
from perdure.workers.embedded import TUNING
from tests.places import Place, PostgresPlace, SqlitePlace
from tests.postgres import Fresh, databases
from tests.valkey import Server, server, stores
from tests.world import TEMPORAL, World, search_attributes, world

MakeWorld = Callable[..., AbstractAsyncContextManager[World]]
SERVER = {
    "frontend.WorkflowTimeSkippingEnabled": "true",
    # A deleted history is gone in a few seconds, not in half a minute.
    "history.transferProcessorUpdateAckInterval": '"100ms"',
    "history.visibilityProcessorUpdateAckInterval": '"100ms"',
    **TUNING,
}


# The files that take longest. Run side by side, they begin first, so that none of them is what everybody waits for; but
# the crashes begin once the fault matrix should be over: both wait for signs of life, and either keeps a machine busy.
_LONG = (
    "test_fault_matrix.py", "test_conformance.py", "test_approval_matrix.py", "test_life.py", "test_demo.py",
    "test_cli_errors.py", "test_langgraph.py", "test_travel_cli.py", "test_worker_process.py", "test_dev.py",
    "test_crash.py", "test_trust_cli.py", "test_cli.py", "test_saga.py", "test_sagas.py", "test_sql_store_costs.py",
    "test_repair.py", "test_redis_deaths.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; else in their order."""
    items.sort(key=lambda item: _LONG.index(item.path.name) if item.path.name in _LONG else len(_LONG))


@pytest_asyncio.fixture(scope="session")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """The server. Each thread has a clock of its own, which ``World.forward`` moves: 30 days pass in a second."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        ts_config=TimeSkippingConfig(enabled=False),  # else a thread that waits for a person is at its expiry at once
        data_converter=data_converter,
        dev_server_existing_path=TEMPORAL,
        dev_server_extra_args=[part for pair in SERVER.items() for part in ("--dynamic-config-value", "=".join(pair))],
        search_attributes=search_attributes(),
    ) as environment:
        yield environment


@pytest.fixture
def make_world(environment: WorkflowEnvironment, tmp_path: Path) -> MakeWorld:
    """Makes worlds: ``async with make_world(app, script) as world``."""

    def make(app: App, script: Script | None = None, **options: Any) -> AbstractAsyncContextManager[World]:
        return world(environment.client, tmp_path, app, script or Script(), **options)

    return make


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[Fresh]:
    """Makes PostgreSQL databases: each ``postgres_url()`` is the URL of another one, which is empty."""
    with databases() as fresh:
        yield fresh


@pytest.fixture(scope="session")
def redis_url() -> Iterator[Callable[[], str]]:
    """Makes Redis stores: each ``redis_url()`` is the URL of another one, which is empty and has not been migrated."""
    with stores() as fresh:
        yield fresh


@pytest.fixture(scope="session")
def valkey() -> Iterator[Server]:
    """A Valkey server of our own, which tests may empty, reconfigure and damage."""
    with server() as own:
        yield own


@pytest_asyncio.fixture
async def valkey_url(valkey: Server) -> str:
    """That server with nothing on it but an empty store that has its schema."""
    valkey.ask("FLUSHALL")
    store = open_store(valkey.url)
    await store.migrate()
    await store.close()
    return valkey.url


@pytest_asyncio.fixture(params=["memory", "sqlite", "postgres", "redis"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    if request.param == "memory":
        url = f"memory://{tmp_path.name}"
    elif request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'store.db'}"
    else:
        url = request.getfixturevalue(f"{request.param}_url")()
    store = open_store(url)
    await store.migrate()
    yield store
    await store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty SQL database, of each kind."""
    if request.param == "sqlite":
        return SqlitePlace(tmp_path / "store.db")
    return PostgresPlace(request.getfixturevalue("postgres_url"))
