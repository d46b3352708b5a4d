"""Thirty days: an approval that two levels let pass and the third gives, while no worker holds anything for it."""

from collections import Counter
from datetime import datetime, timedelta

from temporalio.api.enums.v1 import EventType

from perdure import Agent, App, Approval, Escalation, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.audit import AuditEntry, AuditHead, follow
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.witness import Witness
from tests.world import World, eventually

witness = Witness()
DAY = timedelta(days=1)


@tool(
    effect="irreversible",
    approval=Approval(
        approvers=["ann"], expires="10d", reminders=["2d", "1d"],
        escalations=[Escalation(approvers=["lead"], expires="10d"), Escalation(approvers=["board"], expires="10d")],
    ),
)  # fmt: skip
async def demolish(ctx: ToolContext, house: str) -> str:
    """Take down a house."""
    witness.saw(ctx, f"demolished {house}, approved by {ctx.approved_by}")
    return "gone"


APP = App(
    agents=[Agent(name="builder", model="m", tools=[demolish])], groups={"lead": ["bob"], "board": ["cid", "dan"]}
)
SCRIPT = Script(rules=[Rule(when="Elm Street", replies=[call("demolish", house="Elm Street 1"), say("It is gone.")])])


async def lines(world: World, thread: str) -> list[AuditEntry]:
    """The audit, whose chain holds."""
    rows = await world.store.audit(thread)
    follow(thread, AuditHead(), rows)
    return [row.entry for row in rows]


async def risen(world: World, thread: str, level: int) -> ApprovalRequest:
    """The open request, once it is at this level."""
    return await eventually(lambda: world.client.request(thread), lambda request: request.level == level)


def days(opened_at: datetime, at: str) -> float:
    """When something happened, in days since the request was opened, to a minute: a timer fires a moment late."""
    return round((datetime.fromisoformat(at) - opened_at) / DAY, 3)


async def test_thirty_days_two_escalations_and_a_yes_at_the_end(make_world: MakeWorld) -> None:
    """Each level is told when it begins, and twice before it ends; those before may still decide; the last day's yes
    lets the call run. Every ten days another worker takes over, and between them none runs; the history stays small."""
    async with make_world(APP, SCRIPT, serve=False) as world:
        async with world.worker():
            thread, message = await world.begin("builder", "Take down Elm Street 1.")
            [request] = (await world.opened(thread)).open
        for level, people in ((1, ("ann", "bob")), (2, ("ann", "bob", "cid", "dan"))):
            async with world.worker():
                await world.forward(thread, 10 * DAY)
                now = await risen(world, thread, level)
                assert (now.asked.approvers, now.outcome) == (people, "open")
                assert (await world.client.status(thread)).status == "awaiting_approval"
        async with world.worker():
            await world.forward(thread, 10 * DAY - timedelta(minutes=10))
            assert witness.of(thread) == []
            request_now = await world.client.request(thread)
            await world.client.decide(thread, "approve", request_now, approver="dan", reason="at last")
            assert (await world.ended(thread, message)).answer == "It is gone."
            assert witness.of(thread) == ["demolished Elm Street 1, approved by ('dan',)"]
            told = [
                (days(request.opened_at, line.at), line.kind, line.body.get("level"))
                for line in await lines(world, thread)
            ]
            assert told == [
                (0.0, "request.opened", 0), (8.0, "request.reminded", 0), (9.0, "request.reminded", 0),
                (10.0, "request.escalated", 1), (18.0, "request.reminded", 1), (19.0, "request.reminded", 1),
                (20.0, "request.escalated", 2), (28.0, "request.reminded", 2), (29.0, "request.reminded", 2),
                (29.993, "decision.counted", 2), (29.993, "request.closed", 2),
            ]  # fmt: skip
            history = await world.fetch(thread)
            happened = Counter(event.event_type for event in history.events)
            # Nine waits and that of an idle thread; the turn, two answers of the model, the call with the last two
            # lines of the audit, and nine times the audit alone.
            assert happened[EventType.EVENT_TYPE_TIMER_STARTED] == 10
            assert happened[EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED] == 13
            assert len(history.events) < 200, "workflow tasks, and those that a change of workers costs"
            assert sum(event.ByteSize() for event in history.events) < 45_000
