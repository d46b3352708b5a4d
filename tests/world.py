"""The parts a test needs, real ones: a Temporal server, a store, a model that follows a script, a worker."""

import asyncio
import itertools
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client as TemporalClient
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle, WorkflowHistory
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import TimeSkipper
from temporalio.worker import Interceptor, Worker

from perdure.app import App
from perdure.contracts import SEARCH_ATTRIBUTES, ApprovalsAnswer, Status, StatusAnswer, TurnResult
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

_IN_ORDER = (
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,  # it was terminated in the middle of one
)
_PATIENCE = 120.0  # seconds for one test; the longest takes a quarter of it on a quiet machine

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
        # Without TLS: to load the certificates, for nothing, takes longer than the rest of a world.
        plain = DefaultAsyncHttpxClient(verify=False)
        self.openai = AsyncOpenAI(base_url=model.base_url, api_key="offline", max_retries=0, http_client=plain)
        self.threads: list[str] = []

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
        self.threads.append(f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}")
        return self.threads[-1]

    # ── a thread on its way ──────────────────────────────────────────────────────────────────────────────────────

    async def begin(self, agent: str, message: str) -> tuple[str, str]:
        """Start a thread; its id and the message's."""
        thread, accepted = await self.client.start(agent, message, thread=self.thread())
        return thread, accepted.message_id

    async def opened(self, thread_id: str, count: int = 1) -> ApprovalsAnswer:
        """Wait until so many approvals are open."""
        return await eventually(lambda: self.client.approvals(thread_id), lambda answer: len(answer.open) == count)

    async def stands(self, thread_id: str, status: Status) -> StatusAnswer:
        """Wait until the thread has this status."""
        return await eventually(lambda: self.client.status(thread_id), lambda answer: answer.status == status)

    async def ended(self, thread_id: str, message_id: str) -> TurnResult:
        """Wait for the end of the turn of a message, whatever it takes."""
        result = await self.client.wait(thread_id, message_id, for_people=False)
        assert isinstance(result, TurnResult)
        return result

    # ── its workflow in Temporal ─────────────────────────────────────────────────────────────────────────────────

    def handle(self, thread_id: str, run_id: str | None = None) -> WorkflowHandle[Any, Any]:
        """The thread's workflow, as Temporal's own client has it."""
        return self.temporal.get_workflow_handle(thread_id, run_id=run_id)

    async def fetch(self, thread_id: str) -> WorkflowHistory:
        """The thread's history in Temporal (of its latest run)."""
        return await self.handle(thread_id).fetch_history()

    async def length(self, thread_id: str) -> int:
        """How many events its history has."""
        return len((await self.fetch(thread_id)).events)

    async def runs(self, thread_id: str) -> list[WorkflowHistory]:
        """The histories of all the thread's runs that Temporal lists, oldest first."""
        found = [run async for run in self.temporal.list_workflows(f"WorkflowId = '{thread_id}'")]
        return [await self.handle(thread_id, run.run_id).fetch_history() for run in reversed(found)]

    async def forward(self, thread_id: str, time: timedelta) -> bool:
        """Let time pass for a thread that waits; False if its workflow ended on the way."""
        return await TimeSkipper(self.temporal).fast_forward(self.handle(thread_id), time)

    async def completes(self, thread_id: str, idle: timedelta = timedelta(hours=1)) -> None:
        """Let time pass until the idle thread's workflow completes."""
        await self.forward(thread_id, idle)
        await eventually(self.handle(thread_id).describe, lambda run: run.status != WorkflowExecutionStatus.RUNNING)

    async def forget(self, thread_id: str) -> None:
        """Delete the thread's history, as a namespace's retention does in the end."""
        run = await self.handle(thread_id).describe()
        which = WorkflowExecution(workflow_id=thread_id, run_id=run.run_id)
        request = DeleteWorkflowExecutionRequest(namespace=self.temporal.namespace, workflow_execution=which)
        await self.temporal.workflow_service.delete_workflow_execution(request)
        await eventually(lambda: self._is_known(thread_id), lambda known: not known)

    async def _is_known(self, thread_id: str) -> bool:
        try:
            await self.handle(thread_id).describe()
        except RPCError as error:
            assert error.status == RPCStatusCode.NOT_FOUND
            return False
        return True

    async def check_tasks(self) -> None:
        """No workflow task of any thread has failed: one that fails is tried again for ever.

        The server itself fails one in good order: where something new came while its commands were on their way,
        and where a workflow was reset.
        """
        for thread_id in self.threads:
            for history in await self.runs(thread_id):
                for event in history.events:
                    if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                        failed = event.workflow_task_failed_event_attributes
                        assert failed.cause in _IN_ORDER, f"a workflow task of {thread_id} failed: {failed.failure}"


@asynccontextmanager
async def world(
    temporal: TemporalClient, folder: Path, app: App, script: Script, *, serve: bool = True, **settings: Any
) -> AsyncIterator[World]:
    """A world, by default with a worker that serves it. A test that hangs in it fails."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(_PATIENCE))
        model = await stack.enter_async_context(ModelServer(script))
        made = World(temporal, folder, app, model, **settings)
        await made.store.migrate()
        stack.push_async_callback(made.store.close)
        stack.push_async_callback(made.client.close)
        stack.push_async_callback(made.openai.close)
        if serve:
            await stack.enter_async_context(made.worker())
        yield made
        await made.check_tasks()


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool], *, within: float = 20.0) -> T:
    """Look until it holds; what was seen last, in the assertion, where it doesn't within so many seconds.

    The longer it takes, the rarer the looks: what many tests wait for side by side is not held up by their looking.
    """
    began = time.monotonic()
    while True:
        seen = await look()
        if holds(seen):
            return seen
        waited = time.monotonic() - began
        assert waited < within, f"still not so after {within} s: {seen}"
        await asyncio.sleep(min(max(0.03, waited / 5), 0.5))
