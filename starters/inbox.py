"""The inbox: what waits for people in all threads, and what changes about that from one look to the next."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from perdure.approvals import ApprovalRequest, stamp
from perdure.contracts import ApprovalsAnswer
from perdure.errors import PerdureError, ThreadNotFound
from perdure.questions import Question
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.starters.client import Client
    from perdure.starters.threads import ThreadSummary

_AT_ONCE = 20  # threads asked at the same time; each is a query that a worker answers
_MOST = 10_000
_PATIENCE = 5.0  # seconds for one of them; a worker answers in milliseconds

Key = tuple[str, str]  # a thread and what it asks
Answers = dict[str, ApprovalsAnswer | PerdureError]
ChangeKind = Literal["opened", "escalated", "changed", "closed", "silent", "answers"]


class OpenRequest(Value):
    """What waits for a person, and whose it is: an approval request, or a question."""

    thread_id: str
    agent: str = ""
    tenant: str = ""
    request: ApprovalRequest | None = None
    question: Question | None = None

    @property
    def asked(self) -> ApprovalRequest | Question:
        """Whichever it is."""
        found = self.request or self.question
        assert found is not None, "one of them is there"
        return found

    @property
    def key(self) -> Key:
        """What names it."""
        return self.thread_id, self.asked.id

    @property
    def since(self) -> datetime:
        """When it was asked."""
        asked = self.asked
        return datetime.fromisoformat(asked.asked_at) if isinstance(asked, Question) else asked.opened_at

    @property
    def level(self) -> int:
        """How often it was escalated."""
        return self.request.level if self.request else 0


class InboxChange(Value):
    """What is new in the inbox. ``silent``: a thread doesn't answer, and ``error`` says why; ``answers``: it does
    again, or has ended."""

    kind: ChangeKind
    at: str
    thread_id: str
    item: OpenRequest | None = None
    error: str = ""


class Wanted(Value):
    """Which part of the inbox: of an agent, of a tenant, what a person may decide, what is older than so many
    seconds."""

    agent: str = ""
    tenant: str = ""
    person: str = ""
    older: float = 0.0


@dataclass(frozen=True)
class Look:
    """The inbox now: what is in it, the oldest first; which threads don't answer; what is new since the last look."""

    items: tuple[OpenRequest, ...]
    silent: Mapping[str, PerdureError]
    changes: tuple[InboxChange, ...]


