"""The approval book: which decisions count, and that the others change nothing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from perdure.approvals import (
    KEPT_CLOSED,
    KEPT_REFUSALS,
    ApprovalBook,
    ApprovalPolicy,
    ApprovalRequest,
    Edited,
    Level,
    Verdict,
    stamp,
)
from perdure.approvals.book import undecodable
from perdure.contracts import Carry, lean
from perdure.errors import DecisionRefused
from tests.book_model import Asked, Said
from tests.properties import thorough

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PEOPLE = ["ann", "bob", "cid", "dan", "eve"]
mostly = st.sampled_from([True, True, True, True, False])
seldom = mostly.map(lambda chosen: not chosen)
verdicts = st.sampled_from(["approve", "approve", "approve", "approve", "reject"])
edits = st.sampled_from(["", "", "", "e", "f", "x"])  # digests of other arguments; requests begin with x or y
requesters = st.lists(st.sampled_from(PEOPLE), max_size=1)
hows = st.sampled_from(["right", "right", "right", "wrong", "replayed", "unsigned"])
votes = st.tuples(verdicts, st.integers(0, 9), edits, hows)
policies = st.builds(
    ApprovalPolicy,
    approvers=st.sampled_from([(), ("ann", "bob"), ("ann", "bob", "cid"), ("ann", "bob", "cid")]),
    quorum=st.sampled_from([1, 2, 2]),
    expires=st.sampled_from([7200.0, 3600.0, 60.0, 0.001]),
    escalations=st.sampled_from(
        [
            (), (), (Level(approvers=("dan",), quorum=1, expires=60),),
            (Level(approvers=("dan", "ann"), quorum=2, expires=60), Level(approvers=("eve",), quorum=1, expires=3600)),
        ]
    ),
    silence=st.sampled_from(["expire", "expire", "reject"]),
    separation=st.sampled_from([(), (), ("requester",), ("steps",), ("requester", "steps")]),
    remember=st.booleans(),
    signed=st.booleans(),
)  # fmt: skip


def opened(book: ApprovalBook, policy: ApprovalPolicy | None = None, now: datetime = NOON) -> ApprovalRequest:
    """A request in the book."""
    return book.open(
        call_id="c", tool="pay", summary="pay()", arguments={"amount": 1}, digest="d" * 64,
        policy=policy or ApprovalPolicy(), now=now,
    )  # fmt: skip


class Deciding(RuleBasedStateMachine):
    """People decide, rightly and wrongly, edit, and fall silent, while time goes by and turns end."""

    def __init__(self) -> None:
        super().__init__()
        self.book = ApprovalBook()
        self.now = NOON
        self.turn, self.step = (0, 1), 0  # branch and number
        self.model: dict[str, Asked] = {}
        self.approved: dict[str, set[str]] = {}  # requests of the turn that each person said yes to
        self.of_turn: dict[str, tuple[int, int]] = {}
        self.signatures = ["s0"]

    def told(self, *kinds: str) -> None:
        """Exactly this was written for the audit."""
        written, self.book.told = self.book.told, []
        assert [kind for kind, _ in written] == list(kinds)

    @initialize(policy=policies, requesters=requesters)
    def begin(self, policy: ApprovalPolicy, requesters: list[str]) -> None:
        self.open(policy, "x", requesters)

    # ── what the workflow does ───────────────────────────────────────────────────────────────────────────────────

    @rule(policy=policies, digest=st.sampled_from("xy"), requesters=requesters)
    def open(self, policy: ApprovalPolicy, digest: str, requesters: list[str]) -> None:
        before = dict(self.book.requests)
        request = self.book.open(
            call_id="c", tool="pay", summary="pay()", arguments={"of": digest}, digest=digest, policy=policy,
            requesters=tuple(requesters), branch=self.turn[0], turn=self.turn[1], step=self.step, now=self.now,
        )  # fmt: skip
        assert request.id not in self.model
        kept = {name: before[name] for name in self.book.requests if name != request.id}
        assert self.book.requests == {**kept, request.id: request}
        assert all(r.outcome != "open" for name, r in before.items() if name not in kept)
        self.model[request.id] = Asked(
            name=request.id, policy=policy, digest=digest, requesters=set(requesters), step=self.step,
            opened_at=self.now, until=self.now + timedelta(seconds=policy.expires),
        )  # fmt: skip
        self.of_turn[request.id] = self.turn
        self.step += 1
        self.told("request.opened")

    @rule(really=seldom)
    def end_turn(self, really: bool) -> None:
        """What is open is withdrawn, and who approved what counts for nothing in the next turn."""
        if really:
            self.withdraw()
            self.turn, self.step, self.approved = (self.turn[0], self.turn[1] + 1), 0, {}

    @rule(really=seldom, step=st.integers(0, 3))
    def rewind(self, really: bool, step: int) -> None:
        """Back to a step of the turn: of what was approved in it, only what came before still keeps duties apart."""
        if really:
            self.withdraw()
            self.turn, self.step = (self.turn[0] + 1, self.turn[1]), min(step, self.step)
            self.book.go_back(turn=self.turn[1], branch=self.turn[0], step=self.step)
            before = {name for name, asked in self.model.items() if asked.step < self.step}
            self.approved = {who: names & before for who, names in self.approved.items()}

    def withdraw(self) -> None:
        """What is open waits no longer."""
        pending = [asked for asked in self.model.values() if asked.outcome == "open"]
        self.book.withdraw_all(self.now)
        for asked in pending:
            asked.outcome = "withdrawn"
        self.told(*["request.closed"] * len(pending))

    @rule(after=st.sampled_from([0.0, 0.001, 1.0, 59.999, 3600.0]))
    def wait(self, after: float) -> None:
        self.now += timedelta(seconds=after)

    @rule(early=st.booleans())
    def wait_for_expiry(self, early: bool) -> None:
        """To the very millisecond in which the next request's level ends, or to the one before."""
        moments = [request.expires_at for request in self.book.pending() if request.expires_at > self.now]
        if moments:
            self.now = max(self.now, min(moments) - timedelta(milliseconds=1 if early else 0))

    @rule()
    def silence(self) -> None:
        due = [self.model[request.id] for request in self.book.pending() if self.now >= request.expires_at]
        self.book.pass_time(self.now)
        self.told(*(kind for asked in due for kind in asked.silence(self.now)))

    @rule(digest=st.sampled_from("xy"))
    def remember(self, digest: str) -> None:
        """The same arguments in the same turn, where the policy says so."""
        found = self.book.remembered("pay", digest, turn=self.turn[1], branch=self.turn[0])
        fitting = [
            name for name, asked in self.model.items()
            if name in self.book.requests and self.of_turn[name] == self.turn
            and asked.policy.remember and (asked.outcome, asked.digest) == ("approved", digest)
        ]  # fmt: skip
        assert (found.id if found else None) == (fitting[0] if fitting else None)
        assert self.book.remembered("other", digest, turn=self.turn[1], branch=self.turn[0]) is None
        self.told(*(["request.remembered"] if fitting else []))

    # ── what people do ───────────────────────────────────────────────────────────────────────────────────────────

    @precondition(lambda self: self.book.pending())
    @rule(number=st.integers(0, 9), votes=st.lists(votes, min_size=1, max_size=6))
    def agree(self, number: int, votes: list[tuple[Verdict, int, str, str]]) -> None:
        """People decide on an open request, one after the other: rightly, if anybody can, or nearly so."""
        pending = self.book.pending()
        asked = self.model[pending[number % len(pending)].id]
        for verdict, person, edit, how in votes:
            self.signatures.append(f"s{len(self.signatures)}")
            used = min(asked.spent) if how == "replayed" and asked.spent else self.signatures[-1]
            those = [
                Said(
                    verdict=verdict, who=who, digest=asked.digest, signature="" if how == "unsigned" else used,
                    signed_at=self.now, edit=edit if verdict == "approve" else "",
                )
                for who in PEOPLE
            ]  # fmt: skip
            known = {said.who: asked.objections(said, self.now, self.elsewhere(asked)) for said in those}
            count = min(len(objections) for objections in known.values()) + (how == "wrong")
            fitting = [said for said in those if len(known[said.who]) == count] or those
            self.check(asked, fitting[person % len(fitting)])

    @precondition(lambda self: self.model)
    @rule(verdict=verdicts, data=st.data(), open=mostly, right=mostly, who=st.sampled_from(PEOPLE), edit=edits)
    def decide(self, verdict: Verdict, data: st.DataObject, open: bool, right: bool, who: str, edit: str) -> None:
        """Anybody decides anyhow, mostly on an open request and for its digest, else on any and for any."""
        names = [request.id for request in self.book.pending()] if open else []
        asked = self.model[data.draw(st.sampled_from(names or list(self.model)))]
        said = Said(verdict=verdict, who=who, digest=asked.digest if right else "z", edit=edit)
        self.sign(said, data, sorted(asked.spent))
        self.check(asked, said)

    def elsewhere(self, asked: Asked) -> set[str]:
        """Those who approved other requests of the turn."""
        return {who for who, names in self.approved.items() if names - {asked.name}}

    def sign(self, said: Said, data: st.DataObject, spent: list[str]) -> None:
        """Mostly with a signature of its own, mostly of now; or with none, or with one that was used."""
        self.signatures.append(f"s{len(self.signatures)}")
        said.signature = data.draw(st.sampled_from([self.signatures[-1]] * 3 + ["", *spent]))
        offset = data.draw(st.sampled_from([0.0] * 4 + [-3600.001, -3600.0, -300.001, -300.0, 300.0, 300.001]))
        said.signed_at = self.now + timedelta(seconds=offset) if data.draw(mostly) or offset else None

    def check(self, asked: Asked, said: Said) -> None:
        """It counts if the model has no objection; else it is refused for one of them, and nothing has changed."""
        payload = {
            "request_id": asked.name, "approver": said.who, "digest": said.digest, "signature": said.signature,
            "at": stamp(said.signed_at) if said.signed_at else "",
            "arguments": {"of": said.edit} if said.edit else None,
        }  # fmt: skip
        edited = Edited(arguments={"of": said.edit}, summary="pay(…)", digest=said.edit, key="k", given="g")
        before, refused = dict(self.book.requests), list(self.book.refused)
        known = asked.name in before
        objections = asked.objections(said, self.now, self.elsewhere(asked)) if known else {"unknown_request"}
        assert self.passes(said.verdict, payload) == (
            not objections or (objections == {"invalid_edit"} and said.verdict == "approve")
        )
        if objections:
            with pytest.raises(DecisionRefused) as refusal:
                self.book.decide(said.verdict, payload, self.now, edited if said.edit else None)
            assert refusal.value.code in objections
            assert self.book.requests == before
            assert self.book.refused[:-1] == [*refused][-KEPT_REFUSALS + 1 :]
            last = self.book.refused[-1]
            assert (last.verdict, last.code, last.why) == (said.verdict, refusal.value.code, refusal.value.message)
            self.told("decision.refused")
            return
        decided = self.book.decide(said.verdict, payload, self.now, edited if said.edit else None)
        assert self.book.requests == before | {asked.name: decided}
        assert self.book.refused == refused
        self.told(*asked.count(said))
        if said.verdict == "approve" and said.who in asked.yes:
            self.approved.setdefault(said.who, set()).add(asked.name)

    def passes(self, verdict: Verdict, payload: dict[str, Any]) -> bool:
        """Whether the first look lets the decision through; it changes nothing."""
        before = self.book.model_copy(deep=True)
        try:
            self.book.checked(verdict, payload, self.now)
        except DecisionRefused:
            return False
        finally:
            assert self.book == before
        return True

    # ── what always holds ────────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def survives_the_journey(self) -> None:
        """What a thread carries into its next run is the whole book."""
        assert Carry.model_validate_json(lean(Carry(book=self.book)).json()).book == self.book

    @invariant()
    def is_as_the_model_says(self) -> None:
        """Those that are still kept; and of those that are not, none is open."""
        for name, asked in self.model.items():
            request = self.book.requests.get(name)
            if request is None:
                assert asked.outcome != "open"
                continue
            yes = [decision.approver for decision in request.decisions if decision.verdict == "approve"]
            assert (request.outcome, request.digest, yes) == (asked.outcome, asked.digest, asked.yes)
            assert (request.level, request.expires_at) == (asked.level, asked.until)
            assert (set(request.requesters), set(request.spent)) == (asked.requesters, asked.spent)
            assert len(request.edits) == asked.edits
            assert (request.outcome == "open") == (request.closed_at == "")

    @invariant()
    def nothing_is_approved_without_its_evidence(self) -> None:
        """Distinct people, as many as are asked for, each of whom may decide and said yes to exactly this digest."""
        for request in self.book.requests.values():
            if request.outcome == "approved":
                evidence, asked = request.evidence(), self.model[request.id]
                assert len(set(evidence.approved_by)) == len(evidence.approved_by) >= asked.quorum()
                assert {decision.digest for decision in evidence.decisions} == {evidence.digest} == {request.digest}
                assert not asked.people() or set(evidence.approved_by) <= asked.people()


