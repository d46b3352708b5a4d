"""What takes part in the demo, each on a free port, over files in a home of the demo's own."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from perdure.contracts import TASK_QUEUE
from perdure.errors import InvalidInput, TemporalUnreachable
from perdure.examples.orders.processes import WorkerProcess, worker_environment
from perdure.examples.orders.shop import Shop
from perdure.examples.orders.story import STORY
from perdure.settings import Settings
from perdure.starters.client import Client
from perdure.starters.service import Service
from perdure.stores import Store, open_store
from perdure.testing import ModelServer
from perdure.workers.connect import connect_embedded
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.ports import free_port


@dataclass
class Parts:
    """The parts, at work. ``model`` is None where a real one is asked."""

    shop: Shop
    model: ModelServer | None
    server: EmbeddedServer
    worker: WorkerProcess
    store: Store
    client: Client

    def link(self, thread: str) -> str:
        """Where the Temporal UI shows a thread."""
        return f"{self.server.ui}/namespaces/default/workflows/{thread}"

    async def ready(self) -> None:
        """Return once the worker serves: on a slow machine its start takes longer than a client is patient."""
        service = Service(self.client.temporal)
        while True:
            with suppress(TemporalUnreachable):
                return await service.require(TASK_QUEUE)


@contextmanager
def demo_home(wanted: Path | None, *, keep: bool) -> Iterator[Path]:
    """A temporary folder, removed at the end unless kept; or the one that is wanted, which is left as it is then.

    Raises InvalidInput for a wanted folder that holds something already, or can't be made.
    """
    if wanted is not None:
        yield _taken(wanted)
        return
    home = Path(tempfile.mkdtemp(prefix="perdure-demo-"))
    try:
        yield home
    finally:
        if not keep:
            shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def open_parts(home: Path, *, real_model: bool, open_shop: Callable[[Path], Shop]) -> AsyncIterator[Parts]:
    """Start everything, and stop everything in the reverse order, whatever happened.

    The shop and the model live in this process: the worker's death must not touch them. Raises what their starts
    raise: InvalidInput, Conflict, TemporalUnreachable.
    """
    access = _real_access() if real_model else {}
    url = f"sqlite:///{home / 'store.db'}"
    settings = Settings().model_copy(update={"home": home, "store": url, "task_queue": TASK_QUEUE, "ui": ""})
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(open_shop(home / "shop.db"))
        model = None
        if not real_model:
            model = await stack.enter_async_context(ModelServer(STORY))
            access = {"OPENAI_BASE_URL": model.base_url, "OPENAI_API_KEY": "offline"}
        server = EmbeddedServer(settings=settings, home=home, port=free_port(), ui_port=free_port())
        await stack.enter_async_context(server)
        store = open_store(url)
        stack.push_async_callback(store.close)
        await store.migrate()
        environment = worker_environment(
            home, address=server.address, store=url, task_queue=TASK_QUEUE, shop=shop.url, model=access
        )
        worker = WorkerProcess(environment, home / "worker.log")
        stack.push_async_callback(worker.stop)
        await worker.start()
        client = Client(await connect_embedded(server.address), settings)
        stack.push_async_callback(client.close)
        yield Parts(shop, model, server, worker, store, client)


def _real_access() -> dict[str, str]:
    """How the user's environment reaches a real model. Raises InvalidInput where it says nothing of it."""
    access = {name: value for name, value in os.environ.items() if name.startswith("OPENAI_") and value}
    if not access.keys() & {"OPENAI_API_KEY", "OPENAI_BASE_URL"}:
        raise InvalidInput(
            "No real model is known.",
            hint="Set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own; or leave --real-model out.",
        )
    return {"OPENAI_API_KEY": "unused", **access}


def _taken(home: Path) -> Path:
    try:
        home.mkdir(parents=True, exist_ok=True)
        used = any(home.iterdir())
    except OSError as error:
        raise InvalidInput(f"{home} can't be the demo's home: {error}.") from error
    if used:
        raise InvalidInput(f"The folder {home} is not empty.", hint="Name a new one.")
    return home.absolute()
