"""perdure state, perdure history."""

from typing import Annotated

import typer

from perdure.errors import UsageError
from perdure.starters.cli import render
from perdure.starters.cli.command import Session, Thread, command
from perdure.values import Value

At = Annotated[
    str, typer.Option("--at", metavar="CKPT", help="At this checkpoint, not at the head.", show_default=False)
]  # fmt: skip
BlobDigest = Annotated[
    str,
    typer.Option("--blob", metavar="DIGEST", help="A large tool result that a message names.", show_default=False),
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most so many, the newest first.")]
Before = Annotated[
    int | None, typer.Option("--before", metavar="STEP", help="Only before this step.", show_default=False)
]  # fmt: skip


class Blob(Value):
    """A large tool result as text."""

    digest: str
    content: str


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Checkpoints")(state)
    app.command(rich_help_panel="Checkpoints")(history)


@command
async def state(session: Session, thread: Thread, at: At = "", blob: BlobDigest = "") -> None:
    """Show a thread's state, checked against its digests; or a large result that one of its messages names."""
    if at and blob:
        raise UsageError("Give --at or --blob, not both.")
    archive = session.archive()
    if not blob:
        values = await archive.state(thread, at)
        session.out.show(values, render.state(values))
        return
    body = await archive.blob(blob)
    if session.out.is_text:
        session.out.raw(body)
    else:
        session.out.show(Blob(digest=blob, content=body.decode(errors="replace")), "")


@command
async def history(session: Session, thread: Thread, limit: Limit = 20, before: Before = None) -> None:
    """List a thread's checkpoints, the newest first."""
    page = await session.archive().history(thread, limit=limit, before_step=before)
    session.out.show_all(page, render.history(page))