def test_decisions_count_by_the_rules() -> None:
    """In any order of openings, decisions, edits, silence and waiting, with policies of any kind.

    A decision counts once per approver, only on an open request, only for the digest that is pending, only before its
    level ends, only of who may decide, and with a signature only once and only while it is fresh; what doesn't count
    changes nothing and is kept with its reason. Everything is told to the audit, once.
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
    book.refuse("reject", b"\0" * 1_000, undecodable("not JSON" * 1_000), NOON)
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
    for silence in ("expire", "expire", "expire", "reject", "reject", "expire", "expire"):
        opened(book, ApprovalPolicy(quorum=2, expires=60, silence=silence))
    said = {"digest": "d" * 64, "reason": "too much"}
    book.decide("approve", said | {"request_id": "a1", "approver": "ann"}, NOON)
    book.decide("approve", said | {"request_id": "a1", "approver": "bob"}, NOON)
    book.decide("reject", said | {"request_id": "a2", "approver": "ann"}, NOON)
    book.silence("a3", NOON)
    for name in ("a4", "a6"):
        book.decide("approve", said | {"request_id": name, "approver": "ann"}, NOON)
    for name in ("a4", "a5", "a6"):
        book.silence(name, NOON)
    book.withdraw_all(NOON)
    book.silence("a1", NOON)
    assert [request.verdict_line() for request in book.requests.values()] == [
        "approved by ann, bob",
        "rejected by ann: too much",
        "the approval expired at 2026-01-01 12:01 UTC without a decision",
        "rejected, since only 1 of 2 had approved by 2026-01-01 12:01 UTC",
        "rejected, since nobody had approved by 2026-01-01 12:01 UTC",
        "the approval expired at 2026-01-01 12:01 UTC with 1 of 2",
        "the turn was stopped before a decision",
    ]
