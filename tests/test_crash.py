"""Workers that die by SIGKILL, at every point where it could hurt; and workers that stand still and come back late."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.testing import WorkflowEnvironment

from perdure.examples.orders.shop import ShopFault
from perdure.testing import ModelFault
from tests.crash.points import point
from tests.crash.process import WorkerProcess
from tests.crash.scene import PATIENCE, Scene, scene
from tests.crash.stories import NOT_CALLED, ORDER, TAKEN_BACK, THREE_AT_ONCE, Story

_AT_ONCE = 4  # scenes; each is two processes, mostly waiting


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where the first worker dies, and what that may cost.

    ``at`` is a point in the worker. ``shop`` and ``model`` hold a request: the worker is killed while it waits for
    the answer; so it is, ``while_waiting``, once its thread waits for approval. ``repaid`` and ``attempts``: see Scene.
    """

    story: Story
    at: str = ""
    shop: ShopFault | None = None
    model: ModelFault | None = None
    repaid: int | None = None
    attempts: Mapping[str, int] = field(default_factory=dict)


def _at(story: Story, *points: str) -> dict[str, Case]:
    return {at: Case(story=story, at=at) for at in points}


_CHARGE, _REFUND, _MONITOR = "charge tok_visa_1", "refund tok_visa_1", "reserve monitor"

CASES: dict[str, Case] = {
    # In workflow tasks, and around whole activities: nothing is done twice but looking into the store.
    **_at(
        ORDER,
        "before task open_turn 1",
        "before activity open_turn 1",
        "after activity open_turn 1",
        "before task call_model 1",
        "before activity call_model 1",
        "after activity call_model 1",
        "before task tool:reserve_stock 1",
        "before activity tool:reserve_stock 1",
        "after activity tool:reserve_stock 1",
        "before activity call_model 2",
        "after activity call_model 2",
        "before task tool:charge_card 1",
        "before activity tool:charge_card 1",
        "after activity tool:charge_card 1",
        "before activity tool:book_courier 1",
        "after activity tool:book_courier 1",
        "before task call_model 4",
        "after activity call_model 4",
    ),
    "waiting for approval": Case(story=ORDER),
    # Inside a model call.
    "model held": Case(story=ORDER, model=ModelFault(mode="hang")),
    "model held, third call": Case(story=ORDER, model=ModelFault(mode="hang", after=2)),
    "model held midway": Case(story=ORDER, model=ModelFault(mode="hang_midway", after=1)),
    "before model post 2": Case(story=ORDER, at="before model post 2"),
    # Between the model's answer and its recording: the one place where an answer is paid for again.
    "after model post 1": Case(story=ORDER, at="after model post 1", repaid=1),
    "after model post 4": Case(story=ORDER, at="after model post 4", repaid=4),
    "before store commit 4": Case(story=ORDER, at="before store commit 4", repaid=2),
    "after store commit 4": Case(story=ORDER, at="after store commit 4"),
    # Inside a tool call, and between the effect and its receipt: the shop is asked again, under the same key.
    "after store claim 2": Case(story=ORDER, at="after store claim 2"),
    "shop held before the charge": Case(story=ORDER, shop=ShopFault(path="/charges", mode="hang")),
    "shop held after the charge": Case(
        story=ORDER, shop=ShopFault(path="/charges", mode="hang_after"), attempts={_CHARGE: 2}
    ),
    "before store commit 5": Case(story=ORDER, at="before store commit 5", attempts={_CHARGE: 2}),
    "after store commit 5": Case(story=ORDER, at="after store commit 5"),
    # Around the opening of the turn.
    "before store commit 1": Case(story=ORDER, at="before store commit 1"),
    "after store commit 1": Case(story=ORDER, at="after store commit 1"),
    # Several calls at once, merged by a local activity.
    **_at(
        THREE_AT_ONCE,
        "before task merge_step 1",
        "before activity merge_step 1",
        "before store commit 3",
        "after store commit 3",
        "after activity merge_step 1",
        "before task call_model 2",
        "after store put_receipt 3",
    ),
    "one of three held before its effect": Case(
        story=THREE_AT_ONCE, shop=ShopFault(path="/reservations", match="monitor", mode="hang")
    ),
    "one of three held after its effect": Case(
        story=THREE_AT_ONCE, shop=ShopFault(path="/reservations", match="monitor", mode="hang_after"),
        attempts={_MONITOR: 2},
    ),
    # A step in which nothing runs but its local activity.
    **{f"{at}, nothing called": Case(story=NOT_CALLED, at=at) for at in (
        "before activity merge_step 1", "after store commit 3", "after activity merge_step 1", "before task call_model 2",
    )},
    # While the turn is taken back.
    **_at(
        TAKEN_BACK,
        "after store fail 1",
        "before activity load_saga 1",
        "after activity load_saga 1",
        "before task undo:refund_card 1",
        "before activity undo:refund_card 1",
        "after store settle 1",
        "after activity undo:refund_card 1",
        "before task undo:release_stock 1",
        "before activity undo:release_stock 1",
        "after activity undo:release_stock 1",
    ),
    "shop held before the refund": Case(story=TAKEN_BACK, shop=ShopFault(path="/charges/*/refund", mode="hang")),
    "shop held after the refund": Case(
        story=TAKEN_BACK, shop=ShopFault(path="/charges/*/refund", mode="hang_after"), attempts={_REFUND: 2}
    ),
    "before store settle 1": Case(story=TAKEN_BACK, at="before store settle 1", attempts={_REFUND: 2}),
    **{f"{at}, taken back": Case(story=TAKEN_BACK, at=at) for at in (
        "after activity tool:book_courier 1", "before activity merge_step 1", "after activity merge_step 1",
        "before store commit 7",
    )},
}  # fmt: skip


