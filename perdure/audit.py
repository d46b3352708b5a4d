"""The audit of a thread: what was asked, decided, refused and settled, in a chain of digests that shows tampering."""

from collections.abc import Collection, Iterable
from typing import Literal

from perdure.canonical import Json, canonical, digest
from perdure.errors import IntegrityError
from perdure.values import Value

AuditKind = Literal[
    "request.opened",  # an approval request
    "request.reminded",  # its level is about to end
    "request.escalated",  # nobody decided in time; a further level may decide too
    "request.edited",  # other arguments: a new digest, and the quorum afresh
    "request.closed",  # approved, rejected, expired or withdrawn
    "request.remembered",  # a call ran on an earlier approval of the same arguments in the same turn
    "request.void",  # approved, but what approved it no longer counts when the call was to run
    "decision.counted",
    "decision.refused",
    "effect.in_doubt",
    "effect.reconciled",  # the tool's own hook told how it ended
    "effect.settled",  # a person told how it ended
    "effect.late",  # a call that was taken for failed, or was in doubt, has returned after all
    "effect.needs_attention",  # its compensation failed for good
    "saga.rolled_back",  # what a rollback undid, and what it left
    "thread.rewound",
    "thread.promoted",  # the plan of a dry run became a turn
]
NOTIFIED: frozenset[AuditKind] = frozenset(
    {
        "request.opened", "request.reminded", "request.escalated", "request.closed", "effect.in_doubt",
        "effect.needs_attention",
    }
)  # fmt: skip


class AuditEntry(Value):
    """One line, as the thread writes it. ``id`` makes a repeated append harmless; ``at`` is ISO 8601, UTC."""

    id: str
    at: str
    kind: AuditKind
    body: dict[str, Json] = {}


class AuditRow(Value):
    """One line, as it is stored. ``number`` counts from 1. ``digest`` is over the line and the digest before it."""

    thread_id: str
    number: int
    entry: AuditEntry
    digest: str

    @property
    def head(self) -> "AuditHead":
        """The end of the audit with this line."""
        return AuditHead(number=self.number, digest=self.digest)


class AuditHead(Value):
    """How many lines there are, and the digest of the last one; empty where there is none."""

    number: int = 0
    digest: str = ""


def chained(thread_id: str, head: AuditHead, entries: Iterable[AuditEntry]) -> list[AuditRow]:
    """The rows that follow a head."""
    rows: list[AuditRow] = []
    for entry in entries:
        number = head.number + 1
        name = digest(head.digest, thread_id, str(number), canonical(entry.model_dump(mode="json")))
        rows.append(AuditRow(thread_id=thread_id, number=number, entry=entry, digest=name))
        head = rows[-1].head
    return rows


def unknown(entries: Iterable[AuditEntry], known: Collection[str]) -> list[AuditEntry]:
    """Those whose id is not known yet; of several with one id the first."""
    new: dict[str, AuditEntry] = {}
    for entry in entries:
        if entry.id not in known:
            new.setdefault(entry.id, entry)
    return list(new.values())


def follow(thread_id: str, end: AuditHead, rows: Iterable[AuditRow]) -> AuditHead:
    """The end of the audit after these lines, which come next after an end. So a long audit is checked page by page.

    Raises IntegrityError that names the first line that is not what was written there.
    """
    for row in rows:
        if row.number != end.number + 1:
            raise damaged(end.number + 1, f"Line {end.number + 1} is missing.")
        if row != chained(thread_id, end, [row.entry])[0]:
            raise damaged(row.number, f"Line {row.number} doesn't match its digest.")
        end = row.head
    return end


def check_end(end: AuditHead, told: AuditHead) -> None:
    """Raise IntegrityError unless the lines end where the thread's row tells: else some were cut off, or added."""
    if end.number < told.number:
        raise damaged(end.number + 1, f"It ends with line {end.number}, and the thread tells of {told.number}.")
    if end.number > told.number:
        raise damaged(told.number + 1, f"It goes on to line {end.number}, and the thread tells of {told.number}.")
    if end != told:
        raise damaged(end.number, f"Line {end.number} is not the one that the thread tells of.")


def damaged(number: int, what: str) -> IntegrityError:
    """A line is not what was written."""
    return IntegrityError(what, hint="Run `perdure db verify`.", table="audit", row=str(number))
