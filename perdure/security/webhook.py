"""Webhooks: how a delivery is signed, and how its receiver tells that it is genuine.

A delivery is a POST of JSON with these headers::

    Perdure-Signature: t=1767225600,v1=5257a869…,v1=…
    Perdure-Event: request.opened
    Perdure-Delivery: 7f6e…

``t`` is the time in seconds since 1970. Each ``v1`` is the HMAC-SHA256, in hex, of ``t``, a full stop and the body's
own bytes, under one secret: there are two of them while a secret is changed. A receiver in any language computes it
with its secret, compares it in constant time with each ``v1``, refuses a ``t`` that is more than five minutes away, and
remembers ``Perdure-Delivery``: a delivery whose answer was lost comes again under the same id. The event and the id
stand in the body too, where the signature covers them.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from perdure.errors import Refused, UsageError

SIGNATURE, EVENT, DELIVERY = "Perdure-Signature", "Perdure-Event", "Perdure-Delivery"
TOLERANCE = 300.0  # seconds by which the clocks may differ, and a copy of a delivery may be old
_SIGNED = re.compile(r"t=([0-9]{1,12})((?:,v1=[0-9a-f]{64}){1,8})")
_GAP = re.compile(r"\s")
_SHORTEST = 16  # characters; less can be guessed from one delivery


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where deliveries go, and what signs them; the first secret is the current one."""

    url: str = field(repr=False)  # it may hold a password
    secrets: tuple[str, ...] = field(repr=False)

    @staticmethod
    def parse(url: str, secrets: str) -> "Webhook":
        """A webhook as the settings have it. Raises UsageError; the message never holds a secret."""
        try:
            parts = urlsplit(url)
            fits = (
                parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not _GAP.search(url)
            )
        except ValueError:  # a port or an address that is none
            fits = False
        if not fits:
            raise UsageError("PERDURE_WEBHOOK is no address.", hint="It begins with https:// or http://.")
        each = tuple(secret.strip() for secret in secrets.split(",") if secret.strip())
        if not each:
            raise UsageError(
                "PERDURE_WEBHOOK has no secret, so its receiver couldn't tell our deliveries from anybody's.",
                hint="Set PERDURE_WEBHOOK_SECRET here and there, for example to what `openssl rand -hex 32` prints.",
            )
        if any(len(secret) < _SHORTEST for secret in each):
            raise UsageError(f"A secret of PERDURE_WEBHOOK_SECRET has less than {_SHORTEST} characters.")
        return Webhook(url=url, secrets=each)

    @property
    def host(self) -> str:
        """The address without what in it may be secret."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def signed_headers(secrets: Sequence[str], body: bytes, event: str, delivery: str, at: float) -> dict[str, str]:
    """The headers of a delivery. ``at``: now, in seconds since 1970."""
    moment = int(at)
    signatures = ",".join(f"v1={_signature(secret, moment, body)}" for secret in secrets)
    return {SIGNATURE: f"t={moment},{signatures}", EVENT: event, DELIVERY: delivery}


def verify(
    secrets: str | Sequence[str], headers: Mapping[str, str], body: bytes, *, now: float, tolerance: float = TOLERANCE
) -> None:
    """Raise Refused, with the reason, unless a delivery is genuine and was sent just now.

    ``secrets`` are the receiver's, one or several; ``now`` is in seconds since 1970, ``tolerance`` in seconds.
    """
    given = {name.lower(): value for name, value in headers.items()}.get(SIGNATURE.lower())
    if given is None:
        raise Refused(f"The delivery is not signed: it has no {SIGNATURE}.")
    match = _SIGNED.fullmatch(given)
    if match is None:
        raise Refused(f"The delivery's {SIGNATURE} can't be read.")
    at, signatures = int(match[1]), re.findall(r"[0-9a-f]{64}", match[2])
    expected = [_signature(s, at, body) for s in ([secrets] if isinstance(secrets, str) else secrets) if s]
    # Each with each, and none skipped: how long it takes must not tell how near a guess came.
    if not sum(hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures):
        raise Refused("The delivery was signed with another secret, or changed on its way.")
    if abs(now - at) > tolerance:
        raise Refused(f"The delivery was signed {abs(now - at):.0f} seconds from now: it may be a copy of an old one.")


def _signature(secret: str, at: int, body: bytes) -> str:
    return hmac.digest(secret.encode(), f"{at}.".encode() + body, "sha256").hex()
