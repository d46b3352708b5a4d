"""An effect that can't be undone and is never attempted twice: what a killed worker leaves of it."""

from dataclasses import dataclass

import pytest

from perdure.errors import Conflict
from perdure.examples.orders.shop import ShopFault
from tests.crash.cases import Case, armed
from tests.crash.late import Late
from tests.crash.scene import PATIENCE, Scene
from tests.crash.stories import WIRED


@dataclass(frozen=True, kw_only=True)
class InDoubt:
    """Killed inside the attempt. ``requests`` is how often the bank was asked, ``done`` whether the money has left."""

    requests: int
    done: bool
    at: str = ""
    shop: ShopFault | None = None

    @property
    def name(self) -> str:
        """What the test is called."""
        return self.at or (f"held by the bank: {self.shop.mode}" if self.shop else "")

    async def play(self, scene: Scene) -> None:
        """The thread shows its doubt and waits; a person settles it; nothing is attempted again."""
        first = await armed(scene, at=self.at, shop=self.shop)
        async with scene.begun() as message:
            if self.at:
                await first.dies_at(self.at)
            else:
                await scene.shop.held(within=PATIENCE)
                await first.is_killed()
            await scene.worker()
        await scene.shows("in_doubt")
        await scene.ledger_says(["in_doubt"])
        (effect,) = await scene.client.effects(scene.thread)
        status = await scene.client.status(scene.thread)
        assert effect.key in status.attention[0]
        await scene.client.resolve(scene.thread, effect.key, done=self.done, by="ops", reason="looked at the account")
        await scene.ends_well(message.result())
        await scene.ledger_says(["done" if self.done else "failed"])
        assert asked(scene) == self.requests
        scene.shop_did(WIRED.ledger if self.done else ())
        await scene.store_is_whole(WIRED.sources)
        await scene.history_is_clean()


async def nobody_is_asked(scene: Scene, case: Case) -> None:
    """The ledger knows that no attempt had begun, or how it ended: the thread was never in doubt."""
    await case.play(scene)
    assert asked(scene) == 1
    status = await scene.client.status(scene.thread)
    assert not [entry for entry in status.log if "in doubt" in entry.text]


async def settled_by_a_late_attempt(scene: Scene) -> None:
    """The attempt that was given up was only slow: it records what it did, and nobody can say otherwise."""
    late = Late(story=WIRED, at="before store commit 3", came_to=("True",))
    first, message = await late.left_behind(scene)
    await scene.shows("in_doubt")
    assert await late.comes_back(scene, first) in late.came_to
    (effect,) = await scene.client.effects(scene.thread)
    with pytest.raises(Conflict):
        await scene.client.resolve(scene.thread, effect.key, done=False, by="ops")
    await scene.ends_well(message)
    await scene.is_whole()
    assert asked(scene) == 1


def asked(scene: Scene) -> int:
    """How often the bank was asked."""
    return sum(request.path == "/charges" for request in scene.shop.log)


IN_DOUBT = [
    InDoubt(at="after store claim 1", requests=0, done=False),
    InDoubt(shop=ShopFault(path="/charges", mode="hang"), requests=1, done=False),
    InDoubt(shop=ShopFault(path="/charges", mode="hang_after"), requests=1, done=True),
    InDoubt(at="before store commit 3", requests=1, done=True),
]
CERTAIN = [
    Case(story=WIRED, at="before task tool:send_wire 1"),
    Case(story=WIRED, at="before activity tool:send_wire 1"),
    Case(story=WIRED, at="before store claim 1"),
    Case(story=WIRED, at="after store commit 3"),
    Case(story=WIRED, at="after activity tool:send_wire 1"),
]
