"""Approvals: the policy of a gate, the request that it opens, what people say, and the book in which it counts.

Pure: the workflow holds an ``ApprovalBook`` and gives it the time; nothing here waits or asks anyone.
"""

from perdure.approvals.book import KEPT_CLOSED, KEPT_REFUSALS, ApprovalBook
from perdure.approvals.decision import (
    MAX_NAME,
    MAX_REASON,
    CountedDecision,
    Decision,
    Edited,
    Evidence,
    RefusedDecision,
    Verdict,
    stamp,
)
from perdure.approvals.policy import ApprovalPolicy, Duty, Level, Silence
from perdure.approvals.request import ApprovalRequest, Edit, Outcome

__all__ = [
    "KEPT_CLOSED", "KEPT_REFUSALS", "MAX_NAME", "MAX_REASON", "ApprovalBook", "ApprovalPolicy", "ApprovalRequest",
    "CountedDecision", "Decision", "Duty", "Edit", "Edited", "Evidence", "Level", "Outcome", "RefusedDecision",
    "Silence", "Verdict", "stamp",
]  # fmt: skip
