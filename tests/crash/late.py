"""Workers that stand still in the middle of a step, and come back when another has finished the turn."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.examples.orders.ledger import Reserve
from perdure.examples.orders.shop import ShopFault
from perdure.testing import ModelFault
from tests.crash.points import point
from tests.crash.process import WorkerProcess
from tests.crash.scene import PATIENCE, Scene
from tests.crash.stories import LOOKED, ORDER, TAKEN_BACK, THREE_AT_ONCE, Story

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
        hold(scene, self.shop, self.model)
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
        """Start the thread, see its worker stand still, have another go on."""
        worker = await stopping(scene, self.at)
        async with scene.begun() as message:
            if self.at:
                await worker.says("reached", self.at)
                await scene.worker()
            else:
                await (scene.shop if self.shop else scene.model).held(within=PATIENCE)
                await scene.worker()
                worker.stands_still()
        return worker, message.result()

    async def comes_back(self, scene: Scene, worker: WorkerProcess) -> str:
        """Let the worker go on, and wait for the end of its attempt; what came of it."""
        scene.shop.release()
        scene.model.release()
        heard = len(worker.said)
        await worker.goes_on()
        deed = await worker.says("late" if self.at else "ended", since=heard)
        await worker.says("ended", since=heard)
        return str(deed["came_to"])


@dataclass(frozen=True, kw_only=True)
class Overtaken:
    """Two attempts at once. The first worker stands still where its own is about to be committed, the second ``then``,
    or where ``shop`` or ``model`` hold its request; the first goes on and commits, and then the second does.
    ``meanwhile`` is what somebody else asks of the shop, so that it looks different to the second.
    """

    story: Story
    first: str
    then: str = ""
    shop: ShopFault | None = None
    model: ModelFault | None = None
    meanwhile: Reserve | None = None
    repaid: int | None = None
    attempts: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the test is called."""
        held = "held by the shop" if self.shop else "held by the model"
        return f"{self.story.name}, {self.first}, {self.then or held}"

    async def play(self, scene: Scene) -> None:
        """The second takes over what the first has recorded, and the turn ends as if there had been one."""
        hold(scene, self.shop, self.model)
        first = await stopping(scene, self.first)
        async with scene.begun() as message:
            await first.says("reached", self.first)
            second = await stopping(scene, self.then)
            if self.then:
                await second.says("reached", self.then)
            else:
                await (scene.shop if self.shop else scene.model).held(within=PATIENCE)
            if self.meanwhile:
                scene.shop.ledger.grant(self.meanwhile, "somebody else")
            await first.goes_on()
            deed = await first.says("late")
            assert deed["came_to"] == "True", deed
            scene.shop.release()
            scene.model.release()
            await second.goes_on()
        await scene.ends_well(message.result())
        await scene.is_whole(repaid=self.repaid, attempts=self.attempts)


async def stopping(scene: Scene, at: str) -> WorkerProcess:
    """A worker that will stop itself at this point, if any. Full with the one activity that it stands in, it doesn't
    hold polls open that would swallow others."""
    return await scene.worker(point(at, "SIGSTOP") if at else None, PERDURE_MAX_CONCURRENT_ACTIVITIES="1")


def hold(scene: Scene, shop: ShopFault | None, model: ModelFault | None) -> None:
    """The shop or the model are told to hold a request."""
    if shop:
        scene.shop.add_fault(shop)
    if model:
        scene.model.add_fault(model)


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

_SEEN_BEFORE = LOOKED.model_copy(update={"ledger": (("reserve", "mouse", "done"),)})
_RESERVED_AGAIN = {"reserve laptop": 2}

OVERTAKEN = [
    Overtaken(story=ORDER, first="before store commit 1", then="before store commit 1"),
    # Two answers, with calls of different ids; two results, of which one is out of date.
    Overtaken(story=ORDER, first="before store commit 2", model=ModelFault(mode="hang", after=1), repaid=1),
    Overtaken(
        story=_SEEN_BEFORE, first="before store commit 3", meanwhile=Reserve(sku="mouse", quantity=1),
        shop=ShopFault(path="/stock", mode="hang", after=1),
    ),
    # The same effect, asked for twice; and not a second time where the first attempt has recorded it.
    Overtaken(
        story=ORDER, first="before store commit 3", attempts=_RESERVED_AGAIN,
        shop=ShopFault(path="/reservations", mode="hang", after=1),
    ),
    Overtaken(story=ORDER, first="before store commit 3", then="before store claim 1"),
    # A merge whose receipts the other merge has cleared.
    Overtaken(story=THREE_AT_ONCE, first="before store commit 3", then="before store receipts 1"),
]  # fmt: skip
