"""Workers that die by SIGKILL, at every point where it could hurt; and workers that stand still and come back late."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from tests.crash.cases import CASES, struck_again_and_again
from tests.crash.doubt import CERTAIN, IN_DOUBT, nobody_is_asked, settled_by_a_late_attempt
from tests.crash.late import LATE, OVERTAKEN
from tests.crash.scene import Scene, scene
from tests.crash.stopped import STOPPED
from tests.crash.stories import ORDER, WIRED, Story
from tests.crash.travelling import TRAVELLING

_AT_ONCE = 6  # scenes; each is two processes, mostly waiting


@dataclass(frozen=True, eq=False)
class Play:
    """What happens in a scene, under the name of its test."""

    name: str
    story: Story
    act: Callable[[Scene], Awaitable[None]]


def plays(*played: Play) -> pytest.MarkDecorator:
    """The test is these plays, one at a time for pytest; see ``stage``."""
    return pytest.mark.parametrize("play", played, ids=[play.name for play in played])


Stage = Mapping[Play, asyncio.Task[None]]


@pytest_asyncio.fixture(scope="module")
async def stage(
    request: pytest.FixtureRequest, environment: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    """All plays of this session, some of them at once, since a recovery is mostly waiting. A test awaits its own."""
    some = asyncio.Semaphore(_AT_ONCE)

    async def perform(play: Play) -> None:
        async with some, scene(environment.client, tmp_path_factory.mktemp("crash"), play.story) as set_up:
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


@plays(*(Play(case.name, case.story, case.play) for case in CASES))
async def test_a_thread_survives_its_worker(play: Play, stage: Stage) -> None:
    """Wherever the worker dies: the thread ends as it would have; each effect is made once, each model call paid for
    once (but for the one whose answer died with the worker); no checkpoint is lost, doubled or changed."""
    await stage[play]


@plays(Play("order", ORDER, struck_again_and_again))
async def test_a_thread_survives_five_workers(play: Play, stage: Stage) -> None:
    """However often: what one of them has recorded, the next one finds."""
    await stage[play]


@plays(*(Play(travelling.name, travelling.story, travelling.play) for travelling in TRAVELLING))
async def test_time_travel_survives_its_worker(play: Play, stage: Stage) -> None:
    """A fork, a rewind, an update: made once, with each effect undone once, wherever the worker dies on the way."""
    await stage[play]


@plays(*(Play(stopped.name, stopped.story, stopped.play) for stopped in STOPPED))
async def test_a_turn_can_be_cancelled_while_nobody_works(play: Play, stage: Stage) -> None:
    """Whatever the dead worker had committed without a word: the turn is undone, and the thread goes on from there."""
    await stage[play]


@plays(*(Play(doubt.name, WIRED, doubt.play) for doubt in IN_DOUBT))
async def test_an_irreversible_effect_is_never_attempted_twice(play: Play, stage: Stage) -> None:
    """Killed inside the attempt: nobody knows how it ended, the thread shows that, and goes on when a person says."""
    await stage[play]


@plays(*(Play(case.name, WIRED, partial(nobody_is_asked, case=case)) for case in CERTAIN))
async def test_an_irreversible_effect_that_is_certain_needs_nobody(play: Play, stage: Stage) -> None:
    """Killed before the attempt began, or after its end was recorded: it is made exactly once, without anyone asked."""
    await stage[play]


@plays(*(Play(late.name, late.story, late.play) for late in LATE))
async def test_a_worker_that_comes_back_late_changes_nothing(play: Play, stage: Stage) -> None:
    """Stopped in the middle of a step that another worker then finished: its own attempt is recognised as done or
    refused, and nothing has changed, not a row, not an effect, not an event."""
    await stage[play]


@plays(*(Play(overtaken.name, overtaken.story, overtaken.play) for overtaken in OVERTAKEN))
async def test_two_attempts_at_once_are_one_step(play: Play, stage: Stage) -> None:
    """A worker that was only slow commits its step while another is at it: that one takes over what it finds."""
    await stage[play]


@plays(Play("wired", WIRED, settled_by_a_late_attempt))
async def test_a_worker_that_comes_back_late_settles_its_own_doubt(play: Play, stage: Stage) -> None:
    """An irreversible attempt that was given up records its end after all: that counts, whatever a person says."""
    await stage[play]
