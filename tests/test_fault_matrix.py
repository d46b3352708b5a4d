"""The fault matrix: whatever strikes a tool call, the shop's books show each effect at most once, nothing that can't be
undone is attempted twice, and what nobody knows is in doubt until it is settled."""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from tests.faults.findings import Finding, look, table
from tests.faults.matrix import ROUNDS, Round
from tests.faults.play import played

_AT_ONCE = 3  # rounds; each is mostly waiting for heartbeats that don't come

Stage = Mapping[str, asyncio.Task[list[Finding]]]


@pytest_asyncio.fixture(scope="module")
async def stage(
    request: pytest.FixtureRequest, environment: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """All rounds of this session, some of them at once. A test awaits its own."""
    some = asyncio.Semaphore(_AT_ONCE)

    async def perform(round: Round) -> list[Finding]:
        async with some, played(environment.client, tmp_path_factory.mktemp("faults"), round) as play:
            return await look(play)

    wanted = {item.callspec.params["played_round"] for item in request.session.items if isinstance(item, pytest.Function) and item.module.__name__ == __name__ and hasattr(item, "callspec")}
    under_way = {round.name: asyncio.create_task(perform(round)) for round in ROUNDS if round.name in wanted}
    yield under_way
    for task in under_way.values():
        task.cancel()
    await asyncio.gather(*under_way.values(), return_exceptions=True)


@pytest.mark.parametrize("played_round", [round.name for round in ROUNDS])
async def test_calls_survive_it(played_round: str, stage: Stage) -> None:
    """x"""
    found = await stage[played_round]
    sys.stdout.write(f"\n{table(found)}\n")
