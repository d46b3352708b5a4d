"""Perdure's threads that wait for a person, as a user would make them: a tool with ``approval=Approval()``."""

from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any

import uvloop

from benchmarks import workload
from benchmarks.stand_in import InstantModel
from benchmarks.subject import Place, serve
from benchmarks.waiting import Waiting
from perdure import Agent, App, Approval, tool
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.stores import open_store
from perdure.workers.connect import connect
from perdure.workers.tuning import prepare, settle
from perdure.workers.worker import build_worker

QUEUE = "waiting-perdure"
AGENT = "gated"


class WaitingPerdure:
    """Threads as a subject."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject."""
        prepare()
        settings = Settings(
            store=place.store,
            home=place.folder,
            task_queue=QUEUE,
            max_cached_workflows=place.options["cached"],
            log_level="WARNING",
        )
        temporal = await connect(address=place.address)
        finished = f"TaskQueue = '{QUEUE}' AND PerdureStatus = 'idle'"
        self._waiting = Waiting(temporal, "perdure", begin=self._begin, finished=finished)
        self._client = Client(temporal, settings)
        self._store = open_store(settings.store_url())
        await self._store.migrate()
        self._stack.push_async_callback(self._store.close)
        self._stack.push_async_callback(self._client.close)
        app = App(agents=[Agent(name=AGENT, model="none", tools=[self._tool()])])
        model = InstantModel()
        model.until = 1
        worker = build_worker(temporal, app=app, store=self._store, settings=settings, model=model)
        await self._stack.enter_async_context(worker)
        settle()
        return {"perdure": version("perdure"), "temporalio": version("temporalio")}

    def _tool(self) -> Any:
        ran = self._waiting.ran

        @tool(name=workload.TOOL, approval=Approval())
        async def look(step: int, query: str) -> str:
            """Look further."""
            ran()
            return workload.result(step)

        return look

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``suspend``, ``finish``."""
        if verb == "suspend":
            return await self._waiting.suspend(**given)
        (request,) = (await self._client.approvals(self._waiting.oldest)).open  # all of them ask for the same
        said = {"request_id": request.id, "approver": "ann", "digest": request.digest}
        return await self._waiting.finish(**given, said=said, answer=self._answer)

    async def stop(self) -> None:
        """See Subject."""
        await self._stack.aclose()

    async def _begin(self, thread: str) -> None:
        await self._client.start(AGENT, workload.ASKED, thread=thread)

    async def _answer(self, thread: str) -> str:
        """What its state ends with, as the store has it."""
        state = await self._client.state(thread)
        return str(state["messages"][-1]["content"])


if __name__ == "__main__":
    from benchmarks.subjects.waiting_perdure import WaitingPerdure as Imported  # not one of __main__

    serve(Imported(), uvloop.run)  # as `perdure worker` does
