"""perdure db verify, perdure db repair."""

from typing import TYPE_CHECKING, Annotated

import typer

from perdure.errors import IntegrityError
from perdure.starters.cli.command import Session, Thread, command

if TYPE_CHECKING:
    from perdure.care.repair import Repaired
    from perdure.care.verify import Problem, Report

SomeThread = Annotated[
    str, typer.Argument(metavar="THREAD", help="Only this thread.", show_default=False)
]  # fmt: skip
Everything = Annotated[bool, typer.Option("--all", help="Also what nothing goes back to, pruned or lost.")]


@command
async def verify(session: Session, thread: SomeThread = "") -> None:
    """Recompute every digest from the root and follow every link; name the first bad row."""
    from perdure.care.verify import verify as verified

    report = await verified(await session.store(), thread)
    session.out.show(report, _counts(report))
    if report.problem:
        raise _wrong(report.problem)


@command
async def repair(session: Session, thread: Thread, everything: Everything = False) -> None:
    """Make lost and damaged checkpoints of a thread again, from what Temporal still has of its history."""
    from perdure.care.chronicle import chronicle
    from perdure.care.repair import repair as repaired
    from perdure.starters.histories import read_runs

    runs = await read_runs((await session.client()).temporal, thread)
    done = await repaired(await session.store(), chronicle(thread, runs), everything=everything)
    session.out.show(done, _account(done))
    if done.problem:
        raise _wrong(done.problem)
    if done.missed:
        raise IntegrityError(f"{len(done.missed)} of thread {thread} could not be made again.")


def _wrong(problem: "Problem") -> IntegrityError:
    row = f", {problem.row}" if problem.row != problem.thread_id else ""
    return IntegrityError(f"Table {problem.table}, thread {problem.thread_id}{row}: {problem.what}")


def _counts(report: "Report") -> str:
    counts = f"{report.threads} threads, {report.checkpoints} checkpoints, {report.snapshots} snapshots"
    verdict = "up to the first bad row" if report.problem else "and all is well"
    records = f"{report.effects} effects, {report.audit} lines of audit"
    return f"Verified {counts}, {records}, {report.bytes} bytes of deltas, {verdict}."


def _account(done: "Repaired") -> str:
    lines = [f"Made again: {len(done.rebuilt)} checkpoints, {len(done.snapshots)} snapshots. {done.whole} were whole."]
    lines += [f"  made again: {name}" for name in done.rebuilt]
    lines += [f"  made again: the snapshot at {name}" for name in done.snapshots]
    for missed in done.missed:
        step = f" (step {missed.step})" if missed.step is not None else ""
        lines.append(f"  could not: {missed.id}{step}: {missed.why}")
    if done.unneeded:
        lines.append(f"Not there, and nothing goes back to it: {done.unneeded}, pruned or lost. --all makes it again.")
    if done.head_moved:
        lines.append(f"The head is {done.head} now.")
    if done.audited:
        lines.append(f"{done.audited} lines of the audit were written again.")
    return "\n".join(lines)
