"""Approvals: who may let a call run, what happens to a decision that doesn't count, and to silence."""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import RawValue

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest, Verdict
from perdure.audit import AuditEntry
from perdure.canonical import canonical
from perdure.contracts import MAX_MESSAGE, StatusAnswer
from perdure.effects import arguments_digest
from perdure.errors import AmbiguousRequest, Conflict, DecisionRefused, InvalidInput, PerdureError, RequestNotFound
from perdure.testing import Rule, call, say, together
from tests.conftest import MakeWorld
from tests.witness import Listener, Witness
from tests.world import World, eventually

witness = Witness()
DAY = timedelta(hours=24)


@tool(
    effect="idempotent",
    approval=Approval(when=lambda args: args.amount > 100, approvers=["ann", "bob"], reason="It is above 100."),
)
async def pay(ctx: ToolContext, to: str, amount: float) -> str:
    """Pay somebody."""
    witness.saw(ctx, f"paid {amount:g} to {to}, approved by {list(ctx.approved_by)}")
    return f"paid {to}"


@tool(effect="idempotent", approval=Approval(approvers=["ann", "bob", "cid"], quorum=2))
async def publish(ctx: ToolContext, title: str) -> str:
    """Publish something; two people must agree."""
    witness.saw(ctx, f"published {title}, approved by {list(ctx.approved_by)}")
    return "published"


@tool(effect="idempotent", approval=Approval(when=lambda args: args.missing > 1))
async def guess(ctx: ToolContext, what: str) -> str:
    """Its condition looks at an argument that isn't there."""
    witness.saw(ctx, f"guessed {what}")
    return "guessed"


app = App(agents=[Agent(name="clerk", model="m", tools=[pay, publish, guess])])


def script() -> Listener:
    """What the model says in these tests."""
    pay_three = together(*(call("pay", to=who, amount=200) for who in ("x", "y", "z")))
    pay_many = together(*(call("pay", to=f"p{number}", amount=200) for number in range(25)))
    return Listener(
        rules=[
            Rule(when="pay 250", replies=[call("pay", to="x", amount=250), say("Paid.")]),
            Rule(when="pay 50", replies=[call("pay", to="x", amount=50), say("Paid.")]),
            Rule(when="pay three", replies=[pay_three, say("All settled.")]),
            Rule(when="pay many", replies=[pay_many, say("Done.")]),
            Rule(when="publish", replies=[call("publish", title="News"), say("Out.")]),
            Rule(when="guess", replies=[call("guess", what="7"), say("Guessed.")]),
        ]
    )  # fmt: skip


async def asked(world: World, message: str, count: int = 1) -> tuple[str, str]:
    """Start a thread and wait until it asks for so many approvals; the ids of thread and message."""
    thread, message_id = await world.begin("clerk", message)
    await world.opened(thread, count)
    return thread, message_id


def decision(request: ApprovalRequest, approver: str) -> dict[str, Any]:
    """A decision as the Temporal UI shows how to send it."""
    return {"request_id": request.id, "approver": approver, "digest": request.digest, "reason": ""}


# ── decisions that count ─────────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_waits_for_a_person_who_approves_by_signal(make_world: MakeWorld) -> None:
    """Nothing runs before the signal; after it the tool runs once and knows who approved."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "pay 250")
        waiting = await world.client.wait(thread, message_id)
        assert isinstance(waiting, StatusAnswer)
        assert waiting.status == "awaiting_approval"
        assert [word in waiting.waiting_for[0] for word in ("a1", 'pay(to="x", amount=250.0)', "ann")] == [True] * 3
        assert witness.of(thread) == []
        request = await world.client.request(thread)
        assert (request.arguments, request.policy.reason) == ({"to": "x", "amount": 250.0}, "It is above 100.")
        await world.client.signal_decision(thread, "approve", request, approver="ann", reason="fine")
        assert (await world.ended(thread, message_id)).answer == "Paid."
        assert witness.of(thread) == ["paid 250 to x, approved by ['ann']"]
        (closed,) = (await world.client.approvals(thread)).closed
        assert closed.outcome == "approved"
        assert [(d.verdict, d.approver, d.reason) for d in closed.decisions] == [("approve", "ann", "fine")]


async def test_an_update_tells_at_once_that_a_decision_counts(make_world: MakeWorld) -> None:
    """The acknowledged form answers with the request as it stands now."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "pay 250")
        answer = await world.client.decide(thread, "approve", await world.client.request(thread), approver="bob")
        assert (answer.open, [request.outcome for request in answer.closed]) == ((), ["approved"])
        assert (await world.ended(thread, message_id)).outcome == "answered"
        assert witness.of(thread) == ["paid 250 to x, approved by ['bob']"]


