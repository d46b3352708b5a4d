"""An agent is edited while its threads live: a turn goes on as it began, the next one is as the agent is now."""

from typing import Any

import pytest

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.errors import AgentNotFound
from perdure.testing import Conversation, Rule, call, say
from tests.conftest import MakeWorld
from tests.witness import Holds, Listener, Witness
from tests.world import World

witness = Witness()
holds = Holds()


def _book(version: str) -> Any:
    """The tool ``book`` as a version of the app has it."""

    @tool(effect="compensable", compensate="unbook")
    async def book(ctx: ToolContext, what: str) -> str:
        """Book something."""
        witness.saw(ctx, f"{version}: book {what}")
        return what

    return book


def _look(version: str) -> Any:
    """The tool ``look`` as a version of the app has it; the first one waits until it is let go."""

    @tool
    async def look(ctx: ToolContext) -> str:
        """Look around."""
        witness.saw(ctx, f"{version}: look")
        if version == "old":
            await holds[ctx.thread_id].wait()
        return f"seen by the {version} one"

    return look


@tool(effect="idempotent", hidden=True)
async def unbook(ctx: ToolContext, receipt: str) -> None:
    """Give the booking back."""
    witness.saw(ctx, f"unbook {receipt}")


@tool(effect="irreversible", approval=Approval(approvers=["ann"]))
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay."""
    witness.saw(ctx, f"pay {amount}")
    return "paid"


def _dearer_pay() -> Any:
    """The tool ``pay`` of a version in which it takes one argument more."""

    @tool(effect="irreversible", approval=Approval(approvers=["ann"]))
    async def pay(ctx: ToolContext, amount: int, tip: int = 1) -> str:
        """Pay, and a little more."""
        witness.saw(ctx, f"pay {amount + tip}")
        return "paid"

    return pay


@tool
async def greet(ctx: ToolContext, who: str) -> str:
    """Greet somebody."""
    witness.saw(ctx, f"greet {who}")
    return f"Hello, {who}"


OLD = App(
    agents=[Agent(name="desk", model="m", instructions="Be brief.", tools=[_look("old"), _book("old"), pay])],
    tools=[unbook],
)
NEW = App(
    agents=[Agent(name="desk", model="m-2", instructions="Be kind.", tools=[_look("new"), _book("new"), pay, greet])],
    tools=[unbook],
)
LESS = App(agents=[Agent(name="desk", model="m", instructions="Be brief.", tools=[greet])])
DEARER = App(
    agents=[Agent(name="desk", model="m", tools=[_look("new"), _book("new"), _dearer_pay(), greet])], tools=[unbook]
)
OTHER = App(agents=[Agent(name="porter", model="m", tools=[greet])], tools=[_book("old"), unbook, pay])

AS_OLD = ("m", "Be brief.", ("look", "book", "pay"))
AS_NEW = ("m-2", "Be kind.", ("look", "book", "pay", "greet"))

PAY = [call("book", what="room"), call("pay", amount=7)]


def told(*replies: Any) -> Listener:
    """A model that says these things after "go", and greets after "more"."""
    return Listener(
        rules=[
            Rule(when="go", replies=replies),
            Rule(when="more", replies=[call("greet", who="bob"), say("Greeted.")]),
        ]
    )


def asked(conversation: Conversation) -> tuple[str, str, tuple[str, ...]]:
    """What the model was told of the agent: its model, its instructions, its tools."""
    tools = tuple(offered["function"]["name"] for offered in conversation.tools or ())
    return conversation.model, conversation.system, tools


async def waits(world: World, thread: str) -> ApprovalRequest:
    """The one request that the thread waits with."""
    (request,) = (await world.opened(thread)).open
    return request


async def more(world: World, thread: str) -> str:
    """Another turn of the thread; its answer."""
    accepted = await world.client.send(thread, "more")
    return (await world.ended(thread, accepted.message_id)).answer


async def log(world: World, thread: str) -> str:
    """What the thread's status tells of what happened."""
    return "\n".join(entry.text for entry in (await world.client.status(thread)).log)


# ── a turn keeps the agent it began with ─────────────────────────────────────────────────────────────────────────────


