"""`perdure dev`, `perdure worker`, `perdure doctor`: the commands around the processes."""

import asyncio
import contextlib
import sys
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from perdure.starters.cli.command import Session, command

if TYPE_CHECKING:
    from rich.table import Table

    from perdure.settings import Settings
    from perdure.workers.doctor import Check

_Port = Annotated[
    int | None, typer.Option(metavar="PORT", help="Port of Temporal (7233, or a free one).", show_default=False)
]
_UiPort = Annotated[
    int | None, typer.Option(metavar="PORT", help="Port of the UI (8233, or a free one).", show_default=False)
]
_App = Annotated[str, typer.Option(metavar="MODULE:ATTR", help="The app (PERDURE_APP).", show_default=False)]
_Store = Annotated[str, typer.Option(metavar="URL", help="The checkpoint store (PERDURE_STORE).", show_default=False)]

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}


def dev(app: _App = "", store: _Store = "", port: _Port = None, ui_port: _UiPort = None) -> None:
    """Run Temporal with its UI, a store and a worker, all in this process.

    Everything is kept in PERDURE_HOME (.perdure): the next start goes on with what was running.
    """
    from perdure.starters.cli.defaults import find_place
    from perdure.workers.dev import develop

    settings = find_place(app=app, store=store).settings
    _begin(settings)
    asyncio.run(develop(settings.app, settings, port=port, ui_port=ui_port, say=_tell))


def _quickly(serving: Coroutine[Any, Any, None]) -> None:
    """On uvloop, where there is one: the loop of a worker turns a thousand times a second."""
    if sys.platform == "win32":
        asyncio.run(serving)
    else:
        import uvloop

        uvloop.run(serving)


@partial(command, loop=_quickly)
async def worker(session: Session) -> None:
    """Serve the app's threads on a Temporal server, until SIGINT or SIGTERM."""
    from perdure.workers.process import serve

    place = session.place
    _begin(place.settings)
    await serve(
        place.settings.app, place.settings, address=place.address, namespace=place.namespace, profile=place.profile
    )


@command
async def doctor(session: Session) -> None:
    """Check everything that threads need, and say how to mend what is missing."""
    from perdure.workers.doctor import examine, exit_code

    place = session.place
    _begin(place.settings)
    with contextlib.redirect_stdout(sys.stderr):  # what a module prints as it is imported is no document of ours
        checks = await examine(place.settings, address=place.address, namespace=place.namespace, profile=place.profile)
    session.out.show_all(checks, _table(checks))
    if code := exit_code(checks):
        raise typer.Exit(code)


def _begin(settings: "Settings") -> None:
    """What a process does before anything else in it: the logs."""
    from perdure.logging import configure_logging, forward_core_logs

    configure_logging(settings)
    forward_core_logs()


def _tell(text: str) -> None:
    typer.echo(text)
    sys.stdout.flush()


def _table(checks: "list[Check]") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for check in checks:
        mark, style = _MARKS[check.outcome]
        table.add_row(Text(mark, style=style), check.name, "\n".join(filter(None, (check.found, check.mend))))
    return table
