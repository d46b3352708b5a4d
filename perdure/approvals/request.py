"""An approval request: one gate before one call."""

from datetime import datetime
from typing import Any, Literal

from perdure.approvals.decision import CountedDecision, Evidence
from perdure.approvals.policy import ApprovalPolicy, Level
from perdure.values import Value

Outcome = Literal["open", "approved", "rejected", "expired", "withdrawn"]


class Edit(Value):
    """Who changed the arguments, and how: by name, what it was and what it is (None: it wasn't, or isn't, there)."""

    by: str
    at: str
    digest: str  # of the arguments before
    changes: dict[str, tuple[Any, Any]]


class ApprovalRequest(Value):
    """One gate before one call.

    ``requesters`` are the people who asked for the turn, or changed the arguments. ``level`` counts the escalations,
    and ``expires_at`` is the end of its level. ``spent`` are signatures that have been used, also on arguments that
    were changed since.
    """

    id: str
    call_id: str
    tool: str
    summary: str
    arguments: dict[str, Any]
    digest: str
    key: str = ""
    policy: ApprovalPolicy
    requesters: tuple[str, ...] = ()
    turn: int = 0
    branch: int = 0
    step: int = 0
    index: int = 0  # of the call in its answer
    channel: str = "messages"  # the conversation of that answer
    level: int = 0
    opened_at: datetime
    expires_at: datetime
    outcome: Outcome = "open"
    decisions: tuple[CountedDecision, ...] = ()
    edits: tuple[Edit, ...] = ()
    spent: tuple[str, ...] = ()
    closed_at: str = ""

    @property
    def asked(self) -> Level:
        """Who may decide now, and how many must."""
        return self.policy.level(self.level)

    def approvals(self) -> int:
        """How many people said yes."""
        return sum(1 for decision in self.decisions if decision.verdict == "approve")

    def waits_for(self) -> str:
        """What an open request waits for, on one line."""
        return f"approval {self.id}: {self.summary} waits for {' or '.join(self.asked.approvers) or 'anyone'}"

    def evidence(self) -> Evidence:
        """Why the call may run, once it is approved."""
        return Evidence(
            request_id=self.id, digest=self.digest, quorum=self.asked.quorum, approvers=self.asked.approvers,
            decisions=tuple(d for d in self.decisions if d.verdict == "approve"),
            edited_by=self.edits[-1].by if self.edits else "",
        )  # fmt: skip

    def verdict_line(self) -> str:
        """How it ended, for people and for the model."""
        if self.outcome == "rejected" and self.decisions and self.decisions[-1].verdict == "reject":
            last = self.decisions[-1]
            return f"rejected by {last.approver}" + (f": {last.reason}" if last.reason else "")
        until, count = f"{self.expires_at:%Y-%m-%d %H:%M} UTC", f"{self.approvals()} of {self.asked.quorum}"
        return {
            "approved": "approved by " + ", ".join(d.approver for d in self.decisions if d.verdict == "approve"),
            "rejected": f"rejected, since {f'only {count}' if self.decisions else 'nobody'} had approved by {until}",
            "expired": f"the approval expired at {until} {f'with {count}' if self.decisions else 'without a decision'}",
            "withdrawn": "the turn was stopped before a decision",
            "open": "open",
        }[self.outcome]
