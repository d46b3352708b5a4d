"""Answers of people on their way to the human nodes that asked."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from perdure.contracts import Answer
from perdure.errors import PerdureError, Refused
from perdure.failures import describe, root, to_failure
from perdure.workflows.calls import error_type
from perdure.workflows.record import Record


def check_answer(record: Record, said: Answer) -> None:
    """Raise where nobody asks this, or somebody else's answer is being looked at right now."""
    try:
        record.questions.check(said.question_id, workflow.now())
        if said.question_id not in record.asking:
            raise Refused(f"An answer to {said.question_id} is being looked at right now.", hint="Look again.")
    except PerdureError as error:
        raise to_failure(error) from error


async def take_answer(record: Record, said: Answer) -> None:
    """Have an answer checked and recorded, and close the question. Raises ApplicationError where it doesn't fit."""
    task = record.asking.pop(said.question_id, None)
    if task is None:
        raise to_failure(Refused(f"An answer to {said.question_id} is being looked at right now.", hint="Look again."))
    try:
        await task.take(said)
    except ActivityError as error:
        cause = root(error)
        hint = str(next(iter(getattr(cause, "details", ())), ""))
        raise ApplicationError(describe(cause), hint, type=error_type(error) or "Failed", non_retryable=True) from error
    finally:
        if record.questions.questions[said.question_id].outcome == "open":
            record.asking[said.question_id] = task
    if record.questions.questions[said.question_id].outcome != "open":
        raise to_failure(Refused(f"Question {said.question_id} was closed before the answer was taken in."))
    record.questions.close(said.question_id, "answered", said.by)
