"""Workers that stand still in the middle of a step, and come back when another has finished the turn."""

from dataclasses import dataclass

from perdure.examples.orders.shop import ShopFault
from perdure.testing import ModelFault
from tests.crash.points import point
from tests.crash.process import WorkerProcess
from tests.crash.scene import PATIENCE, Scene
from tests.crash.stories import ORDER, TAKEN_BACK, THREE_AT_ONCE, Story

_CANCELLED, _MOVED, _SAME = "CancelledError", "ConcurrentModification", "False"


@dataclass(frozen=True, kw_only=True)
class Late:
    """``at`` is a point in the store where the worker stops itself, to go on from there. ``shop`` and ``model`` hold a
    request: the worker is stopped from outside, and finds the answer there when it goes on.

    ``came_to`` is what can become of what it was about to do in the store, or of its attempt.
    """

    story: Story
    came_to: tuple[str, ...]
    at: str = ""
    shop: ShopFault | None = None
    model: ModelFault | None = None

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.story.name}, {self.at or ('held by the shop' if self.shop else 'held by the model')}"

    async def play(self, scene: Scene) -> None:
        """One worker stands still, the other finishes; then the first goes on, and changes nothing."""
        first, message = await self.left_behind(scene)
        await scene.shows("idle" if self.story.outcome == "answered" else "failed")
        before = await scene.everything()
        deed = await self.comes_back(scene, first)
        assert deed in self.came_to, deed
        assert await scene.everything() == before
        await scene.ends_well(message)
        await scene.goes_on()
        await scene.history_is_clean()

    async def left_behind(self, scene: Scene) -> tuple[WorkerProcess, str]:
        """Start the thread, see its worker stand still, start another."""
        if self.shop:
            scene.shop.add_fault(self.shop)
        if self.model:
            scene.model.add_fault(self.model)
        # Full with the one activity that it stands in, it doesn't hold polls open that would swallow others.
        at = point(self.at, "SIGSTOP") if self.at else None
        worker = await scene.worker(at, PERDURE_MAX_CONCURRENT_ACTIVITIES="1")
        async with scene.begun() as message:
            if self.at:
                await worker.says("reached", self.at)
            else:
                await (scene.shop if self.shop else scene.model).held(within=PATIENCE)
                worker.stands_still()
            await scene.worker()
        return worker, message.result()

    async def comes_back(self, scene: Scene, worker: WorkerProcess) -> str:
        """Let the worker go on, and wait for the end of its attempt; what came of it."""
        scene.shop.release()
        scene.model.release()
        heard = len(worker.said)
        worker.goes_on()
        deed = await worker.says("late" if self.at else "ended", since=heard)
        await worker.says("ended", since=heard)
        return str(deed["came_to"])


LATE = [
    # In a model call; and with an answer in hand that is not the thread's, whose calls have other ids.
    Late(story=ORDER, model=ModelFault(mode="hang"), came_to=(_CANCELLED, _MOVED)),
    Late(story=ORDER, at="before store commit 2", came_to=(_MOVED,)),
    # In a tool call, after its effect.
    Late(
        story=ORDER, shop=ShopFault(path="/reservations", mode="hang_after"),
        came_to=(_CANCELLED, "done"),
    ),
    Late(story=ORDER, at="before store commit 3", came_to=(_SAME,)),
    # Before an attempt, of an effect that is done since, or that has clearly failed.
    Late(story=ORDER, at="before store claim 1", came_to=(_MOVED,)),
    Late(story=TAKEN_BACK, at="before store claim 3", came_to=(_MOVED,)),
    Late(story=TAKEN_BACK, at="before store fail 1", came_to=("None",)),
    # One of three, after its effect; and their merge.
    Late(story=THREE_AT_ONCE, at="before store put_receipt 1", came_to=(_MOVED,)),
    Late(story=THREE_AT_ONCE, at="before store commit 3", came_to=(_SAME,)),
    # While the turn is taken back.
    Late(story=TAKEN_BACK, at="before store settle 1", came_to=("None",)),
    Late(story=TAKEN_BACK, at="before store commit 7", came_to=(_SAME,)),
]  # fmt: skip
