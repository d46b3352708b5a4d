"""Points where a worker process is struck by a signal, and the seams where it notices that it has come there.

Nothing is changed but the moment of death: every seam passes on what it is given.
"""

import asyncio
import inspect
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Literal, cast

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import PositiveInt
from temporalio import activity
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)
from temporalio.workflow import ActivityHandle

from perdure.errors import PerdureError
from perdure.stores import Store
from perdure.values import Value

Seam = Literal["activity", "task", "model", "store"]
Moment = Literal["before", "after"]
Strike = Literal["SIGKILL", "SIGSTOP"]
Tell = Callable[..., None]


class Point(Value):
    """The ``nth`` time a worker process does something: before it begins, or after it is done.

    - ``activity``, name a type: before its function begins; after it has returned, before that is reported
    - ``task``, name an activity type: in the workflow task, where the workflow schedules that activity
    - ``model``, name ``post``: before a request to the model is sent; after its answer has come
    - ``store``, name a method: before its transaction begins; after it is committed
    """

    moment: Moment
    seam: Seam
    name: str
    nth: PositiveInt = 1
    strike: Strike = "SIGKILL"

    def __str__(self) -> str:
        return f"{self.moment} {self.seam} {self.name} {self.nth}"


def point(text: str, strike: Strike = "SIGKILL") -> Point:
    """From its text: ``before store commit 3``."""
    moment, seam, name, nth = text.split()
    return Point.model_validate({"moment": moment, "seam": seam, "name": name, "nth": int(nth), "strike": strike})


class Fate:
    """Counts what happens in this process, and strikes it at its point. ``tell`` writes to the test."""

    def __init__(self, at: Point | None, tell: Tell) -> None:
        self._at = at
        self._left = at.nth if at else 0
        self.tell = tell

    def reached(self, moment: Moment, seam: Seam, name: str) -> bool:
        """Strike, if this is the point; True once the process goes on after it."""
        at = self._at
        if at is None or (at.moment, at.seam, at.name) != (moment, seam, name):
            return False
        self._left -= 1
        if self._left:
            return False
        self.tell(reached=str(at))
        os.kill(os.getpid(), signal.Signals[at.strike])
        self.tell(goes_on=str(at))
        return True


class Seams(Interceptor):
    """The seams in a worker: its activities, and the workflow tasks that schedule them."""

    def __init__(self, fate: Fate) -> None:
        self._fate = fate

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activities(next, self._fate)

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        fate = self._fate

        class Tasks(WorkflowInboundInterceptor):
            def init(self, outbound: WorkflowOutboundInterceptor) -> None:
                super().init(_Scheduling(outbound, fate))

        return Tasks


class _Activities(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, fate: Fate) -> None:
        super().__init__(next)
        self._fate = fate

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        came_to = "nothing"
        self._fate.reached("before", "activity", info.activity_type)
        try:
            done = await super().execute_activity(input)
            came_to = "done"
            return done
        except BaseException as error:
            came_to = type(error).__name__
            raise
        finally:
            self._fate.reached("after", "activity", info.activity_type)
            self._fate.tell(ended=info.activity_type, attempt=info.attempt, came_to=came_to)


class _Scheduling(WorkflowOutboundInterceptor):
    def __init__(self, next: WorkflowOutboundInterceptor, fate: Fate) -> None:
        super().__init__(next)
        self._fate = fate

    def start_activity(self, input: StartActivityInput) -> ActivityHandle[Any]:
        self._fate.reached("before", "task", input.activity)
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> ActivityHandle[Any]:
        self._fate.reached("before", "task", input.activity)
        return super().start_local_activity(input)


def watched_store(store: Store, fate: Fate) -> Store:
    """The store, with a seam around every method."""
    return cast(Store, _Watched(store, fate))


class _Watched:
    def __init__(self, store: Store, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._around(name, method) if inspect.iscoroutinefunction(method) else method

    def _around(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def around(*args: Any, **kwargs: Any) -> Any:
            if self._fate.reached("before", "store", name):
                return await self._late(name, method(*args, **kwargs))
            done = await method(*args, **kwargs)
            self._fate.reached("after", "store", name)
            return done

        return around

    async def _late(self, name: str, doing: Coroutine[Any, Any, Any]) -> Any:
        """What a process that stood still was about to do. Its attempt is cancelled before long: shielded from that,
        the deed is done for certain, and the test is told what it came to."""

        async def told() -> Any:
            try:
                done = await doing
            except PerdureError as error:
                self._fate.tell(late=name, came_to=type(error).__name__)
                raise
            self._fate.tell(late=name, came_to=str(done))
            return done

        return await asyncio.shield(told())


def watched_model(fate: Fate) -> AsyncOpenAI:
    """The client of the model, with a seam around every request."""

    class Watched(AsyncOpenAI):
        async def post(self, *args: Any, **kwargs: Any) -> Any:
            fate.reached("before", "model", "post")
            answer = await super().post(*args, **kwargs)
            fate.reached("after", "model", "post")
            return answer

    return Watched(max_retries=0, http_client=DefaultAsyncHttpxClient(verify=False))  # to load certificates takes long
