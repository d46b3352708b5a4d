"""A worker as a process. It says that it is ready, that its point is reached, and how each of its activities ended."""

import asyncio
import json
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import openai.resources.chat.completions  # noqa: F401 - else imported in the middle of the first model call
import structlog
from temporalio.client import Client

from perdure.app import load_app
from perdure.settings import Settings
from perdure.stores import open_store
from perdure.values import Value
from perdure.wire import data_converter
from perdure.workers.worker import build_worker
from tests.crash.points import Fate, Point, Seams, watched_model, watched_store
from tests.crash.standing import Stand, Standing, standing_store


class Duty(Value):
    """What a worker process is told at its start; ``environment`` has all that any worker is told.

    ``at`` is where it is struck, ``stands`` tells by thread which activities stand still.
    """

    address: str
    app: str
    environment: dict[str, str]
    log: Path
    at: Point | None = None
    stands: dict[str, Stand] = {}


def work(duty: str, out: Connection) -> None:
    """The process: work until struck. The duty comes as JSON; what it says goes out as JSON, at once."""
    told = Duty.model_validate_json(duty)
    os.environ.update(told.environment)
    os.dup2(os.open(told.log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), sys.stderr.fileno())
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_serve(told, Fate(told.at, lambda **said: out.send_bytes(json.dumps(said).encode()))))


async def _serve(duty: Duty, fate: Fate) -> None:
    settings = Settings()
    model = watched_model(fate)
    await model.models.list()  # a client's first request looks around on the machine, which can take a second
    worker = build_worker(
        await Client.connect(duty.address, data_converter=data_converter),
        app=load_app(duty.app),
        store=standing_store(watched_store(open_store(settings.store_url()), fate)),
        settings=settings,
        model=model,
        interceptors=[Seams(fate), Standing(duty.stands, fate.tell)],
    )
    async with worker:
        fate.tell(ready=os.getpid())
        await asyncio.Event().wait()