async def test_a_rejection_reaches_the_model_with_its_reason(make_world: MakeWorld) -> None:
    """A rejected call becomes a tool message, and the agent goes on."""
    said = script()
    async with make_world(app, said) as world:
        thread, message_id = await asked(world, "pay 250")
        request = await world.client.request(thread)
        await world.client.signal_decision(thread, "reject", request, approver="ann", reason="too dear")
        assert (await world.ended(thread, message_id)).answer == "Paid."
        assert said.told()[-1] == ("tool", "The call was not made: rejected by ann: too dear.")
        assert witness.of(thread) == []


async def test_a_condition_decides_by_the_arguments(make_world: MakeWorld) -> None:
    """Below the limit nobody is asked; where the condition itself fails somebody is, and is told why."""
    async with make_world(app, script()) as world:
        thread, message_id = await world.begin("clerk", "pay 50")
        assert (await world.ended(thread, message_id)).outcome == "answered"
        assert witness.of(thread) == ["paid 50 to x, approved by []"]
        thread, _ = await asked(world, "guess")
        assert "the approval condition failed" in (await world.client.request(thread)).policy.reason
        assert witness.of(thread) == []


async def test_a_quorum_takes_as_many_people(make_world: MakeWorld) -> None:
    """One of two leaves the request open; the second person's yes lets the call run. One no ends it."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "publish")
        request = await world.client.request(thread)
        answer = await world.client.decide(thread, "approve", request, approver="ann")
        assert [r.approvals() for r in answer.open] == [1]
        assert witness.of(thread) == []
        await world.client.decide(thread, "approve", request, approver="cid")
        await world.ended(thread, message_id)
        assert witness.of(thread) == ["published News, approved by ['ann', 'cid']"]

        thread, message_id = await asked(world, "publish")
        request = await world.client.request(thread)
        await world.client.decide(thread, "approve", request, approver="ann")
        await world.client.decide(thread, "reject", request, approver="bob", reason="not yet")
        await world.ended(thread, message_id)
        assert witness.of(thread) == []
        assert [r.outcome for r in (await world.client.approvals(thread)).closed] == ["rejected"]


async def test_silence_expires_and_is_nobody_s_decision(make_world: MakeWorld) -> None:
    """After 24 hours the request has an outcome of its own; the model reads that nobody decided."""
    said = script()
    async with make_world(app, said) as world:
        thread, message_id = await asked(world, "pay 250")
        request = await world.client.request(thread)
        assert request.expires_at - request.opened_at == DAY
        await world.forward(thread, DAY - timedelta(minutes=1))
        assert [r.outcome for r in (await world.client.approvals(thread)).open] == ["open"]
        await world.forward(thread, timedelta(minutes=1))
        assert (await world.ended(thread, message_id)).outcome == "answered"
        (closed,) = (await world.client.approvals(thread)).closed
        assert (closed.outcome, closed.decisions) == ("expired", ())
        assert "expired" in said.told()[-1][1]
        assert witness.of(thread) == []


async def test_open_requests_wait_side_by_side(make_world: MakeWorld) -> None:
    """Three calls of one answer: each has its own request and its own end; the model reads them in its own order."""
    said = script()
    async with make_world(app, said) as world:
        thread, message_id = await asked(world, "pay three", 3)
        first, second, third = (await world.client.approvals(thread)).open
        with pytest.raises(AmbiguousRequest, match=r"a1.*a2.*a3"):
            await world.client.request(thread)
        with pytest.raises(RequestNotFound, match="a9"):
            await world.client.request(thread, "a9")
        await world.client.decide(thread, "approve", third, approver="ann")
        await world.client.decide(thread, "reject", first, approver="bob", reason="no")
        assert await world.client.request(thread) == second
        await eventually(lambda: _deeds(thread), lambda deeds: len(deeds) == 1)  # an approved call waits for nobody
        await world.forward(thread, DAY)
        await world.ended(thread, message_id)
        assert [r.outcome for r in (await world.client.approvals(thread)).closed] == ["rejected", "expired", "approved"]
        assert witness.of(thread) == ["paid 200 to z, approved by ['ann']"]
        texts = [text for role, text in said.told() if role == "tool"]
        assert texts[0] == "The call was not made: rejected by bob: no."
        assert "expired" in texts[1]
        assert texts[2] == "paid z"


async def _deeds(thread: str) -> list[str]:
    return witness.of(thread)


async def test_an_approval_is_for_one_call(make_world: MakeWorld) -> None:
    """The same call in the next turn has to be approved anew, also with a decision that still looks right."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "pay 250")
        first = await world.client.request(thread)
        await world.client.decide(thread, "approve", first, approver="ann")
        await world.ended(thread, message_id)
        await world.client.send(thread, "pay 250")
        await world.opened(thread)
        with pytest.raises(DecisionRefused, match="a1 is closed"):
            await world.client.decide(thread, "approve", first, approver="ann")
        second = await world.client.request(thread)
        assert (second.id, second.digest) == ("a2", first.digest)
        assert len(witness.of(thread)) == 1


