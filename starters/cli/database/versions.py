"""perdure db upgrade."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.errors import Failed, UsageError
from perdure.starters.cli.command import Session, command

if TYPE_CHECKING:
    from perdure.care.upgrade import Left, Progress, Upgraded

OneAgent = Annotated[
    str, typer.Option("--agent", metavar="NAME", help="Only the threads of this agent.", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would happen.")]
_TOLD = 20  # threads of a kind that are listed for people; a document has all


@command
async def upgrade(session: Session, agent: OneAgent = "", dry_run: DryRun = False) -> None:
    """Bring the states of all threads at rest to the version that the app's code has."""
    from perdure.care.upgrade import upgrade as upgraded

    app = session.app()
    if app is None:
        raise UsageError("An upgrade needs the app, with its upcasters.", hint="Name it with --app or PERDURE_APP.")
    store, keyring = await session.store(), session.place.settings.keyring()
    with _bar(session) as progress:
        done = await upgraded(store, app, keyring=keyring, agent=agent, dry_run=dry_run, progress=progress)
    session.out.show(done, _account(done))
    if done.failed:
        raise Failed(f"{len(done.failed)} threads can't be upgraded.")


@contextmanager
def _bar(session: Session) -> "Iterator[Progress]":
    """A bar on a terminal; nothing where nobody looks."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    console = session.out.err
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("upgrade", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _account(done: "Upgraded") -> str:
    verb = "Would be upgraded" if done.dry_run else "Upgraded"
    lines = [f"{verb}: {done.upgraded} threads. Up to date already: {done.current}."]
    lines += _listed("Left alone, their next step upgrades them", done.left)
    lines += _listed("Can't be upgraded", done.failed)
    lines += [f"Of {name}, which this app doesn't have: {count}." for name, count in sorted(done.others.items())]
    return "\n".join(lines)


def _listed(title: str, threads: "tuple[Left, ...]") -> list[str]:
    if not threads:
        return []
    lines = [f"  {left.thread_id} ({left.agent}, version {left.version}): {left.why}" for left in threads[:_TOLD]]
    more = [f"  and {len(threads) - _TOLD} more; -o json has all"] if len(threads) > _TOLD else []
    return [f"{title}: {len(threads)}.", *lines, *more]
