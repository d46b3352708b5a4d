"""Approvals: requests, decisions, and the rules by which a decision counts.

Pure: the workflow holds an ``ApprovalBook`` and gives it the time; nothing here waits or asks anyone.
"""

from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from perdure.canonical import Json
from perdure.errors import DecisionRefused
from perdure.values import Value

Verdict = Literal["approve", "reject"]
Outcome = Literal["open", "approved", "rejected", "expired", "withdrawn"]

MAX_NAME = 200  # characters of a name or an id that somebody sends
MAX_REASON = 4_000  # and of what people say about why
KEPT_REFUSALS = 50  # the newest; each is at most a kilobyte, so a flood of junk can't fill a carried record
KEPT_CLOSED = 20
_PREVIEW = 500
_KEPT_ARGUMENTS = 4_000  # characters of the arguments of a closed request; the conversation has them all


class ApprovalPolicy(Value):
    """Who decides, how many, and by when. No approvers means anyone who can reach the thread."""

    approvers: tuple[str, ...] = ()
    quorum: int = 1
    expires: float = 86_400.0  # seconds
    reason: str = ""


class Decision(Value):
    """What a person says: ``digest`` names exactly the arguments that person saw.

    Bounded, since it is kept: a decision that counts in its request, one that doesn't among the refused ones.
    """

    request_id: str = Field(max_length=MAX_NAME)
    approver: str = Field(min_length=1, max_length=MAX_NAME)
    digest: str = Field(max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)


class CountedDecision(Value):
    """A decision that counted."""

    verdict: Verdict
    approver: str
    reason: str = ""
    at: str


class RefusedDecision(Value):
    """A decision that changed nothing, kept with its reason. ``said`` is the payload, shortened."""

    verdict: Verdict
    code: str
    why: str
    said: str
    at: str


class ApprovalRequest(Value):
    """One gate before one call."""

    id: str
    call_id: str
    tool: str
    summary: str
    arguments: dict[str, Any]
    digest: str
    policy: ApprovalPolicy
    requester: str = ""
    opened_at: datetime
    expires_at: datetime
    outcome: Outcome = "open"
    decisions: tuple[CountedDecision, ...] = ()
    closed_at: str = ""

    def approvals(self) -> int:
        """How many people said yes."""
        return sum(1 for decision in self.decisions if decision.verdict == "approve")

    def waits_for(self) -> str:
        """What an open request waits for, on one line."""
        return f"approval {self.id}: {self.summary} waits for {' or '.join(self.policy.approvers) or 'anyone'}"

    def verdict_line(self) -> str:
        """How it ended, for people and for the model."""
        if self.outcome == "rejected":
            last = self.decisions[-1]
            return f"rejected by {last.approver}" + (f": {last.reason}" if last.reason else "")
        return {
            "approved": "approved by " + ", ".join(d.approver for d in self.decisions if d.verdict == "approve"),
            "expired": f"the approval expired at {self.expires_at:%Y-%m-%d %H:%M} UTC without a decision",
            "withdrawn": "the turn was stopped before a decision",
            "open": "open",
        }[self.outcome]


