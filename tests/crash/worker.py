"""A worker as a process: ``python -m tests.crash.worker --address HOST:PORT --app MODULE:ATTR [--point JSON]``.

Everything else comes from the environment, as for any worker. It tells on standard output, one JSON object a line,
that it is ready, that its point is reached, and how each activity ended; logs go to standard error.
"""

import argparse
import asyncio
import json
import os
import sys

import structlog
from temporalio.client import Client

from perdure.app import App, load_app
from perdure.settings import Settings
from perdure.stores import open_store
from perdure.wire import data_converter
from perdure.workers.worker import build_worker
from tests.crash.points import Fate, Point, Seams, watched_model, watched_store


def tell(**said: object) -> None:
    """One line to the test, written before anything else can happen to this process."""
    os.write(sys.stdout.fileno(), json.dumps(said).encode() + b"\n")


async def serve(address: str, app: App, point: Point | None) -> None:
    """Work until struck."""
    fate = Fate(point, tell)
    settings = Settings()
    model = watched_model(fate)
    _ = model.chat.completions  # openai imports these at their first use: half a second in the middle of an activity
    worker = build_worker(
        await Client.connect(address, data_converter=data_converter),
        app=app,
        store=watched_store(open_store(settings.store_url()), fate),
        settings=settings,
        model=model,
        interceptors=[Seams(fate)],
    )
    async with worker:
        tell(ready=os.getpid())
        await asyncio.Event().wait()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.worker", description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--app", required=True)
    parser.add_argument("--point", type=Point.model_validate_json)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(serve(options.address, load_app(options.app), options.point))


if __name__ == "__main__":
    main()
