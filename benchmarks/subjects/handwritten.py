"""The reference: the least that a durable agent loop on Temporal can be. Written by hand, with nothing around it.

It keeps the conversation in the workflow's memory, passes each activity only what that activity needs, and has no
store: no query by checkpoint, no fork, no approval, no compensation. So it is the floor of any design on Temporal.

Options. ``sandbox``: its workflow runs in the SDK's sandbox, as it does by default; else outside, as Perdure's does.
``beside``: the tool is a local activity.
"""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from benchmarks import workload
from benchmarks.histories import figures, span
from benchmarks.subject import Place, serve

_MINUTE = timedelta(minutes=1)


@dataclass
class Ask:
    """Which question of how many."""

    step: int
    steps: int


@dataclass
class Call:
    """The model's answer: a tool call, or with an empty id the end."""

    id: str
    arguments: str
    answer: str = ""


@activity.defn
async def ask(asked: Ask) -> Call:
    """The model: answers at once."""
    if asked.step == asked.steps:
        return Call("", "", workload.ANSWER)
    return Call(workload.call_id(asked.step), workload.arguments(asked.step))


@activity.defn
async def look(call: Call) -> str:
    """The tool."""
    return workload.result(json.loads(call.arguments)["step"])


@workflow.defn
class Loop:
    """The loop."""

    @workflow.run
    async def run(self, steps: int, beside: bool) -> str:
        """To the model's answer."""
        execute = workflow.execute_local_activity if beside else workflow.execute_activity
        messages: list[object] = [workload.ASKED]
        step = 0
        while True:
            call: Call = await workflow.execute_activity(ask, Ask(step, steps), start_to_close_timeout=_MINUTE)
            messages.append(call)
            if not call.id:
                return call.answer
            messages.append(await execute(look, call, start_to_close_timeout=_MINUTE))
            step += 1


class Handwritten:
    """The workflow as a subject."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject. Its queue is its own: there may be another on the same server."""
        self._queue, self._beside = f"handwritten-{uuid4().hex[:8]}", bool(place.options.get("beside"))
        self._client = await Client.connect(place.address)
        passed = SandboxRestrictions.default.with_passthrough_modules("benchmarks")
        sandboxed = place.options.get("sandbox", False)
        runner = SandboxedWorkflowRunner(restrictions=passed) if sandboxed else UnsandboxedWorkflowRunner()
        worker = Worker(
            self._client, task_queue=self._queue, workflows=[Loop], activities=[ask, look], workflow_runner=runner
        )
        await self._stack.enter_async_context(worker)
        return {"temporalio": version("temporalio")}

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``loop``."""
        return await {"loop": self._loop}[verb](**given)

    async def stop(self) -> None:
        """See Subject."""
        await self._stack.aclose()

    async def _loop(self, steps: int, agents: int = 1) -> dict[str, Any]:
        names = [f"hand-{uuid4().hex}" for _ in range(agents)]
        begun, used = time.perf_counter(), time.process_time()
        answers = await asyncio.gather(*(self._run(name, steps) for name in names))
        seconds, cpu = time.perf_counter() - begun, time.process_time() - used
        assert answers == [workload.ANSWER] * agents
        told = {"seconds": seconds, "cpu_seconds": cpu}
        if agents == 1:
            return told | await figures(self._client, names[0], steps, "ask")
        return told | {"span_seconds": await span(self._client, names, "ask")}

    async def _run(self, name: str, steps: int) -> str:
        given = [steps, self._beside]
        return await self._client.execute_workflow(Loop.run, args=given, id=name, task_queue=self._queue)


if __name__ == "__main__":
    from benchmarks.subjects.handwritten import Handwritten as Imported  # a workflow must not live in __main__

    serve(Imported())