class ApprovalBook(BaseModel):
    """All requests of a thread that still matter, and what was refused."""

    requests: dict[str, ApprovalRequest] = {}
    refused: list[RefusedDecision] = []
    counter: int = 0

    def open(
        self,
        *,
        call_id: str,
        tool: str,
        summary: str,
        arguments: dict[str, Json],
        digest: str,
        policy: ApprovalPolicy,
        requester: str,
        now: datetime,
    ) -> ApprovalRequest:
        """Open a request. Ids are ``a1``, ``a2``, … in the thread: short, because people type them."""
        self.counter += 1
        self._make_room()
        request = ApprovalRequest(
            id=f"a{self.counter}",
            call_id=call_id,
            tool=tool,
            summary=summary,
            arguments=arguments,
            digest=digest,
            policy=policy,
            requester=requester,
            opened_at=now,
            expires_at=now + timedelta(seconds=policy.expires),
        )
        self.requests[request.id] = request
        return request

    def pending(self) -> list[ApprovalRequest]:
        """Open requests, oldest first."""
        return [request for request in self.requests.values() if request.outcome == "open"]

    def decide(self, verdict: Verdict, said: object, now: datetime) -> ApprovalRequest:
        """Count a decision. Raises DecisionRefused, after keeping the refusal, where it doesn't count."""
        try:
            request, decision = self._checked(said, now)
        except DecisionRefused as refusal:
            self._refuse(verdict, said, refusal, now)
            raise
        counted = CountedDecision(verdict=verdict, approver=decision.approver, reason=decision.reason, at=stamp(now))
        return self._update(request, now, decisions=(*request.decisions, counted))

    def check(self, said: object, now: datetime) -> None:
        """Raise DecisionRefused where ``decide`` would; changes nothing."""
        self._checked(said, now)

    def expire(self, request_id: str, now: datetime) -> None:
        """Close a request whose time is over; what was decided before stays decided."""
        if self.requests[request_id].outcome == "open":
            self._close(self.requests[request_id], "expired", now)

    def withdraw_all(self, now: datetime) -> None:
        """Close what is open because its turn has ended."""
        for request in self.pending():
            self._close(request, "withdrawn", now)

    def refuse_undecodable(self, verdict: Verdict, why: str, said: object, now: datetime) -> None:
        """Keep a payload that could not even be read."""
        self._refuse(verdict, said, _refused("undecodable", why), now)

    def _checked(self, said: object, now: datetime) -> tuple[ApprovalRequest, Decision]:
        decision = _decoded(said)
        request = self.requests.get(decision.request_id)
        if request is None:
            raise _refused("unknown_request", f"There is no request {decision.request_id!r}; open: {self._open_ids()}.")
        if request.outcome == "open" and now >= request.expires_at:
            raise _refused("expired", f"Request {request.id} expired at {stamp(request.expires_at)}.")
        if request.outcome != "open":
            raise _refused(
                "expired" if request.outcome == "expired" else "closed",
                f"Request {request.id} is closed: {request.verdict_line()}.",
            )
        if decision.digest != request.digest:
            raise _refused(
                "wrong_digest",
                f"Request {request.id} is for {request.digest[:12]}…, the decision names {decision.digest[:12]}….",
            )
        if request.policy.approvers and decision.approver not in request.policy.approvers:
            raise _refused(
                "not_an_approver",
                f"{decision.approver} may not decide; approvers: {', '.join(request.policy.approvers)}.",
            )
        if any(earlier.approver == decision.approver for earlier in request.decisions):
            raise _refused("repeated", f"{decision.approver} has already decided on request {request.id}.")
        return request, decision

    def _update(self, request: ApprovalRequest, now: datetime, **changes: Any) -> ApprovalRequest:
        updated = request.model_copy(update=changes)
        self.requests[request.id] = updated
        if updated.decisions[-1].verdict == "reject":
            return self._close(updated, "rejected", now)
        if updated.approvals() >= updated.policy.quorum:
            return self._close(updated, "approved", now)
        return updated

    def _close(self, request: ApprovalRequest, outcome: Outcome, now: datetime) -> ApprovalRequest:
        kept = request.arguments if len(str(request.arguments)) <= _KEPT_ARGUMENTS else {}
        closed = request.model_copy(update={"outcome": outcome, "closed_at": stamp(now), "arguments": kept})
        self.requests[request.id] = closed
        return closed

    def _make_room(self) -> None:
        """Forget the oldest closed requests; only when one is opened, since a call that waits still reads its own."""
        for request_id in [r.id for r in self.requests.values() if r.outcome != "open"][:-KEPT_CLOSED]:
            del self.requests[request_id]

    def _refuse(self, verdict: Verdict, said: object, refusal: DecisionRefused, now: datetime) -> None:
        why, text = _short(refusal.message), _short(str(said))
        self.refused.append(RefusedDecision(verdict=verdict, code=refusal.code, why=why, said=text, at=stamp(now)))
        del self.refused[:-KEPT_REFUSALS]

    def _open_ids(self) -> str:
        return ", ".join(request.id for request in self.pending()) or "none"


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return moment.isoformat(timespec="milliseconds")


def _short(text: str) -> str:
    return text if len(text) <= _PREVIEW else text[:_PREVIEW] + "…"


def _refused(code: str, why: str) -> DecisionRefused:
    return DecisionRefused(why, code=code)


def _decoded(said: object) -> Decision:
    try:
        return Decision.model_validate(said)
    except ValidationError as error:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'payload'}: {e['msg']}" for e in error.errors())
        raise _refused("malformed", f"The decision doesn't fit: {reasons[:_PREVIEW]}.") from error
