"""A peer as a subject: what all of them have in common, and what those on Temporal have.

A peer's model is a function of what it is asked: how many steps are wanted stands at the end of the user's message, how
many were made in the last tool call. So nothing has to be told around the peer, whatever runs side by side.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from temporalio.client import Client, Plugin, WorkflowFailureError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from benchmarks import workload
from benchmarks.histories import figures, span
from benchmarks.subject import Place


def asked(steps: int) -> str:
    """The user's message that asks for so many steps."""
    return f"{workload.ASKED} Steps: {steps}"


def wanted(message: str) -> int:
    """How many steps a user's message asks for."""
    return int(message.rpartition(" ")[2])


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of packages. Raises PackageNotFoundError."""
    return {package: version(package) for package in packages}


async def timed(loops: Sequence[Awaitable[Any]]) -> dict[str, Any]:
    """Run loops side by side until each has the answer: seconds by the clock, and of this process's CPU time."""
    begun, used = time.perf_counter(), time.process_time()
    answers = await asyncio.gather(*loops)
    told = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - used}
    assert answers == [workload.ANSWER] * len(loops), answers
    return told


class TemporalPeer:
    """An agent layer on Temporal: a workflow from a user's message to the answer, on a worker in this process.

    ``model`` is the activity type of its model calls. ``sandboxed``: its workflow runs in the SDK's sandbox, which is
    what a worker does unless it is told otherwise.
    """

    def __init__(
        self, *, workflow: type, model: str, packages: Sequence[str], activities: Sequence[Callable[..., Any]] = (),
        plugins: Sequence[Plugin] = (), sandboxed: bool = True,
    ) -> None:  # fmt: skip
        self._workflow, self._model, self._packages = workflow, model, packages
        self._activities, self._plugins, self._sandboxed = activities, plugins, sandboxed
        self._queue = f"{workflow.__name__}-{uuid4().hex}"
        self._stack = AsyncExitStack()

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject."""
        self._client = await Client.connect(place.address, plugins=self._plugins)
        worker = Worker(
            self._client, task_queue=self._queue, workflows=[self._workflow], activities=self._activities,
            workflow_runner=SandboxedWorkflowRunner() if self._sandboxed else UnsandboxedWorkflowRunner(),
        )  # fmt: skip
        await self._stack.enter_async_context(worker)
        return versions("temporalio", *self._packages)

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``loop``."""
        return await {"loop": self._loop}[verb](**given)

    async def stop(self) -> None:
        """See Subject."""
        await self._stack.aclose()

    async def _loop(self, steps: int, agents: int = 1) -> dict[str, Any]:
        names = [f"peer-{uuid4().hex}" for _ in range(agents)]
        told = await timed([self._run(name, steps) for name in names])
        told["span_seconds"] = await span(self._client, names, self._model)
        return told | (await figures(self._client, names[0], steps, self._model) if agents == 1 else {})

    async def _run(self, name: str, steps: int) -> Any:
        """The answer of one workflow. Raises RuntimeError with the reason for which it has none."""
        try:
            return await self._client.execute_workflow(
                self._workflow.__name__, asked(steps), id=name, task_queue=self._queue, result_type=str
            )
        except WorkflowFailureError as failed:
            reason: BaseException = failed
            while reason.__cause__ is not None:
                reason = reason.__cause__
            raise RuntimeError(str(reason)) from failed
