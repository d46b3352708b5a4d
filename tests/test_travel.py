"""Time travel: forks, rewinds, updates and leases, as the workflow knows them.

Long: one claim a way to travel.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from perdure import Agent, App, Approval, Budget, State, ToolContext, append, tool
from perdure.care.verify import verify
from perdure.contracts import CALL_MODEL, FORK_THREAD
from perdure.effects import Effect
from perdure.errors import (
    ConcurrentModification,
    Conflict,
    InvalidInput,
    Irrevocable,
    LeaseHeld,
    NodeGone,
    Refused,
    ThreadBusy,
)
from perdure.starters.client import Client
from perdure.testing import Rule, Script, call, say, together
from tests.conftest import MakeWorld
from tests.witness import Witness
from tests.world import World, eventually

witness = Witness()


class Trip(State):
    """A trip that is planned."""

    notes: Annotated[list[str], append] = []
    city: str = ""


@tool(effect="compensable", compensate="cancel")
async def book(ctx: ToolContext, what: str) -> dict[str, str]:
    """Book something."""
    witness.saw(ctx, f"book {what}")
    ctx.update(notes=[f"booked {what}"])
    return {"booking": what}


@tool(effect="idempotent", hidden=True)
async def cancel(ctx: ToolContext, receipt: dict[str, str]) -> None:
    """Cancel it."""
    witness.saw(ctx, f"cancel {receipt['booking']}")


@tool(effect="irreversible")
async def post(ctx: ToolContext, text: str) -> str:
    """Send a letter."""
    witness.saw(ctx, f"post {text}")
    return "sent"


@tool(effect="idempotent", approval=Approval(reason="money"))
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay."""
    witness.saw(ctx, f"pay {amount} by {ctx.approved_by[0]}")
    return f"paid {amount}"


@tool
async def look(ctx: ToolContext, number: int) -> str:
    """Look at a number."""
    witness.saw(ctx, f"look {number}")
    return f"seen {number}"


LOOKS = 100  # each is two steps
SCRIPT = Script(
    rules=[
        Rule(
            when="trip",
            replies=[
                call("book", what="train"), call("book", what="hotel"), call("book", what="boat"),
                call("post", text="postcard"), say("All is booked."),
            ],
        ),
        Rule(when="Pay", replies=[call("pay", amount=7), say("Paid.")]),
        Rule(when="Both", replies=[together(call("book", what="car"), call("book", what="tent")), say("Both.")]),
        Rule(when="numbers", replies=[*(call("look", number=n) for n in range(LOOKS)), say("Seen all.")]),
        Rule(when="Hello", replies=[say("Hello.")]),
        Rule(on_error="changed", replies=[say("I see that it has changed.")]),
    ]
)  # fmt: skip
AGENT = Agent(
    name="trips", model="m", state=Trip, tools=[book, post, pay, look], budget=Budget(steps=400), context_tokens=10**6
)
app = App(agents=[AGENT], tools=[cancel])


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The agent on a worker."""
    async with make_world(app, SCRIPT) as made:
        yield made


async def turn(world: World, message: str) -> str:
    """A thread after the turn of a message."""
    thread, sent = await world.begin("trips", message)
    assert (await world.ended(thread, sent)).outcome == "answered"
    return thread


async def at_step(world: World, thread: str, step: int) -> str:
    """The checkpoint of a step."""
    [found] = [c.id for c in await world.client.history(thread, limit=1000) if c.step == step]
    return found


async def forked(world: World, origin: str, at: str, **more: Any) -> str:
    """A fork; its id."""
    return (await world.client.fork(origin, at, thread=world.thread(), **more)).thread_id


async def without_ids(world: World, thread: str) -> dict[str, Any]:
    """The state, without the ids of messages: in them stands the step, and a fork is a step of its own."""
    state = await world.client.state(thread)
    return state | {"messages": [message | {"id": ""} for message in state["messages"]]}


async def labels(world: World, thread: str) -> dict[str, str]:
    """The ledger, as label -> status."""
    return {effect.label(): effect.status for effect in await world.client.effects(thread)}


# ── rewind ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def scheduled(world: World, thread: str) -> list[str]:
    """The activities of a thread's latest run, in their order."""
    events = (await world.handle(thread).fetch_history()).events
    every = [event.activity_task_scheduled_event_attributes.activity_type.name for event in events]
    return list(filter(None, every))


