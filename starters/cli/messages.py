"""perdure start, perdure send."""

from typing import Annotated, Any

import typer

from perdure.contracts import StatusAnswer, TurnResult
from perdure.errors import UsageError
from perdure.starters.cli.checks import check_for_thread, check_state
from perdure.starters.cli.command import Session, Thread, Token, Wait, Who, command
from perdure.starters.cli.values import Meta, entries, parsed
from perdure.starters.cli.waiting import tell_end
from perdure.values import Value

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


@command
async def start(
    session: Session, agent: AgentName, message: Message = None, given: Input = None, thread: ThreadId = "",
    tenant: Tenant = "", meta: Meta = None, who: Who = "", wait: Wait = False,
) -> None:  # fmt: skip
    """Start a thread of an agent with its first message, or with an input."""
    if (message is None) == (given is None):
        raise UsageError("Give either a message or an input.", hint="For example -m 'Buy two laptops'.")
    state, metadata = _parsed(given), entries(meta, "--meta")
    check_state(session, agent, state)
    client = await session.client()
    thread_id, accepted = await client.start(
        agent, message or "", thread=thread, state=state, sender=who, tenant=tenant, metadata=metadata
    )
    sent = Sent(thread_id=thread_id, **accepted.model_dump())
    if not wait:
        session.out.show(sent, thread_id)
        session.out.say(f"Follow it with `perdure watch {thread_id}`.")
    else:
        session.out.say(f"Thread {thread_id}")
        await tell_end(session, client, thread_id, sent, accepted.message_id)


@command
async def send(
    session: Session, thread: Thread, message: Message = None, given: Input = None, meta: Meta = None,
    who: Who = "", token: Token = "", wait: Wait = False,
) -> None:  # fmt: skip
    """Send a message to a thread; one that had completed goes on from where it stood."""
    if message is None and given is None:
        raise UsageError("Give a message, an input, or both.", hint="For example -m 'And a mouse'.")
    state, metadata = _parsed(given), entries(meta, "--meta")
    client = await session.client()
    await check_for_thread(session, client, thread, state)
    accepted = await client.send(thread, message or "", state=state, sender=who, metadata=metadata, token=token)
    sent = Sent(thread_id=thread, **accepted.model_dump())
    if wait:
        await tell_end(session, client, thread, sent, accepted.message_id)
    else:
        queued = f"queued behind {accepted.queued} turns" if accepted.queued else "accepted"
        session.out.show(sent, f"{thread}: {queued}")


def _parsed(given: str | None) -> dict[str, Any]:
    if given is None:
        return {}
    try:
        state = parsed(given)
    except ValueError as error:
        raise UsageError(f"The input is no JSON: {error}.") from error
    if not isinstance(state, dict) or not state:
        raise UsageError("The input names no channels.", hint='It is an object, for example {"title": "Laptops"}.')
    return state
