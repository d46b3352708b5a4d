"""perdure list, watch, cancel, extend, close."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.live import Live
from rich.text import Text

from perdure.contracts import LogEntry, Status, StatusAnswer
from perdure.effects import OPEN
from perdure.errors import Refused, UsageError
from perdure.starters.cli.command import Reason, Session, Thread, Who, command
from perdure.starters.cli.output import Format, Output, line
from perdure.starters.cli.render import threads as render
from perdure.starters.cli.render.tables import moment, state_of, table
from perdure.starters.cli.values import AgentFilter, TenantFilter
from perdure.values import Value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from perdure.starters.threads import ThreadSummary

_STATUSES: tuple[str, ...] = get_args(Status)

StatusFilter = Annotated[
    str, typer.Option("--status", metavar="STATUS", help="Only in this status.", show_default=False)
]  # fmt: skip
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, the newest first.")]
NoCompensate = Annotated[bool, typer.Option("--no-compensate", help="Keep what the turn did outside.")]
Steps = Annotated[int, typer.Option("--steps", min=0, metavar="N", help="So many more steps.", show_default=False)]
Tokens = Annotated[int, typer.Option("--tokens", min=0, metavar="N", help="So many more tokens.", show_default=False)]


class Cancelled(Value):
    """A turn that was told to stop; ``perdure status`` tells when it has."""

    thread_id: str
    turn: int
    compensate: bool


class Closed(Value):
    """A thread that takes no more messages."""

    thread_id: str
    closed: bool = True


@command
async def list_threads(
    session: Session, agent: AgentFilter = "", status: StatusFilter = "", tenant: TenantFilter = "", limit: Limit = 50
) -> None:
    """List threads, the newest first."""
    if status and status not in _STATUSES:
        raise UsageError(f"{status!r} is no status.", hint=f"There are: {', '.join(_STATUSES)}.")
    found = await (await session.client()).threads(agent=agent, status=status, tenant=tenant, limit=limit)
    columns = ("thread", "agent", "status", "step", "pending", "started (UTC)")
    session.out.show_all(found, table(columns, map(_row, found), empty="No threads."))
    if any(thread.status in OPEN for thread in found):
        session.out.say("Something is not settled; `perdure effects --all --open` shows what, and the commands.")


def _row(thread: "ThreadSummary") -> tuple[object, ...]:
    started = moment(thread.started_at)
    status = state_of(thread.status).append(" (dry run)" if thread.dry_run else "", style="dim")
    return thread.thread_id, thread.agent, status, thread.step, thread.pending, started


@command
async def watch(session: Session, thread: Thread) -> None:
    """Follow a thread until it has completed, or until Ctrl-C."""
    out = session.out
    if out.form is Format.json:
        raise UsageError("`watch` is a stream of documents.", hint="Use -o jsonl, or `status` for one of them.")
    client = await session.client()
    link = session.ui_link(thread)
    with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C: the one way to stop watching, so no failure
        if out.form is Format.text and out.console.is_terminal:
            with Live(console=out.console, auto_refresh=False) as live:
                await _each(client.watch(thread), lambda seen: live.update(render.status(seen, link), refresh=True))
        elif out.form is Format.text:
            await _each(client.watch(thread), _Journal(out).tell)
        else:
            await _each(client.watch(thread), lambda seen: out.show(seen, ""))


async def _each(statuses: "AsyncIterator[StatusAnswer]", show: "Callable[[StatusAnswer], None]") -> None:
    async for answer in statuses:
        show(answer)


class _Journal:
    """A thread as lines that are only ever added: for a pipe or a file."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._last: LogEntry | None = None
        self._needs: list[str] = []

    def tell(self, answer: StatusAnswer) -> None:
        """Print what is new since the last status."""
        log = answer.log
        start = log.index(self._last) + 1 if self._last in log else 0
        for entry in log[start:]:
            self._out.show(None, Text(f"{moment(entry.at)} {line(entry.text)}"))
        self._last = log[-1] if log else None
        needs = render.needs(answer)
        for need in needs:
            if need not in self._needs:
                self._out.show(None, Text(f"needs {need}"))
        self._needs = needs


@command
async def cancel(
    session: Session, thread: Thread, no_compensate: NoCompensate = False, reason: Reason = "", who: Who = ""
) -> None:
    """Stop the running turn and undo what it did outside."""
    client = await session.client()
    answer = await client.status(thread)
    if not answer.node:
        raise Refused(f"No turn of {thread} is running.")
    await client.cancel(thread, by=who, reason=reason, compensate=not no_compensate)
    told = Cancelled(thread_id=thread, turn=answer.turn, compensate=not no_compensate)
    kept = "kept" if no_compensate else "undone"
    session.out.show(told, f"Turn {told.turn} of {thread} is told to stop; what it did outside is {kept}.")


@command
async def extend(session: Session, thread: Thread, steps: Steps = 0, tokens: Tokens = 0, who: Who = "") -> None:
    """Give the running turn more room; one that ran out of budget goes on."""
    if not steps and not tokens:
        raise UsageError("Give more --steps or more --tokens.")
    budget = await (await session.client()).extend(thread, steps=steps, tokens=tokens, by=who)
    limits = [f"{value} {name}" for name, value in (("steps", budget.steps), ("tokens", budget.tokens)) if value]
    session.out.show(budget, f"The turn may use {' and '.join(limits) or 'anything'}.")


@command
async def close(session: Session, thread: Thread) -> None:
    """Let the thread finish what it has begun and take no more messages, for good."""
    await (await session.client()).close_thread(thread)
    session.out.show(Closed(thread_id=thread), f"Thread {thread} is closed.")
