"""Attacks: what somebody tries who can reach Temporal, but neither the store nor a worker's disk; and bad moments."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import SecretStr
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from perdure import END, START, Agent, App, Approval, Escalation, Graph, Message, Sensitive, State, ToolContext, tool
from perdure import messages as by_id
from perdure.activities.effects import EffectActivities
from perdure.activities.nodes import NodeActivities
from perdure.activities.runtime import Runtime
from perdure.activities.tools import ToolActivities
from perdure.approvals import ApprovalBook, ApprovalPolicy, ApprovalRequest, CountedDecision, Decision, Edited, Evidence
from perdure.approvals.book import MAX_EDITS
from perdure.canonical import Json
from perdure.contracts import CallTool, Commit
from perdure.errors import ApprovalVoid, DecisionRefused, TokenSpent
from perdure.security.keyring import new_key
from perdure.security.signing import ApproverKeys, SigningKey, edit_digest
from perdure.settings import Settings
from perdure.starters.decisions import decided
from perdure.testing import call, say, together
from tests.conftest import MakeWorld
from tests.crew import audit, told
from tests.test_life import reset
from tests.test_webhook import SECRET, Listening
from tests.witness import Holds, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()
KEYS = {name: SigningKey.new(name) for name in ("ann", "bob")}
PEOPLE = ("ann", "bob")


@tool(effect="irreversible", approval=Approval(approvers=PEOPLE))
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay."""
    witness.saw(ctx, f"pay {amount} by {'+'.join(ctx.approved_by)}")
    return "paid"


@tool(effect="irreversible")
async def slow(ctx: ToolContext) -> str:
    """Takes as long as the test wants; where the worker is told to give it up, it does it all the same."""
    witness.saw(ctx, "slow")
    await holds[ctx.thread_id].wait()
    return "done at last"


@tool(
    effect="irreversible",
    approval=Approval(
        approvers=PEOPLE,
        quorum=2,
        expires="1h",
        reminders=[],
        escalations=[Escalation(approvers=["dan"], expires="1h", quorum=2)],
    ),
)
async def rise(ctx: ToolContext) -> str:
    """Two of those who may."""
    witness.saw(ctx, f"rise by {'+'.join(ctx.approved_by)}")
    return "risen"


@tool(effect="irreversible", approval=Approval(approvers=PEOPLE, separation=["steps"]))
async def apart(ctx: ToolContext, what: str) -> str:
    """Nobody approves two of a turn."""
    witness.saw(ctx, f"apart {what} by {'+'.join(ctx.approved_by)}")
    return "done"


@tool(effect="irreversible")
async def ring(ctx: ToolContext) -> str:
    """Ring."""
    witness.saw(ctx, f"ring {ctx.idempotency_key}")
    return "rung"


class Two(State):
    """Two conversations."""

    left: Annotated[list[Message], by_id] = []
    right: Annotated[list[Message], by_id] = []


class Discreet(State):
    """A conversation that is nobody else's business."""

    messages: Annotated[list[Message], by_id, Sensitive] = []


two = Graph("two", state=Two)
for side in ("left", "right"):
    two.model(side, model="m", tools=[ring], channel=side)
    two.tools(f"{side}_tools", tools=[ring], channel=side)
    two.edge(START, side)
    two.edge(side, f"{side}_tools", on="tool_calls")
    two.edge(f"{side}_tools", side)
    two.edge(side, END)
TOOLS = [pay, slow, rise, apart]
app = App(agents=[Agent(name="desk", model="m", tools=TOOLS), two])
discreet = App(agents=[Agent(name="discreet", model="m", state=Discreet, tools=[pay])])


def script() -> Any:
    """What the model says in these tests."""
    return told(
        pay=[call("pay", amount=250), say("Paid.")],
        rise=[call("rise"), say("Risen.")],
        apart=[call("apart", what="x"), call("apart", what="y"), say("Done.")],
        late=[together(call("slow"), call("pay", amount=7)), say("Done.")],
        slow=[call("slow"), say("Done.")],
        ring=[call("ring"), say("Done.")],
        many=[together(*(call("pay", amount=number) for number in range(60))), say("Done.")],
    )


# ── on the queue ─────────────────────────────────────────────────────────────────────────────────────────────────


