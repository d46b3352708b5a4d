"""Leases: a time-limited exclusive right to write to a thread."""

from datetime import datetime, timedelta

from perdure.approvals import stamp
from perdure.errors import LeaseHeld, Refused
from perdure.values import Value


class Lease(Value):
    """Who writes alone, and until when (ISO 8601, UTC). ``token`` proves whose it is: only its holder is told it."""

    holder: str
    token: str
    until: str

    def holds(self, now: datetime) -> bool:
        """Whether it is in force."""
        return stamp(now) < self.until


def acquire(held: Lease | None, holder: str, token: str, seconds: float, now: datetime) -> Lease:
    """A new lease. Raises LeaseHeld while another one is in force."""
    check_writer(held, "", now)
    return Lease(holder=holder, token=token, until=stamp(now + timedelta(seconds=seconds)))


def renew(held: Lease | None, token: str, seconds: float, now: datetime) -> Lease:
    """The same lease for longer. Raises Refused if it has run out, LeaseHeld if it is somebody else's."""
    check_writer(held, token, now)
    if held is None or not held.holds(now):
        raise Refused("The lease has run out.", hint="Acquire it again.")
    return held.model_copy(update={"until": stamp(now + timedelta(seconds=seconds))})


def check_writer(held: Lease | None, token: str, now: datetime) -> None:
    """Raise LeaseHeld where somebody else than the owner of ``token`` has the exclusive right to write."""
    if held is not None and held.holds(now) and held.token != token:
        raise LeaseHeld(f"{held.holder} holds the lease of this thread until {held.until}.", hint="Try again then.")
