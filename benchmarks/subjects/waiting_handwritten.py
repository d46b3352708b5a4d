"""The reference for threads that wait for a person: the least workflow that asks a model, waits for a signal, runs the
tool and asks again. It doesn't look at who approved what, and keeps no record of it.

With ``searched`` it says in the search attributes by which people find what waits for them that it waits, and that it
goes on: what any workflow does whose waiting shows in a list.
"""

from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import SearchAttributeKey
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from benchmarks.subject import Place, serve
from benchmarks.subjects.handwritten import Ask, Call, ask, look
from benchmarks.waiting import SIGNAL, Waiting

_MINUTE = timedelta(minutes=1)
_STATUS, _PENDING = SearchAttributeKey.for_keyword("PerdureStatus"), SearchAttributeKey.for_int("PerdurePending")


@workflow.defn
class Gated:
    """One step with a gate."""

    def __init__(self) -> None:
        self._approved = False

    @workflow.run
    async def run(self, searched: bool) -> str:
        """To the model's answer."""
        call: Call = await workflow.execute_activity(ask, Ask(0, 1), start_to_close_timeout=_MINUTE)
        if searched:
            workflow.upsert_search_attributes([_STATUS.value_set("awaiting_approval"), _PENDING.value_set(1)])
        await workflow.wait_condition(lambda: self._approved)
        if searched:
            workflow.upsert_search_attributes([_STATUS.value_set("running"), _PENDING.value_set(0)])
        await workflow.execute_activity("look", call, result_type=str, start_to_close_timeout=_MINUTE)
        last: Call = await workflow.execute_activity(ask, Ask(1, 1), start_to_close_timeout=_MINUTE)
        return last.answer

    @workflow.signal(name=SIGNAL)
    def approve(self, _said: dict[str, Any]) -> None:
        """Let the call run."""
        self._approved = True


class WaitingHandwritten:
    """The workflow as a subject."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject. Its queue is its own: there is another on the same server."""
        self._queue, self._searched = f"waiting-hand-{uuid4().hex[:8]}", bool(place.options.get("searched"))
        self._client = client = await Client.connect(place.address)
        finished = f"TaskQueue = '{self._queue}' AND ExecutionStatus = 'Completed'"
        self._waiting = Waiting(client, "hand", begin=self._begin, finished=finished)
        worker = Worker(
            client, task_queue=self._queue, workflows=[Gated], activities=[ask, self.look],
            workflow_runner=UnsandboxedWorkflowRunner(), max_cached_workflows=place.options["cached"],
        )  # fmt: skip
        await self._stack.enter_async_context(worker)
        return {"temporalio": version("temporalio")}

    @activity.defn
    async def look(self, call: Call) -> str:
        """The tool."""
        self._waiting.ran()
        return await look(call)

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``suspend``, ``finish``."""
        if verb == "suspend":
            return await self._waiting.suspend(**given)
        return await self._waiting.finish(**given, said={"approver": "ann"}, answer=self._answer)

    async def stop(self) -> None:
        """See Subject."""
        await self._stack.aclose()

    async def _begin(self, thread: str) -> None:
        await self._client.start_workflow(Gated.run, self._searched, id=thread, task_queue=self._queue)

    async def _answer(self, thread: str) -> str:
        return str(await self._client.get_workflow_handle(thread).result())


if __name__ == "__main__":
    from benchmarks.subjects.waiting_handwritten import WaitingHandwritten as Imported  # not one of __main__

    serve(Imported())
