"""perdure db migrate, perdure db verify."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.errors import IntegrityError
from perdure.starters.cli.command import Session, command
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.verify import Report

SomeThread = Annotated[
    str, typer.Argument(metavar="THREAD", help="Only this thread.", show_default=False)
]  # fmt: skip


class Migrated(Value):
    """The migrations that ran just now, oldest first; none where the schema was up to date."""

    store: str
    applied: tuple[str, ...]


def register(app: typer.Typer) -> None:
    """Add the commands, as a group of their own."""
    db = typer.Typer(help="The checkpoint store.")
    db.command()(migrate)
    db.command()(verify)
    app.add_typer(db, name="db")


@command
async def migrate(session: Session) -> None:
    """Bring the store's schema up to date; a store that isn't there is made."""
    store = await session.store(create=True)
    done = Migrated(store=store.url, applied=tuple(await store.migrate()))
    session.out.show(done, f"{store.url}: {', '.join(done.applied) or 'up to date'}")


@command
async def verify(session: Session, thread: SomeThread = "") -> None:
    """Recompute every digest from the root and follow every link; name the first bad row."""
    from perdure.verify import verify as verified

    report = await verified(await session.store(), thread)
    session.out.show(report, _counts(report))
    if problem := report.problem:
        row = f", {problem.row}" if problem.row != problem.thread_id else ""
        raise IntegrityError(f"Table {problem.table}, thread {problem.thread_id}{row}: {problem.what}")


def _counts(report: "Report") -> str:
    counts = f"{report.threads} threads, {report.checkpoints} checkpoints, {report.snapshots} snapshots"
    verdict = "up to the first bad row" if report.problem else "and all is well"
    return f"Verified {counts}, {report.effects} effects, {report.bytes} bytes of deltas, {verdict}."
