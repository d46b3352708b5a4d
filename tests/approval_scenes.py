"""Scenes of approvals for the recorded histories: requests that rise, are edited, or remembered; duties kept apart."""

from contextlib import suppress
from datetime import timedelta

from perdure import Agent, Approval, Escalation, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.canonical import Json
from perdure.errors import DecisionRefused
from perdure.testing import Rule, call, say
from tests.world import World, eventually


@tool(
    effect="idempotent",
    approval=Approval(approvers=["ann"], expires="10h", escalations=[Escalation(approvers=["bob"], expires="10h")]),
)  # fmt: skip
async def hire(ctx: ToolContext, who: str) -> str:
    """Hire somebody."""
    return f"{who} is hired"


@tool(effect="idempotent", approval=Approval(approvers=["ann", "bob", "cid"], quorum=2))
async def move(ctx: ToolContext, amount: int) -> int:
    """Move money; two people must agree."""
    return amount


@tool(effect="idempotent", approval=Approval(approvers=["ann", "bob", "cid"], separation=["requester", "steps"]))
async def sign(ctx: ToolContext, paper: str) -> str:
    """Sign a paper; not whoever asked for it."""
    return f"{paper} is signed"


@tool(effect="idempotent", approval=Approval(remember=True))
async def open_door(ctx: ToolContext, number: int) -> str:
    """Open a door."""
    return f"door {number} is open"


OFFICE = Agent(name="office", model="m", tools=[hire, move, sign, open_door])
RULES = [
    Rule(when="hire", replies=[call("hire", who="eve"), say("Hired.")]),
    Rule(when="move", replies=[call("move", amount=500), say("Moved.")]),
    Rule(when="sign", replies=[call("sign", paper="lease"), say("Signed.")]),
    Rule(when="doors", replies=[*(call("open_door", number=number) for number in (1, 1, 2)), say("Open.")]),
]


async def escalated(world: World, thread: str) -> None:
    """Bob comes too early, and ann too late to be the only one."""
    message, request = await _asked(world, thread, "hire")
    await _refused(world, thread, request, "bob")
    await world.forward(thread, timedelta(hours=10))
    await world.client.decide(thread, "approve", await world.client.request(thread), approver="bob")
    await _ended(world, thread, message)


async def edited(world: World, thread: str) -> None:
    """What the tool doesn't take is refused; what it takes needs both again."""
    message, request = await _asked(world, thread, "move")
    await world.client.decide(thread, "approve", request, approver="ann")
    await _refused(world, thread, request, "bob", {"amount": "all"})
    await world.client.decide(thread, "approve", request, approver="bob", arguments={"amount": 5})
    await _refused(world, thread, request, "cid")
    await world.client.signal_decision(thread, "approve", await world.client.request(thread), approver="ann")
    await _ended(world, thread, message)
    assert "ann" in str((await world.client.approvals(thread)).closed[0].decisions)


async def separated(world: World, thread: str) -> None:
    """Neither who asked for it, nor who changed it."""
    message, request = await _asked(world, thread, "sign")
    await _refused(world, thread, request, "ann")
    await world.client.decide(thread, "approve", request, approver="bob", arguments={"paper": "sale"})
    await _refused(world, thread, await world.client.request(thread), "bob")
    await world.client.decide(thread, "approve", await world.client.request(thread), approver="cid")
    await _ended(world, thread, message)


async def remembered(world: World, thread: str) -> None:
    """The second call of the same door asks nobody; that of another does, and is rejected."""
    message, request = await _asked(world, thread, "doors")
    await world.client.decide(thread, "approve", request, approver="ann")
    other = await eventually(lambda: world.client.approvals(thread), lambda a: len(a.open) == len(a.closed) == 1)
    await world.client.decide(thread, "reject", other.open[0], approver="ann", reason="not this one")
    await _ended(world, thread, message)


SCENES = (escalated, edited, separated, remembered)


async def _asked(world: World, thread: str, message: str) -> tuple[str, ApprovalRequest]:
    """The message, sent by ann, and the request that it leads to."""
    _, accepted = await world.client.start("office", message, thread=thread, sender="ann")
    return accepted.message_id, (await world.opened(thread)).open[0]


async def _refused(
    world: World, thread: str, request: ApprovalRequest, who: str, arguments: dict[str, Json] | None = None
) -> None:
    with suppress(DecisionRefused):
        await world.client.decide(thread, "approve", request, approver=who, arguments=arguments)
        raise AssertionError(f"{who} may decide")


async def _ended(world: World, thread: str, message_id: str) -> None:
    result = await world.ended(thread, message_id)
    assert result.outcome == "answered", f"{thread}: {result}"
