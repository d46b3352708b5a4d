"""Where workers are killed, and what that may cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.examples.orders.shop import ShopFault
from perdure.testing import ModelFault
from tests.crash.points import point
from tests.crash.process import WorkerProcess
from tests.crash.scene import PATIENCE, Scene
from tests.crash.stories import FANNED, GLANCED, NOT_CALLED, ORDER, TAKEN_BACK, THREE_AT_ONCE, Story


@dataclass(frozen=True, kw_only=True)
class Case:
    """``at`` is a point in the worker (see ``points``). ``shop`` and ``model`` hold a request: the worker is killed
    while it waits for the answer. Without any of them it is killed while its thread waits for approval.

    ``repaid`` and ``attempts`` are the price (see ``Scene.is_whole``).
    """

    story: Story
    at: str = ""
    shop: ShopFault | None = None
    model: ModelFault | None = None
    repaid: int | None = None
    attempts: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the test is called."""
        held = f"held by the shop: {self.shop.path} {self.shop.mode}" if self.shop else ""
        if self.model:
            held = f"held by the model: {self.model.mode} {self.model.after + 1}"
        return f"{self.story.name}, {self.at or held or 'waiting for approval'}"

    async def play(self, scene: Scene) -> None:
        """Start the thread, see its worker die, start another, and look at what has become of everything."""
        waits = not (self.at or self.shop or self.model)
        first = await armed(scene, at=self.at, shop=self.shop, model=self.model)
        async with scene.begun(approving=not waits) as message:
            if waits:
                await scene.shows("awaiting_approval")
                await first.is_killed()
                await scene.approve()
            elif self.at:
                await first.dies_at(self.at)
            else:
                await self._dies_held(scene, first)
            await scene.worker()
        await scene.ends_well(message.result())
        await scene.is_whole(repaid=self.repaid, attempts=self.attempts)

    async def _dies_held(self, scene: Scene, worker: WorkerProcess) -> None:
        await (scene.shop if self.shop else scene.model).held(within=PATIENCE)
        if self.story is THREE_AT_ONCE:  # the other two are done with
            await worker.says("ended", "tool:reserve_stock")
            await worker.says("ended", "tool:check_stock")
        await worker.is_killed()


async def struck_again_and_again(scene: Scene) -> None:
    """One thread, five workers that die, each where the last one's work is taken up; and one that lives."""
    async with scene.begun() as message:
        for at in AGAIN_AND_AGAIN:
            worker = await scene.worker(point(at))
            await worker.dies_at(at)
        await scene.worker()
    await scene.ends_well(message.result())
    await scene.is_whole(repaid=1, attempts={"reserve laptop": 2})


async def armed(
    scene: Scene, *, at: str = "", shop: ShopFault | None = None, model: ModelFault | None = None
) -> WorkerProcess:
    """The first worker, which dies at its point, if it has one; the shop or the model are told to hold a request."""
    if shop:
        scene.shop.add_fault(shop)
    if model:
        scene.model.add_fault(model)
    return await scene.worker(point(at) if at else None)


def _at(story: Story, *points: str) -> list[Case]:
    return [Case(story=story, at=at) for at in points]


def _paid_again(call: int, at: str) -> Case:
    return Case(story=ORDER, at=at, repaid=call)


def _asked_again(story: Story, effect: str, held: ShopFault | str) -> Case:
    """The effect is done and its receipt lost: the shop is asked a second time, under the same key."""
    if isinstance(held, str):
        return Case(story=story, at=held, attempts={effect: 2})
    return Case(story=story, shop=held, attempts={effect: 2})


AGAIN_AND_AGAIN = [
    "after model post 1",
    "after store commit 1",  # the model's answer
    "before activity tool:reserve_stock 1",
    "before store commit 1",  # the reservation is made, its receipt lost
    "before task tool:charge_card 1",  # the third attempt of the reservation, the last that it has, has brought it here
]