@pytest_asyncio.fixture(scope="module")
async def plays(
    request: pytest.FixtureRequest, environment: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, asyncio.Task[None]]]:
    """The cases of this session, under way side by side, a few at a time: a recovery is mostly waiting."""
    few = asyncio.Semaphore(_AT_ONCE)

    async def play(name: str, folder: Path) -> None:
        async with few, scene(environment.client, folder) as set_up:
            await _play(set_up, CASES[name])

    names = [item.callspec.params["name"] for item in request.session.items if _is_played(item)]
    under_way = {name: asyncio.create_task(play(name, tmp_path_factory.mktemp("crash"))) for name in names}
    yield under_way
    for task in under_way.values():
        task.cancel()
    await asyncio.gather(*under_way.values(), return_exceptions=True)


@pytest.mark.parametrize("name", CASES)
async def test_a_thread_survives_its_worker(name: str, plays: dict[str, asyncio.Task[None]]) -> None:
    """Wherever the worker dies: the thread ends as it would have; each effect is made once, each model call paid for
    once (but for the one whose answer died with the worker); no checkpoint is lost, doubled or changed."""
    await plays[name]


async def _play(set_up: Scene, case: Case) -> None:
    story = case.story
    _arm(set_up, case)
    first = await set_up.worker(point(case.at) if case.at else None)
    async with asyncio.TaskGroup() as meanwhile:
        sending = meanwhile.create_task(set_up.begins(story.message))
        if story.approval and case is not CASES["waiting for approval"]:
            meanwhile.create_task(set_up.approved(story.approval))
        await _death(set_up, case, first)
        if case is CASES["waiting for approval"]:
            await set_up.approved(2500.0)
        await set_up.worker()
    result = await set_up.finishes(sending.result())
    assert (result.outcome, result.answer) == (story.outcome, story.answer)
    await set_up.is_whole(story, repaid=case.repaid, attempts=dict(case.attempts))


def _arm(set_up: Scene, case: Case) -> None:
    if case.shop:
        set_up.shop.add_fault(case.shop)
    if case.model:
        set_up.model.add_fault(case.model)


async def _death(set_up: Scene, case: Case, worker: WorkerProcess) -> None:
    """Return once the worker is dead, by SIGKILL, where the case says."""
    if case.at:
        await worker.dies()
        assert worker.said[-1] == {"reached": case.at}
        return
    if case.shop:
        await set_up.shop.held(within=PATIENCE)
        if case.story is THREE_AT_ONCE:
            await worker.says("ended", "tool:reserve_stock")
            await worker.says("ended", "tool:check_stock")
    elif case.model:
        await set_up.model.held(within=PATIENCE)
    else:
        await set_up.shows("awaiting_approval")
    await worker.is_killed()


def _is_played(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and item.originalname == test_a_thread_survives_its_worker.__name__
