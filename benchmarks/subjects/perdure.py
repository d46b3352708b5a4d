"""Perdure, as its user sets it up: an app with an agent and a tool, a worker, a client. Settings are the defaults.

Options: ``beside`` declares the tool to run beside the workflow; ``idle`` is how long a thread waits until its workflow
completes; ``cache`` is that of the model's answers; ``settings`` are others than the defaults; ``serve`` false leaves
the worker to the verb ``resume``. ``compressed`` and ``core_threads`` set otherwise what `perdure worker` sets.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import temporalio.client
import uvloop
from temporalio.worker import Worker

from benchmarks import workload
from benchmarks.histories import figures, span
from benchmarks.sizes import store_bytes
from benchmarks.stand_in import InstantModel
from benchmarks.subject import Place, serve
from perdure import Agent, App, tool
from perdure.budget import Budget
from perdure.contracts import CALL_MODEL, CheckpointAnswer, TurnResult
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.stores import open_store
from perdure.wire import data_converter
from perdure.workers.connect import connect
from perdure.workers.tuning import prepare, settle
from perdure.workers.worker import build_worker

AGENT = "loop"


async def look(step: int, query: str) -> str:
    """Look at something."""
    return workload.result(step)


def make_app(options: dict[str, Any]) -> App:
    """The app, in the variety that the options ask for."""
    declared: dict[str, Any] = {"beside": True} if options.get("beside") else {}
    agent = Agent(
        name=AGENT, model="instant", tools=[tool(**declared)(look)], budget=Budget(steps=None),
        idle=options.get("idle", "1h"), cache=options.get("cache", "lineage"),
    )  # fmt: skip
    return App(agents=[agent])


class Perdure:
    """A worker and a client in one process."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._model = InstantModel()

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject. The process is set up as `perdure worker` sets up its own."""
        if threads := place.options.get("core_threads"):
            os.environ["TOKIO_WORKER_THREADS"] = str(threads)
        prepare()
        self._app = make_app(dict(place.options))
        self._settings = Settings(home=place.folder, store=place.store, **place.options.get("settings", {}))
        self._temporal = await self._connected(place)
        self._store = open_store(self._settings.store_url())
        self._stack.push_async_callback(self._store.close)
        await self._store.migrate()
        self._client = Client(self._temporal, self._settings)
        self._stack.push_async_callback(self._client.close)
        if place.options.get("serve", True):
            await self._stack.enter_async_context(self._worker())
        settle()
        return {"perdure": version("perdure"), "temporalio": version("temporalio")}

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``loop``, ``begin``, ``resume``, ``fork``, ``query``, ``completed``."""
        verbs: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "loop": self._loop, "begin": self._begin, "resume": self._resume, "fork": self._fork, "query": self._query,
            "completed": self._completed,
        }  # fmt: skip
        return await verbs[verb](**given)

    async def stop(self) -> None:
        """See Subject."""
        await self._stack.aclose()

    async def _connected(self, place: Place) -> temporalio.client.Client:
        if place.options.get("compressed"):
            return await temporalio.client.Client.connect(place.address, data_converter=data_converter)
        return await connect(address=place.address)

    def _worker(self) -> Worker:
        return build_worker(
            self._temporal, app=self._app, store=self._store, settings=self._settings, model=self._model
        )

    async def _loop(self, steps: int, agents: int = 1) -> dict[str, Any]:
        """So many new threads at once, each so many steps."""
        self._model.until, asked = steps, len(self._model.asked)
        before = store_bytes(self._settings.store_url())
        begun, used = time.perf_counter(), time.process_time()
        started = await asyncio.gather(
            *(self._client.start(AGENT, workload.ASKED, thread=_name()) for _ in range(agents))
        )
        for thread, accepted in started:  # one after the other: who looks at all of them all the time only slows them
            await self._answered(thread, accepted.message_id)
        seconds, cpu = time.perf_counter() - begun, time.process_time() - used
        assert len(self._model.asked) - asked == agents * (steps + 1)
        threads = [thread for thread, _ in started]
        told = {
            "thread": threads[0], "seconds": seconds, "cpu_seconds": cpu,
            "store_bytes": store_bytes(self._settings.store_url()) - before,
        }  # fmt: skip
        if agents == 1:
            return told | await figures(self._temporal, threads[0], steps, CALL_MODEL.name)
        return told | {"span_seconds": await span(self._temporal, threads, CALL_MODEL.name)}

    async def _begin(self) -> dict[str, Any]:
        """A new thread, until its model is asked for the first time."""
        self._model.until, asked = 0, len(self._model.asked)
        begun = time.perf_counter()
        thread, accepted = await self._client.start(AGENT, workload.ASKED, thread=_name())
        await self._answered(thread, accepted.message_id)
        return {"seconds": self._model.asked[asked] - begun}

    async def _resume(self, thread: str, made: int) -> dict[str, Any]:
        """A worker starts and a message comes to a thread that has made so many steps; until the next step is done."""
        self._model.until, asked = made + 1, len(self._model.asked)
        begun = time.perf_counter()
        await self._stack.enter_async_context(self._worker())
        accepted = await self._client.send(thread, workload.ASKED)
        await self._answered(thread, accepted.message_id)
        first, second = self._model.asked[asked:]  # with the step's result, once that is committed
        return {"seconds": second - begun, "until_model_seconds": first - begun}

    async def _fork(self, thread: str, made: int) -> dict[str, Any]:
        """A fork from where the thread had made so many steps, until its model is asked for the first time."""
        self._model.until, asked = made, len(self._model.asked)
        begun = time.perf_counter()
        forked = await self._client.fork(thread, str(2 * made), thread=_name())
        await self._answered(forked.thread_id)
        return {"seconds": self._model.asked[asked] - begun}

    async def _query(self, thread: str) -> dict[str, Any]:
        """The query `checkpoint`, of a thread that this worker has in its cache."""
        handle = self._temporal.get_workflow_handle(thread)
        begun = time.perf_counter()
        answer = await handle.query("checkpoint", result_type=CheckpointAnswer)
        assert answer.head is not None
        return {"seconds": time.perf_counter() - begun}

    async def _completed(self, thread: str) -> dict[str, Any]:
        """Wait until the thread's workflow has completed, having been idle for long enough."""
        await self._temporal.get_workflow_handle(thread).result()
        return {}

    async def _answered(self, thread: str, message_id: str = "") -> None:
        """Wait for the answer that ends the loop. Raises AssertionError where there is another end."""
        result = await self._client.wait(thread, message_id)
        assert isinstance(result, TurnResult), result
        assert (result.outcome, result.answer) == ("answered", workload.ANSWER), result


def _name() -> str:
    return f"loop-{uuid4().hex}"


if __name__ == "__main__":
    serve(Perdure(), uvloop.run)  # as `perdure worker` does
