"""perdure state, history, tree, find, diff: what threads were. All of it comes from the store."""

from typing import Annotated, Any

import typer

from perdure.errors import InvalidInput, UsageError
from perdure.starters.cli.command import Session, Thread, command
from perdure.starters.cli.render import checkpoints as render
from perdure.starters.cli.values import entries
from perdure.values import Value

At = Annotated[
    str, typer.Option("--at", metavar="CKPT", help="At this checkpoint, not at the head.", show_default=False)
]  # fmt: skip
Channel = Annotated[
    str, typer.Option("--channel", metavar="NAME", help="Only this channel of it.", show_default=False)
]  # fmt: skip
BlobDigest = Annotated[
    str,
    typer.Option("--blob", metavar="DIGEST", help="A large tool result that a message names.", show_default=False),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, the newest first.")]
Before = Annotated[
    str, typer.Option("--before", metavar="CKPT", help="Only before this checkpoint.", show_default=False)
]  # fmt: skip
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where", metavar="KEY=VALUE", show_default=False,
        help="Only with this entry in their metadata. May be given several times.",
    ),
]  # fmt: skip
AllBranches = Annotated[bool, typer.Option("--all", help="Also what rewinds have left.")]
Wanted = Annotated[
    list[str], typer.Argument(metavar="KEY=VALUE...", help="Entries of the metadata.", show_default=False)
]  # fmt: skip
OnlyThread = Annotated[
    str, typer.Option("--thread", "-t", metavar="THREAD", help="Only of this thread.", show_default=False)
]  # fmt: skip
DiffThread = Annotated[
    str, typer.Argument(metavar="THREAD", help="The thread's id, or THREAD@CKPT.", show_default=False)
]  # fmt: skip
First = Annotated[
    str, typer.Argument(metavar="A", help="The first checkpoint, or THREAD@CKPT.", show_default=False)
]  # fmt: skip
Second = Annotated[
    str, typer.Argument(metavar="B", help="The second, or THREAD@CKPT; otherwise the head.", show_default=False)
]  # fmt: skip
Other = Annotated[
    str, typer.Option("--with", metavar="THREAD", help="The second one's thread.", show_default=False)
]  # fmt: skip


class Blob(Value):
    """A large tool result as text."""

    digest: str
    content: str


@command
async def state(session: Session, thread: Thread, at: At = "", channel: Channel = "", blob: BlobDigest = "") -> None:
    """Show a thread's state, checked against its digests; or a large result that one of its messages names."""
    if blob and (at or channel):
        raise UsageError("--blob stands alone: a digest says all.")
    archive = session.archive()
    if not blob:
        values = await archive.state(thread, at)
        shown = _only(values, channel) if channel else values
        session.out.show(shown[channel] if channel else shown, render.state(shown))
        return
    body = await archive.blob(blob)
    if session.out.is_text:
        session.out.raw(body)
    else:
        session.out.show(Blob(digest=blob, content=body.decode(errors="replace")), "")


def _only(values: dict[str, Any], channel: str) -> dict[str, Any]:
    if channel not in values:
        raise InvalidInput(
            f"The state has no channel {channel!r} there.", hint=f"It has: {', '.join(values) or 'none'}."
        )
    return {channel: values[channel]}


@command
async def history(
    session: Session, thread: Thread, limit: Limit = 20, before: Before = "", where: Where = None,
    all_branches: AllBranches = False,
) -> None:  # fmt: skip
    """List a thread's checkpoints from its head back, across forks, with the effects that were made at each."""
    page = await session.archive().history(
        thread, limit=limit, before=before, where=entries(where, "--where"), all_branches=all_branches
    )
    session.out.show_all(page, render.history(thread, page))


@command
async def tree(session: Session, thread: Thread) -> None:
    """Draw a thread's branches: its line, what rewinds have left, and the threads that were forked from it."""
    drawn = await session.archive().tree(thread)
    session.out.show(drawn, render.tree(drawn))


@command
async def find(session: Session, metadata: Wanted, thread: OnlyThread = "", limit: Limit = 20) -> None:
    """Find checkpoints by their metadata, in all threads or in one."""
    found = await session.archive().find(entries(metadata, "find"), thread_id=thread, limit=limit)
    session.out.show_all(found, render.found(found))


@command
async def diff(session: Session, thread: DiffThread, a: First = "", b: Second = "", other: Other = "") -> None:
    """Show how the state differs between two checkpoints; with -o json as a JSON Patch (RFC 6902).

    Two threads, by --with alone, are compared by more: state, cost and effects since their common past.
    """
    if other and not (a or b):
        (ours, _, at), (theirs, _, other_at) = thread.partition("@"), other.partition("@")
        compared = await session.archive().compare(ours, theirs, at=at, other_at=other_at)
        session.out.show(compared, render.comparison(compared))
        return
    before, after = _places(thread, a, b, other)
    found = await session.archive().diff(before, after)
    session.out.show_all(found.patch, render.difference(found))


def _places(thread: str, a: str, b: str, other: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """The threads and names of two checkpoints. Raises UsageError where the first can't be told."""
    if "@" in thread:
        if b:
            raise UsageError("There are three checkpoints.", hint="`perdure diff THREAD@A [THREAD@B]`.")
        own, _, _ = thread.partition("@")
        return _place(thread, own), _place(a, other or own)
    if not (a or other):
        raise UsageError("Which checkpoints?", hint="`perdure diff THREAD A [B]`; B is the head.")
    return _place(a, thread), _place(b, other or thread)


def _place(text: str, thread: str) -> tuple[str, str]:
    own, at, name = text.partition("@")
    return (own, name) if at else (thread, text)
