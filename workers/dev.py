"""`perdure dev`: the embedded server, a store and a worker in one process, taking up what was left running."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from perdure.app import App
from perdure.errors import TemporalUnreachable
from perdure.settings import Settings
from perdure.workers.connect import connect_embedded, let_go
from perdure.workers.dev_record import DevRecord, remove, written
from perdure.workers.embedded import EmbeddedServer
from perdure.workers.model import ADDRESS, KEY, is_configured
from perdure.workers.process import named_app, opened, work
from perdure.workers.signals import stop_signals

Say = Callable[[str], None]


async def develop(
    target: str, settings: Settings, *, port: int | None = None, ui_port: int | None = None, say: Say = print
) -> None:
    """Run everything for the app ``MODULE:ATTR`` until SIGINT or SIGTERM. ``say`` gets what a person should read.

    Always on a server of its own, whatever ``TEMPORAL_*`` names. Raises UsageError or DefinitionError (no app, a
    wrong one), Conflict (it runs already, a taken port), TemporalUnreachable (the server does not start, or died).
    """
    app = named_app(target)
    server = EmbeddedServer(settings=settings, port=port, ui_port=ui_port)
    with stop_signals(lambda: _abandon(server)) as told:
        async with server:
            await _serve(app, target, server, settings, told, say)
            await let_go()
            if not told.is_set():
                raise _death(server)


async def _serve(
    app: App, target: str, server: EmbeddedServer, settings: Settings, told: asyncio.Event, say: Say
) -> None:
    async with opened(settings, create=True) as store:
        await store.migrate()
        client = await connect_embedded(server.address)
        record = DevRecord(
            address=server.address, ui=server.ui, app=target, store=settings.store_url(), pid=os.getpid()
        )
        with written(record, server.home):
            greeting = "\n".join(_greeting(app, server, settings))
            await work(
                client, app=app, store=store, settings=settings,
                until=lambda: _end(server, told, lambda: say(_farewell(settings))), began=lambda: say(greeting),
            )  # fmt: skip


async def _end(server: EmbeddedServer, told: asyncio.Event, say: Callable[[], None]) -> None:
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
        say()


def _abandon(server: EmbeddedServer) -> None:
    """What there is time for where this process ends at once."""
    server.abandon()
    remove(server.home)


def _death(server: EmbeddedServer) -> TemporalUnreachable:
    said = server.last_words()
    return TemporalUnreachable("The embedded Temporal server died.", hint=f"It said: {said}" if said else "")


def _greeting(app: App, server: EmbeddedServer, settings: Settings) -> list[str]:
    agent = next(iter(app.graphs), "AGENT")
    return [
        f"Temporal UI   {server.ui}",
        f"Temporal      {server.address}",
        f"Store         {settings.store_url()}",
        f"Agents        {', '.join(app.graphs) or 'none'}",
        "",
        "Next, in another terminal, in this folder:",
        f'  perdure start {agent} -m "..." --wait',
        "  perdure list",
        "  perdure approvals",
        *_cautions(server),
        "",
        "Ctrl-C stops it; the next start goes on from there.",
    ]


def _cautions(server: EmbeddedServer) -> list[str]:
    lines = []
    elsewhere = os.environ.get("TEMPORAL_ADDRESS", server.address)
    if elsewhere != server.address:
        lines += ["", f"TEMPORAL_ADDRESS is {elsewhere}: unset it there, or add --address {server.address}."]
    if server.home != Path(".perdure").absolute():
        lines += ["", f"There too: export PERDURE_HOME={server.home}"]
    if not is_configured():
        lines += [
            "",
            f"No model is configured: set {KEY} (or {ADDRESS}, for another server of the same protocol) and start",
            "again. Threads wait for it until then. `perdure demo` needs none.",
        ]
    return lines


def _farewell(settings: Settings) -> str:
    return f"Stopping. What runs gets {settings.shutdown:.0f} seconds to finish; Ctrl-C again stops it at once."
