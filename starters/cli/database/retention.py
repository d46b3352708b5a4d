"""perdure db prune, perdure db delete."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from perdure.errors import Refused, TemporalUnreachable, ThreadNotFound
from perdure.starters.cli.command import Session, Thread, command
from perdure.starters.cli.database.integrity import SomeThread
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.care.prune import Pruned, PruneReport

Keep = Annotated[
    int | None,
    typer.Option("--keep", min=1, metavar="N", help="Keep the newest N of a thread's line.", show_default=False),
]
Before = Annotated[
    datetime | None,
    typer.Option("--before", metavar="DATE", help="Remove what was made before (UTC).", show_default=False),
]
Branches = Annotated[bool, typer.Option("--branches", help="Remove only the lines that rewinds left.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would go.")]
_TOLD = 20  # threads that are listed for people; a document has all


class Deleted(Value):
    """A thread that is gone from the store."""

    thread_id: str
    store: str


@command
async def prune(
    session: Session, thread: SomeThread = "", keep: Keep = None, before: Before = None, branches: Branches = False,
    dry_run: DryRun = False,
) -> None:  # fmt: skip
    """Remove old checkpoints for good; the state that they had come to stays."""
    from perdure.care.prune import PruneReport, Rule, prune_all
    from perdure.care.prune import prune as pruned

    rule = Rule(keep=keep, before=before.replace(tzinfo=UTC) if before else None, branches=branches)
    rule.check()
    store = await session.store()
    if not dry_run:
        session.confirm(f"Remove old checkpoints of {thread or 'all threads'} of {store.url} for good?")
    if thread:
        one = await pruned(store, thread, rule, dry_run=dry_run)
        report = PruneReport(store=store.url, dry_run=dry_run, pruned=(one,))
    else:
        report = await prune_all(store, rule, dry_run=dry_run)
    session.out.show(report, _account(report))


@command
async def delete(session: Session, thread: Thread) -> None:
    """Remove a thread and all that is its own from the store, for good."""
    store = await session.store()
    if await store.thread(thread) is None:
        raise ThreadNotFound(f"The store has no thread {thread}.", hint="Is PERDURE_STORE right?")
    await _require_no_workflow(session, thread)
    session.confirm(f"Remove thread {thread} from {store.url} for good?")
    await store.delete_thread(thread)
    session.out.show(Deleted(thread_id=thread, store=store.url), f"{thread} is removed from {store.url}.")


async def _require_no_workflow(session: Session, thread: str) -> None:
    """Raise Refused while the thread's workflow is open: it would go on with a thread that isn't there."""
    from temporalio.client import WorkflowExecutionStatus
    from temporalio.service import RPCError, RPCStatusCode

    from perdure.starters.connect import rpc_error

    try:
        temporal = (await session.client()).temporal
        run = await temporal.get_workflow_handle(thread).describe()
    except TemporalUnreachable as error:
        session.out.say(f"{error.message} Whether a workflow of {thread} is open can't be known.")
        return
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return
        raise rpc_error(thread, error) from error
    if run.status == WorkflowExecutionStatus.RUNNING:
        raise Refused(
            f"The workflow of thread {thread} is open.", hint=f"End it first: `perdure close {thread}`, or cancel it."
        )


def _account(report: "PruneReport") -> str:
    verb = "Would be removed" if report.dry_run else "Removed"
    count, size = sum(one.removed for one in report.pruned), sum(one.bytes for one in report.pruned)
    lines = [f"{verb}: {count} checkpoints of {len(report.pruned)} threads, {size} bytes of deltas."]
    lines += [_line(one) for one in report.pruned[:_TOLD]]
    lines += [f"  {one.thread_id}: nothing, {one.why}" for one in report.refused[:_TOLD]]
    if (more := max(len(report.pruned), len(report.refused)) - _TOLD) > 0:
        lines.append(f"  and up to {more} more of a kind; -o json has all")
    return "\n".join(lines)


def _line(one: "Pruned") -> str:
    root = f", its first is {one.root} now" if one.root else ""
    return f"  {one.thread_id}: {one.removed}, {one.kept} stay{root}"
