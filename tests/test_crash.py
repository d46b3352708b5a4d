"""Workers that die by SIGKILL, at every point where it could hurt; and workers that stand still and come back late."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from tests.crash.cases import CASES
from tests.crash.late import LATE
from tests.crash.scene import ORDERS, Scene, scene

_AT_ONCE = 6  # scenes; each is two processes, mostly waiting


@dataclass(frozen=True, kw_only=True, eq=False)
class Play:
    """What happens in a scene, under the name of its test."""

    name: str
    act: Callable[[Scene], Awaitable[None]]
    app: str = ORDERS


def plays(*cast: Play) -> pytest.MarkDecorator:
    """The test is these plays, one at a time for pytest; see ``stage``."""
    return pytest.mark.parametrize("play", cast, ids=[play.name for play in cast])


@pytest_asyncio.fixture(scope="module")
async def stage(
    request: pytest.FixtureRequest, environment: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[Play, asyncio.Task[None]]]:
    """All plays of this session, some of them at once, since a recovery is mostly waiting. A test awaits its own."""
    some = asyncio.Semaphore(_AT_ONCE)

    async def perform(play: Play) -> None:
        async with some, scene(environment.client, tmp_path_factory.mktemp("crash"), play.app) as set_up:
            await play.act(set_up)

    chosen = [play for item in request.session.items if (play := _play_of(item))]
    under_way = {play: asyncio.create_task(perform(play)) for play in chosen}
    yield under_way
    for task in under_way.values():
        task.cancel()
    await asyncio.gather(*under_way.values(), return_exceptions=True)


def _play_of(item: pytest.Item) -> Play | None:
    """The play of a test of this module, which is its only parameter."""
    if not isinstance(item, pytest.Function) or item.module.__name__ != __name__:
        return None
    play = item.callspec.params["play"]
    assert isinstance(play, Play)
    return play


@plays(*(Play(name=case.name, act=case.play) for case in CASES))
async def test_a_thread_survives_its_worker(play: Play, stage: dict[Play, asyncio.Task[None]]) -> None:
    """Wherever the worker dies: the thread ends as it would have; each effect is made once, each model call paid for
    once (but for the one whose answer died with the worker); no checkpoint is lost, doubled or changed."""
    await stage[play]


@plays(*(Play(name=late.name, act=late.play) for late in LATE))
async def test_a_worker_that_comes_back_late_changes_nothing(play: Play, stage: dict[Play, asyncio.Task[None]]) -> None:
    """Stopped in the middle of a step that another worker then finished: its own attempt is recognised as done or
    refused, and nothing has changed, not a row, not an effect, not an event."""
    await stage[play]