async def test_a_rewind_lists_refuses_what_cannot_be_undone_and_goes_on_when_told(world: World) -> None:
    thread = await turn(world, "Plan the trip.")
    start = await at_step(world, thread, 0)
    plan = await world.client.rewind_plan(thread, start)

    def told(effects: tuple[Effect, ...]) -> list[str]:
        return [effect.tool + effect.summary.partition('"')[2].rstrip('")') for effect in effects]

    assert told(plan.undo) == ["bookboat", "bookhotel", "booktrain"]
    assert (told(plan.impossible), plan.keep, plan.unsettled) == (["postpostcard"], (), ())
    before, length = await world.client.history(thread, limit=100), await world.length(thread)
    deeds = witness.of(thread)
    with pytest.raises(Irrevocable, match="postcard"):
        await world.client.rewind(thread, start)
    assert await world.client.history(thread, limit=100) == before
    assert witness.of(thread) == deeds == ["book train", "book hotel", "book boat", "post postcard"]
    assert await world.length(thread) > length  # it was looked at, and that is all

    done = await world.client.rewind(thread, start, keep_effects=True, by="anna", reason="start over")
    assert witness.of(thread) == [*deeds, "cancel boat", "cancel hotel", "cancel train"]
    assert len(done.residue.undone) == 3 and "postcard" in done.residue.still_done[0]
    ledger = await labels(world, thread)
    assert sorted(ledger.values()) == ["done", "undone", "undone", "undone"]
    head, *_ = await world.client.history(thread)
    assert (head.source, head.parent_id, head.step) == ("rewind", start, 1)
    assert head.facts["by"] == "anna" and head.next.nodes == ("model",)
    state = await world.client.state(thread)
    assert "notes" not in state and len(state["messages"]) == 1
    assert (await verify(world.store, thread)).problem is None


async def test_what_follows_a_rewind_pays_for_no_call_again_and_acts_under_new_keys(world: World) -> None:
    thread = await turn(world, "Both of them.")
    start = await at_step(world, thread, 0)
    paid = len(world.model.calls_by_key)
    keys = {effect.key for effect in await world.client.effects(thread)}
    await world.client.rewind(thread, start, go_on=True)
    await eventually(lambda: world.client.history(thread), lambda line: len(line) == 5 and not line[0].next.tasks)
    assert sorted(witness.of(thread)) == ["book car"] * 2 + ["book tent"] * 2 + ["cancel car", "cancel tent"]
    assert len(world.model.calls_by_key) == paid
    effects = await world.client.effects(thread)
    assert len({effect.key for effect in effects}) == 4 and {e.key for e in effects if e.branch == 0} == keys
    usages = [c.usage for c in await world.client.history(thread) if c.nodes == ("model",)]
    assert [(usage.calls, usage.cached, usage.tokens) for usage in usages] == [(1, 1, 0)] * 2
    [left] = (await world.client.status(thread)).results[-1:]
    assert left.outcome == "answered"
    assert (await verify(world.store, thread)).problem is None


async def test_a_rewind_stops_the_turn_that_runs_and_withdraws_what_waits(world: World) -> None:
    thread, _ = await world.begin("trips", "Pay now.")
    await world.opened(thread)
    start = await at_step(world, thread, 0)
    done = await world.client.rewind(thread, start)
    assert done.next == ("model",)
    approvals = await world.client.approvals(thread)
    assert not approvals.open and approvals.closed[-1].outcome == "withdrawn"
    await world.client.resume(thread)
    again = await world.opened(thread)
    assert again.open[0].id == "a2"
    await world.client.decide(thread, "approve", again.open[0], approver="ben")
    await eventually(lambda: world.client.status(thread), lambda s: s.results[-1:] != () and not s.node)
    assert witness.of(thread) == ["pay 7 by ben"]


