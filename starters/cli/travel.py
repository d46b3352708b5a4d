"""perdure fork, rewind, restore, update, resume: time travel."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.contracts import StatusAnswer, TurnResult
from perdure.errors import Irrevocable, UsageError
from perdure.starters.cli import render
from perdure.starters.cli.checks import check_for_thread, check_state
from perdure.starters.cli.command import Reason, Session, Thread, Token, Wait, Who, command
from perdure.starters.cli.messages import ThreadId, told
from perdure.starters.cli.values import Adding, Meta, Setting, channels, entries
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.contracts import Rewound
    from perdure.starters.client import Client
    from perdure.starters.travel import Forked

At = Annotated[str, typer.Option("--at", metavar="CKPT", help="The checkpoint it begins with.", show_default=False)]
Said = Annotated[
    str,
    typer.Option("--message", "-m", metavar="TEXT", help="What to say to it, in place of going on.", show_default=False),
]
Hold = Annotated[bool, typer.Option("--hold", help="Don't go on with what follows the checkpoint.")]
To = Annotated[str, typer.Option("--to", metavar="CKPT", help="The checkpoint to go back to.", show_default=False)]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only show what would be undone; change nothing.")]
KeepEffects = Annotated[bool, typer.Option("--keep-effects", help="Keep what can't be undone.")]
GoOn = Annotated[bool, typer.Option("--go-on", help="Go on with what follows the checkpoint.")]
Expect = Annotated[
    str,
    typer.Option("--expect", metavar="CKPT", help="Only if this is still the head; otherwise exit code 4.",
                 show_default=False),
]  # fmt: skip
AsNode = Annotated[
    str,
    typer.Option("--as-node", metavar="NODE", help="As if this node had written it; what follows the node follows.",
                 show_default=False),
]  # fmt: skip


class Resumed(Value):
    """A thread that goes on. With ``--wait`` also how its turn ended, or the status in which it needs a person."""

    thread_id: str
    result: TurnResult | None = None
    status: StatusAnswer | None = None


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for function in (fork, rewind, restore, update, resume):
        app.command(rich_help_panel="Time travel")(function)


@command
async def fork(
    session: Session, thread: Thread, at: At = "", setting: Setting = None, new: ThreadId = "", message: Said = "",
    hold: Hold = False, meta: Meta = None, who: Who = "", wait: Wait = False,
) -> None:  # fmt: skip
    """Make a new thread from a checkpoint of another, which stays as it is.

    What follows the checkpoint runs by itself, unless --hold, or a message that begins a turn in its place.
    """
    if hold and (message or wait):
        raise UsageError("A fork that is held goes nowhere.", hint="Leave out --hold, or the message and --wait.")
    state, metadata = channels(setting, "--set"), entries(meta, "--meta")
    client = await session.client()
    if state and session.place.settings.app:
        check_state(session, (await session.archive().thread(thread)).agent, {}, overwrites=state)
    made = await client.fork(
        thread, at, thread=new, state=state, message=message, hold=hold, metadata=metadata, by=who
    )  # fmt: skip
    if not wait:
        session.out.show(made, made.thread_id)
        session.out.say(_standing(made, hold))
        return
    session.out.say(f"Thread {made.thread_id}")
    await _wait(session, client, made.thread_id, made.message_id)


def _standing(made: "Forked", hold: bool) -> str:
    if hold and made.next:
        return f"It stands before {', '.join(made.next)}; `perdure resume {made.thread_id}` lets it go on."
    return f"Follow it with `perdure watch {made.thread_id}`."


@command
async def rewind(
    session: Session, thread: Thread, to: To, plan: PlanOnly = False, keep_effects: KeepEffects = False,
    go_on: GoOn = False, meta: Meta = None, who: Who = "", reason: Reason = "", token: Token = "",
) -> None:  # fmt: skip
    """Undo what a thread did outside since a checkpoint, then move its head back to it.

    A running turn is stopped. Refused where something in between can't be undone, unless told to keep it.
    """
    archive = session.archive()
    planned = await archive.rewind_plan(thread, to)
    if plan:
        session.out.show(planned, render.plan(planned))
        return
    expected = ""
    if session.is_interactive and not session.options.yes:
        expected = (await archive.thread(thread)).head_id  # what is agreed to is what was shown
        session.out.say(render.plan(planned))
        if planned.impossible and not keep_effects:
            labels = ", ".join(effect.label() for effect in planned.impossible)
            raise Irrevocable(f"Can't be undone: {labels}.", hint="--keep-effects rewinds all the same and keeps it.")
    session.confirm(f"Rewind {thread} to {to}?")
    client = await session.client()
    done = await client.rewind(
        thread, to, keep_effects=keep_effects, go_on=go_on, expected_version=expected,
        metadata=entries(meta, "--meta"), by=who, reason=reason, token=token,
    )  # fmt: skip
    _tell(session, thread, done, go_on)


@command
async def restore(
    session: Session, thread: Thread, keep_effects: KeepEffects = False, who: Who = "", reason: Reason = "",
    token: Token = "",
) -> None:  # fmt: skip
    """Rewind a thread to its last good state: where a turn had ended with an answer that still holds."""
    archive = session.archive()
