"""Decisions as people, and those who would like to be them, send them: signed, unsigned, forged, or sent once more."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from perdure.approvals import ApprovalRequest, Decision, Verdict, stamp
from perdure.canonical import Json
from perdure.security.signing import SigningKey, statement

KEYS = {name: SigningKey.new(name) for name in ("ann", "bob", "cid")}
FOREIGN = SigningKey.new("mallory")  # whose key nobody knows


def write_keys(path: Path) -> Path:
    """The public keys of all approvers in a file, for the setting ``approver_keys``."""
    path.write_text("".join(f"{key.line}\n" for key in KEYS.values()), "utf-8")
    return path


def ballot(
    thread: str, verdict: Verdict, request: ApprovalRequest, approver: str, *, key: SigningKey | None = None,
    digest: str = "", reason: str = "", arguments: dict[str, Json] | None = None, later: timedelta = timedelta(0),
) -> dict[str, Json]:  # fmt: skip
    """A decision with its signature, by default under the approver's own key. ``later`` is how far the thread's clock
    is ahead."""
    decision = Decision(
        request_id=request.id, approver=approver, digest=digest or request.digest, reason=reason, arguments=arguments,
        at=stamp(datetime.now(UTC) + later),
    )  # fmt: skip
    signature = (key or KEYS[approver]).sign(statement(thread, verdict, decision))
    return decision.model_copy(update={"signature": signature}).model_dump(mode="json", exclude_defaults=True)