CASES: list[Case] = [
    # In the workflow task, which is lost with its worker, and with it what it was about to schedule.
    *_at(ORDER, "before task open_turn 1", "before task call_model 1", "before task tool:reserve_stock 1"),
    *_at(ORDER, "before task tool:charge_card 1", "before task call_model 4"),
    *_at(THREE_AT_ONCE, "before task merge_step 1", "before task call_model 2"),
    *_at(NOT_CALLED, "before task merge_step 1", "before task call_model 2"),
    *_at(TAKEN_BACK, "before task undo:refund_card 1", "before task undo:release_stock 1"),
    # While nothing runs.
    Case(story=ORDER),
    # Around the opening of a turn.
    *_at(ORDER, "before activity open_turn 1", "before store commit 1"),
    *_at(ORDER, "after store commit 1", "after activity open_turn 1"),
    # Around a model call and in its middle; and where its answer is there, but not recorded.
    *_at(ORDER, "before activity call_model 1", "before activity call_model 2", "before model post 2"),
    Case(story=ORDER, model=ModelFault(mode="hang")),
    Case(story=ORDER, model=ModelFault(mode="hang", after=2)),
    Case(story=ORDER, model=ModelFault(mode="hang_midway", after=1)),
    _paid_again(1, "after model post 1"),
    _paid_again(2, "before store commit 4"),
    _paid_again(4, "after model post 4"),
    *_at(ORDER, "after store commit 4", "after activity call_model 1"),
    *_at(ORDER, "after activity call_model 2", "after activity call_model 4"),
    # Around a tool call and in its middle, before and after its effect; and between the effect and its receipt.
    *_at(ORDER, "before activity tool:reserve_stock 1", "before activity tool:charge_card 1"),
    *_at(ORDER, "before activity tool:book_courier 1", "after store claim 2"),
    Case(story=ORDER, shop=ShopFault(path="/charges", mode="hang")),
    _asked_again(ORDER, "charge tok_visa_1", ShopFault(path="/charges", mode="hang_after")),
    _asked_again(ORDER, "charge tok_visa_1", "before store commit 5"),
    *_at(ORDER, "after store commit 5", "after activity tool:reserve_stock 1"),
    *_at(ORDER, "after activity tool:charge_card 1", "after activity tool:book_courier 1"),
    # One of three calls at once; and around their merge, a local activity.
    Case(story=THREE_AT_ONCE, shop=ShopFault(path="/reservations", match="monitor", mode="hang")),
    _asked_again(THREE_AT_ONCE, "reserve monitor", ShopFault(path="/reservations", match="monitor", mode="hang_after")),
    *_at(THREE_AT_ONCE, "after store put_receipt 3", "before activity merge_step 1", "before store commit 3"),
    *_at(THREE_AT_ONCE, "after store commit 3", "after activity merge_step 1"),
    *_at(NOT_CALLED, "before activity merge_step 1", "after store commit 3", "after activity merge_step 1"),
    # Calls beside the workflow, within one workflow task: one that commits its step, and two that are merged.
    *_at(GLANCED, "before activity tool:glance 1", "before store commit 3", "after store commit 3"),
    *_at(GLANCED, "after activity tool:glance 1", "before task call_model 2", "before activity call_model 2"),
    *_at(GLANCED, "after store put_receipt 1", "before activity merge_step 1", "after store commit 5"),
    *_at(GLANCED, "after activity merge_step 1", "before task call_model 3"),
    # A model call beside a node, whose results are merged; and a node that commits its step.
    *_at(FANNED, "before task node:note 1", "before task merge_step 1", "before activity node:note 1"),
    *_at(FANNED, "after store put_receipt 1", "after store put_receipt 2", "after activity call_model 1"),
    *_at(FANNED, "before activity merge_step 1", "before store commit 2", "after store commit 2"),
    *_at(FANNED, "before activity node:tell 1", "after store commit 6", "after activity node:tell 1"),
    # While the turn is taken back: before, inside, between and after its compensations.
    *_at(TAKEN_BACK, "after store fail 1", "after activity tool:book_courier 1"),
    *_at(TAKEN_BACK, "before activity load_saga 1", "after activity load_saga 1"),
    *_at(TAKEN_BACK, "before activity undo:refund_card 1"),
    Case(story=TAKEN_BACK, shop=ShopFault(path="/charges/*/refund", mode="hang")),
    _asked_again(TAKEN_BACK, "refund tok_visa_1", ShopFault(path="/charges/*/refund", mode="hang_after")),
    _asked_again(TAKEN_BACK, "refund tok_visa_1", "before store settle 1"),
    *_at(TAKEN_BACK, "after store settle 1", "after activity undo:refund_card 1"),
    *_at(TAKEN_BACK, "before activity undo:release_stock 1", "after activity undo:release_stock 1"),
    *_at(TAKEN_BACK, "before activity merge_step 1", "before store commit 7", "after activity merge_step 1"),
]
