"""perdure approvals: what waits for people, in all threads or in one; with --watch as an inbox that follows."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from perdure.duration import seconds
from perdure.errors import TemporalUnreachable, UsageError
from perdure.starters.cli.command import Session, command
from perdure.starters.cli.output import Format, line
from perdure.starters.cli.render import approvals as render
from perdure.starters.cli.values import AgentFilter, TenantFilter
from perdure.starters.inbox import Inbox, Look, Wanted

SomeThread = Annotated[
    str, typer.Argument(metavar="THREAD", help="The thread's id; otherwise all that wait.", show_default=False)
]
Watching = Annotated[bool, typer.Option("--watch", help="Follow what opens, changes and closes, until Ctrl-C.")]
Person = Annotated[
    str, typer.Option("--for", metavar="PERSON", help="Only what this person may decide.", show_default=False)
]  # fmt: skip
Older = Annotated[
    str, typer.Option("--older", metavar="TIME", help="Only what has waited for so long, as 2h.", show_default=False)
]  # fmt: skip
Every = Annotated[str, typer.Option("--every", metavar="TIME", help="How often --watch looks.")]


@command
async def approvals(
    session: Session, thread: SomeThread = "", watching: Watching = False, agent: AgentFilter = "",
    tenant: TenantFilter = "", person: Person = "", older: Older = "", every: Every = "2s",
) -> None:  # fmt: skip
    """Show what waits for an approval or an answer: in all threads, or everything about those of one."""
    wanted, pause = Wanted(agent=agent, tenant=tenant, person=person, older=_time(older)), _time(every)
    if thread and (watching or wanted != Wanted()):
        raise UsageError("Of one thread everything is shown.", hint=f"`perdure watch {thread}` follows it.")
    if watching and session.out.form is Format.json:
        raise UsageError("`approvals --watch` is a stream of documents.", hint="Use -o jsonl, or leave out --watch.")
    client = await session.client()
    if thread:
        answer = await client.approvals(thread)
        session.out.show(answer, render.approvals(thread, answer))
    elif watching:
        with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C: the one way to stop watching, so no failure
            await _follow(session, Inbox(client, wanted), pause)
    else:
        look = await Inbox(client, wanted).look()
        session.out.show_all(look.items, render.inbox(look))
        _raise_for(look)


def _time(given: str) -> float:
    """Seconds; 0 where nothing is given. Raises DefinitionError."""
    return seconds(given) if given else 0.0


def _raise_for(look: Look) -> None:
    """A thread that doesn't answer must not hide the others, nor be hidden. Raises the error, or one for all."""
    errors = look.silent
    if len(errors) == 1:
        raise next(iter(errors.values()))
    if errors:
        names = ", ".join(errors)
        raise TemporalUnreachable(f"{len(errors)} threads don't answer: {names}.", hint="Are their workers running?")


async def _follow(session: Session, inbox: Inbox, pause: float) -> None:
    """Redraw the inbox on a terminal; elsewhere tell each change, as a line or as a document."""
    out = session.out
    if out.is_text and out.console.is_terminal:
        with Live(console=out.console, auto_refresh=False) as live:
            await _each(inbox, pause, lambda look: live.update(render.inbox(look), refresh=True))
    else:
        await _each(inbox, pause, lambda look: _tell(session, look))


async def _each(inbox: Inbox, pause: float, show: Callable[[Look], None]) -> None:
    while True:
        show(await inbox.look())
        await asyncio.sleep(pause)


def _tell(session: Session, look: Look) -> None:
    for change in look.changes:
        session.out.show(change, Text(line(render.change(change))))
