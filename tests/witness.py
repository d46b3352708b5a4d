"""What the tools of the tests' agents did, by thread; ways to hold them; and a model that keeps what it was asked."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from pydantic import PrivateAttr
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from perdure import NodeContext, ToolContext
from perdure.testing import Conversation, Reply, Script

_PATIENCE = 10.0  # seconds; what is waited for takes milliseconds


class Witness:
    """Every deed of every tool, in the order they happened. Threads have ids of their own, so tests don't mix."""

    def __init__(self) -> None:
        self._deeds: defaultdict[str, list[str]] = defaultdict(list)

    def saw(self, ctx: ToolContext | NodeContext, deed: str) -> None:
        """A tool, or a node, did something."""
        self._deeds[ctx.thread_id].append(deed)

    def of(self, thread_id: str) -> list[str]:
        """What was done for a thread."""
        return list(self._deeds[thread_id])


class Hold:
    """Whoever arrives waits until everybody is let go."""

    def __init__(self) -> None:
        self._arrived = asyncio.Semaphore(0)
        self._open = asyncio.Event()

    async def wait(self) -> None:
        """Arrive, and wait."""
        self._arrived.release()
        await self._open.wait()

    async def arrived(self, count: int = 1) -> None:
        """Return once so many more have arrived."""
        async with asyncio.timeout(_PATIENCE):
            for _ in range(count):
                await self._arrived.acquire()

    def let_go(self) -> None:
        """Let go whoever waits and whoever comes."""
        self._open.set()


class Holds:
    """Holds by thread: tools find theirs through their context, tests by the id they chose."""

    def __init__(self) -> None:
        self._holds: defaultdict[str, Hold] = defaultdict(Hold)

    def __getitem__(self, thread_id: str) -> Hold:
        return self._holds[thread_id]

    def anew(self, thread_id: str) -> Hold:
        """The hold of those who have come; who comes from now on waits for another."""
        return self._holds.pop(thread_id)


class Listener(Script):
    """A script that also keeps every conversation it was sent."""

    _heard: list[Conversation] = PrivateAttr(default_factory=list)

    def reply(self, conversation: Conversation) -> Reply:
        """See base class."""
        self._heard.append(conversation)
        return super().reply(conversation)

    @property
    def heard(self) -> Sequence[Conversation]:
        """The conversations, oldest first."""
        return self._heard

    def told(self, index: int = -1) -> list[tuple[str, str]]:
        """One conversation as (role, text)."""
        return [(message.role, message.text) for message in self._heard[index].messages]


class Doorkeeper(Interceptor):
    """Installed in a worker, it keeps activities of one type waiting at the door until they are let go.

    With ``refuse`` it turns them away: their attempts fail before they begin.
    """

    def __init__(self, activity_type: str, *, refuse: bool = False) -> None:
        self._activity_type = activity_type
        self._refuse = refuse
        self.hold = Hold()
        self.visits = 0

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """See base class."""
        return _Door(next, self)

    async def knock(self, activity_type: str) -> None:
        """An activity wants to begin. Raises ConnectionError where it is turned away."""
        if activity_type != self._activity_type:
            return
        self.visits += 1
        if self._refuse:
            raise ConnectionError("the door is locked")
        await self.hold.wait()


class _Door(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, keeper: Doorkeeper) -> None:
        super().__init__(next)
        self._keeper = keeper

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        await self._keeper.knock(activity.info().activity_type)
        return await super().execute_activity(input)