def keys(tmp_path: Path) -> Path:
    """A folder with the public keys of everybody."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name, key in KEYS.items():
        (folder / f"{name}.pub").write_text(key.line)
    return folder


async def asked(world: World, message: str) -> tuple[str, str, ApprovalRequest]:
    """Start a thread and wait until it asks; the ids of thread and message, and the request."""
    thread, message_id = await world.begin("desk", message)
    (request,) = (await world.opened(thread)).open
    return thread, message_id, request


def as_counted(said: Mapping[str, Json]) -> CountedDecision:
    """A signed decision, taken from the signal in the history, as if it had counted for a yes."""
    decision = Decision.model_validate(said)
    return CountedDecision(
        verdict="approve", approver=decision.approver, reason=decision.reason, at=decision.at, digest=decision.digest,
        signed_at=decision.at, signature=decision.signature,
        edited=edit_digest(decision.arguments) if decision.arguments is not None else "",
    )  # fmt: skip


async def queue(world: World, thread: str, request: ApprovalRequest, said: CountedDecision, key: str) -> None:
    """Run the call as a task that somebody put on the queue."""
    lines = "\n".join(key.line for key in KEYS.values())
    at = Runtime(app=app, store=world.store, limits=Settings().limits(), approver_keys=ApproverKeys.parse(lines))
    row = await world.store.thread(thread)
    assert row is not None
    head = (await at.checkpointer.load(thread, row.head_id)).ref
    why = Evidence(request_id=request.id, digest=request.digest, quorum=1, decisions=(said,))
    spec = (await at.publish("desk")).spec.digest
    task = CallTool(
        commit=Commit(thread_id=thread, id="x", head=head, turn=1), spec=spec, tool="pay", key=key,
        digest=request.digest, alone=False, approval=why,
        arguments=request.arguments,
    )  # fmt: skip
    await ActivityEnvironment().run(ToolActivities(at, EffectActivities(at), NodeActivities(at)).call, task)


async def test_who_signed_for_less_has_not_signed_for_what_it_was(make_world: MakeWorld, tmp_path: Path) -> None:
    """Ann changes 250 to 5, signed. That is no yes to 250, though it names it: nobody can run the call with it."""
    async with make_world(app, script(), approver_keys=keys(tmp_path)) as world:
        thread, _, request = await asked(world, "pay")
        less = decided(thread, "approve", request, "ann", "less", KEYS["ann"], {"amount": 5})
        await world.handle(thread).signal("approve", less)
        await eventually(lambda: world.client.request(thread), lambda now: now.digest != request.digest)
        with pytest.raises(ApprovalVoid):
            await queue(world, thread, request, as_counted(less), "k")
        assert (witness.of(thread), await world.store.effects(thread)) == ([], [])


async def test_two_signatures_where_one_was_enough_pay_once(make_world: MakeWorld, tmp_path: Path) -> None:
    """Ann and bob both sign at once. Whose signature is checked first is enough, and the other comes too late: it is in
    the history, and it pays nothing a second time. What was approved is one call."""
    async with make_world(app, script(), approver_keys=keys(tmp_path)) as world:
        thread, message, request = await asked(world, "pay")
        both = [decided(thread, "approve", request, name, "", KEYS[name]) for name in PEOPLE]
        for said in both:
            await world.handle(thread).signal("approve", said)
        await world.ended(thread, message)
        for number, said in enumerate(both):
            with pytest.raises(TokenSpent):
                await queue(world, thread, request, as_counted(said), f"k{number}")
        (closed,) = (await world.client.approvals(thread)).closed
        (counted,) = closed.decisions
        assert witness.of(thread) == [f"pay 250 by {counted.approver}"]


# ── bad moments ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_late_end_is_told_also_while_its_step_goes_on(make_world: MakeWorld) -> None:
    """Somebody says "not done" and is wrong, while another call of the step still waits for a yes: the ledger learns
    that it is done, and the audit who was wrong."""
    async with make_world(app, script()) as world:
        thread, message_id = await world.begin("desk", "late")
        await holds[thread].arrived()
        run = await world.handle(thread).describe()
        (attempt,) = [a for a in run.raw_description.pending_activities if a.activity_type.name == "tool:slow"]
        await world.temporal.get_async_activity_handle(
            workflow_id=thread, run_id=run.run_id, activity_id=attempt.activity_id
        ).fail(ApplicationError("no sign of life", non_retryable=True))
        await world.stands(thread, "in_doubt")
        (effect,) = [e for e in await world.client.effects(thread) if e.tool == "slow"]
        await world.client.resolve(thread, effect.key, done=False, by="ann")
        holds[thread].let_go()
        (line,) = await audit(world, thread, "effect.late")
        assert (line["taken_for"], line["contradicts"]) == ("failed", "ann")
        row = await world.store.effect(thread, effect.key)
        assert row is not None and row.entry.status == "done"
        await world.client.decide(thread, "approve", await world.client.request(thread), approver="ann")
        assert (await world.ended(thread, message_id)).outcome == "answered"
        assert witness.of(thread) == ["slow", "pay 7 by ann"]


async def test_a_yes_at_the_end_of_a_level_counts_at_the_next(make_world: MakeWorld) -> None:
    """No worker was there when the first hour ended: ann's yes is looked at together with that end. She may decide at
    the next level too, so she hasn't come too late; and the level turns once."""
    async with make_world(app, script(), serve=False) as world:
        async with world.worker():
            thread, message_id, request = await asked(world, "rise")
            await eventually(lambda: world.fetch(thread), _is_still)  # the clock passes only where nothing is at work
        passing = asyncio.create_task(world.forward(thread, timedelta(minutes=61)))
        await eventually(lambda: world.fetch(thread), _has_fired)
        said = {"request_id": request.id, "approver": "ann", "digest": request.digest}
        await world.handle(thread).signal("approve", said)
        async with world.worker():
            await passing
            now = await eventually(lambda: world.client.request(thread), lambda r: r.level == 1)
            assert (now.approvals(), (await world.client.approvals(thread)).refused_decisions) == (1, ())
            await world.client.decide(thread, "approve", now, approver="dan")
            await world.ended(thread, message_id)
        assert witness.of(thread) == ["rise by ann+dan"]
        assert len(await audit(world, thread, "request.escalated")) == 1


