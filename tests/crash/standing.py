"""Calls that stand still at one moment of their lives, many side by side, so that one signal strikes them all.

Nothing is changed but when a call goes on: that is once its process is continued by SIGCONT.
"""

import asyncio
import inspect
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from typing import Any, Literal, cast

from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from perdure.stores import Store
from perdure.values import Value
from tests.crash.points import Tell

Moment = Literal["taken", "asking", "answered", "recorded"]
_RECORDS = ("commit", "put_receipt", "settle")  # methods of the store that record how a call or an undoing ended


class Stand(Value):
    """Where the activities of these types stand still, in one thread.

    - ``taken``: the worker has the task, and has done nothing yet
    - ``asking``: the tool is about to ask the world outside (it says so by ``stand``)
    - ``answered``: the tool has returned, and that is about to be recorded
    - ``recorded``: it is recorded, and about to be reported
    """

    moment: Moment
    types: frozenset[str]


At = Callable[[Moment], Coroutine[Any, Any, None]]
_stand: ContextVar[At] = ContextVar("stand")


async def stand(moment: Moment) -> None:
    """Stand still here, if this call is to."""
    if at := _stand.get(None):
        await at(moment)


class Standing(Interceptor):
    """Lets activities stand still, by thread. ``tell`` writes to the test, once for each, whatever its attempt."""

    def __init__(self, stands: Mapping[str, Stand], tell: Tell) -> None:
        self._stands = stands
        self._tell = tell
        self._seen: set[str] = set()
        self._go_on = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, self._go_on.set)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Activities(next, self)

    def here(self) -> At | None:
        """What holds the activity that runs here, if anything does."""
        info = activity.info()
        wanted = self._stands.get(info.workflow_id or "")
        if wanted is None or info.activity_type not in wanted.types:
            return None

        return lambda moment: self._at(moment, wanted.moment, f"{info.workflow_id} {info.activity_id}")

    async def _at(self, moment: Moment, wanted: Moment, name: str) -> None:
        if moment != wanted or self._go_on.is_set():
            return
        if name not in self._seen:
            self._seen.add(name)
            self._tell(stands=name)
        await self._go_on.wait()


class _Activities(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, standing: Standing) -> None:
        super().__init__(next)
        self._standing = standing

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if at := self._standing.here():
            _stand.set(at)
            await stand("taken")
        return await super().execute_activity(input)


def standing_store(store: Store) -> Store:
    """The store, where calls may stand before and after what records them."""
    return cast(Store, _Standing(store))


class _Standing:
    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return self._around(method) if name in _RECORDS and inspect.iscoroutinefunction(method) else method

    def _around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def around(*args: Any, **kwargs: Any) -> Any:
            await stand("answered")
            done = await method(*args, **kwargs)
            await stand("recorded")
            return done

        return around
