"""What the book of approvals must do, told a second time and in other words: the model of its state machine."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from perdure.approvals import ApprovalPolicy, Verdict
from perdure.audit import AuditKind

_HOUR, _MINUTES = timedelta(hours=1), timedelta(minutes=5)


@dataclass(kw_only=True)
class Said:
    """A decision, as the model sees it. ``signed_at`` is None where it has no time; ``edit`` is the digest of other
    arguments, where it asks for such."""

    verdict: Verdict
    who: str
    digest: str
    signature: str = ""
    signed_at: datetime | None = None
    edit: str = ""


@dataclass(kw_only=True)
class Asked:
    """One request."""

    name: str
    policy: ApprovalPolicy
    digest: str
    requesters: set[str]
    step: int
    opened_at: datetime
    until: datetime
    level: int = 0
    outcome: str = "open"
    yes: list[str] = field(default_factory=list)
    no: str = ""
    spent: set[str] = field(default_factory=set)
    edits: int = 0

    def people(self) -> set[str]:
        """Who may decide; nobody: anyone."""
        named = set(self.policy.approvers)
        for level in self.policy.escalations[: self.level]:
            named |= set(level.approvers) if named else set()
        return named

    def quorum(self) -> int:
        """How many must say yes."""
        return self.policy.escalations[self.level - 1].quorum if self.level else self.policy.quorum

    def objections(self, said: Said, now: datetime, elsewhere: set[str]) -> set[str]:
        """Every reason why a decision may not count. ``elsewhere`` are those who approved other calls of the turn."""
        duties, approves = self.policy.separation, said.verdict == "approve"
        asked_for_it = "requester" in duties and said.who in self.requesters
        another_step = "steps" in duties and said.who in elsewhere
        reasons = {
            "expired": self.outcome == "expired" or (self.outcome == "open" and now >= self.until),
            "closed": self.outcome in ("approved", "rejected", "withdrawn"),
            "wrong_digest": said.digest != self.digest,
            "not_an_approver": bool(self.people()) and said.who not in self.people(),
            "repeated": said.who in (*self.yes, self.no),
            "separation": approves and (asked_for_it or another_step),
            "invalid_edit": bool(said.edit) and (not approves or said.edit == self.digest),
        }  # fmt: skip
        return {reason for reason, holds in reasons.items() if holds} | self._unsigned(said, now)

    def _unsigned(self, said: Said, now: datetime) -> set[str]:
        if not self.policy.signed:
            return set()
        at = said.signed_at
        begin = max(self.opened_at - _MINUTES, now - _HOUR)
        reasons = {
            "unsigned": not said.signature,
            "replayed": said.signature in self.spent,
            "malformed": at is None,
            "stale": at is not None and not begin <= at <= now + _MINUTES,
        }
        return {reason for reason, holds in reasons.items() if holds}

    def count(self, said: Said) -> list[AuditKind]:
        """The decision counts; what the audit is told."""
        told: list[AuditKind] = ["decision.counted"]
        self.spent |= {said.signature} - {""}
        if said.verdict == "reject":
            self.no, self.outcome = said.who, "rejected"
        elif said.edit:
            self.digest, self.yes, self.edits = said.edit, [], self.edits + 1
            told.append("request.edited")
            if "requester" in self.policy.separation:
                self.requesters.add(said.who)
            elif not self.policy.signed:
                self.yes = [said.who]
        else:
            self.yes.append(said.who)
        return told + self._settled()

    def silence(self, now: datetime) -> list[AuditKind]:
        """Its level is over; what the audit is told."""
        if self.level == len(self.policy.escalations):
            self.outcome = "expired" if self.policy.silence == "expire" else "rejected"
            return ["request.closed"]
        self.level += 1
        self.until = now + timedelta(seconds=self.policy.escalations[self.level - 1].expires)
        return ["request.escalated", *self._settled()]

    def _settled(self) -> list[AuditKind]:
        if self.outcome == "open" and len(self.yes) >= self.quorum():
            self.outcome = "approved"
        return [] if self.outcome == "open" else ["request.closed"]