async def test_a_turn_that_waits_goes_on_with_the_agent_it_began_with(make_world: MakeWorld) -> None:
    """Model, prompt and tools are the old ones until the turn has ended; the next turn has the new ones."""
    said = told(*PAY, say("Paid."))
    async with make_world(OLD, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            request = await waits(world, thread)
        async with world.worker(NEW):
            await world.client.decide(thread, "approve", request, approver="ann")
            assert (await world.ended(thread, message_id)).answer == "Paid."
            assert [asked(conversation) for conversation in said.heard] == [AS_OLD] * 3
            assert await more(world, thread) == "Greeted."
        assert [asked(conversation) for conversation in said.heard] == [AS_OLD] * 3 + [AS_NEW] * 2
        assert witness.of(thread) == ["old: book room", "pay 7", "greet bob"]


async def test_a_turn_at_work_goes_on_with_the_agent_it_began_with(make_world: MakeWorld) -> None:
    """A call under way is taken over by the new code of its tool; what the model is told stays as it was."""
    said = told(call("look"), call("book", what="room"), say("Booked."))
    async with make_world(OLD, said, serve=False, shutdown=0.1) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            await holds[thread].arrived()
        async with world.worker(NEW):
            assert (await world.ended(thread, message_id)).answer == "Booked."
            assert await more(world, thread) == "Greeted."
        assert witness.of(thread) == ["old: look", "new: look", "new: book room", "greet bob"]
        assert ("tool", "seen by the new one") in said.told(1)
        assert [asked(conversation) for conversation in said.heard] == [AS_OLD] * 3 + [AS_NEW] * 2


async def test_a_tool_that_came_later_is_not_there_yet(make_world: MakeWorld) -> None:
    """A model that asks a running turn for it reads which tools there are."""
    said = told(*PAY, call("greet", who="bob"), say("Paid."))
    async with make_world(OLD, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            request = await waits(world, thread)
        async with world.worker(NEW):
            await world.client.decide(thread, "approve", request, approver="ann")
            assert (await world.ended(thread, message_id)).answer == "Paid."
        assert said.told()[-1] == ("tool", "Error: There is no tool 'greet'. Tools: look, book, pay.")
        assert "greet bob" not in witness.of(thread)


async def test_an_approval_is_for_the_arguments_that_were_shown(make_world: MakeWorld) -> None:
    """A tool that has come to take one more argument, be it by default, isn't run under it: the turn is undone."""
    said = told(*PAY)
    async with make_world(OLD, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            request = await waits(world, thread)
        async with world.worker(DEARER):
            await world.client.decide(thread, "approve", request, approver="ann")
            result = await world.ended(thread, message_id)
            assert (result.outcome, result.residue.undone) == ("failed", ('book(what="room")',))
            assert "The arguments of pay are not the ones that were planned (and approved)." in result.error
            assert await more(world, thread) == "Greeted."
        assert witness.of(thread) == ["old: book room", "unbook room", "greet bob"]


# ── what was removed ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_removed_tool_that_was_approved_is_an_error_for_the_model(make_world: MakeWorld) -> None:
    """It names the tool, stands in the log, and is clear: an irreversible call that never began isn't in doubt."""
    said = told(call("pay", amount=7), call("look"), say("A pity."))
    async with make_world(OLD, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            request = await waits(world, thread)
        async with world.worker(LESS):
            await world.client.signal_decision(thread, "approve", request, approver="ann")
            result = await world.ended(thread, message_id)
            assert (result.outcome, result.answer) == ("answered", "A pity.")
            gone = "The tool 'pay' is no longer part of the app."
            assert said.told(1)[-1] == ("tool", f"Error: {gone}")
            assert said.told(2)[-1] == ("tool", "Error: The tool 'look' is no longer available.")
            assert f"pay(amount=7) failed: {gone}" in await log(world, thread)
            assert "look: The tool 'look' is no longer available." in await log(world, thread)
            (effect,) = await world.client.effects(thread)
            assert (effect.status, effect.error) == ("failed", gone)
            assert (await world.client.status(thread)).status == "idle"
            assert await more(world, thread) == "Greeted."
        assert witness.of(thread) == ["greet bob"]
        assert asked(said.heard[-1]) == ("m", "Be brief.", ("greet",))


async def test_a_removed_compensation_needs_attention(make_world: MakeWorld) -> None:
    """What can't be undone any more is named with what is missing; once deployed again it is undone after all."""
    async with make_world(OLD, told(call("book", what="room"), say("Booked.")), serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            await world.ended(thread, message_id)
        gone = "The tool 'unbook' is no longer part of the app."
        async with world.worker(LESS):
            left = await world.client.compensate(thread)
            assert (left.undone, left.needs_attention) == ((), ('book(what="room")',))
            status = await world.client.status(thread)
            assert status.status == "needs_attention"
            assert 'book(what="room") (needs_attention)' in status.attention[0]
            assert f'could not undo book(what="room"): {gone}' in await log(world, thread)
            (effect,) = await world.client.effects(thread)
            assert (effect.status, effect.error) == ("needs_attention", gone)
        async with world.worker():
            assert (await world.client.compensate(thread)).undone == ('book(what="room")',)
            assert (await world.client.status(thread)).status == "idle"
        assert witness.of(thread) == ["old: book room", "unbook room"]


async def test_a_turn_that_is_stopped_after_its_compensation_was_removed(make_world: MakeWorld) -> None:
    """Its rollback ends all the same, and says what is left; the thread takes the next message."""
    said = told(*PAY)
    async with make_world(OLD, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            await waits(world, thread)
        async with world.worker(LESS):
            await world.client.cancel(thread, by="ann")
            result = await world.ended(thread, message_id)
            assert (result.outcome, result.residue.needs_attention) == ("cancelled", ('book(what="room")',))
            assert (await world.client.status(thread)).status == "needs_attention"
            assert await more(world, thread) == "Greeted."
        assert 'Could not be undone, needs attention: book(what="room").' in str(said.told())


async def test_a_removed_agent_ends_the_turn_with_its_name(make_world: MakeWorld) -> None:
    """The turn fails and is undone; messages are refused with the reason until the agent is back."""
    said = told(*PAY)
    async with make_world(OLD, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("desk", "go")
            request = await waits(world, thread)
        async with world.worker(OTHER):
            await world.client.decide(thread, "approve", request, approver="ann")
            result = await world.ended(thread, message_id)
            assert (result.outcome, result.residue.undone) == ("failed", ('book(what="room")',))
            assert "There is no agent 'desk'." in result.error
            with pytest.raises(AgentNotFound, match="There is no agent 'desk'"):
                await world.client.send(thread, "more")
        async with world.worker(NEW):
            assert await more(world, thread) == "Greeted."
        assert ("tool", "Its result is unknown: the turn was stopped.") in said.told()
        assert witness.of(thread) == ["old: book room", "unbook room", "greet bob"]
