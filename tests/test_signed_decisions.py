"""Decisions that only count signed: what a thread takes for a yes, and what is looked at once more before it acts.

Long: one claim a way to forge a decision.
"""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import Response
from temporalio.testing import ActivityEnvironment

from perdure import Agent, App, Approval, Escalation, ToolContext, tool
from perdure.activities.decisions import DecisionActivities, authority, check_evidence
from perdure.activities.effects import EffectActivities
from perdure.activities.nodes import NodeActivities
from perdure.activities.runtime import Runtime
from perdure.activities.tools import ToolActivities
from perdure.approvals import ApprovalRequest, CountedDecision, Decision, Evidence, Verdict, stamp
from perdure.canonical import Json, canonical
from perdure.contracts import CallTool, CheckDecision, CheckedDecision, Commit, Undo
from perdure.effects import arguments_digest, effect_key
from perdure.errors import ApprovalVoid, DecisionRefused, IntegrityError, TokenSpent, ToolGone
from perdure.security.signing import ApproverKeys, SigningKey, counted_statement, edit_digest, statement
from perdure.settings import Settings
from perdure.starters.decisions import decided
from perdure.stores import open_store
from perdure.stores.base import Store
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.properties import thorough
from tests.test_webhook import SECRET, Listening
from tests.witness import Witness
from tests.world import World, eventually

witness = Witness()
PEOPLE = ("ann", "bob", "cid", "eve")
KEYS = {name: SigningKey.new(name) for name in PEOPLE}
AT = "2026-01-01T12:00:00.000+00:00"


@tool(effect="idempotent", approval=Approval(approvers=["ann", "bob", "dan"]))
async def pay(ctx: ToolContext, to: str, amount: float) -> str:
    """Pay somebody."""
    witness.saw(ctx, f"paid {amount:g} to {to}, approved by {list(ctx.approved_by)}")
    return "paid"


@tool(
    effect="idempotent",
    approval=Approval(
        approvers=["ann", "bob", "cid"], quorum=2, expires="1h",
        escalations=[Escalation(approvers=["eve"], expires="1h", quorum=2)],
    ),
)  # fmt: skip
async def publish(ctx: ToolContext, title: str) -> str:
    """Publish something; two people must agree."""
    witness.saw(ctx, f"published {title}, approved by {sorted(ctx.approved_by)}")
    return "published"


@tool(effect="idempotent", approval=Approval(approvers=["ann"]))
async def wire(ctx: ToolContext, to: str) -> str:
    """Wire money; something happens meanwhile, and the bank doesn't say how it ended."""
    witness.saw(ctx, f"wired to {to}")
    meanwhile[ctx.thread_id]()
    raise ConnectionError("lost")


meanwhile: dict[str, Callable[[], None]] = {}  # by thread
app = App(agents=[Agent(name="clerk", model="m", tools=[pay, publish, wire])])
script = Script(
    rules=[
        Rule(when="pay", replies=[call("pay", to="x", amount=250), say("Paid.")]),
        Rule(when="wire", replies=[call("wire", to="x"), say("Wired.")]),
        Rule(when="publish", replies=[call("publish", title="News"), say("Out.")]),
    ]
)
PAY: dict[str, Json] = {"to": "x", "amount": 250.0}
DIGEST = arguments_digest("pay", canonical(PAY))


def pending(*, tool: str = "pay", arguments: dict[str, Json] | None = None, signed: bool = True) -> ApprovalRequest:
    """A request as a thread has it."""
    given = PAY if arguments is None else arguments
    now = datetime.now(UTC)
    return ApprovalRequest(
        id="a1", call_id="c1", tool=tool, summary="", arguments=given, digest=arguments_digest(tool, canonical(given)),
        policy=app.policies[tool].model_copy(update={"signed": signed}), turn=1, step=2, opened_at=now,
        expires_at=now + timedelta(hours=1),
    )  # fmt: skip


def save(folder: Path, *names: str) -> Path:
    """A folder with the public keys of these people."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.pub").write_text(KEYS[name].line)
    return folder


# ── the check before a decision counts ───────────────────────────────────────────────────────────────────────────


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """A real one, of which these activities need nothing."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    await store.migrate()
    yield store
    await store.close()