async def test_decisions_made_while_no_worker_runs_all_count(make_world: MakeWorld) -> None:
    """Twenty-five signals that are delivered at once decide twenty-five requests."""
    async with make_world(app, script(), serve=False) as world:
        async with world.worker():
            thread, message_id = await asked(world, "pay many", 25)
            requests = (await world.client.approvals(thread)).open
        for request in requests:
            await world.client.signal_decision(thread, "approve", request, approver="ann")
        async with world.worker():
            await world.ended(thread, message_id)
            assert len(witness.of(thread)) == 25


# ── decisions that don't count ───────────────────────────────────────────────────────────────────────────────────


def encoded(data: bytes, encoding: str) -> RawValue:
    """A payload as another program might send it."""
    return RawValue(Payload(metadata={"encoding": encoding.encode()}, data=data))


REFUSED: dict[str, tuple[str, str, Any]] = {
    "an unknown request": ("unknown_request", "no request 'a7'; open: a1", {"request_id": "a7"}),
    "another digest": ("wrong_digest", "the decision names 000000000000", {"digest": "0" * 64}),
    "no approver": ("not_an_approver", "eve may not decide; approvers: ann, bob, cid", {"approver": "eve"}),
    "the same person twice": ("repeated", "ann has already decided", {}),
    "an unknown field": ("malformed", "verdikt: Extra inputs", {"verdikt": "yes"}),
    "no digest at all": ("malformed", "digest: Input should be a valid string", {"digest": None}),
    "a long reason": ("malformed", "reason: String should have at most", {"reason": "x" * 1_500_000}),
    "a long request id": ("malformed", "request_id: String should have at most", {"request_id": "x" * 1_500_000}),
    "a long approver": ("malformed", "approver: String should have at most", {"approver": "x" * 1_500_000}),
    "an empty object": ("malformed", "request_id: Field required", [{}]),
    "a list": ("malformed", "payload: Input should be", [["a1", "ann"]]),
    "a text": ("malformed", "payload: Input should be", ["approve a1"]),
    "a number": ("malformed", "payload: Input should be", [7]),
    "null": ("malformed", "payload: Input should be", [None]),
    "nothing": ("undecodable", "one value is expected, not 0", []),
    "two values": ("undecodable", "one value is expected, not 2", [{}, {}]),
    "raw bytes": ("malformed", "payload: Input should be", [encoded(b"\x00\xff", "binary/plain")]),
    "broken JSON": ("undecodable", "not JSON: b'{\"request_id\"", [encoded(b'{"request_id"', "json/plain")]),
    "half a character": ("undecodable", "not JSON", [encoded(b'"\\ud800"', "json/plain")]),
    "another encoding": ("undecodable", "not JSON", [encoded(b"\x12\x34", "binary/encrypted")]),
    "no encoding": ("undecodable", "not JSON", [RawValue(Payload(data=b"{}"))]),
}  # fmt: skip


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_a_decision_that_does_not_count_changes_nothing(make_world: MakeWorld, verdict: str) -> None:
    """Whatever a signal brings: the request stays as it is, the tool doesn't run, and `approvals` says why."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "publish")
        handle, request = world.handle(thread), await world.client.request(thread)
        await handle.signal("approve", decision(request, "ann"))
        before = (await world.opened(thread)).open
        for case, (code, why, sent) in REFUSED.items():
            args = [decision(request, "ann") | sent] if isinstance(sent, dict) else sent
            await handle.signal(verdict, args=args)
            answer = await world.client.approvals(thread)
            refusal = answer.refused_decisions[-1]
            assert (refusal.verdict, refusal.code) == (verdict, code), f"{case}: {refusal}"
            assert why in refusal.why, f"{case}: {refusal}"
            assert len(refusal.model_dump_json()) < 2000, case
            assert answer.open == before, case
        assert len((await world.client.approvals(thread)).refused_decisions) == len(REFUSED)
        assert witness.of(thread) == []
        await handle.signal("approve", decision(request, "bob"))
        await world.ended(thread, message_id)
        assert witness.of(thread) == ["published News, approved by ['ann', 'bob']"]


async def test_a_decision_after_the_end_is_kept_but_not_applied(make_world: MakeWorld) -> None:
    """After the expiry, and after the decision: the refusal names which."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "pay 250")
        request = await world.client.request(thread)
        await world.forward(thread, DAY)
        await world.ended(thread, message_id)
        await world.handle(thread).signal("approve", decision(request, "ann"))
        (late,) = (await world.client.approvals(thread)).refused_decisions
        assert (late.code, "Request a1 is closed: the approval expired" in late.why) == ("expired", True)

        message_id = (await world.client.send(thread, "pay 250")).message_id
        await world.opened(thread)
        request = await world.client.request(thread)
        await world.handle(thread).signal("reject", decision(request, "ann"))
        await world.handle(thread).signal("approve", decision(request, "bob"))
        await world.ended(thread, message_id)
        assert [r.code for r in (await world.client.approvals(thread)).refused_decisions] == ["expired", "closed"]
        assert witness.of(thread) == []

        await world.completes(thread)
        with pytest.raises(DecisionRefused, match="has completed"):
            await world.client.decide(thread, "approve", request, approver="ann")
        with pytest.raises(Conflict, match="has completed"):
            await world.client.signal_decision(thread, "approve", request, approver="ann")