async def test_a_rewind_to_what_is_not_on_the_way_back_is_refused(world: World) -> None:
    thread = await turn(world, "Hello.")
    first = await at_step(world, thread, 1)
    await world.client.rewind(thread, await at_step(world, thread, 0))
    for bad, error in ((first, InvalidInput), ("nothing", Exception)):
        with pytest.raises(error):
            await world.client.rewind(thread, bad)
    head = (await world.client.checkpoint(thread)).head
    assert head is not None
    with pytest.raises(ConcurrentModification):
        await world.client.rewind(thread, await at_step(world, thread, 0), expected_version=first)


# ── fork ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_fork_in_the_middle_of_200_steps_pays_only_for_its_own_calls(world: World) -> None:
    thread = await turn(world, "Look at the numbers.")
    assert len(await world.client.history(thread, limit=1000)) == 2 * LOOKS + 2
    paid, deeds = len(world.model.calls_by_key), witness.of(thread)
    middle = await at_step(world, thread, LOOKS)  # after half of the looks
    messages = (await world.client.state(thread, middle))["messages"]
    changed = [*messages[:-1], {**messages[-1], "content": "changed", "note": "error"}]
    fork = await forked(world, thread, middle, state={"messages": changed})
    status = await eventually(lambda: world.client.status(fork), lambda s: bool(s.results) and not s.node)
    assert status.results[-1].answer == "I see that it has changed."
    assert len(world.model.calls_by_key) == paid + 1
    assert (witness.of(thread), witness.of(fork)) == (deeds, [])
    assert await scheduled(world, fork) == [FORK_THREAD.name, CALL_MODEL.name], "nothing between it and its first call"
    line = await world.client.history(fork, limit=1000)
    assert [c.source for c in line[:2]] == ["step", "fork"] and len(line) == LOOKS + 3
    assert (line[1].parent_thread, line[1].parent_id) == (thread, middle)
    assert (await verify(world.store)).problem is None


async def test_a_fork_that_changes_nothing_pays_nothing_and_leaves_its_origin_alone(world: World) -> None:
    thread = await turn(world, "Both of them.")
    paid, before = len(world.model.calls_by_key), await world.client.history(thread)
    fork = await forked(world, thread, await at_step(world, thread, 1))
    await eventually(lambda: world.client.status(fork), lambda s: bool(s.results) and not s.node)
    assert len(world.model.calls_by_key) == paid
    assert sorted(witness.of(fork)) == ["book car", "book tent"]
    assert await world.client.history(thread) == before
    assert {e.key for e in await world.client.effects(thread)}.isdisjoint(
        e.key for e in await world.client.effects(fork)
    )
    assert await without_ids(world, fork) == await without_ids(world, thread)


async def test_an_approval_is_never_inherited(world: World) -> None:
    thread, sent = await world.begin("trips", "Pay now.")
    [request] = (await world.opened(thread)).open
    fork = await forked(world, thread, await at_step(world, thread, 1))
    [asked] = (await world.opened(fork)).open
    await world.client.decide(thread, "approve", request, approver="ben")
    await world.ended(thread, sent)
    assert (await world.client.status(fork)).status == "awaiting_approval"
    assert (witness.of(thread), witness.of(fork)) == (["pay 7 by ben"], [])
    await world.client.decide(fork, "approve", asked, approver="eve")
    await eventually(lambda: world.client.status(fork), lambda s: bool(s.results) and not s.node)
    assert witness.of(fork) == ["pay 7 by eve"]


async def test_a_fork_that_cannot_be_made_says_why_and_leaves_nothing(world: World) -> None:
    thread = await turn(world, "Hello.")
    head = await at_step(world, thread, 1)
    for at, state, error in (
        ("nothing", {}, Exception),
        (head, {"city": 7}, InvalidInput),
        (head, {"x": 1}, InvalidInput),
    ):
        name = world.thread()
        with pytest.raises(error):
            await world.client.fork(thread, at, state=state, thread=name)
        assert await world.store.thread(name) is None
    with pytest.raises(Conflict):
        await world.client.fork(thread, head, thread=thread)


