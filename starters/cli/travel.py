"""perdure fork, promote, rewind, restore, update, resume: time travel."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.contracts import RewindPlan, Rewound, StatusAnswer, TurnResult
from perdure.errors import Irrevocable, Refused, UsageError
from perdure.starters.cli.checks import check_for_thread, check_state
from perdure.starters.cli.command import Reason, Session, Thread, Token, Wait, Who, command
from perdure.starters.cli.messages import ThreadId
from perdure.starters.cli.render import effects as render
from perdure.starters.cli.values import Adding, Meta, Setting, channels, entries
from perdure.starters.cli.waiting import tell_end
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.canonical import Json

At = Annotated[str, typer.Option("--at", metavar="CKPT", help="The checkpoint it begins with.", show_default=False)]
Said = Annotated[
    str,
    typer.Option("--message", "-m", metavar="TEXT", help="What to say to it instead of going on.", show_default=False),
]
Hold = Annotated[bool, typer.Option("--hold", help="Don't go on with what follows the checkpoint.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="It does nothing outside: calls are answered by receipts, or simulated.")
]
ForkId = Annotated[str, typer.Argument(metavar="FORK", help="A dry run of the thread.", show_default=False)]
To = Annotated[str, typer.Option("--to", metavar="CKPT", help="The checkpoint to go back to.", show_default=False)]
Promoter = Annotated[str, typer.Option("--as", metavar="WHO", help="Who wants it done.", show_default=False)]
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


class Fork(Value):
    """A thread that was forked. With ``--wait`` also how its turn ended, or the status in which it needs a person."""

    thread_id: str
    origin_thread: str
    origin_id: str
    step: int
    next: tuple[str, ...]
    message_id: str
    dry_run: bool
    result: TurnResult | None = None
    status: StatusAnswer | None = None


class Resumed(Value):
    """A thread that goes on: its status then. With ``--wait`` how its turn ended, or the status in which it needs a
    person."""

    thread_id: str
    result: TurnResult | None = None
    status: StatusAnswer | None = None


class Promoted(Value):
    """A thread that follows the plan of a dry run: its status then. With ``--wait`` how its turn ended, or the status
    in which it needs a person."""

    thread_id: str
    fork: str
    result: TurnResult | None = None
    status: StatusAnswer | None = None


@command
async def fork(
    session: Session, thread: Thread, at: At = "", setting: Setting = None, new: ThreadId = "", message: Said = "",
    hold: Hold = False, dry: DryRun = False, meta: Meta = None, who: Who = "", wait: Wait = False,
) -> None:  # fmt: skip
    """Make a new thread from a checkpoint of another, which stays as it is.

    What follows the checkpoint runs by itself, unless --hold, or a message that begins a turn in its place.
    """
    if hold and (message or wait):
        raise UsageError("A fork that is held goes nowhere.", hint="Leave out --hold, or the message and --wait.")
    state, metadata = channels(setting, "--set"), entries(meta, "--meta")
    if state and session.place.settings.app:
        check_state(session, (await session.archive().thread(thread)).agent, {}, overwrites=state)
    client = await session.client()
    forked = await client.fork(
        thread, at, thread=new, state=state, message=message, hold=hold, metadata=metadata, by=who, dry_run=dry
    )
    made = Fork(**dict(forked))
    if wait:
        session.out.say(f"Thread {made.thread_id}")
        await tell_end(session, client, made.thread_id, made, made.message_id)
        return
    session.out.show(made, made.thread_id)
    if hold and made.next:
        session.out.say(f"It stands before {', '.join(made.next)}; `perdure resume {made.thread_id}` lets it go on.")
    else:
        session.out.say(f"Follow it with `perdure watch {made.thread_id}`.")


@command
async def promote(
    session: Session, thread: Thread, fork: ForkId, who: Promoter, reason: Reason = "", token: Token = "",
    wait: Wait = False,
) -> None:  # fmt: skip
    """Make the plan of a dry run the thread's next turn: its calls are made for real, each behind its gate anew."""
    expected = ""
    if session.is_interactive and not session.options.yes:
        archive = session.archive()
        expected = (await archive.thread(thread)).head_id
        row = await archive.thread(fork)
        if not row.dry_run or row.origin_thread != thread:
            raise Refused(f"{fork} is no dry run of {thread}.", hint="`perdure fork --dry-run` makes one.")
        session.out.say(render.promotion(await archive.effects(fork)))
    session.confirm(f"Do this for real, in {thread}?")
    client = await session.client()
    answer = await client.promote(thread, fork, by=who, reason=reason, expected_version=expected, token=token)
    if wait:
        await tell_end(session, client, thread, Promoted(thread_id=thread, fork=fork))
        return
    session.out.show(Promoted(thread_id=thread, fork=fork, status=answer), f"{thread} follows the plan of {fork}.")
    session.out.say(f"Follow it with `perdure watch {thread}`.")


