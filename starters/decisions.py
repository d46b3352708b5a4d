"""The client's decisions: what people approve, reject and answer."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import ValidationError

from perdure.approvals import ApprovalRequest, Decision, Verdict, stamp
from perdure.canonical import Json, canonical
from perdure.contracts import Answer, ApprovalsAnswer, Decide, StatusAnswer
from perdure.effects import arguments_digest
from perdure.errors import (
    AmbiguousRequest,
    DecisionRefused,
    IntegrityError,
    InvalidInput,
    RequestNotFound,
    ThreadNotFound,
)
from perdure.questions import Question
from perdure.starters.connection import Connection

if TYPE_CHECKING:
    from perdure.security.signing import SigningKey


class Decisions(Connection):
    """What threads ask people."""

    async def approvals(self, thread_id: str, *, patience: float = 30) -> ApprovalsAnswer:
        """Approval requests of a thread, open questions, and decisions that were refused."""
        return await self._query(thread_id, "approvals", ApprovalsAnswer, patience=patience)

    async def request(self, thread_id: str, request_id: str = "") -> ApprovalRequest:
        """An open request; the only one where none is named. Raises RequestNotFound, AmbiguousRequest."""
        answer = await self.approvals(thread_id)
        if not request_id and len(answer.open) == 1:
            return answer.open[0]
        names = ", ".join(f"{request.id} ({request.summary})" for request in answer.open) or "none"
        if not request_id and answer.open:
            raise AmbiguousRequest(f"Several requests of {thread_id} are open: {names}.", hint="Name one.")
        for request in (*answer.open, *answer.closed):
            if request.id == request_id:
                return request
        wanted = f"request {request_id!r}" if request_id else "open request"
        raise RequestNotFound(f"Thread {thread_id} has no {wanted}.", hint=f"Open: {names}.")

    async def decide(
        self, thread_id: str, verdict: Verdict, request: ApprovalRequest, *, approver: str, reason: str = "",
        key: "SigningKey | None" = None, arguments: dict[str, Json] | None = None,
    ) -> ApprovalsAnswer:  # fmt: skip
        """Decide on exactly the arguments of the request that was shown, or ask for other ``arguments``; signed with
        the ``key`` of the approver, if given.

        Raises DecisionRefused, InvalidInput, and IntegrityError where what was shown isn't what would be approved.
        """
        decision = decided(thread_id, verdict, request, approver, reason, key, arguments)
        try:
            return await self._update(thread_id, "decide", Decide(verdict=verdict, decision=decision), ApprovalsAnswer)
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise DecisionRefused(f"Thread {thread_id} has completed; no request is open.", code="closed") from None

    async def signal_decision(
        self, thread_id: str, verdict: Verdict, request: ApprovalRequest, *, approver: str, reason: str = "",
        key: "SigningKey | None" = None, arguments: dict[str, Json] | None = None,
    ) -> None:  # fmt: skip
        """The same by signal: not acknowledged, and kept by Temporal also while no worker runs. Raises IntegrityError,
        InvalidInput."""
        await self._signal(thread_id, verdict, decided(thread_id, verdict, request, approver, reason, key, arguments))

    async def question(self, thread_id: str, question_id: str = "") -> Question:
        """An open question; the only one where none is named. Raises RequestNotFound, AmbiguousRequest."""
        asked = (await self.approvals(thread_id)).questions
        names = ", ".join(question.id for question in asked) or "none"
        fitting = [question for question in asked if question_id in ("", question.id)]
        if len(fitting) > 1:
            raise AmbiguousRequest(f"Several questions of {thread_id} are open: {names}.", hint="Name one.")
        if not fitting:
            wanted = f"open question {question_id!r}" if question_id else "open question"
            raise RequestNotFound(f"Thread {thread_id} has no {wanted}.", hint=f"Open: {names}.")
        return fitting[0]

    async def answer(self, thread_id: str, question_id: str, value: Json, *, by: str) -> StatusAnswer:
        """Answer the question of a human node; the thread's status then.

        Raises RequestNotFound, Refused where it is answered or expired, InvalidInput where the answer doesn't fit; then
        the question stays open.
        """
        said = Answer(question_id=question_id, value=value, by=by)
        try:
            return await self._update(thread_id, "answer", said, StatusAnswer)
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise RequestNotFound(f"Thread {thread_id} has completed; no question is open.") from None


def check_shown(request: ApprovalRequest) -> None:
    """Raise IntegrityError where the arguments of a request are not those that its digest names, DecisionRefused where
    it no longer has them."""
    if arguments_digest(request.tool, canonical(request.arguments)) == request.digest:
        return
    if request.outcome != "open":  # long arguments are not kept
        raise DecisionRefused(f"Request {request.id} is closed: {request.verdict_line()}.", code="closed")
    raise IntegrityError(
        f"What request {request.id} shows is not what would be approved: its digest is of other arguments.",
        hint="Don't approve it. Somebody stands between you and the thread, or a worker runs other code.",
    )


def decided(
    thread_id: str, verdict: Verdict, request: ApprovalRequest, approver: str, reason: str = "",
    key: "SigningKey | None" = None, arguments: dict[str, Json] | None = None,
) -> dict[str, Json]:  # fmt: skip
    """What a person says on a request, as it is sent.

    Raises as ``check_shown``, and InvalidInput for what is too long or no JSON.
    """
    check_shown(request)
    try:
        decision = Decision(
            request_id=request.id, approver=approver, digest=request.digest, reason=reason, arguments=arguments,
            at=stamp(datetime.now(UTC)) if key else "",
        )  # fmt: skip
    except ValidationError as error:
        raise InvalidInput(f"The decision doesn't fit: {error.errors()[0]['msg']}.") from error
    if key is not None:
        from perdure.security.signing import statement  # only who signs pays for the cryptography

        decision = decision.model_copy(update={"signature": key.sign(statement(thread_id, verdict, decision))})
    return decision.model_dump(mode="json", exclude_defaults=True) | {"reason": reason}