async def test_a_held_fork_stands_still_until_it_is_told_to_go_on_or_gets_a_message(world: World) -> None:
    thread = await turn(world, "Both of them.")
    one = await forked(world, thread, await at_step(world, thread, 1), hold=True)
    status = await world.stands(one, "idle")
    assert (status.node, witness.of(one)) == ("", [])
    accepted = await world.client.send(one, "Hello.")
    assert (await world.ended(one, accepted.message_id)).answer == "Hello."
    assert witness.of(one) == []  # the calls that were open are answered, not made
    two = await forked(world, thread, await at_step(world, thread, 1), hold=True)
    await world.stands(two, "idle")
    await world.client.resume(two)
    await eventually(lambda: world.client.status(two), lambda s: bool(s.results) and not s.node)
    assert sorted(witness.of(two)) == ["book car", "book tent"]
    with pytest.raises(Refused):
        await world.client.resume(two)


# ── update ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ten_clients_at_once_lose_nothing_silently(world: World) -> None:
    thread = await turn(world, "Hello.")
    seen = await at_step(world, thread, 1)

    async def write(number: int) -> str:
        try:
            await world.client.update_state(thread, {"notes": [f"n{number}"]}, expected_version=seen, by=f"c{number}")
        except ConcurrentModification as error:
            assert error.expected == seen and error.actual not in ("", seen)
            assert error.actual in error.message and seen in error.message
            return ""
        return f"n{number}"

    came = await asyncio.gather(*map(write, range(10)))
    [winner] = [note for note in came if note]
    assert (await world.client.state(thread))["notes"] == [winner]
    await asyncio.gather(*(world.client.update_state(thread, {"notes": [f"m{n}"]}) for n in range(10)))
    notes = (await world.client.state(thread))["notes"]
    assert sorted(notes) == sorted([winner, *(f"m{n}" for n in range(10))])


async def test_an_update_is_validated_overwrites_on_demand_and_counts_as_a_node(world: World) -> None:
    thread = await turn(world, "Hello.")
    for state in ({"city": 1}, {"nowhere": 1}):
        with pytest.raises(InvalidInput):
            await world.client.update_state(thread, state)
    with pytest.raises(NodeGone):
        await world.client.update_state(thread, {"city": "Bern"}, as_node="nobody")
    assert len(await world.client.history(thread)) == 2
    await world.client.update_state(thread, {"notes": ["a"]}, metadata={"why": "test"}, by="anna")
    await world.client.update_state(thread, {"notes": ["b"]}, overwrite=["notes"])
    head, before, *_ = await world.client.history(thread)
    assert (head.source, before.metadata, before.facts) == ("update", {"why": "test"}, {"by": "anna"})
    assert (await world.client.state(thread))["notes"] == ["b"]
    said = {"role": "assistant", "tool_calls": [{"id": "x1", "name": "look", "arguments": '{"number": 5}'}]}
    await world.client.update_state(thread, {"messages": [said]}, as_node="model")
    assert (await world.client.checkpoint(thread)).next == ("tools",)
    await world.client.resume(thread)
    await eventually(lambda: world.client.status(thread), lambda s: len(s.results) == 2 and not s.node)
    assert witness.of(thread) == ["look 5"]


async def test_a_turn_and_a_lease_keep_others_from_writing(world: World) -> None:
    thread, _ = await world.begin("trips", "Pay now.")
    await world.opened(thread)
    with pytest.raises(ThreadBusy):
        await world.client.update_state(thread, {"city": "Bern"})
    other = await turn(world, "Hello.")
    stranger = Client(world.temporal, world.settings)
    async with world.client.lease(other, holder="anna", seconds=600):
        for refused in (
            stranger.update_state(other, {"city": "Bern"}),
            stranger.send(other, "Hello."),
            stranger.rewind(other, await at_step(world, other, 0)),
        ):
            with pytest.raises(LeaseHeld, match="anna"):
                await refused
        row = await world.store.thread(other)
        assert row is not None and "anna" in row.lease
        await world.client.update_state(other, {"city": "Bern"})
    await stranger.close()
    await world.client.update_state(other, {"city": "Basel"})
    assert (await world.client.state(other))["city"] == "Basel"