UNREADABLE: list[tuple[str, list[Any]]] = [
    ("decide", [{"verdict": "maybe", "decision": {}}]),
    ("decide", [{"verdict": "approve", "decision": "yes"}]),
    ("decide", ["yes"]),
    ("decide", []),
    ("decide", [encoded(b"{", "json/plain")]),
    ("send", [{"content": "an id is missing"}]),
    ("send", [encoded(b"\x00", "binary/plain")]),
    ("extend_budget", [{"steps": "many"}]),
    ("resolve_effect", []),
]


async def test_a_refused_update_leaves_no_event(make_world: MakeWorld) -> None:
    """`send`, `resolve_effect` and `extend_budget` that are refused, and any update that can't be read: their sender
    learns why, the history is as long as before, and nothing has changed."""
    async with make_world(app, script()) as world:
        thread, _ = await asked(world, "publish")
        client, request = world.client, await world.client.request(thread)
        await client.decide(thread, "approve", request, approver="ann")
        await _audited(world, thread, 2)
        before, events = await client.approvals(thread), await world.length(thread)
        refused: list[tuple[type[PerdureError], str, Any]] = [
            (InvalidInput, "empty", lambda: client.send(thread, "  ")),
            (InvalidInput, "more than", lambda: client.send(thread, "x" * (MAX_MESSAGE + 1))),
            (PerdureError, "no open effect", lambda: client.resolve(thread, "k", done=True, by="ann")),
            (InvalidInput, "more steps or more tokens", lambda: client.extend(thread)),
        ]
        for kind, why, ask in refused:
            with pytest.raises(kind, match=why):
                await ask()
        for name, args in UNREADABLE:
            with pytest.raises(WorkflowUpdateFailedError):
                await world.handle(thread).execute_update(name, args=args)
        assert await world.length(thread) == events
        assert await client.approvals(thread) == before
        assert witness.of(thread) == []


