"""What every command has: the common options, a session to work with, and one place where it runs.

A command is an async function of a ``Session`` and its own parameters::

    @command
    async def status(session: Session, thread: Thread) -> None: ...

``index`` lists it under its name.
"""

import asyncio
import contextlib
import inspect
import sys
import typing
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec, TypeVar

import typer

from perdure.errors import Refused
from perdure.starters.cli.output import Format, Output

if TYPE_CHECKING:  # each of these costs time that `perdure --help` must not pay
    from perdure.app import App
    from perdure.starters.archive import Archive
    from perdure.starters.cli.defaults import Place
    from perdure.starters.client import Client
    from perdure.starters.connection import Connection
    from perdure.stores import Store

P = ParamSpec("P")
Noun = TypeVar("Noun", bound="Connection")
_PANEL = "Common options"

Thread = Annotated[str, typer.Argument(metavar="THREAD", help="The thread's id.", show_default=False)]
Who = Annotated[str, typer.Option("--as", metavar="WHO", help="In whose name.", show_default=False)]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is recorded.", show_default=False)]
Token = Annotated[
    str,
    typer.Option(
        "--lease", metavar="TOKEN", envvar="PERDURE_LEASE", show_envvar=False, show_default=False,
        help="Of the lease under which this is written (PERDURE_LEASE).",
    ),
]  # fmt: skip
Wait = Annotated[bool, typer.Option("--wait", help="Wait until the turn has ended, or a person is needed.")]


def _common(*names: str, metavar: str, help: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=_PANEL, show_default=False)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options that every command takes, as they were given."""

    app: Annotated[str, _common("--app", metavar="MODULE:ATTR", help="The app (PERDURE_APP).")] = ""
    store: Annotated[str, _common("--store", metavar="URL", help="The checkpoint store (PERDURE_STORE).")] = ""
    address: Annotated[str, _common("--address", metavar="HOST:PORT", help="Temporal (TEMPORAL_ADDRESS).")] = ""
    namespace: Annotated[
        str, _common("--namespace", "-n", metavar="NAME", help="Temporal's namespace (TEMPORAL_NAMESPACE).")
    ] = ""
    profile: Annotated[
        str, _common("--profile", metavar="NAME", help="A profile of Temporal's configuration (TEMPORAL_PROFILE).")
    ] = ""
    output: Annotated[
        Format, _common("--output", "-o", metavar="text|json|jsonl", help="The form of what is printed.")
    ] = Format.text
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Answer questions with yes.", rich_help_panel=_PANEL)
    ] = False  # fmt: skip


class Session:
    """What one command works with. Connections are made when they are first asked for."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.out = Output(options.output)
        self._closing = contextlib.AsyncExitStack()
        self._client: Connection | None = None

    @cached_property
    def place(self) -> "Place":
        """The server, the store and the app. Raises InvalidInput."""
        from perdure.starters.cli.defaults import find_place

        o = self.options
        return find_place(app=o.app, store=o.store, address=o.address, namespace=o.namespace, profile=o.profile)

    async def client(self) -> "Client":
        """A connected client. Raises TemporalUnreachable."""
        from perdure.starters.client import Client

        return await self.connect(Client)

    async def connect(self, noun: type[Noun]) -> Noun:
        """The client, or the one noun of it that a command needs: all of them take a while to import. Raises
        TemporalUnreachable."""
        place = self.place
        if isinstance(self._client, noun):
            return self._client
        client = await noun.connect(
            address=place.address, namespace=place.namespace, profile=place.profile, settings=place.settings
        )
        self._client = client
        self._closing.push_async_callback(client.close)
        return client

    def archive(self) -> "Archive":
        """The threads as the store has them, for what needs no Temporal."""
        from perdure.starters.archive import Archive

        archive = Archive(self.place.settings)
        self._closing.push_async_callback(archive.close)
        return archive

    async def store(self, *, create: bool = False) -> "Store":
        """The store; with ``create`` also one that isn't there yet. Raises InvalidInput, StoreUnreachable."""
        from perdure.stores.open import open_existing, open_store

        store = (open_store if create else open_existing)(self.place.settings.store_url())
        self._closing.push_async_callback(store.close)
        return store

    def app(self) -> "App | None":
        """The app, if one is named. Raises DefinitionError."""
        from perdure.app import load_app

        if not (name := self.place.settings.app):
            return None
        with contextlib.redirect_stdout(sys.stderr):  # what a module prints as it is imported is no document of ours
            return load_app(name)

    @property
    def is_interactive(self) -> bool:
        """Whether a person can be asked: reads what we ask and types the answer."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str, *, otherwise: str = "nothing was changed") -> None:
        """Have a person agree, unless ``-y`` does. Raises Refused: nobody can be asked, or the answer is no; what holds
        ``otherwise`` is told then."""
        if self.options.yes:
            return
        if not self.is_interactive:
            raise Refused("This needs a yes, and there is no terminal to ask on.", hint="Pass -y to agree.")
        sys.stderr.write(f"{question} [y/N] ")  # not by Typer, which would leave a space on standard output
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused(f"You said no; {otherwise}.")

    def ui_link(self, thread_id: str) -> str:
        """The thread's page in Temporal's UI; empty where no UI is known."""
        ui, namespace = self.place.settings.ui, self._client.temporal.namespace if self._client else "default"
        return f"{ui.rstrip('/')}/namespaces/{namespace}/workflows/{thread_id}" if ui else ""

    async def close(self) -> None:
        """Let go of what was opened."""
        await self._closing.aclose()


def command(
    function: Callable[Concatenate[Session, P], Coroutine[Any, Any, None]],
    *,
    loop: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
) -> Callable[..., None]:
    """An async function of a session as a Typer command that also takes the common options. ``loop`` runs it."""

    @wraps(function)
    def run(**given: Any) -> None:
        options = Options(**{field.name: given.pop(field.name) for field in fields(Options)})
        loop(_run(Session(options), function, given))

    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    run.__signature__ = inspect.Signature([*own, *_parameters()])  # type: ignore[attr-defined]
    run.__annotations__ = {}  # of the function inside; Typer reads the signature
    return run


async def _run(session: Session, function: Callable[..., Coroutine[Any, Any, None]], given: dict[str, Any]) -> None:
    try:
        await function(session, **given)
    finally:
        await session.close()


def _parameters() -> list[inspect.Parameter]:
    hints = typing.get_type_hints(Options, include_extras=True)
    return [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(Options)
    ]
