"""perdure db import-langgraph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.errors import UsageError
from perdure.starters.cli.command import Session, command

if TYPE_CHECKING:
    from perdure.bridges.import_langgraph import Imported, Progress

Source = Annotated[
    str,
    typer.Argument(metavar="URL", help="LangGraph's database: sqlite:///FILE or postgresql://…", show_default=False),
]


@command
async def import_langgraph(session: Session, source: Source) -> None:
    """Bring the threads of LangGraph's own checkpointer over, with their history; again, for what has come since."""
    try:
        from perdure.bridges.import_langgraph import import_threads
    except ImportError as error:
        raise UsageError(
            f"The bridge to LangGraph is not installed: {error}.", hint="pip install 'perdure[langgraph]'"
        ) from error

    store = await session.store(create=True)
    if await store.missing_migrations():
        await store.migrate()
    with _bar(session) as progress:
        done = await import_threads(source, store, progress)
    session.out.show(done, _account(done))


@contextmanager
def _bar(session: Session) -> "Iterator[Progress]":
    """A bar on a terminal; nothing where nobody looks."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = session.out.err
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("import", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _account(done: "Imported") -> str:
    return (
        f"Brought over from {done.source}: {done.checkpoints} checkpoints of {done.threads} threads, with "
        f"{done.writes} pending writes. There already: {done.skipped}."
    )