async def test_a_refused_decision_is_kept_however_it_came(make_world: MakeWorld) -> None:
    """By update its sender learns why at once. Nothing of the request has changed; the record and the audit keep it."""
    async with make_world(app, script()) as world:
        thread, _ = await asked(world, "publish")
        client, request = world.client, await world.client.request(thread)
        await client.decide(thread, "approve", request, approver="ann")
        before = await client.approvals(thread)
        lies = {"title": "Lies"}
        other = request.model_copy(update={"arguments": lies, "digest": arguments_digest("publish", canonical(lies))})
        cases: list[tuple[Verdict, ApprovalRequest, str, str]] = [
            ("approve", request, "ann", "repeated"),
            ("approve", request, "eve", "not_an_approver"),
            ("reject", other, "bob", "wrong_digest"),
        ]
        for verdict, shown, who, code in cases:
            with pytest.raises(DecisionRefused) as refused:
                await client.decide(thread, verdict, shown, approver=who)
            assert refused.value.code == code
            kept = (await client.approvals(thread)).refused_decisions[-1]
            assert (kept.verdict, kept.code, kept.why) == (verdict, code, refused.value.message)
        assert (await client.approvals(thread)).open == before.open
        lines = await _audited(world, thread, 5)
        assert [line.body["code"] for line in lines[2:]] == ["repeated", "not_an_approver", "wrong_digest"]
        assert witness.of(thread) == []


async def _audited(world: World, thread: str, count: int) -> list[AuditEntry]:
    """Wait until the audit has so many lines; they are written a moment after the answer."""
    rows = await eventually(lambda: world.store.audit(thread), lambda rows: len(rows) == count)
    return [row.entry for row in rows]


async def test_a_flood_of_junk_stays_bounded(make_world: MakeWorld) -> None:
    """A hundred refused decisions of 100 KB each: the newest fifty are kept, shortened, and the thread goes on."""
    async with make_world(app, script()) as world:
        thread, message_id = await asked(world, "pay 250")
        request = await world.client.request(thread)
        for number in range(100):
            junk = {"request_id": f"{number:02}" * 50_000, "approver": "ann", "digest": request.digest}
            await world.handle(thread).signal("approve", junk)
        answer = await world.client.approvals(thread)
        assert len(answer.refused_decisions) == 50
        assert len(answer.model_dump_json()) < 100_000
        await world.client.decide(thread, "approve", request, approver="ann")
        assert (await world.ended(thread, message_id)).outcome == "answered"
