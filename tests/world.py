"""The parts a test needs, real ones: a Temporal server, a store, a model that follows a script, a worker."""

import asyncio
import itertools
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from openai import AsyncOpenAI
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowHistory
from temporalio.common import SearchAttributeKey
from temporalio.worker import Interceptor, Worker

from perdure.app import App
from perdure.contracts import SEARCH_ATTRIBUTES
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.stores import Store, open_store
from perdure.testing import ModelServer, Script
from perdure.workers.worker import build_worker

TEMPORAL = str(Path(sys.executable).with_name("temporal"))
_KINDS: dict[str, Callable[[str], SearchAttributeKey[Any]]] = {
    "Keyword": SearchAttributeKey.for_keyword,
    "Int": SearchAttributeKey.for_int,
}
_numbers = itertools.count(1)

T = TypeVar("T")


def search_attributes() -> list[SearchAttributeKey[Any]]:
    """Perdure's search attributes, as an environment wants them."""
    return [_KINDS[kind](name) for name, kind in SEARCH_ATTRIBUTES.items()]


class World:
    """One test's own store, task queue, model and threads, on the session's server."""

    def __init__(self, temporal: TemporalClient, folder: Path, app: App, model: ModelServer, **settings: Any) -> None:
        self.temporal = temporal
        self.app = app
        self.model = model
        self.settings = Settings(
            store=f"sqlite:///{folder / 'store.db'}", home=folder, task_queue=f"test-{uuid.uuid4().hex}", **settings
        )
        self.store: Store = open_store(self.settings.store_url())
        self.client = Client(temporal, self.settings)
        self.openai = AsyncOpenAI(base_url=model.base_url, api_key="offline", max_retries=0)

    def worker(self, app: App | None = None, *, interceptors: Sequence[Interceptor] = ()) -> Worker:
        """A worker of this world, with its app or another version of it."""
        return build_worker(
            self.temporal,
            app=app or self.app,
            store=self.store,
            settings=self.settings,
            model=self.openai,
            interceptors=interceptors,
        )

    def thread(self) -> str:
        """A thread id nobody has."""
        return f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}"

    async def fetch(self, thread_id: str) -> WorkflowHistory:
        """The thread's history in Temporal (of its latest run)."""
        return await self.temporal.get_workflow_handle(thread_id).fetch_history()


@asynccontextmanager
async def world(
    temporal: TemporalClient, folder: Path, app: App, script: Script, *, serve: bool = True, **settings: Any
) -> AsyncIterator[World]:
    """A world, by default with a worker that serves it."""
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(ModelServer(script))
        made = World(temporal, folder, app, model, **settings)
        await made.store.migrate()
        stack.push_async_callback(made.store.close)
        stack.push_async_callback(made.client.close)
        stack.push_async_callback(made.openai.close)
        if serve:
            await stack.enter_async_context(made.worker())
        yield made


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, within: float = 20.0) -> T:
    """Look until it holds; what was seen last, in the assertion, where it doesn't within so many seconds."""
    until = time.monotonic() + within
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert time.monotonic() < until, f"still not so after {within} s: {seen}"
        await asyncio.sleep(0.05)
