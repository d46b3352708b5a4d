"""perdure start, perdure send."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

from perdure.contracts import Accepted, StatusAnswer, TurnResult
from perdure.errors import Refused, ThreadNotFound, TurnFailed, UsageError
from perdure.starters.cli import render
from perdure.starters.cli.command import Session, Thread, Wait, command
from perdure.starters.cli.output import safe
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.starters.client import Client

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.", show_default=False)]
Message = Annotated[
    str | None, typer.Option("--message", "-m", metavar="TEXT", help="What to say.", show_default=False)
]  # fmt: skip
Input = Annotated[
    str | None,
    typer.Option("--input", metavar="JSON", help="Channels of the state to set, as an object.", show_default=False),
]
ThreadId = Annotated[
    str, typer.Option("--thread", "-t", metavar="THREAD", help="The thread's id; otherwise one is made.")
]  # fmt: skip
Tenant = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Whose thread it is.", show_default=False)]


class Sent(Value):
    """A message that was taken. With ``--wait`` also how its turn ended, or the status in which it needs a person."""

    thread_id: str
    message_id: str
    queued: int
    repeated: bool
    result: TurnResult | None = None
    status: StatusAnswer | None = None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Threads")(start)
    app.command(rich_help_panel="Threads")(send)


@command
async def start(
    session: Session, agent: AgentName, message: Message = None, given: Input = None, thread: ThreadId = "",
    tenant: Tenant = "", wait: Wait = False,
) -> None:  # fmt: skip
    """Start a thread of an agent with its first message, or with an input."""
    if (message is None) == (given is None):
        raise UsageError("Give either a message or an input.", hint="For example -m 'Buy two laptops'.")
    state = _parsed(given)
    _check(session, agent, state)
    client = await session.client()
    thread_id, accepted = await client.start(agent, message or "", thread=thread, state=state, tenant=tenant)
    if not wait:
        session.out.show(_sent(thread_id, accepted), thread_id)
        session.out.say(f"Follow it with `perdure watch {thread_id}`.")
    else:
        session.out.say(f"Thread {thread_id}")
        await _wait(session, client, thread_id, accepted)


@command
async def send(
    session: Session, thread: Thread, message: Message = None, given: Input = None, wait: Wait = False
) -> None:
    """Send a message to a thread; one that had completed goes on from where it stood."""
    if message is None and given is None:
        raise UsageError("Give a message, an input, or both.", hint="For example -m 'And a mouse'.")
    state = _parsed(given)
    client = await session.client()
    if state and session.place.settings.app:
        await _check_for_thread(session, client, thread, state)
    accepted = await client.send(thread, message or "", state=state)
    if wait:
        await _wait(session, client, thread, accepted)
    else:
        queued = f"queued behind {accepted.queued} turns" if accepted.queued else "accepted"
        session.out.show(_sent(thread, accepted), f"{thread}: {queued}")


def _parsed(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    try:
        state = json.loads(given)
    except ValueError as error:
        raise UsageError(f"The input is no JSON: {error}.") from error
    if not isinstance(state, dict) or not state:
        raise UsageError("The input names no channels.", hint='It is an object, for example {"title": "Laptops"}.')
    return state


def _check(session: Session, agent: str, state: dict[str, Any]) -> None:
    """Where the app is known, check by it before anything is sent; otherwise the worker does.

    Raises AgentNotFound, InvalidInput.
    """
    app = session.app()
    if app is None:
        return
    known = app.graph(agent)
    if state:
        from perdure.state import reduce_updates

        reduce_updates(known.state, {}, {"The input": state}, step=0)


async def _check_for_thread(session: Session, client: "Client", thread: str, state: dict[str, Any]) -> None:
    try:
        agent = (await client.status(thread)).agent
    except ThreadNotFound:  # Temporal has forgotten it; the store may still know it, and then the worker checks
        return
    _check(session, agent, state)


async def _wait(session: Session, client: "Client", thread_id: str, accepted: Accepted) -> None:
    """Wait and tell how it went. Raises TurnFailed or Refused where the turn ended without an answer."""
    ended = await client.wait(thread_id, accepted.message_id)
    if isinstance(ended, StatusAnswer):
        session.out.show(_sent(thread_id, accepted, status=ended), render.status(ended, session.ui_link(thread_id)))
        return
    session.out.show(_sent(thread_id, accepted, result=ended), safe(ended.answer) if ended.answer else Group())
    for text in (f"note: {ended.note}" if ended.note else "", *render.residue_lines(ended.residue)):
        if text:
            session.out.say(text)
    _raise_unless_answered(thread_id, ended)


def _raise_unless_answered(thread_id: str, ended: TurnResult) -> None:
    if ended.outcome == "answered":
        return
    kind = Refused if ended.outcome == "refused" else TurnFailed
    went = "failed" if ended.outcome == "failed" else f"was {ended.outcome}"
    raise kind(f"Turn {ended.turn} of {thread_id} {went}: {ended.error.rstrip('.')}.")


def _sent(
    thread_id: str, accepted: Accepted, *, result: TurnResult | None = None, status: StatusAnswer | None = None
) -> Sent:
    return Sent(thread_id=thread_id, **accepted.model_dump(), result=result, status=status)
