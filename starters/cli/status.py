"""perdure status. It is what people and programs ask most often, so it imports as little as it can."""

from typing import TYPE_CHECKING

from perdure.starters.cli.command import Session, Thread, command

if TYPE_CHECKING:
    from rich.console import RenderableType


@command
async def status(session: Session, thread: Thread) -> None:
    """Show what a thread does, what it waits for, how to answer, and what happened lately."""
    from perdure.starters.threads import Threads

    answer = await (await session.connect(Threads)).status(thread)

    def shown() -> "RenderableType":
        from perdure.starters.cli.render import threads as render  # with Rich, which only people need

        return render.status(answer, session.ui_link(thread))

    session.out.show(answer, shown)
