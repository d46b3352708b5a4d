"""The approval book: which decisions count, and that the others change nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from perdure.approvals import KEPT_CLOSED, KEPT_REFUSALS, ApprovalBook, ApprovalPolicy, ApprovalRequest, Verdict
from perdure.contracts import Carry, lean
from perdure.errors import DecisionRefused
from tests.properties import thorough

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
mostly = st.sampled_from([True, True, True, True, False])
policies = st.builds(
    ApprovalPolicy,
    approvers=st.sampled_from([(), ("ann", "bob"), ("ann", "bob", "cid")]),
    quorum=st.sampled_from([1, 2, 2]),
    expires=st.sampled_from([0.001, 60.0, 3600.0]),
)


def opened(book: ApprovalBook, policy: ApprovalPolicy | None = None, now: datetime = NOON) -> ApprovalRequest:
    """A request in the book."""
    return book.open(
        call_id="c", tool="pay", summary="pay()", arguments={"amount": 1}, digest="d" * 64,
        policy=policy or ApprovalPolicy(), requester="clerk", now=now,
    )  # fmt: skip


class Deciding(RuleBasedStateMachine):
    """People decide, rightly and wrongly, while time goes by; requests expire or are withdrawn."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.book = ApprovalBook()
        self.now = NOON
        self.refusals = 0

    @rule(target=ids, policy=policies, digest=st.sampled_from("xy"))
    def open(self, policy: ApprovalPolicy, digest: str) -> Any:
        before = dict(self.book.requests)
        request = self.book.open(
            call_id="c", tool="pay", summary="pay()", arguments={}, digest=digest, policy=policy, requester="clerk",
            now=self.now,
        )  # fmt: skip
        assert request.id not in before
        assert request.expires_at == self.now + timedelta(seconds=policy.expires)
        kept = {name: before[name] for name in self.book.requests if name != request.id}
        assert self.book.requests == {**kept, request.id: request}
        forgotten = [r for name, r in before.items() if name not in kept]
        assert all(r.outcome != "open" for r in forgotten)
        return multiple(request.id)

    @rule(after=st.sampled_from([0.0, 0.001, 59.999, 60.0, 3600.0]))
    def wait(self, after: float) -> None:
        self.now += timedelta(seconds=after)

    @rule(early=st.booleans())
    def wait_for_expiry(self, early: bool) -> None:
        """To the very millisecond in which the next request expires, or to the one before."""
        moments = [request.expires_at for request in self.book.pending() if request.expires_at > self.now]
        if moments:
            self.now = max(self.now, min(moments) - timedelta(milliseconds=1 if early else 0))

    @rule()
    def expire(self) -> None:
        for request in self.book.pending():
            if self.now >= request.expires_at:
                self.book.expire(request.id, self.now)
                assert self.book.requests[request.id].outcome == "expired"
                assert self.book.requests[request.id].decisions == request.decisions

    @rule()
    def withdraw(self) -> None:
        self.book.withdraw_all(self.now)
        assert self.book.pending() == []

    @rule(
        verdict=st.sampled_from(["approve", "approve", "reject"]), name=ids | st.just("a99"), open=mostly, right=mostly,
        approver=st.sampled_from(["ann", "ann", "bob", "cid", "eve"]), reason=st.sampled_from(["", "because"]),
    )  # fmt: skip
    def decide(self, verdict: Verdict, name: str, open: bool, right: bool, approver: str, reason: str) -> None:
        """Mostly on an open request and for its digest, else on any and for any."""
        name = self.book.pending()[0].id if open and self.book.pending() else name
        request = self.book.requests.get(name)
        digest = request.digest if request and right else "z"
        said = {"request_id": name, "approver": approver, "digest": digest, "reason": reason}
        before, refused = dict(self.book.requests), list(self.book.refused)
        objections = self.objections(request, approver, digest)
        assert self.checks(said) == (not objections)
        if request is None or objections:
            with pytest.raises(DecisionRefused) as refusal:
                self.book.decide(verdict, said, self.now)
            assert refusal.value.code in objections
            assert self.book.requests == before
            assert self.book.refused[:-1] == [*refused][-KEPT_REFUSALS + 1 :]
            last = self.book.refused[-1]
            assert (last.verdict, last.code, last.why) == (verdict, refusal.value.code, refusal.value.message)
            assert approver in last.said
            return
        decided = self.book.decide(verdict, said, self.now)
        assert self.book.requests == before | {name: decided}
        assert self.book.refused == refused
        assert decided.decisions[:-1] == request.decisions
        assert (decided.decisions[-1].verdict, decided.decisions[-1].approver) == (verdict, approver)
        yes = {decision.approver for decision in decided.decisions if decision.verdict == "approve"}
        reached = "approved" if len(yes) >= request.policy.quorum else "open"
        assert decided.outcome == ("rejected" if verdict == "reject" else reached)

    def objections(self, request: ApprovalRequest | None, approver: str, digest: str) -> set[str]:
        """Every reason why the decision may not count; it is refused for one of them."""
        if request is None:
            return {"unknown_request"}
        reasons = {
            "expired": request.outcome == "expired" or (request.outcome == "open" and self.now >= request.expires_at),
            "closed": request.outcome in ("approved", "rejected", "withdrawn"),
            "wrong_digest": digest != request.digest,
            "not_an_approver": bool(request.policy.approvers) and approver not in request.policy.approvers,
            "repeated": approver in {decision.approver for decision in request.decisions},
        }
        return {reason for reason, holds in reasons.items() if holds}

    def checks(self, said: dict[str, str]) -> bool:
        """Whether ``check`` lets the decision through; it changes nothing."""
        before = self.book.model_copy(deep=True)
        try:
            self.book.check(said, self.now)
        except DecisionRefused:
            return False
        finally:
            assert self.book == before
        return True

    @invariant()
    def survives_the_journey(self) -> None:
        """What a thread carries into its next run is the whole book."""
        assert Carry.model_validate(lean(Carry(book=self.book))).book == self.book

    @invariant()
    def no_outcome_without_its_reason(self) -> None:
        for request in self.book.requests.values():
            votes = [decision.verdict for decision in request.decisions]
            people = [decision.approver for decision in request.decisions]
            assert len(people) == len(set(people))
            assert ("reject" in votes) == (request.outcome == "rejected")
            assert (votes.count("approve") >= request.policy.quorum) == (request.outcome == "approved")
            assert (request.outcome == "open") == (request.closed_at == "")


