"""One real Temporal server a session, with a virtual clock for each workflow; everything else is each test's own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from perdure.app import App
from perdure.testing import Script
from perdure.wire import data_converter
from tests.world import TEMPORAL, World, search_attributes, world

MakeWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest_asyncio.fixture(scope="session")
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    """The server. Timers wait in virtual time: a thread's 30 days pass in a second."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        data_converter=data_converter,
        dev_server_existing_path=TEMPORAL,
        dev_server_extra_args=["--dynamic-config-value", "frontend.WorkflowTimeSkippingEnabled=true"],
        search_attributes=search_attributes(),
    ) as environment:
        yield environment


@pytest.fixture
def make_world(environment: WorkflowEnvironment, tmp_path: Path) -> MakeWorld:
    """Makes worlds: ``async with make_world(app, script) as world``."""

    def make(app: App, script: Script | None = None, **options: Any) -> AbstractAsyncContextManager[World]:
        return world(environment.client, tmp_path, app, script or Script(), **options)

    return make
