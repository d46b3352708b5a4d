"""The health of a worker, over HTTP: ``GET /health`` answers 200, or 503 with what is wrong."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.client import Client
from temporalio.service import RPCError

from perdure.errors import Conflict, PerdureError, TemporalUnreachable
from perdure.stores import Store
from perdure.workers.readiness import require_schema, unanswered

_PATIENCE = 2.0  # seconds a probe waits for Temporal or the store; those who ask commonly give up after three


class Health:
    """What a worker knows of itself and finds out when asked."""

    def __init__(self, client: Client, store: Store) -> None:
        self.worker: Literal["starting", "running", "stopping"] = "starting"
        self._client = client
        self._store = store

    async def look(self) -> dict[str, str]:
        """``status`` (ok, unhealthy) and what it follows from: ``worker``, ``temporal``, ``store``."""
        temporal, store = await asyncio.gather(_found("Temporal", self._ask()), _found("The store", self._read()))
        well = (self.worker, temporal, store) == ("running", "ok", "ok")
        return {"status": "ok" if well else "unhealthy", "worker": self.worker, "temporal": temporal, "store": store}

    async def _ask(self) -> None:
        try:
            healthy = await self._client.service_client.check_health(timeout=timedelta(seconds=_PATIENCE))
        except RPCError as error:
            raise unanswered(error) from error
        if not healthy:
            raise TemporalUnreachable("Temporal says that it is not well.")

    async def _read(self) -> None:
        await require_schema(self._store)


@asynccontextmanager
async def health_endpoint(health: Health, port: int) -> AsyncIterator[None]:
    """Serve ``/health`` on all IPv4 addresses: who asks is commonly outside the container.

    Raises Conflict where the port is taken.
    """

    async def answer(_: Request) -> Response:
        found = await health.look()
        return JSONResponse(found, 200 if found["status"] == "ok" else 503)

    app = Starlette(routes=[Route("/health", answer)])
    server = _Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    with _listening(port) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: stopping is the worker's own business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    # Ours, not uvicorn's: where it can't have its port, it ends the process.
    try:
        listener = socket.create_server(("", port))
    except OSError as error:
        raise Conflict(
            f"The health endpoint can't have port {port}: {error.strerror}.", hint="Change PERDURE_HEALTH_PORT."
        ) from error
    with listener:
        yield listener


async def _found(what: str, look: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE):
            await look
    except TimeoutError:
        return f"{what} does not answer."
    except PerdureError as error:
        return str(error)
    return "ok"
