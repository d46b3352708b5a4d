"""Decisions of people on their way into the book of approvals."""

from temporalio import workflow
from temporalio.exceptions import ActivityError

from perdure.approvals import ApprovalRequest, Decision, Edited, Verdict, stamp
from perdure.contracts import CHECK_DECISION, CheckDecision
from perdure.errors import DecisionRefused
from perdure.failures import from_failure
from perdure.workflows.calls import store_call
from perdure.workflows.record import Record


async def decide(record: Record, verdict: Verdict, said: object) -> None:
    """Count a decision. Raises DecisionRefused where it doesn't count; it is kept among the refused ones then.

    What only an activity can see is looked at there: a signature, and whether a tool takes other arguments.
    """
    record.book.pass_time(workflow.now())
    try:
        request, decision = record.book.checked(verdict, said, workflow.now())
        edited = await _looked_at(record, verdict, request, decision)
    except DecisionRefused as refusal:
        refuse(record, verdict, said, refusal)
        raise
    try:
        # Meanwhile somebody else may have decided, or changed the arguments, or a level has ended: look once more.
        record.book.pass_time(workflow.now())
        record.book.decide(verdict, said, workflow.now(), edited)
    except DecisionRefused as refusal:
        record.note(f"decision refused: {refusal.message}")
        raise
    finally:
        record.journal.take()


def refuse(record: Record, verdict: Verdict, said: object, refusal: DecisionRefused) -> None:
    """Keep a decision that doesn't count."""
    record.book.refuse(verdict, said, refusal, workflow.now())
    record.note(f"decision refused: {refusal.message}")
    record.journal.take()


async def _looked_at(record: Record, verdict: Verdict, request: ApprovalRequest, decision: Decision) -> Edited | None:
    if not request.policy.signed and decision.arguments is None:
        return None
    task = CheckDecision(
        thread_id=record.thread_id, agent=record.agent, request=request, verdict=verdict,
        decision=decision.model_dump(mode="json"), now=stamp(workflow.now()),
    )  # fmt: skip
    summary = f"is it {decision.approver} who says {verdict} to {request.id}?"
    try:
        checked = await store_call(CHECK_DECISION, task, summary=summary, limits=record.limits)
    except ActivityError as error:
        refusal = from_failure(error)
        if isinstance(refusal, DecisionRefused):
            raise refusal from error
        raise DecisionRefused(f"The decision could not be checked: {refusal.message}", code="unchecked") from error
    return checked.edited
