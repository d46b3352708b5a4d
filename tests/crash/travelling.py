"""Workers that die while a thread is forked, rewound or written to."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from perdure.care.verify import verify
from perdure.contracts import Committed, Resume, Rewind, Rewound, StatusAnswer, UpdateState
from tests.crash.points import point
from tests.crash.process import WorkerProcess
from tests.crash.scene import PATIENCE, Scene
from tests.crash.stories import LOOKED, ORDER, Story
from tests.world import eventually

Travel = Callable[[Scene, str, WorkerProcess], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Travelling:
    """The story is told to its end; then its thread travels, and the worker dies at a point on the way.

    ``attempts`` tells how often the shop was asked for an effect, where not once.
    """

    how: str
    story: Story
    at: str
    attempts: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the test is called."""
        return f"{self.how}, {self.at}"

    async def play(self, scene: Scene) -> None:
        """Tell the story, travel, and look at what has become of everything."""
        first = await scene.worker(point(self.at))
        async with scene.begun() as message:
            pass
        await scene.ends_well(message.result())
        line = await scene.client.history(scene.thread)
        await _TRAVELS[self.how](self, scene, line[-1].id, first)
        await scene.history_is_clean()

    async def rewound(self, scene: Scene, start: str, first: WorkerProcess) -> None:
        """Everything is undone once, in the shop too, and the head stands at the beginning."""
        moving = asyncio.create_task(scene.update("rewind", Rewind(to=start, by="ann"), Rewound))
        await self._dies(scene, first)
        done = await asyncio.wait_for(moving, PATIENCE)
        assert len(done.residue.undone) == 3 and not done.residue.lines()[1:]
        head, *_ = await scene.client.history(scene.thread)
        assert (head.ref, head.source, head.parent_id) == (done.head, "rewind", start)
        await scene.ledger_says(["undone"] * 3)
        undoing = (("refund", "tok_visa_1", "done"), ("release", "laptop", "done"), _CALLED_OFF)
        scene.shop_did((*((kind, what, "undone") for kind, what, _ in ORDER.ledger), *undoing), self.attempts)
        assert (await verify(scene.store, scene.thread)).problem is None

    async def forked(self, scene: Scene, start: str, first: WorkerProcess) -> None:
        """The fork is there once, goes on by itself, and nothing is paid for again."""
        paid = dict(scene.model.calls_by_key)
        fork = scene.another()
        starting = asyncio.create_task(scene.client.fork(scene.thread, start, thread=fork))
        await self._dies(scene, first)
        await asyncio.wait_for(starting, PATIENCE)
        await eventually(
            lambda: scene.client.status(fork), lambda seen: bool(seen.results) and not seen.node, within=PATIENCE
        )
        assert [c.source for c in await scene.client.history(fork)] == [*["step"] * 3, "fork", "input"]
        assert scene.model.calls_by_key == paid
        assert (await verify(scene.store)).problem is None

    async def resumed(self, scene: Scene, start: str, first: WorkerProcess) -> None:
        """A thread that was rewound goes on once, with what follows its head; nothing is paid for again."""
        paid = dict(scene.model.calls_by_key)
        rewound = await scene.update("rewind", Rewind(to=start, by="ann"), Rewound)
        going = asyncio.create_task(scene.update("resume", Resume(by="ann"), StatusAnswer))
        await self._dies(scene, first)
        await asyncio.wait_for(going, PATIENCE)
        await eventually(
            lambda: scene.client.status(scene.thread), lambda seen: len(seen.results) == 2 and not seen.node,
            within=PATIENCE,
        )  # fmt: skip
        line = await scene.client.history(scene.thread)
        assert [c.source for c in line] == [*["step"] * 3, "rewind", "input"]
        assert line[3].ref == rewound.head
        assert scene.model.calls_by_key == paid
        assert (await verify(scene.store, scene.thread)).problem is None

    async def updated(self, scene: Scene, start: str, first: WorkerProcess) -> None:
        """The update is made once."""
        said = UpdateState(state={"notes": ["by hand"]}, by="ann")
        writing = asyncio.create_task(scene.update("update_state", said, Committed))
        await self._dies(scene, first)
        done = await asyncio.wait_for(writing, PATIENCE)
        head, before, *_ = await scene.client.history(scene.thread)
        assert (head.ref, head.source, before.source) == (done.head, "update", "step")
        assert (await scene.client.state(scene.thread))["notes"] == ["by hand"]
        assert (await verify(scene.store, scene.thread)).problem is None

    async def _dies(self, scene: Scene, first: WorkerProcess) -> None:
        await first.dies_at(self.at)
        await scene.worker()


_CALLED_OFF = ("cancel", "12 Harbour Street", "done")
_TRAVELS = {
    "rewound": Travelling.rewound, "forked": Travelling.forked, "resumed": Travelling.resumed,
    "updated": Travelling.updated,
}  # fmt: skip


def _at(how: str, story: Story, *points: str) -> list[Travelling]:
    return [Travelling(how=how, story=story, at=at) for at in points]


TRAVELLING = [
    *_at(
        "rewound", ORDER, "before task plan_rewind 1", "before activity plan_rewind 1", "after activity plan_rewind 2"
    ),
    *_at("rewound", ORDER, "before activity undo:cancel_courier 1", "after activity undo:refund_card 1"),
    *_at("rewound", ORDER, "before task rewind_head 1", "before activity rewind_head 1", "before store commit 9"),
    *_at("rewound", ORDER, "after store commit 9", "after activity rewind_head 1"),
    Travelling(how="rewound", story=ORDER, at="before store settle 2", attempts={"refund tok_visa_1": 2}),
    *_at("forked", LOOKED, "before task fork_thread 1", "before activity fork_thread 1", "before store commit 5"),
    *_at("forked", LOOKED, "after store commit 5", "after activity fork_thread 1", "before task call_model 3"),
    *_at("forked", LOOKED, "before activity call_model 3", "after activity call_model 3", "after store commit 6"),
    *_at("resumed", LOOKED, "before task resume_turn 1", "before activity resume_turn 1"),
    *_at("resumed", LOOKED, "after activity resume_turn 1"),
    *_at("updated", LOOKED, "before task write_state 1", "before activity write_state 1", "before store commit 5"),
    *_at("updated", LOOKED, "after store commit 5", "after activity write_state 1"),
]
