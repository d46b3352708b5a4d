"""A web application served in the running event loop, or as a process of its own.

uvicorn's own ``Server`` owns the process: it installs signal handlers, looks every tenth of a second whether
to stop, and waits for open requests. A server that a test starts and stops dozens of times, often while a
request is held open on purpose, needs none of that; so here only uvicorn's HTTP protocol is used.
"""

import asyncio
import json
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self, cast

from starlette.types import ASGIApp, Receive, Scope
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

_DRAIN = 2.0  # Seconds that handlers get to notice that their connection is gone; they need milliseconds.


class LocalServer:
    """An application on 127.0.0.1, alive between ``async with`` and its end.

    ``port=0`` lets the system pick a free port; ``url`` tells which. Stopping is quick: open connections are
    closed, whatever they wait for. Raises OSError at the start when the port is taken.
    """

    def __init__(self, app: ASGIApp, *, port: int = 0) -> None:
        self._config = Config(app, lifespan="off", log_config=None, access_log=False)
        self._config.load()
        self._state = ServerState()
        self._port = port
        self._url = ""
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``. Raises RuntimeError before the server has started."""
        if not self._url:
            raise RuntimeError("The server has not been started.")
        return self._url

    async def start(self) -> None:
        """Listen; once this returns, requests are answered."""
        # The loop makes the socket: on one of ours it would leave Nagle's algorithm on, 40 ms an answer.
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, "127.0.0.1", self._port)
        self._url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening, close every connection, and wait for the handlers to end. Twice is once."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in list(self._state.connections):
            cast(H11Protocol, connection).transport.abort()
        await asyncio.sleep(0)  # The event loop tells the protocols that their connections are gone.
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=_DRAIN)
        await server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _connection(self) -> asyncio.Protocol:
        return _Connection(config=self._config, server_state=self._state, app_state={})


class _Connection(H11Protocol):
    """uvicorn's protocol; it also shows its transport to the application, so that ``cut`` can break it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.app_state = {**self.app_state, "transport": transport}
        super().connection_made(transport)


async def cut(scope: Scope, receive: Receive) -> None:
    """Break the connection of a request that ``LocalServer`` serves; what was already sent still arrives."""
    transport: asyncio.Transport = scope["state"]["transport"]
    transport.close()
    await gone(receive)


async def gone(receive: Receive) -> None:
    """Return once the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


def run_as_process(server: LocalServer, ready: Callable[[], Mapping[str, Any]]) -> None:
    """Serve until SIGINT or SIGTERM; once it listens, write ``ready()`` as a JSON line to standard output."""
    asyncio.run(_serve_until_told(server, ready))


async def _serve_until_told(server: LocalServer, ready: Callable[[], Mapping[str, Any]]) -> None:
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with server:
        sys.stdout.write(json.dumps(ready()) + "\n")
        sys.stdout.flush()
        await told.wait()
