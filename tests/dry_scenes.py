"""Scenes for ``tests/record_histories.py``: a dry run, and a thread that takes up the plan of one."""

from perdure import Agent, Approval, ToolContext, tool
from perdure.testing import Rule, call, say, together
from tests.world import World, eventually


@tool(effect="irreversible", approval=Approval(approvers=["ann"]), simulate=lambda scene: f"played {scene}")
async def play(ctx: ToolContext, scene: int) -> str:
    """Play a scene."""
    return f"played {scene}"


@tool(effect="irreversible")
async def fly(ctx: ToolContext) -> str:
    """Fly over the stage: nobody knows what that would be like."""
    return "flown"


STAGE = Agent(name="stage", model="m", tools=[play, fly])
RULES = [
    Rule(when="the show", replies=[call("play", scene=1), together(call("play", scene=2), call("play", scene=3)),
                                   call("play", scene=4), say("The end.")]),
    Rule(when="the flight", replies=[call("play", scene=5), call("fly"), say("Flown.")]),
]  # fmt: skip


async def _begun(world: World, thread: str) -> None:
    """A thread that has said hello."""
    _, accepted = await world.client.start("stage", "hello", thread=thread)
    await world.ended(thread, accepted.message_id)


async def _rehearsal(world: World, origin: str, thread: str, message: str) -> None:
    """A dry run, to its end."""
    await world.client.fork(origin, thread=thread, message=message, dry_run=True, by="bob")
    await eventually(lambda: world.client.status(thread), lambda status: bool(status.results) and not status.node)


async def rehearsed(world: World, thread: str) -> None:
    """Calls are simulated, one after the other and side by side; and then there is one that nothing answers."""
    await _begun(world, f"{thread}-from")
    await _rehearsal(world, f"{thread}-from", thread, "the show")
    accepted = await world.client.send(thread, "the flight")
    assert (await world.ended(thread, accepted.message_id)).error_type == "NotSimulated"


async def promoted(world: World, thread: str) -> None:
    """The plan of a dry run is followed until a call is rejected."""
    await _begun(world, thread)
    await _rehearsal(world, thread, f"{thread}-plan", "the show")
    await world.client.promote(thread, f"{thread}-plan", by="zoe", reason="it was good")
    for count in (1, 2):
        for request in (await world.opened(thread, count)).open:
            await world.client.decide(thread, "approve", request, approver="ann")
    (last,) = (await eventually(lambda: world.client.approvals(thread), lambda a: len(a.open) == 1)).open
    await world.client.decide(thread, "reject", last, approver="ann", reason="too long")
    status = await eventually(lambda: world.client.status(thread), lambda s: len(s.results) == 2 and not s.node)
    assert status.results[-1].answer == "The end."


SCENES = (rehearsed, promoted)
