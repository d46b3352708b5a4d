"""The worker process: connects, makes sure that it may begin, serves until it is told to stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext

import structlog
from openai import AsyncOpenAI
from temporalio.client import Client
from temporalio.worker import Worker

from perdure.app import App, load_app
from perdure.errors import Failed, UsageError
from perdure.settings import Settings
from perdure.stores import Store, open_store
from perdure.stores.open import open_existing
from perdure.workers.connect import connect, let_go
from perdure.workers.health import Health, health_endpoint
from perdure.workers.model import model_client
from perdure.workers.readiness import require_namespace, require_schema, require_search_attributes
from perdure.workers.signals import stop_signals
from perdure.workers.tuning import settle
from perdure.workers.worker import build_worker

log = structlog.get_logger("perdure.worker")


async def serve(target: str, settings: Settings, *, address: str = "", namespace: str = "", profile: str = "") -> None:
    """Serve the app ``MODULE:ATTR`` until SIGINT or SIGTERM; activities then get ``settings.shutdown`` seconds.

    Raises UsageError or DefinitionError (no app, a wrong one), TemporalUnreachable, NotSetUp, StoreUnreachable,
    StoreOutdated, Conflict (the health port), Failed (the worker stopped by itself).
    """
    app = named_app(target)
    with stop_signals() as told:
        await _serve(app, settings, told, address=address, namespace=namespace, profile=profile)
    await let_go()


async def work(
    client: Client, *, app: App, store: Store, settings: Settings, until: Callable[[], Awaitable[object]],
    began: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Run a worker until what ``until`` gives is done, then let its activities finish. ``began`` runs once it polls.

    Raises Conflict (the health port), Failed where the worker stopped by itself.
    """
    health = Health(client, store)
    async with AsyncExitStack() as stack:
        if settings.health_port:
            await stack.enter_async_context(health_endpoint(health, settings.health_port))
        model = await stack.enter_async_context(_model())
        worker = build_worker(client, app=app, store=store, settings=settings, model=model)
        running = asyncio.create_task(worker.run())
        stopping = asyncio.ensure_future(until())
        health.worker = "running"
        log.info("worker started", agents=sorted(app.graphs), task_queue=settings.task_queue)
        began()
        settle()
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            health.worker = "stopping"
            stopping.cancel()
            await _stop(worker, running, settings)


def named_app(target: str) -> App:
    """The app, loaded. Raises UsageError where none is named, DefinitionError where it can't be loaded."""
    if not target:
        raise UsageError(
            "Which app?",
            hint="Name it with --app MODULE:ATTR or PERDURE_APP, for example --app perdure.examples.orders.desk:app.",
        )
    return load_app(target)


@asynccontextmanager
async def opened(settings: Settings, *, create: bool = False) -> AsyncIterator[Store]:
    """The store of the settings, closed at the end. Raises StoreUnreachable if it isn't there, unless ``create``."""
    store = (open_store if create else open_existing)(settings.store_url())
    try:
        yield store
    finally:
        await store.close()


async def log_cautions(store: Store) -> None:
    """Say what the store's configuration can lose, a warning each. Raises StoreUnreachable."""
    for caution in await store.cautions():
        log.warning(caution, store=store.url)


async def _serve(
    app: App, settings: Settings, told: asyncio.Event, *, address: str, namespace: str, profile: str
) -> None:
    client = await connect(address=address, namespace=namespace, profile=profile)
    await require_namespace(client)
    await require_search_attributes(client)
    async with opened(settings) as store:
        await require_schema(store)
        await log_cautions(store)
        await work(client, app=app, store=store, settings=settings, until=told.wait)


def _model() -> AsyncOpenAI | nullcontext[None]:
    return model_client() or nullcontext()


async def _stop(worker: Worker, running: "asyncio.Task[None]", settings: Settings) -> None:
    if not running.done():
        log.info("worker stops", seconds=settings.shutdown)
        await worker.shutdown()
        await asyncio.wait({running})
    if error := running.exception():
        raise Failed(f"The worker stopped by itself: {error}.") from error
    log.info("worker stopped")
