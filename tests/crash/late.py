"""Workers that stand still in the middle of a step, and come back when another has finished the turn."""

from dataclasses import dataclass

from perdure.examples.orders.shop import ShopFault
from perdure.testing import ModelFault
from tests.crash.points import point
from tests.crash.process import WorkerProcess
from tests.crash.scene import PATIENCE, Scene
from tests.crash.stories import ORDER, STILL_THERE, TAKEN_BACK, THREE_AT_ONCE, Story

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
        if self.shop:
            scene.shop.add_fault(self.shop)
        if self.model:
            scene.model.add_fault(self.model)
        # Full with the one activity that it stands in, it doesn't hold polls open that would swallow others.
        first = await scene.worker(
            point(self.at, "SIGSTOP") if self.at else None, PERDURE_MAX_CONCURRENT_ACTIVITIES="1"
        )
        async with scene.sending(self.story) as message:
            await self._stands_still(scene, first)
            await scene.worker()
        await scene.shows("idle" if self.story.outcome == "answered" else "failed")
        before = await scene.everything()
        scene.shop.release()
        scene.model.release()
        heard = len(first.said)
        first.goes_on()
        deed = await first.says("late", since=heard) if self.at else await first.says("ended", since=heard)
        await first.says("ended", since=heard)
        assert deed["came_to"] in self.came_to, deed
        assert await scene.everything() == before
        await scene.ends(message.result(), self.story)
        again = await scene.client.send(scene.thread, STILL_THERE.message)
        await scene.ends(again.message_id, STILL_THERE)
        await scene.history_is_clean()

    async def _stands_still(self, scene: Scene, worker: WorkerProcess) -> None:
        if self.at:
            await worker.says("reached", self.at)
            return
        await (scene.shop.held(within=PATIENCE) if self.shop else scene.model.held(within=PATIENCE))
        worker.stands_still()


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
