"""perdure effects, compensate, resolve."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.effects import Residue, to_undo
from perdure.errors import Failed
from perdure.starters.cli import render
from perdure.starters.cli.command import Reason, Session, Thread, Who, command

if TYPE_CHECKING:
    from perdure.starters.client import Client

Turn = Annotated[
    int | None,
    typer.Option("--turn", min=1, metavar="N", help="This turn, not the latest with effects.", show_default=False),
]
EffectKey = Annotated[
    str, typer.Argument(metavar="EFFECT", help="The effect's key, from `perdure effects`.", show_default=False)
]
Done = Annotated[bool, typer.Option("--done/--not-done", help="Whether it stands outside.", show_default=False)]
Settler = Annotated[str, typer.Option("--as", metavar="WHO", help="Who found out.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (effects, compensate, resolve):
        app.command(rich_help_panel="Effects")(function)


@command
async def effects(session: Session, thread: Thread) -> None:
    """Show the ledger: what a thread did outside, under which key, and how it stands."""
    ledger = await (await session.client()).effects(thread)
    session.out.show_all(ledger, render.effects(ledger))


@command
async def compensate(session: Session, thread: Thread, turn: Turn = None, who: Who = "", reason: Reason = "") -> None:
    """Undo what a turn did outside, in reverse order; the running turn is stopped for it."""
    client = await session.client()
    if session.is_interactive and not session.options.yes:
        await _preview(session, client, thread, turn)
    session.confirm(f"Undo what {f'turn {turn}' if turn else 'the latest turn with effects'} of {thread} did?")
    left = await client.compensate(thread, turn=turn, by=who, reason=reason)
    session.out.show(left, "\n".join(render.residue_lines(left)) or "There was nothing to undo.")
    _raise_if_left(thread, left)


async def _preview(session: Session, client: "Client", thread: str, turn: int | None) -> None:
    undoable = to_undo(await client.effects(thread))
    latest = max((effect.turn for effect in undoable), default=None)
    session.out.say(render.effects([effect for effect in undoable if effect.turn == (turn or latest)]))


def _raise_if_left(thread: str, left: Residue) -> None:
    if left.needs_attention or left.in_doubt:
        raise Failed(
            f"Not everything of {thread} could be undone.", hint=f"`perdure status {thread}` tells what to do."
        )


@command
async def resolve(
    session: Session, thread: Thread, effect: EffectKey, done: Done, who: Settler, reason: Reason = ""
) -> None:
    """Settle an effect whose outcome is in doubt, or that could not be undone."""
    client = await session.client()
    settled = await client.resolve(thread, effect, done=done, by=who, reason=reason)
    session.out.show(settled, render.effects([settled]))
