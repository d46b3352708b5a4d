"""What an approval costs: events in the history, counted; and that what was saved there weakens no promise."""

import asyncio
from collections.abc import Awaitable, Callable

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.audit import AuditHead, follow
from perdure.care.chronicle import chronicle
from perdure.starters.histories import read_runs
from perdure.testing import Rule, Script, call, say, together
from tests.conftest import MakeWorld
from tests.world import World, eventually

TASK = ["workflow_task_scheduled", "workflow_task_started", "workflow_task_completed"]
held: dict[str, asyncio.Event] = {}  # by thread: until this, the slow tool is at work
seen: dict[str, list[str]] = {}  # by thread: what the audit had when a tool began, in order


def activity(name: str) -> list[str]:
    """The events of one activity."""
    return [f"activity_task_scheduled {name}", "activity_task_started", "activity_task_completed"]


WAITS = [
    "workflow_execution_started", *TASK,
    "workflow_execution_update_accepted", *activity("open_turn"), *TASK,
    "activity_task_scheduled call_model", "workflow_execution_update_completed",
    "activity_task_started", "activity_task_completed", *TASK,
    "upsert_workflow_search_attributes", "timer_started", *activity("append_audit"), *TASK,
]  # fmt: skip
FINISHES = [
    "workflow_execution_signaled", *TASK,
    "upsert_workflow_search_attributes", "timer_canceled", *activity("tool:pay"), *TASK,
    *activity("call_model"), *TASK,
    "upsert_workflow_search_attributes", "timer_started",
]  # fmt: skip


@tool(effect="idempotent", approval=Approval())
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay."""
    seen.setdefault(ctx.thread_id, []).append(f"pay {amount}")
    return "paid"


@tool(effect="idempotent", approval=Approval())
async def ship(ctx: ToolContext, what: str) -> str:
    """Ship; it takes its time."""
    seen.setdefault(ctx.thread_id, []).append(f"ship {what}")
    await held[ctx.thread_id].wait()
    return "shipped"


APP = App(agents=[Agent(name="clerk", model="m", tools=[pay, ship])])
SCRIPT = Script(
    rules=[
        Rule(when="both", replies=[together(call("ship", what="x"), call("pay", amount=1)), say("Done.")]),
        Rule(when="pay", replies=[call("pay", amount=1), say("Paid.")]),
    ]
)


def kind(event: HistoryEvent) -> str:
    """An event, and which activity it schedules."""
    name = EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower()
    scheduled = event.activity_task_scheduled_event_attributes.activity_type.name
    return f"{name} {scheduled}".strip()


async def yes(world: World, thread: str, request: ApprovalRequest) -> None:
    """Approve by signal."""
    said = {"request_id": request.id, "approver": "ann", "digest": request.digest}
    await world.handle(thread).signal("approve", said)


async def lines(world: World, thread: str) -> list[str]:
    """The audit, in a chain that holds: kinds of lines and their requests."""
    rows = await world.store.audit(thread)
    follow(thread, AuditHead(), rows)
    return [f"{row.entry.kind} {row.entry.body['request']}" for row in rows]


async def test_an_approved_call_needs_no_activity_but_its_own(make_world: MakeWorld) -> None:
    """Exactly these events, in this order: to write down who approved costs none; the call does it before it begins."""
    async with make_world(APP, SCRIPT) as world:
        thread, message = await world.begin("clerk", "pay")
        (request,) = (await world.opened(thread)).open
        await eventually(lambda: world.length(thread), lambda length: length == len(WAITS))
        await yes(world, thread, request)
        await world.ended(thread, message)
        await eventually(lambda: world.length(thread), lambda length: length >= len(WAITS + FINISHES))
        assert [kind(event) for event in (await world.fetch(thread)).events] == WAITS + FINISHES
        told = ["request.opened a1", "decision.counted a1", "request.closed a1"]
        assert await lines(world, thread) == told
        assert (await world.client.status(thread)).audit.number == len(told)


async def test_a_call_that_takes_long_holds_back_nobodys_lines(make_world: MakeWorld) -> None:
    """Two requests of one answer. The first call is approved and at work when the second is approved: that one runs at
    once. No line is missing, twice or out of order, and the history alone tells the same lines."""
    async with make_world(APP, SCRIPT) as world:
        thread, message = await world.begin("clerk", "both")
        held[thread] = asyncio.Event()
        first, second = sorted((await world.opened(thread, 2)).open, key=lambda request: request.tool, reverse=True)
        await yes(world, thread, first)
        await eventually(_deeds(thread), lambda deeds: deeds == ["ship x"])
        await world.handle(thread).signal("approve", {"request_id": second.id, "approver": "eve", "digest": "wrong"})
        await yes(world, thread, second)
        await eventually(_deeds(thread), lambda deeds: deeds == ["ship x", "pay 1"])
        held[thread].set()
        assert (await world.ended(thread, message)).outcome == "answered"
        written = [row.entry for row in await world.store.audit(thread)]
        assert [entry.kind for entry in written] == [
            "request.opened", "request.opened", "decision.counted", "request.closed", "decision.refused",
            "decision.counted", "request.closed",
        ]  # fmt: skip
        told = chronicle(thread, await read_runs(world.temporal, thread)).audit
        assert list(told) == written


def _deeds(thread: str) -> Callable[[], Awaitable[list[str]]]:
    async def look() -> list[str]:
        return seen.get(thread, [])

    return look