def runtime(store: Any, *names: str, keys: bool = True) -> Runtime:
    """What a worker has that knows the keys of these people."""
    lines = "\n".join(KEYS[name].line for name in names)
    return Runtime(
        app=app, store=store, limits=Settings().limits(), approver_keys=ApproverKeys.parse(lines) if keys else None
    )


async def checked(
    at: Runtime, request: ApprovalRequest, decision: dict[str, Json], *, verdict: Verdict = "approve"
) -> CheckedDecision:
    """Run the activity."""
    task = CheckDecision(thread_id="t1", agent="clerk", request=request, verdict=verdict, decision=decision, now=AT)
    return await ActivityEnvironment().run(DecisionActivities(at).check_decision, task)


async def test_what_the_client_signs_a_worker_takes(store: Store) -> None:
    """Client and worker make the same statement of a decision, with other arguments and without."""
    ann = KEYS["ann"]
    for verdict in ("approve", "reject"):
        said = decided("t1", verdict, pending(), "ann", "fine ✓", ann)
        assert await checked(runtime(store, "ann"), pending(), said, verdict=verdict) == CheckedDecision()
    given = {"to": "y", "amount": 1e22}
    done = await checked(runtime(store, "ann"), pending(), decided("t1", "approve", pending(), "ann", "", ann, given))
    assert done.edited is not None
    name = arguments_digest("pay", canonical(given))
    assert done.edited.model_dump() == {
        "arguments": given, "summary": 'pay(to="y", amount=1e+22)', "digest": name, "given": edit_digest(given),
        "key": effect_key("t1", 0, 1, 2, 0, "pay", name),
    }  # fmt: skip


async def test_a_worker_without_keys_takes_no_signature(store: Store) -> None:
    """It can't tell whose it is, and so it is nobody's."""
    said = decided("t1", "approve", pending(), "ann", "", KEYS["ann"])
    with pytest.raises(DecisionRefused, match="PERDURE_APPROVER_KEYS") as refused:
        await checked(runtime(store, keys=False), pending(), said)
    assert refused.value.code == "unknown_key"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"to": "x", "amount": "much"}, "amount: Input should be a valid number"),
        ({"to": "x", "amount": 1, "card": "4711"}, "card: Extra inputs are not permitted"),
        ({"amount": 1}, "to: Field required"),
        ({}, "to: Field required"),
    ],
)
async def test_other_arguments_that_the_tool_does_not_take(store: Store, given: dict[str, Json], why: str) -> None:
    """It says what is wrong; whether decisions are signed or not."""
    for signed, key in ((False, None), (True, KEYS["ann"])):
        request = pending(signed=signed)
        with pytest.raises(DecisionRefused, match=why) as refused:
            await checked(runtime(store, "ann"), request, decided("t1", "approve", request, "ann", "", key, given))
        assert refused.value.code == "invalid_edit"


async def test_other_arguments_for_a_tool_that_is_gone(store: Store) -> None:
    """Nothing can validate them, so they are not taken."""
    request = pending(signed=False).model_copy(update={"tool": "gone", "digest": "d"})
    said = {"request_id": "a1", "approver": "ann", "digest": "d", "arguments": {}}
    with pytest.raises(DecisionRefused, match="no longer part of the app") as refused:
        await checked(runtime(store), request, said)
    assert refused.value.code == "invalid_edit"


def test_nobody_signs_what_was_not_shown() -> None:
    """A request whose arguments are not those of its digest: neither a decision nor a signature is made."""
    for shown in ({"to": "x", "amount": 1.0}, {}):
        lie = pending().model_copy(update={"arguments": shown})
        for key in (None, KEYS["ann"]):
            with pytest.raises(IntegrityError, match="not what would be approved"):
                decided("t1", "approve", lie, "ann", "", key)
    closed = pending().model_copy(update={"arguments": {}, "outcome": "expired"})
    with pytest.raises(DecisionRefused, match="is closed"):
        decided("t1", "approve", closed, "ann")


# ── between yes and act ──────────────────────────────────────────────────────────────────────────────────────────


