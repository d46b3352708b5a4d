"""Scenes for ``tests/record_histories.py``: sagas, hooks that tell how a call ended, and tokens."""

from typing import Annotated

from perdure import OneTime, Outcome, ToolContext, ToolError, tool
from perdure.testing import Rule, call, say, together
from tests.world import World, eventually

known: set[str] = set()  # threads in which the hook can tell


@tool(effect="compensable", compensate="unreserve", saga="booking", undo_after=["insure"])
async def reserve(ctx: ToolContext, what: str) -> str:
    """Reserve something."""
    return what


@tool(effect="compensable", compensate="uninsure", saga="booking", undo_after=[])
async def insure(ctx: ToolContext) -> str:
    """Insure it."""
    return "insured"


@tool(effect="idempotent", hidden=True)
async def unreserve(ctx: ToolContext, receipt: str) -> None:
    """Give it back; the boat is out."""
    if receipt == "boat":
        raise ToolError("The boat is out.")


@tool(effect="idempotent", hidden=True)
async def uninsure(ctx: ToolContext, receipt: str) -> None:
    """End the insurance."""


@tool(effect="idempotent", on_error="rollback")
async def set_out(ctx: ToolContext) -> None:
    """It rains, and the whole booking is taken back."""
    ctx.saga("booking")
    raise ToolError("It rains.")


@tool(effect="irreversible", reconcile="posted")
async def post(ctx: ToolContext, to: str) -> str:
    """Post a letter; nobody answers."""
    raise ConnectionError("the line broke")


@tool(hidden=True)
async def posted(ctx: ToolContext, to: str) -> Outcome:
    """The post office knows of letters to Bern, and later of others."""
    return Outcome.done("posted") if to == "bern" or ctx.thread_id in known else Outcome.unknown()


@tool(effect="idempotent")
async def enter(ctx: ToolContext, ticket: Annotated[str, OneTime]) -> str:
    """Enter, once."""
    return "in"


TOOLS = [reserve, insure, set_out, post, enter]
HIDDEN = [unreserve, uninsure, posted]
RULES = [
    Rule(
        when="book a trip",
        replies=[together(call("reserve", what="tent"), call("reserve", what="boat")), call("insure"), say("Booked.")],
    ),
    Rule(when="set out", replies=[call("set_out")]),
    Rule(when="post to bern", replies=[call("post", to="bern"), say("Posted.")]),
    Rule(when="post to oslo", replies=[call("post", to="oslo"), say("Posted.")]),
    Rule(when="enter twice", replies=[call("enter", ticket="t"), call("enter", ticket="t"), say("Out again.")]),
]  # fmt: skip


async def _turn(world: World, thread: str, message: str, *, first: bool = True) -> str:
    """Begin a turn; the id of its message."""
    if first:
        return (await world.client.start("desk", message, thread=thread))[1].message_id
    return (await world.client.send(thread, message)).message_id


async def saga(world: World, thread: str) -> None:
    """A call that has joined a saga fails: compensations of an earlier turn side by side, one of which fails too; a
    person settles it."""
    await world.ended(thread, await _turn(world, thread, "book a trip"))
    result = await world.ended(thread, await _turn(world, thread, "set out", first=False))
    assert (len(result.residue.undone), len(result.residue.needs_attention)) == (2, 1)
    (stuck,) = [effect for effect in await world.client.effects(thread) if effect.status == "needs_attention"]
    await world.client.resolve(thread, stuck.key, done=False, by="ann")


async def reconciled(world: World, thread: str) -> None:
    """The hook knows at once."""
    result = await world.ended(thread, await _turn(world, thread, "post to bern"))
    assert result.answer == "Posted."
    assert [effect.status for effect in await world.client.effects(thread)] == ["done"]


async def asked_again(world: World, thread: str) -> None:
    """The hook can't tell, and later it can, when a person has it asked."""
    message = await _turn(world, thread, "post to oslo")
    await world.stands(thread, "in_doubt")
    known.add(thread)
    (effect,) = await world.client.effects(thread)
    await world.client.resolve(thread, effect.key, done=None, by="ann")
    assert (await world.ended(thread, message)).answer == "Posted."


async def token_refused(world: World, thread: str) -> None:
    """The second call with a token is refused."""
    await world.ended(thread, await _turn(world, thread, "enter twice"))
    ledger = await eventually(lambda: world.client.effects(thread), lambda found: len(found) == 2)
    assert [effect.status for effect in ledger] == ["done", "failed"]


SCENES = (saga, reconciled, asked_again, token_refused)
