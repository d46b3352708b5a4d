"""What people say on a request: decisions as they come, as they count, and as they are refused."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from perdure.values import Value

Verdict = Literal["approve", "reject"]

MAX_NAME = 200  # characters of a name or an id that somebody sends
MAX_REASON = 4_000  # and of what people say about why


class Decision(Value):
    """What a person says: ``digest`` names exactly the arguments that person saw.

    ``arguments`` are others that the person wants instead. ``at`` is when it was signed (ISO 8601, UTC), and
    ``signature`` is over ``perdure.security.signing.statement`` (base64). Bounded, since it is kept: a decision that
    counts in its request, one that doesn't among the refused ones.
    """

    request_id: str = Field(max_length=MAX_NAME)
    approver: str = Field(min_length=1, max_length=MAX_NAME)
    digest: str = Field(max_length=MAX_NAME)
    reason: str = Field(default="", max_length=MAX_REASON)
    arguments: dict[str, Any] | None = None
    at: str = Field(default="", max_length=MAX_NAME)
    signature: str = Field(default="", max_length=MAX_NAME)


class CountedDecision(Value):
    """A decision that counted. ``at`` is when it was counted, ``signed_at`` when it was signed, if it was."""

    verdict: Verdict
    approver: str
    reason: str = ""
    at: str
    digest: str = ""
    signed_at: str = ""
    signature: str = ""
    edited: str = ""  # the digest that the arguments had which it asked for, where it changed them


class RefusedDecision(Value):
    """A decision that changed nothing, kept with its reason. ``said`` is the payload, shortened."""

    verdict: Verdict
    code: str
    why: str
    said: str
    at: str


class Edited(Value):
    """Other arguments for a call, as its tool takes them. ``given`` is the digest of what the person wrote."""

    arguments: dict[str, Any]
    summary: str
    digest: str
    key: str
    given: str


class Evidence(Value):
    """Why a call may run: the request, and the decisions that approved exactly this digest.

    It goes to the activity that runs the call, which looks at it once more. ``edited_by`` is who changed the arguments.
    """

    request_id: str
    digest: str
    quorum: int
    approvers: tuple[str, ...] = ()
    decisions: tuple[CountedDecision, ...] = ()
    edited_by: str = ""

    @property
    def approved_by(self) -> tuple[str, ...]:
        """Who said yes."""
        return tuple(decision.approver for decision in self.decisions)


def stamp(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return moment.isoformat(timespec="milliseconds")
