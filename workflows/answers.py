"""Answers of the queries: what a thread remembers, as the contracts want it."""

from perdure.budget import Budget, Usage
from perdure.contracts import ApprovalsAnswer, CheckpointAnswer, StatusAnswer
from perdure.workflows.record import Record


def checkpoint(record: Record) -> CheckpointAnswer:
    """Where the thread stands, with the bounded view of its state."""
    view = record.view.now()
    return CheckpointAnswer(
        thread_id=record.thread_id, agent=record.agent, status=record.status(), turn=record.turn_number,
        head=record.head, parent_id=record.parent_id, next=record.next,
        state=view.values, truncated=view.truncated, omitted=view.omitted,
    )  # fmt: skip


def status(record: Record) -> StatusAnswer:
    """The thread for people."""
    turn = record.turn
    return StatusAnswer(
        thread_id=record.thread_id, agent=record.agent, status=record.status(), turn=record.turn_number,
        step=record.head.step if record.head else 0, node=" + ".join(record.next) if turn else "",
        next=record.next,
        waiting_for=_waiting(record), queued=len(record.queue) + record.opening,
        usage=turn.usage if turn else Usage(), steps_used=turn.steps if turn else 0,
        budget=turn.budget if turn else Budget(), results=tuple(record.results),
        attention=tuple(f"{e.key}: {e.label()} ({e.status})" for e in record.attention()), log=tuple(record.log),
        dry_run=record.dry_run, audit=record.journal.head,
    )  # fmt: skip


def approvals(record: Record) -> ApprovalsAnswer:
    """Open requests, those closed lately, refused decisions with their reasons."""
    book = record.book
    closed = tuple(request for request in book.requests.values() if request.outcome != "open")
    return ApprovalsAnswer(
        open=tuple(book.pending()), closed=closed, refused_decisions=tuple(book.refused),
        questions=tuple(record.questions.open()),
    )  # fmt: skip


def _waiting(record: Record) -> tuple[str, ...]:
    approvals = tuple(request.waits_for() for request in record.book.pending())
    return approvals + tuple(question.waits_for() for question in record.questions.open())