def yes(name: str, digest: str, *, thread: str = "t1", key: str = "", **more: Any) -> CountedDecision:
    """The yes of somebody, signed with that person's key or another's."""
    said = CountedDecision(verdict="approve", approver=name, at=AT, digest=digest, signed_at=AT, reason="fine")
    signature = KEYS[key or name].sign(counted_statement(thread, "a1", said))
    return said.model_copy(update={"signature": signature, **more})


def evidence(
    *said: CountedDecision, digest: str = DIGEST, quorum: int = 1, approvers: tuple[str, ...] = ()
) -> Evidence:
    """Why a call may run."""
    return Evidence(request_id="a1", digest=digest, quorum=quorum, approvers=approvers, decisions=said)


ONLY = runtime(None, "ann", "bob", "cid", "eve")


def void(at: Runtime, tool: str, digest: str, why: Evidence) -> str:
    """Why an approval no longer counts."""
    with pytest.raises(ApprovalVoid) as voided:
        check_evidence(at, "t1", tool, digest, why)
    return voided.value.message


def test_what_was_approved_may_run() -> None:
    """Signed, by enough of the right people, for exactly this."""
    check_evidence(ONLY, "t1", "pay", DIGEST, evidence(yes("ann", DIGEST), approvers=("ann", "bob", "dan")))
    news = arguments_digest("publish", canonical({"title": "News"}))
    both = evidence(yes("cid", news), yes("bob", news), digest=news, quorum=2, approvers=("ann", "bob", "cid"))
    check_evidence(ONLY, "t1", "publish", news, both)
    later = evidence(yes("cid", news), yes("eve", news), digest=news, quorum=2)  # after its escalation
    check_evidence(ONLY, "t1", "publish", news, later)
    without = yes("ann", DIGEST, signature="", signed_at="")
    check_evidence(runtime(None, keys=False), "t1", "pay", DIGEST, evidence(without))


def test_what_no_longer_counts_or_never_did_runs_nothing() -> None:
    """Each of these would run a tool if the task were believed."""
    ann, news = yes("ann", DIGEST), arguments_digest("publish", canonical({"title": "News"}))
    assert "something else" in void(ONLY, "pay", "f" * 64, evidence(ann))
    assert "something else" in void(ONLY, "pay", DIGEST, evidence(ann, digest="f" * 64))
    assert "something else" in void(ONLY, "pay", DIGEST, evidence(yes("ann", "f" * 64)))
    assert "something else" in void(ONLY, "pay", DIGEST, evidence(ann.model_copy(update={"verdict": "reject"})))
    assert "0 have said yes" in void(ONLY, "pay", DIGEST, evidence(quorum=0))
    assert "1 have said yes, and 2 must" in void(ONLY, "pay", DIGEST, evidence(ann, ann, quorum=2))
    assert "have said yes" in void(ONLY, "pay", DIGEST, evidence(ann, approvers=("bob",)))
    assert "not signed" in void(ONLY, "pay", DIGEST, evidence(yes("ann", DIGEST, signature="")))
    assert "not a signature of ann" in void(ONLY, "pay", DIGEST, evidence(yes("ann", DIGEST, key="eve")))
    assert "not a signature of ann" in void(ONLY, "pay", DIGEST, evidence(yes("ann", DIGEST, thread="t2")))
    assert "ann has no key" in void(runtime(None, "bob"), "pay", DIGEST, evidence(ann))
    # Signed, but not by those whom the tool asks, whatever the task says of its policy.
    assert "whom the tool asks for" in void(ONLY, "pay", DIGEST, evidence(yes("eve", DIGEST), approvers=("eve",)))
    assert "whom the tool asks for" in void(ONLY, "publish", news, evidence(yes("ann", news), digest=news))


@thorough
@given(st.sampled_from(["reason", "signed_at", "digest", "approver", "edited", "verdict"]), st.text(min_size=1))
def test_no_field_of_a_signed_yes_can_be_another(name: str, text: str) -> None:
    """Of the evidence that a task carries."""
    said = yes("ann", DIGEST)
    changed = "reject" if name == "verdict" else text
    if changed != getattr(said, name):
        void(ONLY, "pay", DIGEST, evidence(said.model_copy(update={name: changed})))


