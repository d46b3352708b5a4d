"""Whether anybody serves a task queue: a client asks before it waits for an answer that can't come."""

import asyncio
import time
from collections.abc import Awaitable
from datetime import timedelta
from typing import TypeVar

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from perdure.errors import TemporalUnreachable
from perdure.starters.connect import NOBODY, rpc_error, whole
from perdure.starters.patience import Patience

T = TypeVar("T")

_PATIENCE = timedelta(seconds=10)  # for a question that the server answers itself
_GRACE = 5.0  # seconds that a worker gets that is just starting
_SLOW = 3.0  # seconds after which an answer is late: a worker needs milliseconds
_BELIEVED = 30.0  # seconds for which a queue that was served is taken to be


class Service:
    """The workers behind a Temporal client, as far as the server has seen them in the last minutes."""

    def __init__(self, temporal: Client) -> None:
        self._temporal = temporal
        self._seen: dict[str, float] = {}

    async def require(self, queue: str) -> None:
        """Return once a worker serves the queue. Raises TemporalUnreachable if none comes; nothing was sent then."""
        until, patience = time.monotonic() + _GRACE, Patience()
        while self._seen.get(queue, 0.0) < time.monotonic():
            if await self._is_served(queue):
                self._seen[queue] = time.monotonic() + _BELIEVED
            elif time.monotonic() > until:
                raise TemporalUnreachable(f"No worker serves the task queue {queue}; nothing was sent.", hint=NOBODY)
            else:
                await patience.pause()

    async def unless_deserted(self, thread_id: str, call: Awaitable[T]) -> T:
        """What the call to a thread returns. One that is late isn't waited for where no worker serves the thread."""
        asked = asyncio.ensure_future(call)
        try:
            done, _ = await asyncio.wait([asked], timeout=_SLOW)
            if not done and not await self._is_served(await self._queue_of(thread_id)):
                raise TemporalUnreachable(f"No worker serves thread {thread_id}.", hint=NOBODY)
            return await asked
        finally:
            asked.cancel()

    async def _queue_of(self, thread_id: str) -> str:
        try:
            return (await whole(self._temporal.get_workflow_handle(thread_id).describe)).task_queue
        except RPCError as error:
            raise rpc_error(thread_id, error) from error

    async def _is_served(self, queue: str) -> bool:
        kind = TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW
        question = DescribeTaskQueueRequest(
            namespace=self._temporal.namespace, task_queue=TaskQueue(name=queue), task_queue_type=kind
        )
        describe = self._temporal.workflow_service.describe_task_queue
        try:
            answer = await whole(lambda: describe(question, retry=True, timeout=_PATIENCE))
        except RPCError as error:
            raise rpc_error("", error) from error
        return bool(answer.pollers)