class Inbox:
    """What waits for people. Each look is one question to Temporal's visibility, and one query to each thread that
    waits."""

    def __init__(self, client: "Client", wanted: Wanted) -> None:
        self._client = client
        self._wanted = wanted
        self._known: dict[Key, OpenRequest] = {}
        self._shown: set[Key] = set()
        self._silent: dict[str, PerdureError] = {}

    async def look(self) -> Look:
        """Look again. Raises TemporalUnreachable; a thread that doesn't answer hides no other."""
        wanted = self._wanted
        found = await self._client.threads(waiting=True, agent=wanted.agent, tenant=wanted.tenant, limit=_MOST)
        listed = {summary.thread_id: summary for summary in found}
        answers = await self._ask(listed.keys() | {thread for thread, _ in self._known})
        now = self._now(listed, answers)
        shown = {key for key, item in now.items() if self._is_wanted(item, answers.get(item.thread_id))}
        silent = {
            name: answer for name, answer in answers.items() if name in listed and isinstance(answer, PerdureError)
        }
        changes = [*self._turned(silent), *self._changes(now, shown, answers)]
        self._known, self._shown, self._silent = now, shown, silent
        items = sorted((now[key] for key in shown), key=lambda item: (item.since, item.key))
        return Look(items=tuple(items), silent=silent, changes=tuple(changes))

    async def _ask(self, threads: Iterable[str]) -> Answers:
        room, names = asyncio.Semaphore(_AT_ONCE), sorted(threads)

        async def asked(thread: str) -> ApprovalsAnswer | PerdureError:
            async with room:
                try:
                    return await self._client.approvals(thread, patience=_PATIENCE)
                except PerdureError as error:
                    return error

        return dict(zip(names, await asyncio.gather(*map(asked, names)), strict=True))

    def _now(self, listed: Mapping[str, "ThreadSummary"], answers: Answers) -> dict[Key, OpenRequest]:
        """What is open; of a thread that doesn't answer, what was. One that is listed no more has ended."""
        now: dict[Key, OpenRequest] = {}
        for name, summary in listed.items():
            answer = answers[name]
            if isinstance(answer, PerdureError):
                known = [item for item in self._known.values() if item.thread_id == name]
                now |= {item.key: item for item in known if not isinstance(answer, ThreadNotFound)}
            else:
                now |= {item.key: item for item in _open(summary, answer)}
        return now

    def _is_wanted(self, item: OpenRequest, answer: ApprovalsAnswer | PerdureError | None) -> bool:
        if not isinstance(answer, ApprovalsAnswer):
            return item.key in self._shown
        wanted = self._wanted
        if wanted.older and item.since > datetime.now(UTC) - timedelta(seconds=wanted.older):
            return False
        return not (wanted.person and item.request) or may_approve(item.request, answer, wanted.person)

    # ── what is new ──────────────────────────────────────────────────────────────────────────────────────────────

    def _turned(self, silent: Mapping[str, PerdureError]) -> list[InboxChange]:
        """Threads that answer no more, and those that do again, or wait for nobody any more."""
        at = stamp(datetime.now(UTC))
        fallen = sorted(silent.keys() - self._silent.keys())
        back = sorted(self._silent.keys() - silent.keys())
        return [
            *(InboxChange(kind="silent", at=at, thread_id=name, error=str(silent[name])) for name in fallen),
            *(InboxChange(kind="answers", at=at, thread_id=name) for name in back),
        ]

    def _changes(self, now: Mapping[Key, OpenRequest], shown: set[Key], answers: Answers) -> list[InboxChange]:
        at = stamp(datetime.now(UTC))
        changes: list[InboxChange] = []
        for key in sorted(shown | self._shown, key=lambda key: (self._known.get(key) or now[key]).since):
            before, after = self._known.get(key), now.get(key)
            item = after or _closed(self._known[key], answers.get(key[0]))
            if kind := _kind(before, after, was_shown=key in self._shown, is_shown=key in shown):
                changes.append(InboxChange(kind=kind, at=at, thread_id=key[0], item=item))
        return changes


def _kind(
    before: OpenRequest | None, after: OpenRequest | None, *, was_shown: bool, is_shown: bool
) -> ChangeKind | None:  # fmt: skip
    """What became of something that was in the inbox, or is."""
    if after is None:
        return "closed"
    if before is not None and after.level > before.level:
        return "escalated"
    if not was_shown:
        return "opened"
    return "changed" if after != before or not is_shown else None


def may_approve(request: ApprovalRequest, answer: ApprovalsAnswer, person: str) -> bool:
    """Whether a person's yes would count now: an approver of its level, who hasn't decided, and whom no separation of
    duties keeps from it."""
    asked, duties = request.asked.approvers, request.policy.separation
    if (asked and person not in asked) or any(said.approver == person for said in request.decisions):
        return False
    if "requester" in duties and person in request.requesters:
        return False
    place = (request.branch, request.turn)
    others = [r for r in (*answer.open, *answer.closed) if (r.branch, r.turn) == place and r.id != request.id]
    return "steps" not in duties or not any(person in other.evidence().approved_by for other in others)


def _open(summary: "ThreadSummary", answer: ApprovalsAnswer) -> list[OpenRequest]:
    whose = OpenRequest(thread_id=summary.thread_id, agent=summary.agent, tenant=summary.tenant)
    return [
        *(whose.model_copy(update={"request": request}) for request in answer.open),
        *(whose.model_copy(update={"question": question}) for question in answer.questions),
    ]


def _closed(item: OpenRequest, answer: ApprovalsAnswer | PerdureError | None) -> OpenRequest:
    """As the thread remembers it, if it does."""
    remembered = answer.closed if isinstance(answer, ApprovalsAnswer) else ()
    ended = next((request for request in remembered if item.request and request.id == item.request.id), None)
    return item.model_copy(update={"request": ended}) if ended else item