def _is_still(history: WorkflowHistory) -> bool:
    kinds = [event.event_type for event in history.events]
    begun = kinds.count(EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
    ended = kinds.count(EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
    return begun == ended and kinds[-1] == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED


def _has_fired(history: WorkflowHistory) -> bool:
    return any(event.event_type == EventType.EVENT_TYPE_TIMER_FIRED for event in history.events)


async def test_people_hear_of_a_doubt_that_a_dead_workflow_left(make_world: MakeWorld) -> None:
    """Its workflow was terminated with a call under way. Whoever takes the thread up finds it in doubt, and the
    webhook is told of it, though no turn of this workflow has begun."""
    async with (
        Listening() as there,
        make_world(app, script(), webhook=there.hook.url, webhook_secret=SECRET) as world,
    ):
        thread, _ = await world.begin("desk", "slow")
        await holds[thread].arrived()
        await world.handle(thread).terminate()
        await world.client.send(thread, "more")
        news = await eventually(lambda: _news(there), lambda found: "effect.in_doubt" in found)
        assert news == ["effect.in_doubt"]
        holds[thread].let_go()


async def _news(there: Listening) -> list[str]:
    return [news["event"] for news in there.news]


async def test_the_same_call_in_two_conversations_is_two(make_world: MakeWorld) -> None:
    """Two models, side by side, ask for the same call with the same arguments at the same step: each is made, under a
    key of its own."""
    async with make_world(app, script()) as world:
        state = {side: [{"role": "user", "content": "ring"}] for side in ("left", "right")}
        thread, accepted = await world.client.start("two", "", state=state, thread=world.thread())
        await world.ended(thread, accepted.message_id)
        assert len(set(witness.of(thread))) == len(witness.of(thread)) == 2


async def test_a_rewind_tells_no_secrets(make_world: MakeWorld) -> None:
    """A call of a sensitive conversation is told without its arguments, also where it is taken up again."""
    async with make_world(discreet, script(), keys=SecretStr(new_key())) as world:
        thread, _ = await world.begin("discreet", "pay")
        (first,) = (await world.opened(thread)).open
        await world.client.cancel(thread)
        head = await eventually(lambda: world.client.history(thread), lambda found: len(found) == 3)
        await world.client.rewind(thread, head[1].id, go_on=True)
        answer = await eventually(lambda: world.client.approvals(thread), lambda a: [r.id for r in a.open] == ["a2"])
        assert first.summary == answer.open[0].summary == "pay(…)"
        await world.client.cancel(thread)


async def test_going_back_does_not_make_two_people_of_one(make_world: MakeWorld) -> None:
    """Ann has approved the first of two calls; a rewind to just behind it leaves that call made. She can't approve the
    second on the new branch either."""
    async with make_world(app, script()) as world:
        thread, _, first = await asked(world, "apart")
        await world.client.decide(thread, "approve", first, approver="ann")
        await eventually(lambda: world.client.approvals(thread), lambda a: [r.id for r in a.open] == ["a2"])
        behind = (await world.client.history(thread))[1].id
        await world.client.rewind(thread, behind, go_on=True)
        answer = await eventually(lambda: world.client.approvals(thread), lambda a: [r.id for r in a.open] == ["a3"])
        with pytest.raises(DecisionRefused) as refused:
            await world.client.decide(thread, "approve", answer.open[0], approver="ann")
        assert refused.value.code == "separation"
        assert witness.of(thread) == ["apart x by ann"]
        await world.client.cancel(thread)


@pytest.mark.parametrize("task", [1, 2, 3, 4])
async def test_a_reset_pays_nothing_twice(make_world: MakeWorld, task: int) -> None:
    """Temporal's reset button takes the workflow back and plays the signal again. Whether that is counted again, or
    somebody says yes anew: the call has been made, and is not made again."""
    async with make_world(app, script()) as world:
        thread, message_id, request = await asked(world, "pay")
        await world.client.signal_decision(thread, "approve", request, approver="ann")
        await world.ended(thread, message_id)
        await reset(world, thread, task)
        status = await eventually(
            lambda: world.client.status(thread), lambda now: now.results != () or now.status == "awaiting_approval"
        )
        if status.status == "awaiting_approval":  # the signal came before the request, and was refused
            await world.client.decide(thread, "approve", await world.client.request(thread), approver="bob")
        await world.ended(thread, message_id)
        assert witness.of(thread) == ["pay 250 by ann"]
        assert [effect.status for effect in await world.client.effects(thread)] == ["done"]


# ── floods ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_webhook_that_is_down_holds_a_bounded_pile(make_world: MakeWorld) -> None:
    """Sixty requests at once, and nobody takes the news: fifty wait, the thread says that the others are not told, and
    people can decide all the same."""
    hook = {"webhook": "http://127.0.0.1:9/in", "webhook_secret": SECRET}
    async with make_world(app, script(), **hook) as world:
        thread, message_id = await world.begin("desk", "many")
        answer = await world.opened(thread, 60)
        run = await world.handle(thread).describe()
        assert [a.activity_type.name for a in run.raw_description.pending_activities].count("notify") == 50
        await world.client.decide(thread, "approve", answer.open[59], approver="ann")
        await eventually(lambda: _deeds(thread), lambda deeds: deeds == ["pay 59 by ann"])
        assert "is not told of request.closed" in str((await world.client.status(thread)).log)
        await world.client.cancel(thread)
        await world.ended(thread, message_id)
        await world.handle(thread).terminate()


async def _deeds(thread: str) -> list[str]:
    return witness.of(thread)


def test_nobody_grows_a_request_by_changing_it_for_ever() -> None:
    """After twenty changes it can only be approved or rejected, and what is kept of it once it is closed is small."""
    book, now = ApprovalBook(), datetime.now(UTC)
    name = book.open(
        call_id="c", tool="pay", summary="pay", arguments={"text": ""}, digest="0", policy=ApprovalPolicy(), now=now
    ).id
    for number in range(1, 30):
        given: dict[str, Json] = {"text": f"{number} " + "x" * 5_000}
        said = {"request_id": name, "approver": f"p{number}", "digest": book.requests[name].digest, "arguments": given}
        edited = Edited(arguments=given, summary="pay", digest=str(number), key="k", given="g")
        book.requests[name] = book.requests[name].model_copy(update={"outcome": "open"})  # one yes was enough
        if number <= MAX_EDITS:
            book.decide("approve", said, now, edited)
        else:
            with pytest.raises(DecisionRefused, match="that is enough"):
                book.decide("approve", said, now, edited)
    book.trim(name)
    assert len(book.requests[name].model_dump_json()) < 5_000