@command
async def rewind(
    session: Session, thread: Thread, to: To, plan: PlanOnly = False, keep_effects: KeepEffects = False,
    go_on: GoOn = False, meta: Meta = None, who: Who = "", reason: Reason = "", token: Token = "",
) -> None:  # fmt: skip
    """Undo what a thread did outside since a checkpoint, then move its head back to it.

    A running turn is stopped. Refused where something in between can't be undone, unless told to keep it.
    """
    if plan:
        planned = await session.archive().rewind_plan(thread, to)
        session.out.show(planned, render.plan(planned))
        return
    expected = await _agreed(session, thread, to, keep_effects)
    done = await (await session.client()).rewind(
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
    row, good = await archive.thread(thread), await archive.checkpoint(thread, "good")
    if good.id == row.head_id:
        session.out.show(Rewound(head=good.ref, to=good.id), f"{thread} stands at its last good state already.")
        return
    expected = await _agreed(session, thread, good.id, keep_effects)
    done = await (await session.client()).rewind(
        thread, good.id, keep_effects=keep_effects, expected_version=expected, by=who, reason=reason, token=token
    )
    _tell(session, thread, done, go_on=False)


async def _agreed(session: Session, thread: str, to: str, keep_effects: bool) -> str:
    """Have a person agree to the plan; the head for which it was made, where one has been shown.

    Raises Refused, or Irrevocable before anybody is asked.
    """
    head = ""
    if session.is_interactive and not session.options.yes:
        archive = session.archive()
        head = (await archive.thread(thread)).head_id
        planned = await archive.rewind_plan(thread, to)
        session.out.say(render.plan(planned))
        _permit(planned, keep_effects)
    session.confirm(f"Rewind {thread} to {to}?")
    return head


def _permit(planned: RewindPlan, keep_effects: bool) -> None:
    if planned.impossible and not keep_effects:
        labels = ", ".join(effect.label() for effect in planned.impossible)
        raise Irrevocable(f"Can't be undone: {labels}.", hint="--keep-effects rewinds all the same and keeps it.")


def _tell(session: Session, thread: str, done: Rewound, go_on: bool) -> None:
    lines = [f"{thread} is back at {done.to}; its head is step {done.head.step}."]
    lines += render.residue_lines(done.residue)
    if done.next:
        before = f"before {', '.join(done.next)}"
        lines.append(f"It goes on {before}." if go_on else f"It stands {before}; `perdure resume {thread}` goes on.")
    session.out.show(done, "\n".join(lines))


@command
async def update(
    session: Session, thread: Thread, setting: Setting = None, adding: Adding = None, expect: Expect = "",
    as_node: AsNode = "", meta: Meta = None, who: Who = "", reason: Reason = "", token: Token = "",
) -> None:  # fmt: skip
    """Write to a thread's state between turns."""
    over, through = channels(setting, "--set"), channels(adding, "--append")
    metadata = entries(meta, "--meta")
    _check_update(over, through, metadata, as_node)
    client = await session.client()
    await check_for_thread(session, client, thread, through, overwrites=over)
    expected = (await session.archive().checkpoint(thread, expect)).id if expect else ""
    done = await client.update_state(
        thread, over | through, overwrite=over.keys(), expected_version=expected, as_node=as_node, metadata=metadata,
        by=who, reason=reason, token=token,
    )  # fmt: skip
    then = f" It stands before {', '.join(done.next)}; `perdure resume {thread}` goes on." if done.next else ""
    session.out.show(done, f"{thread} is at step {done.head.step} ({done.head.id}).{then}")


def _check_update(
    over: "dict[str, Json]", through: "dict[str, Json]", metadata: "dict[str, Json]", as_node: str
) -> None:  # fmt: skip
    if both := sorted(over.keys() & through.keys()):
        raise UsageError(f"{', '.join(both)} can't be both set and appended to.")
    if not (over or through or metadata or as_node):
        raise UsageError("There is nothing to write.", hint="Give --set, --append, --as-node or --meta.")


@command
async def resume(session: Session, thread: Thread, who: Who = "", token: Token = "", wait: Wait = False) -> None:
    """Let a thread go on with what follows its head: after a fork, a rewind or an update that left it standing."""
    client = await session.client()
    answer = await client.resume(thread, by=who, token=token)
    if wait:
        await tell_end(session, client, thread, Resumed(thread_id=thread))
    else:
        session.out.show(Resumed(thread_id=thread, status=answer), f"{thread} goes on: {answer.status}.")
