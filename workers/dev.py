"""`perdure dev`: the embedded server, a store and a worker in one process, taking up what was left running."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress

from temporalio.client import Client

from perdure.app import App
from perdure.errors import TemporalUnreachable
from perdure.settings import Settings
from perdure.stores import Store
from perdure.workers.connect import connect_embedded, let_go
from perdure.workers.dev_record import DevRecord, written
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.model import ADDRESS, KEY, is_configured
from perdure.workers.process import named_app, opened, work
from perdure.workers.signals import stop_signals

Say = Callable[[str], None]


async def develop(
    target: str, settings: Settings, *, port: int | None = None, ui_port: int | None = None, say: Say
) -> None:
    """Run everything for the app ``MODULE:ATTR`` until SIGINT or SIGTERM. ``say`` gets what a person should read.

    Always on a server of its own, whatever ``TEMPORAL_*`` names. Raises UsageError or DefinitionError (no app, a
    wrong one), Conflict (it runs already, a taken port), TemporalUnreachable (the server does not start, or died).
    """
    app = named_app(target)
    server = EmbeddedServer(settings=settings, port=port, ui_port=ui_port)
    with stop_signals(server.abandon) as told:
        async with server, opened(settings) as store:
            await store.migrate()
            record = DevRecord(
                address=server.address, ui=server.ui, app=target, store=settings.store_url(), pid=os.getpid()
            )
            with written(record, server.home):
                client = await connect_embedded(server.address)
                greeting = _greeting(app, server, settings)
                until = _until(server, told, say, settings)
                await _work(client, app, store, settings, until, lambda: say(greeting))
                del client
            await let_go()
            if not told.is_set():
                raise _server_died(server)


async def _work(
    client: Client, app: App, store: Store, settings: Settings, until: Awaitable[None], began: Callable[[], None]
) -> None:
    await work(client, app=app, store=store, settings=settings, until=until, began=began)


async def _until(server: EmbeddedServer, told: asyncio.Event, say: Say, settings: Settings) -> None:
    """Until a signal came or the server died."""
    waiting = [asyncio.ensure_future(told.wait()), asyncio.ensure_future(server.died())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
            with suppress(asyncio.CancelledError):
                await each
    if told.is_set():
        say(f"Stopping. What runs gets {settings.shutdown:.0f} seconds to finish; once more to stop at once.")


def _server_died(server: EmbeddedServer) -> TemporalUnreachable:
    said = server.last_words()
    return TemporalUnreachable("The embedded Temporal server died.", hint=f"It said: {said}" if said else "")


def _greeting(app: App, server: EmbeddedServer, settings: Settings) -> str:
    agent = next(iter(app.agents), "AGENT")
    lines = [
        f"Temporal UI   {server.ui}",
        f"Temporal      {server.address}",
        f"Store         {settings.store_url()}",
        f"Agents        {', '.join(app.agents) or 'none'}",
        "",
        "Next, in another terminal, in this folder:",
        f'  perdure start {agent} -m "..." --wait',
        "  perdure list",
        "  perdure approvals",
        *_cautions(server),
    ]
    return "\n".join(lines)


def _cautions(server: EmbeddedServer) -> list[str]:
    lines = []
    elsewhere = os.environ.get("TEMPORAL_ADDRESS", server.address)
    if elsewhere != server.address:
        lines += ["", f"TEMPORAL_ADDRESS is {elsewhere}: unset it there, or add --address {server.address}."]
    if not is_configured():
        lines += [
            "",
            f"No model is configured: set {KEY} (or {ADDRESS} for another server that speaks its protocol) and start",
            "again. Threads wait for it until then. `perdure demo` needs none.",
        ]
    return lines
