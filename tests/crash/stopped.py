"""Turns that are cancelled while nobody works on them: what the dead worker had committed, nobody was told."""

from dataclasses import dataclass

from tests.crash.cases import armed
from tests.crash.scene import Scene
from tests.crash.stories import LOOKED, ORDER, THREE_AT_ONCE, Story

_RESERVED_AND_RELEASED = (("reserve", "laptop", "undone"), ("release", "laptop", "done"))


@dataclass(frozen=True, kw_only=True)
class Stopped:
    """The worker dies ``at``, then the turn is cancelled; ``sources`` are its checkpoints, with the late one."""

    story: Story
    at: str
    sources: tuple[str, ...]
    ledger: tuple[tuple[str, str, str], ...] = _RESERVED_AND_RELEASED

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.story.name}, {self.at}"

    async def play(self, scene: Scene) -> None:
        """What was done is undone, and the thread goes on from what is in the store."""
        first = await armed(scene, at=self.at)
        async with scene.begun(approving=False) as message:
            await first.dies_at(self.at)
            await scene.client.cancel(scene.thread, by="kim")
            await scene.worker()
        await scene.ends(message.result(), "cancelled")
        await scene.goes_on()
        scene.shop_did(self.ledger)
        await scene.ledger_says(["undone" for kind, _, _ in self.ledger if kind == "reserve"])
        await scene.store_is_whole([*self.sources, "compensation", "input", "step"])
        await scene.history_is_clean()


STOPPED = [
    Stopped(story=ORDER, at="after store commit 4", sources=("input", "step", "step", "step")),
    Stopped(story=ORDER, at="after store commit 3", sources=("input", "step", "step")),
    Stopped(story=LOOKED, at="after store commit 3", sources=("input", "step", "step"), ledger=()),
    Stopped(
        story=THREE_AT_ONCE,
        at="after store put_receipt 3",
        sources=("input", "step"),
        ledger=(*_RESERVED_AND_RELEASED, ("reserve", "monitor", "undone"), ("release", "monitor", "done")),
    ),
]