def test_what_was_signed_is_spent_by_the_call_it_was_for() -> None:
    """What a call takes from its approval is the request, whoever signed it; another request is another matter. Without
    a signature it takes nothing."""
    both = evidence(yes("ann", DIGEST), yes("bob", DIGEST))
    spent = authority(ONLY, "t1", "pay", both)
    assert len(spent) == 1
    assert spent == authority(ONLY, "t1", "pay", evidence(yes("bob", DIGEST)))
    assert spent != authority(ONLY, "t2", "pay", both)
    assert spent != authority(ONLY, "t1", "pay", both.model_copy(update={"request_id": "a2"}))
    unsigned = evidence(yes("ann", DIGEST, signature=""))
    assert authority(ONLY, "t1", "pay", unsigned) == authority(ONLY, "t1", "pay", None) == ()


# ── in a thread ──────────────────────────────────────────────────────────────────────────────────────────────────


async def asked(world: World, message: str) -> tuple[str, str, ApprovalRequest]:
    """Start a thread and wait until it asks; the ids of thread and message, and the request."""
    thread, message_id = await world.begin("clerk", message)
    (request,) = (await world.opened(thread)).open
    return thread, message_id, request


async def refused(world: World, thread: str, count: int) -> list[str]:
    """The codes of so many refused decisions, once they are there."""
    answer = await eventually(lambda: world.client.approvals(thread), lambda it: len(it.refused_decisions) >= count)
    return [decision.code for decision in answer.refused_decisions]


async def test_a_signed_yes_runs_the_tool(make_world: MakeWorld, tmp_path: Path) -> None:
    """Once, and the record has the signature."""
    async with make_world(app, script, approver_keys=save(tmp_path / "keys", "ann")) as world:
        thread, message, request = await asked(world, "pay")
        assert request.policy.signed
        await world.client.decide(thread, "approve", request, approver="ann", reason="fine", key=KEYS["ann"])
        assert (await world.ended(thread, message)).answer == "Paid."
        assert witness.of(thread) == ["paid 250 to x, approved by ['ann']"]
        ((counted,),) = [request.decisions for request in (await world.client.approvals(thread)).closed]
        ApproverKeys.parse(KEYS["ann"].line).check(
            "ann", counted_statement(thread, request.id, counted), counted.signature
        )


async def test_no_other_yes_runs_it(make_world: MakeWorld, tmp_path: Path) -> None:
    """Unsigned, forged in several ways, foreign, without a key, old or not yet made: each is refused with its reason,
    and the tool has not run. The right one counts after all of them."""
    keys = save(tmp_path / "keys", "ann", "eve")
    async with make_world(app, script, approver_keys=keys) as world:
        thread, message, request = await asked(world, "pay")

        def said(name: str, key: str, *, at: datetime | None = None, signed: str = "", **more: Json) -> dict[str, Json]:
            """A decision, of which the signature is over these fields or over what it says."""
            when = stamp(at or datetime.now(UTC))
            decision = Decision(request_id=request.id, approver=name, digest=request.digest, at=when)
            signature = KEYS[key].sign(statement(signed or thread, "approve", decision))
            return decision.model_dump(mode="json") | {"signature": signature, **more}

        now = datetime.now(UTC)
        wrong = {
            "unsigned": said("ann", "ann", signature=""),
            "forged by another": said("ann", "eve"),
            "forged in another thread": said("ann", "ann", signed="t2"),
            "forged: other words": said("ann", "ann", reason="more than I said"),
            "forged: nonsense": said("ann", "ann", signature="yes"),
            "unknown_key": said("bob", "bob"),
            "not_an_approver": said("eve", "eve"),
            "stale": said("ann", "ann", at=now - timedelta(hours=2)),
            "stale, not yet made": said("ann", "ann", at=now + timedelta(hours=2)),
        }  # fmt: skip
        for number, decision in enumerate(wrong.values(), 1):
            await world.handle(thread).signal("approve", decision)
            await refused(world, thread, number)
        await world.handle(thread).signal("reject", said("ann", "ann"))  # signed as a yes
        codes = await refused(world, thread, len(wrong) + 1)
        assert codes == [*(name.split()[0].rstrip(":,") for name in wrong), "forged"]
        assert (await world.client.request(thread)).decisions == ()
        assert witness.of(thread) == []
        await world.client.signal_decision(thread, "approve", request, approver="ann", key=KEYS["ann"])
        assert (await world.ended(thread, message)).outcome == "answered"
        assert witness.of(thread) == ["paid 250 to x, approved by ['ann']"]


