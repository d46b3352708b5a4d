"""perdure lease: the exclusive right to write to a thread for a while."""

from enum import StrEnum
from typing import Annotated

import typer

from perdure.errors import UsageError
from perdure.starters.cli.command import Session, Thread, Token, command
from perdure.values import Value


class Act(StrEnum):
    """What is done with a lease."""

    acquire = "acquire"
    renew = "renew"
    release = "release"


What = Annotated[
    Act, typer.Argument(metavar="acquire|renew|release", help="What to do with it.", show_default=False)
]  # fmt: skip
Holder = Annotated[str, typer.Option("--as", metavar="WHO", help="Whose it is; others are told.", show_default=False)]
Seconds = Annotated[float, typer.Option("--seconds", metavar="N", help="How long it holds, from now.")]


class Released(Value):
    """A lease that was given back; ``released``: it was held until now."""

    thread_id: str
    released: bool


@command
async def lease(
    session: Session, thread: Thread, what: What, who: Holder = "", seconds: Seconds = 60.0, token: Token = ""
) -> None:
    """Acquire, renew or release the exclusive right to write to a thread; standard output is its token.

    Other commands write under it with --lease TOKEN, or with PERDURE_LEASE in their environment.
    """
    if what is Act.acquire:
        if not who:
            raise UsageError("Who holds it?", hint="Say so with --as WHO.")
        held = await (await session.client()).acquire_lease(thread, holder=who, seconds=seconds)
        session.out.show(held, held.token)
        session.out.say(f"It is {held.holder}'s until {held.until}.")
        return
    if not token:
        raise UsageError("Which lease?", hint="Name it with --lease TOKEN or PERDURE_LEASE.")
    client = await session.client()
    if what is Act.renew:
        held = await client.renew_lease(thread, token=token, seconds=seconds)
        session.out.show(held, f"It is {held.holder}'s until {held.until}.")
        return
    done = Released(thread_id=thread, released=await client.release_lease(thread, token=token))
    session.out.show(done, f"The lease of {thread} is given back." if done.released else "It was not held any more.")
