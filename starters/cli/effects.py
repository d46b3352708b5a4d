"""perdure effects, compensate, resolve."""

from typing import Annotated

import typer

from perdure.effects import OPEN, Residue
from perdure.errors import Failed, UsageError
from perdure.starters.cli.command import Reason, Session, Thread, Who, command
from perdure.starters.cli.render import effects as render
from perdure.starters.cli.values import AgentFilter, TenantFilter

SomeThread = Annotated[
    str, typer.Argument(metavar="THREAD", help="The thread's id; or --all --open.", show_default=False)
]  # fmt: skip
OnlyOpen = Annotated[bool, typer.Option("--open", help="Only what a person has to settle.")]
All = Annotated[bool, typer.Option("--all", help="Of all threads, from the store.")]
Turn = Annotated[
    int | None,
    typer.Option("--turn", min=1, metavar="N", help="This turn, not the latest with effects.", show_default=False),
]
SagaName = Annotated[
    str, typer.Option("--saga", metavar="NAME", help="This saga; `thread` is all of the thread.", show_default=False)
]  # fmt: skip
EffectKey = Annotated[
    str, typer.Argument(metavar="EFFECT", help="The effect's key, from `perdure effects`.", show_default=False)
]
Done = Annotated[
    bool | None, typer.Option("--done/--not-done", help="Whether it stands outside.", show_default=False)
]  # fmt: skip
Ask = Annotated[bool, typer.Option("--ask", help="Ask the tool's own hook how it ended.")]
Settler = Annotated[str, typer.Option("--as", metavar="WHO", help="Who found out.", show_default=False)]


@command
async def effects(
    session: Session, thread: SomeThread = "", only_open: OnlyOpen = False, everywhere: All = False,
    agent: AgentFilter = "", tenant: TenantFilter = "",
) -> None:  # fmt: skip
    """Show the ledger: what a thread did outside, under which key, and how it stands; or what is open anywhere."""
    _check_scope(thread, only_open, everywhere, agent or tenant)
    if everywhere:
        found = await session.archive().open_effects(agent=agent, tenant=tenant)
        session.out.show_all(found, render.queue(found))
        return
    ledger = await (await session.client()).effects(thread)
    shown = [effect for effect in ledger if effect.status in OPEN] if only_open else ledger
    session.out.show_all(shown, render.effects(shown))


def _check_scope(thread: str, only_open: bool, everywhere: bool, filtered: str) -> None:
    """Raises UsageError."""
    if bool(thread) == everywhere:
        raise UsageError("Of which thread?", hint="Name one, or look at all of them with --all --open.")
    if everywhere and not only_open:
        raise UsageError("All effects of all threads are more than anybody reads.", hint="Add --open.")
    if filtered and not everywhere:
        raise UsageError("--agent and --tenant are for --all --open: a thread has one agent and one tenant.")


@command
async def compensate(
    session: Session, thread: Thread, turn: Turn = None, saga: SagaName = "", who: Who = "", reason: Reason = ""
) -> None:
    """Undo what a turn or a saga did outside, by default the latest first; the running turn is stopped for it."""
    if turn and saga:
        raise UsageError("Either a turn or a saga.", hint="A turn takes the sagas along that it took part in.")
    client = await session.client()
    if session.is_interactive and not session.options.yes:
        await _preview(session, thread, turn, saga)
    what = f"saga {saga}" if saga else f"turn {turn}" if turn else "the latest turn with effects"
    session.confirm(f"Undo what {what} of {thread} did?")
    left = await client.compensate(thread, turn=turn, saga=saga, by=who, reason=reason)
    session.out.show(left, "\n".join(render.residue_lines(left)) or "There was nothing to undo.")
    _raise_if_left(thread, left)


async def _preview(session: Session, thread: str, turn: int | None, saga: str) -> None:
    """What would be undone, in which order; only the app knows what its tools declare of that."""
    found = await session.archive().saga(thread, turn=turn, name=saga)
    app = session.app()
    declared = {name: tool.spec.undo_after for name, tool in app.tools.items()} if app else {}
    session.out.say(render.undoing(found, declared))


def _raise_if_left(thread: str, left: Residue) -> None:
    if left.needs_attention or left.in_doubt:
        raise Failed(
            f"Not everything of {thread} could be undone.", hint=f"`perdure status {thread}` tells what to do."
        )


@command
async def resolve(
    session: Session, thread: Thread, effect: EffectKey, who: Settler, done: Done = None, asking: Ask = False,
    reason: Reason = "",
) -> None:  # fmt: skip
    """Settle an effect whose outcome is in doubt, or that could not be undone."""
    if asking == (done is not None):
        raise UsageError("Give one of --done, --not-done and --ask.", hint="--ask asks the tool's own hook.")
    client = await session.client()
    settled = await client.resolve(thread, effect, done=done, by=who, reason=reason)
    session.out.show(settled, render.effects([settled]))
