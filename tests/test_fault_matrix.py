"""The fault matrix: whatever strikes a tool call, the shop's books show each effect at most once, nothing that can't be
undone is attempted twice, and what nobody knows is in doubt until it is settled.

`pytest -rP` shows the table: fault by class, how many calls came to what, and who had to say so.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from tests.faults.findings import Finding, look, table
from tests.faults.matrix import ROUNDS, Round
from tests.faults.play import played

_AT_ONCE = 3  # rounds; each is mostly waiting for signs of life that don't come

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

    chosen = [round for item in request.session.items if (round := _round_of(item))]
    under_way = {round.name: asyncio.create_task(perform(round)) for round in chosen}
    yield under_way
    for task in under_way.values():
        task.cancel()
    await asyncio.gather(*under_way.values(), return_exceptions=True)


def _round_of(item: pytest.Item) -> Round | None:
    """The round of a test of this module, which is its only parameter."""
    if not isinstance(item, pytest.Function) or item.module.__name__ != __name__ or not hasattr(item, "callspec"):
        return None
    round = item.callspec.params["round"]
    assert isinstance(round, Round)
    return round


def test_there_are_five_hundred_fault_points() -> None:
    """One call and one fault each, none of them twice; every class meets every fault."""
    points = [(deed.made_for, fault.name) for round in ROUNDS for deed, fault in round.points()]
    assert len(points) == len(set(points)) >= 500
    met = {(fault.name, deed.effect) for round in ROUNDS for deed, fault in round.points() if not deed.undoing}
    assert len(met) == 4 * len({fault for fault, _ in met})


@pytest.mark.parametrize("round", ROUNDS, ids=lambda round: round.name)
async def test_every_effect_is_made_once_or_known_to_be_missing(round: Round, stage: Stage) -> None:
    """Each call of the round is struck: by SIGKILL, by SIGSTOP, or by what the shop does. What became of it follows
    from its class and its fault: in the shop's books, the thread's ledger, the conversation, the end of the turn."""
    found = await stage[round.name]
    assert len(found) == len(list(round.points()))
    sys.stdout.write(f"\n{table(found)}\n")
