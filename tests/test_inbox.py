"""The inbox: what it says who may decide is what the book of approvals says, and its changes tell the whole story."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from perdure.approvals import ApprovalBook, ApprovalPolicy, ApprovalRequest, Duty, Edited, Level
from perdure.contracts import ApprovalsAnswer
from perdure.errors import DecisionRefused, PerdureError, TemporalUnreachable
from perdure.questions import Question
from perdure.starters.client import Client
from perdure.starters.inbox import Inbox, Look, OpenRequest, Wanted, may_approve
from perdure.starters.threads import ThreadSummary

PEOPLE = ("ann", "bob", "carl", "zoe")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
people = st.sampled_from(PEOPLE)
groups = st.lists(people, unique=True, max_size=3).map(tuple)


# ── who may decide ───────────────────────────────────────────────────────────────────────────────────────────────


def answer_of(book: ApprovalBook) -> ApprovalsAnswer:
    """As the query answers it."""
    closed = tuple(request for request in book.requests.values() if request.outcome != "open")
    return ApprovalsAnswer(open=tuple(book.pending()), closed=closed)


def may(book: ApprovalBook, request: ApprovalRequest, person: str) -> bool:
    """What the book itself says."""
    said = {"request_id": request.id, "approver": person, "digest": request.digest}
    try:
        book.checked("approve", said, NOW)
    except DecisionRefused:
        return False
    return True


@st.composite
def books(draw: st.DrawFn) -> ApprovalBook:
    """A book of two turns, in which people have decided, edited and been waited for."""
    book, apart = ApprovalBook(), draw(st.sampled_from([(), ("requester",), ("steps",)]))
    for turn in (1, 2):
        book.withdraw_all(NOW)
        for number in range(draw(st.integers(1, 3))):
            policy = ApprovalPolicy(
                approvers=draw(groups), quorum=draw(st.integers(1, 3)), separation=cast(tuple[Duty, ...], apart),
                escalations=(Level(approvers=draw(groups), quorum=2),),
            )  # fmt: skip
            book.open(
                call_id=f"c{number}", tool="pay", summary="pay", arguments={"n": number}, digest=f"d{number}",
                policy=policy, now=NOW, requesters=draw(groups) or ("agent",), turn=turn,
            )  # fmt: skip
        for step in range(draw(st.integers(0, 5))):
            act(book, draw(st.sampled_from(list(book.requests))), draw(people), draw(st.sampled_from(ACTS)), step)
    return book


ACTS = ("approve", "reject", "edit", "silence")


def act(book: ApprovalBook, name: str, person: str, what: str, step: int) -> None:
    """One thing that happens to a request. Whom an edit took the yes from is not told, so duties by step have none."""
    request = book.requests[name]
    if what == "silence":
        book.silence(name, NOW)
        return
    if what == "edit" and "steps" in request.policy.separation:
        return
    edited = Edited(arguments={"n": -step}, summary="pay", digest=f"e{step}", key="", given="g")
    said = {"request_id": name, "approver": person, "digest": request.digest}
    try:
        book.decide("reject" if what == "reject" else "approve", said, NOW, edited if what == "edit" else None)
    except DecisionRefused:
        return


@given(books())
def test_who_may_approve(book: ApprovalBook) -> None:
    """Whoever the inbox shows a request to is heard by the book, and nobody else would be."""
    answer = answer_of(book)
    for request in answer.open:
        told = {person for person in PEOPLE if may_approve(request, answer, person)}
        assert told == {person for person in PEOPLE if may(book, request, person)}


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Town:
    """Threads that wait; in place of a client. Some don't answer."""

    def __init__(self) -> None:
        self.answers: dict[str, ApprovalsAnswer | PerdureError] = {}
        self.asked: list[str] = []

    async def threads(self, **_: Any) -> list[ThreadSummary]:
        """Those that wait, or don't answer."""
        waiting = [n for n, a in self.answers.items() if isinstance(a, PerdureError) or a.open or a.questions]
        return [
            ThreadSummary(thread_id=n, agent="a", status="", open=True, step=0, pending=1, started_at=NOW)
            for n in waiting
        ]  # fmt: skip

    async def approvals(self, thread_id: str, **_: Any) -> ApprovalsAnswer:
        """What one of them says."""
        self.asked.append(thread_id)
        answer = self.answers[thread_id]
        if isinstance(answer, PerdureError):
            raise answer
        return answer


def request(name: str, level: int, approvals: int) -> ApprovalRequest:
    """A request of which only these things change."""
    decisions = [{"verdict": "approve", "approver": f"p{n}", "at": ""} for n in range(approvals)]
    return ApprovalRequest.model_validate(
        {
            "id": name, "call_id": name, "tool": "pay", "summary": "pay", "arguments": {}, "digest": "d", "policy": {
                "escalations": [{"approvers": ["x"]}] * 3}, "level": level, "opened_at": NOW,
            "expires_at": NOW + timedelta(days=1), "decisions": decisions,
        }
    )  # fmt: skip


def answer(requests: dict[str, tuple[int, int]], questions: Sequence[str]) -> ApprovalsAnswer:
    """Open requests by level and approvals, and open questions."""
    return ApprovalsAnswer(
        open=tuple(request(name, *stand) for name, stand in requests.items()),
        questions=tuple(Question(id=name, text="?", asked_at=NOW.isoformat()) for name in questions),
    )


stands = st.tuples(st.integers(0, 2), st.integers(0, 2))
answers = st.builds(answer, st.dictionaries(st.sampled_from(["a1", "a2"]), stands), st.lists(st.just("q1"), max_size=1))
silence = st.builds(lambda: TemporalUnreachable("It doesn't answer."))
rounds = st.lists(st.fixed_dictionaries({"t1": answers | silence, "t2": answers | silence}), max_size=6)


@given(rounds)
async def test_changes_lead_from_look_to_look(given_rounds: list[dict[str, ApprovalsAnswer | PerdureError]]) -> None:
    """Whoever only follows the changes knows the inbox as well as whoever looks; nothing new, no change; and a thread
    is asked at most once a look."""
    town = Town()
    inbox, known, silent = Inbox(cast(Client, town), Wanted()), dict[Any, OpenRequest](), set[str]()
    for now in given_rounds:
        town.answers, town.asked = now, []
        look = await inbox.look()
        assert len(town.asked) == len(set(town.asked))
        follow(known, silent, look)
        assert known == {item.key: item for item in look.items}
        assert silent == look.silent.keys() == {n for n, a in now.items() if isinstance(a, PerdureError)}
        assert (await inbox.look()).changes == ()


def follow(known: dict[Any, OpenRequest], silent: set[str], look: Look) -> None:
    """Take in what is told as new; each kind only where it can be."""
    for change in look.changes:
        if change.item is None:
            (silent.add if change.kind == "silent" else silent.remove)(change.thread_id)
        elif change.kind == "closed":
            del known[change.item.key]
        else:
            before = known.get(change.item.key)
            assert (before is None) == (change.kind == "opened")
            assert change.kind != "escalated" or before is None or before.level < change.item.level
            known[change.item.key] = change.item