async def test_a_signature_counts_once(make_world: MakeWorld, tmp_path: Path) -> None:
    """Changed there and back: the request has the digest that it had, and the old signature is refused as replayed.
    Whoever changed the arguments has said yes to the change only, so the call waits for a yes to what it is now."""
    async with make_world(app, script, approver_keys=save(tmp_path / "keys", "ann", "bob")) as world:
        thread, message, request = await asked(world, "pay")
        less = decided(thread, "approve", request, "ann", "less", KEYS["ann"], {"to": "x", "amount": 2.0})
        await world.handle(thread).signal("approve", less)
        changed = await eventually(lambda: world.client.request(thread), lambda it: it.digest != request.digest)
        assert (changed.arguments, changed.decisions) == ({"to": "x", "amount": 2.0}, ())
        await world.client.decide(
            thread, "approve", changed, approver="bob", key=KEYS["bob"], arguments={"to": "x", "amount": 250.0}
        )
        assert (await world.client.request(thread)).digest == request.digest
        await world.handle(thread).signal("approve", less)
        assert await refused(world, thread, 1) == ["replayed"]
        assert witness.of(thread) == []
        again = await world.client.request(thread)
        await world.client.decide(thread, "approve", again, approver="ann", key=KEYS["ann"])
        await world.ended(thread, message)
        assert witness.of(thread) == ["paid 250 to x, approved by ['ann']"]


async def test_a_key_that_is_withdrawn_takes_its_yes_along(make_world: MakeWorld, tmp_path: Path) -> None:
    """Two of three have said yes, and the key of the first was withdrawn between: nothing runs, the thread's record
    says why, and the agent goes on without the call."""
    keys = save(tmp_path / "keys", "ann", "bob", "cid")
    async with make_world(app, script, approver_keys=keys) as world:
        thread, message, request = await asked(world, "publish")
        await world.client.decide(thread, "approve", request, approver="ann", key=KEYS["ann"])
        (keys / "ann.pub").unlink()
        await world.client.decide(
            thread, "approve", await world.client.request(thread), approver="bob", key=KEYS["bob"]
        )
        assert (await world.ended(thread, message)).answer == "Out."
        assert witness.of(thread) == []
        lines = [row.entry for row in await world.store.audit(thread)]
        (voided,) = [line for line in lines if line.kind == "request.void"]
        assert "ann has no key" in str(voided.body["why"])
        assert [effect.status for effect in await world.client.effects(thread)] == ["failed"]


async def test_a_task_that_somebody_made_up_runs_nothing(make_world: MakeWorld, tmp_path: Path) -> None:
    """Whoever can put tasks on the queue: with no approval, one that he wrote himself, one of another person, or a copy
    of the right one after it was used, under a key of his own."""
    keys = save(tmp_path / "keys", "ann", "eve")
    async with make_world(app, script, approver_keys=keys) as world:
        thread, message, request = await asked(world, "pay")
        at = runtime(world.store, "ann", "eve")
        effects = EffectActivities(at)
        tools = ToolActivities(at, effects, NodeActivities(at))
        spec = (await at.publish("clerk")).spec.digest

        async def forged(why: Evidence | None, key: str = "k") -> None:
            row = await world.store.thread(thread)
            assert row is not None
            head = (await at.checkpointer.load(thread, row.head_id)).ref
            commit = Commit(thread_id=thread, id="x", head=head, turn=1)
            task = CallTool(
                commit=commit, spec=spec, node="tools", tool="pay", index=0, key=key,
                digest=request.digest, alone=False, approval=why, arguments=PAY,
            )  # fmt: skip
            await ActivityEnvironment().run(tools.call, task)

        own = yes("eve", request.digest, thread=thread)
        for why in (
            None,
            evidence(quorum=0),
            evidence(own, quorum=1, approvers=("eve",)),
            evidence(yes("ann", DIGEST)),
        ):
            with pytest.raises(ApprovalVoid):
                await forged(why)
        assert (witness.of(thread), await world.store.effects(thread)) == ([], [])
        await world.client.decide(thread, "approve", request, approver="ann", key=KEYS["ann"])
        await world.ended(thread, message)
        done = (await world.client.request(thread, request.id)).evidence()
        with pytest.raises(TokenSpent):
            await forged(done)
        (row,) = await world.store.effects(thread)
        undo = Undo(thread_id=thread, agent="clerk", key=row.entry.key, tool="pay", compensation="pay")
        with pytest.raises(ToolGone):  # what was done, done again under the name of a compensation
            await ActivityEnvironment().run(effects.undo, undo)
        (row,) = await world.store.effects(thread)
        assert (row.entry.status, len(witness.of(thread))) == ("done", 1)