def test_decisions_count_by_the_rules() -> None:
    """In any order of openings, decisions and waiting, with approvers, quorums, digests and expiries of any kind.

    A decision counts once per approver, only on an open request, only for the digest that is pending, only before the
    moment of expiry; what doesn't count changes nothing and is kept with its reason.
    """
    run_state_machine_as_test(Deciding, settings=thorough)


@pytest.mark.parametrize(
    "said",
    [
        None, True, "yes", 7, [], {}, {"request_id": "a1"},
        {"request_id": "a1", "approver": "ann", "digest": "d" * 64, "approved": True},
        {"request_id": "a1", "approver": "", "digest": "d" * 64},
        {"request_id": ["a1"], "approver": "ann", "digest": "d" * 64},
        {"request_id": "a1", "approver": "ann", "digest": "d" * 64, "reason": "x" * 1_000_000},
        {"request_id": "a" * 1_000_000, "approver": "ann", "digest": "d" * 64},
    ],
)  # fmt: skip
def test_what_is_no_decision_is_refused(said: Any) -> None:
    """A bare yes, a nameless one, a misspelt field, an essay: malformed, kept in short, and the request stays open."""
    book = ApprovalBook()
    request = opened(book)
    with pytest.raises(DecisionRefused) as refusal:
        book.decide("approve", said, NOON)
    assert refusal.value.code == "malformed"
    assert book.requests == {"a1": request}
    assert [(kept.code, len(kept.why) <= 501, len(kept.said) <= 501) for kept in book.refused] == [
        ("malformed", True, True)
    ]


def test_a_flood_of_refusals_is_bounded() -> None:
    """The newest are kept, each at most about a kilobyte, however long the lists of names in their reasons are."""
    book = ApprovalBook()
    opened(book, ApprovalPolicy(approvers=tuple(f"approver-{number}" for number in range(500))))
    for number in range(3 * KEPT_REFUSALS):
        with pytest.raises(DecisionRefused):
            said = {"request_id": "a1", "approver": f"eve-{number}", "digest": "d" * 64, "reason": "x" * 4_000}
            book.decide("approve", said, NOON)
    book.refuse_undecodable("reject", "not JSON" * 1_000, b"\0" * 1_000, NOON)
    assert len(book.refused) == KEPT_REFUSALS
    assert book.refused[-1].code == "undecodable"
    assert f"eve-{3 * KEPT_REFUSALS - 1}" in book.refused[-2].said
    assert all(len(kept.model_dump_json()) < 1_500 for kept in book.refused)


def test_closed_requests_make_room_when_one_is_opened() -> None:
    """Whoever waits for one of many requests that are decided at once still finds its outcome."""
    book = ApprovalBook()
    names = [opened(book).id for _ in range(2 * KEPT_CLOSED)]
    for name in reversed(names):
        book.decide("approve", {"request_id": name, "approver": "ann", "digest": "d" * 64}, NOON)
    assert {book.requests[name].outcome for name in names} == {"approved"}
    fresh = opened(book)
    assert list(book.requests) == [*names[-KEPT_CLOSED:], fresh.id]


def test_how_it_ended_is_said() -> None:
    """One line for people and for the model, for each outcome."""
    book = ApprovalBook()
    for _ in range(4):
        opened(book, ApprovalPolicy(quorum=2, expires=60))
    said = {"digest": "d" * 64, "reason": "too much"}
    book.decide("approve", said | {"request_id": "a1", "approver": "ann"}, NOON)
    book.decide("approve", said | {"request_id": "a1", "approver": "bob"}, NOON)
    book.decide("reject", said | {"request_id": "a2", "approver": "ann"}, NOON)
    book.expire("a3", NOON)
    book.withdraw_all(NOON)
    book.expire("a1", NOON)
    assert [request.verdict_line() for request in book.requests.values()] == [
        "approved by ann, bob",
        "rejected by ann: too much",
        "the approval expired at 2026-01-01 12:01 UTC without a decision",
        "the turn was stopped before a decision",
    ]
