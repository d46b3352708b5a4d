"""The client's decisions: what people approve, reject and answer."""

from perdure.approvals import ApprovalRequest, Verdict
from perdure.canonical import Json
from perdure.contracts import Answer, ApprovalsAnswer, Decide, StatusAnswer
from perdure.errors import AmbiguousRequest, DecisionRefused, RequestNotFound, ThreadNotFound
from perdure.questions import Question
from perdure.starters.connection import Connection


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
        self, thread_id: str, verdict: Verdict, request: ApprovalRequest, *, approver: str, reason: str = ""
    ) -> ApprovalsAnswer:
        """Decide on exactly the arguments of the request that was shown. Raises DecisionRefused."""
        decision = {"request_id": request.id, "approver": approver, "digest": request.digest, "reason": reason}
        try:
            return await self._update(thread_id, "decide", Decide(verdict=verdict, decision=decision), ApprovalsAnswer)
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise DecisionRefused(f"Thread {thread_id} has completed; no request is open.", code="closed") from None

    async def signal_decision(
        self, thread_id: str, verdict: Verdict, request: ApprovalRequest, *, approver: str, reason: str = ""
    ) -> None:
        """The same by signal: not acknowledged, and kept by Temporal also while no worker runs."""
        decision = {"request_id": request.id, "approver": approver, "digest": request.digest, "reason": reason}
        await self._signal(thread_id, verdict, decision)

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