async def test_what_was_attempted_before_its_approval_went_is_in_doubt(make_world: MakeWorld, tmp_path: Path) -> None:
    """It is not attempted again, and nobody says that nothing was done: a person settles it."""
    keys = save(tmp_path / "keys", "ann")
    async with make_world(app, script, approver_keys=keys) as world:
        thread, message, request = await asked(world, "wire")
        meanwhile[thread] = (keys / "ann.pub").unlink
        await world.client.decide(thread, "approve", request, approver="ann", key=KEYS["ann"])
        await world.stands(thread, "in_doubt")
        (effect,) = await eventually(lambda: world.client.effects(thread), lambda all: all[0].status == "in_doubt")
        assert (effect.status, effect.attempts, witness.of(thread)) == ("in_doubt", 1, ["wired to x"])
        assert "may not be attempted again" in effect.error
        await world.client.resolve(thread, effect.key, done=True, by="bob")
        assert (await world.ended(thread, message)).answer == "Wired."
        assert witness.of(thread) == ["wired to x"]


# ── news ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_people_hear_of_a_request_from_its_opening_to_its_end(make_world: MakeWorld, tmp_path: Path) -> None:
    """Opened, reminded, escalated, reminded, closed: each arrives signed, once, in this order, though the receiver was
    out of order at first."""
    async with Listening(first=[Response(status_code=500)]) as there:
        hook = {"webhook": there.hook.url, "webhook_secret": SECRET}
        async with make_world(app, script, **hook) as world:
            thread, message, _ = await asked(world, "publish")
            await hears(there, 1)
            for minutes, news in ((55, 2), (6, 3), (55, 4), (6, 5)):
                await world.forward(thread, timedelta(minutes=minutes))
                await hears(there, news)
            await world.ended(thread, message)
        assert there.requests == 6
        assert [news["event"].partition(".")[2] for news in there.news] == [
            "opened", "reminded", "escalated", "reminded", "closed"
        ]  # fmt: skip
        assert [(news["thread"], news["agent"]) for news in there.news] == [(thread, "clerk")] * 5
        assert [news["body"]["approvers"] for news in there.news][1:3] == [
            ["ann", "bob", "cid"], ["ann", "bob", "cid", "eve"]
        ]  # fmt: skip
        assert there.news[0]["body"]["arguments"] == {"title": "News"}
        assert there.news[-1]["body"]["outcome"] == "expired"
        assert witness.of(thread) == []


async def test_news_that_is_refused_holds_up_nothing(make_world: MakeWorld) -> None:
    """A receiver that refuses is not asked again; the thread says so and goes on, and what comes next is told."""
    async with (
        Listening(first=[Response(status_code=400)]) as there,
        make_world(app, script, webhook=there.hook.url, webhook_secret=SECRET) as world,
    ):
        thread, message, request = await asked(world, "pay")
        await eventually(lambda: requests(there), lambda count: count == 1)
        await world.client.decide(thread, "approve", request, approver="bob")
        assert (await world.ended(thread, message)).answer == "Paid."
        await hears(there, 1)
        assert (there.news[0]["event"], there.news[0]["body"]["outcome"]) == ("request.closed", "approved")
        assert there.requests == 2
        log = " ".join(entry.text for entry in (await world.client.status(thread)).log)
        assert "the webhook was not told of request.opened" in log


async def hears(there: Listening, count: int) -> None:
    """Wait until so much news has been told."""

    async def told() -> int:
        return len(there.news)

    await eventually(told, lambda heard: heard >= count)


async def requests(there: Listening) -> int:
    """How often it was asked."""
    return there.requests
