"""Policies of approvals: groups and quorums, duties kept apart, silence, escalation, and what is remembered."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from perdure import Agent, App, Approval, Escalation, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.errors import DecisionRefused, DefinitionError
from perdure.testing import Rule, call, say, together
from perdure.tool import Tool
from tests.conftest import MakeWorld
from tests.witness import Listener, Witness
from tests.world import World, eventually

witness = Witness()
DAY = timedelta(hours=24)


def gated(name: str, **policy: Any) -> Tool:
    """A tool behind a gate, which tells what it did and who approved it."""

    @tool(name=name, effect="irreversible", approval=Approval(**policy))
    async def act(ctx: ToolContext, what: str) -> str:
        """Do something."""
        witness.saw(ctx, f"{name} {what} by {'+'.join(ctx.approved_by)}")
        return f"did {what}"

    return act


PEOPLE = ["ann", "bob", "cid"]
TOOLS = [
    gated("grouped", approvers=["finance", "ann"], quorum=2),
    gated("asked", approvers=PEOPLE, separation=["requester"]),
    gated("apart", approvers=PEOPLE, separation=["steps"]),
    gated("expiring", approvers=["ann"]),
    gated("rejecting", approvers=["ann"], silence="reject"),
    gated("rising", approvers=["ann", "bob"], quorum=2, escalations=[Escalation(approvers=["board"], quorum=2)]),
    gated("sinking", approvers=["ann", "bob"], quorum=2, escalations=[Escalation(approvers=["dan"], expires="1h")]),
    gated("remembering", approvers=PEOPLE, remember=True),
    gated("forgetting", approvers=PEOPLE),
]
GROUPS = {"finance": ["ann", "bob"], "board": ["dan", "eve"]}
APP = App(agents=[Agent(name="clerk", model="m", tools=TOOLS)], groups=GROUPS)


def script() -> Listener:
    """A call for a message that names its tool; where approvals may be remembered, one after the other."""
    rules = [Rule(when=one.name, replies=[call(one.name, what="x"), say("Done.")]) for one in TOOLS]
    two = together(call("apart", what="x"), call("apart", what="y"))
    again = [
        Rule(when=f"{name} again", replies=[*_again(name), say("Done.")]) for name in ("remembering", "forgetting")
    ]
    return Listener(rules=[*again, Rule(when="apart twice", replies=[two, say("Done.")]), *rules])


def _again(name: str) -> Sequence[Any]:
    return [call(name, what="x"), call(name, what="x"), call(name, what="y")]


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The clerk on a worker."""
    async with make_world(APP, script()) as made:
        yield made


async def asked(world: World, message: str, count: int = 1, *, sender: str = "") -> tuple[str, str]:
    """A thread that asks for so many approvals; the ids of thread and message."""
    thread, accepted = await world.client.start("clerk", message, thread=world.thread(), sender=sender)
    await world.opened(thread, count)
    return thread, accepted.message_id


async def approve(world: World, thread: str, who: str, request: ApprovalRequest | None = None) -> str:
    """Say yes to a request (the only open one); empty where it counts, else the code of the refusal."""
    try:
        found = request or await world.client.request(thread)
        await world.client.decide(thread, "approve", found, approver=who)
    except DecisionRefused as refusal:
        return refusal.code
    return ""


async def risen(world: World, thread: str) -> ApprovalRequest:
    """The only open request, once it has escalated."""
    return await eventually(lambda: world.client.request(thread), lambda request: request.level == 1)


async def kinds(world: World, thread: str) -> list[str]:
    """What the audit tells, in order."""
    return [row.entry.kind for row in await world.store.audit(thread)]


# ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_groups_are_people_and_a_quorum_counts_each_once(world: World) -> None:
    """`finance` and `ann` are two people, though ann is named twice; her second yes is none."""
    thread, message = await asked(world, "grouped")
    assert (await world.client.request(thread)).policy.approvers == ("ann", "bob")
    assert [await approve(world, thread, who) for who in ("ann", "ann", "finance", "cid")] == [
        "", "repeated", "not_an_approver", "not_an_approver",
    ]  # fmt: skip
    assert witness.of(thread) == []
    assert await approve(world, thread, "bob") == ""
    await world.ended(thread, message)
    assert witness.of(thread) == ["grouped x by ann+bob"]


@pytest.mark.parametrize(
    ("policy", "groups", "why"),
    [
        ({"approvers": ["finance", "ann"], "quorum": 3}, GROUPS, "A quorum of 3 can't be reached by 2 approvers"),
        ({"approvers": ["ann"], "quorum": 2}, {}, "A quorum of 2 can't be reached by 1 approvers"),
        ({"approvers": ["finance"]}, {"finance": []}, "Nobody is in finance"),
        (
            {"approvers": ["ann"], "escalations": [Escalation(approvers=["board"], quorum=4)]}, GROUPS,
            "A quorum of 4 can't be reached by 3 approvers",
        ),
        ({"approvers": ["ann"], "escalations": [Escalation(approvers=["board"])]}, {"board": []}, "Nobody is in board"),
    ],
)  # fmt: skip
def test_a_policy_that_cannot_be_met_is_refused_when_the_app_is_made(
    policy: dict[str, Any], groups: dict[str, list[str]], why: str
) -> None:
    """Also a group without people: no approvers would mean anyone."""
    with pytest.raises(DefinitionError, match=why):
        App(agents=[Agent(name="clerk", model="m", tools=[gated("act", **policy)])], groups=groups)


# ── duties ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_whoever_asked_for_it_cannot_approve_it(world: World) -> None:
    """The sender of the message may not; in a fork neither may the sender, nor who let it go on. They may stop it."""
    thread, message = await asked(world, "asked", sender="ann")
    assert await approve(world, thread, "ann") == "separation"
    [before] = [checkpoint for checkpoint in await world.client.history(thread) if checkpoint.step == 1]
    fork = (await world.client.fork(thread, before.id, thread=world.thread(), hold=True)).thread_id
    await world.client.resume(fork, by="bob")
    await world.opened(fork)
    assert [await approve(world, fork, who) for who in ("ann", "bob", "cid")] == ["separation", "separation", ""]
    await eventually(lambda: world.client.status(fork), lambda status: not status.node and status.results != ())
    await world.client.decide(thread, "reject", await world.client.request(thread), approver="ann")
    await world.ended(thread, message)
    assert (witness.of(fork), witness.of(thread)) == (["asked x by cid"], [])


async def test_whoever_writes_a_call_into_the_state_has_asked_for_it(world: World) -> None:
    """bob makes a call that no model asked for, and ann lets it go on: neither passes for somebody else."""
    thread, message = await world.begin("clerk", "hello")
    await world.ended(thread, message)
    wanted = {"id": "x1", "name": "asked", "arguments": '{"what": "z"}'}
    said = {"role": "assistant", "tool_calls": [wanted]}
    await world.client.update_state(thread, {"messages": [said]}, as_node="model", by="bob")
    await world.client.resume(thread, by="ann")
    await world.opened(thread)
    assert [await approve(world, thread, who) for who in ("bob", "ann", "cid")] == ["separation", "separation", ""]
    await eventually(lambda: world.client.status(thread), lambda status: len(status.results) == 2)
    assert witness.of(thread) == ["asked z by cid"]


async def test_where_nobody_is_named_as_the_one_who_asked_nobody_is_asked(world: World) -> None:
    """The call isn't made, nobody could say whether duties are apart; the model reads why."""
    thread, message = await world.begin("clerk", "asked")
    await world.ended(thread, message)
    said = (await world.client.state(thread))["messages"][-2]["content"]
    assert said == (
        "The call was not made: whoever asked for it can't approve it, and nobody is named as the one who asked."
    )
    assert (witness.of(thread), await kinds(world, thread)) == ([], [])


async def test_whoever_approved_another_step_cannot_approve_this_one(world: World) -> None:
    """In the same turn; in the next one that is over."""
    thread, message = await asked(world, "apart twice", 2)
    first, second = (await world.client.approvals(thread)).open
    assert [await approve(world, thread, "ann", one) for one in (first, second)] == ["", "separation"]
    assert await approve(world, thread, "bob", second) == ""
    await world.ended(thread, message)
    assert sorted(witness.of(thread)) == ["apart x by ann", "apart y by bob"]
    await world.client.send(thread, "apart")
    await world.opened(thread)
    assert await approve(world, thread, "ann") == ""


# ── silence ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "outcome"), [("expiring", "expired"), ("rejecting", "rejected")])
async def test_silence_is_nobodys_decision(world: World, name: str, outcome: str) -> None:
    """Whatever the policy makes of it: no decision is recorded, and the model doesn't read that anybody rejected it."""
    thread, message = await asked(world, name)
    await world.forward(thread, DAY)
    await world.ended(thread, message)
    [closed] = (await world.client.approvals(thread)).closed
    assert (closed.outcome, closed.decisions) == (outcome, ())
    assert await kinds(world, thread) == ["request.opened", "request.reminded", "request.closed"]
    said = (await world.client.state(thread))["messages"][-2]["content"]
    assert ("rejected by" in said, witness.of(thread)) == (False, [])


# ── escalation ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_escalation_adds_people_and_keeps_what_was_decided(world: World) -> None:
    """Before it, the board has no say; after it, ann's yes still counts, and so does one of the board."""
    thread, message = await asked(world, "rising")
    assert [await approve(world, thread, who) for who in ("ann", "dan")] == ["", "not_an_approver"]
    await world.forward(thread, DAY)
    request = await risen(world, thread)
    assert (request.approvals(), request.asked.approvers) == (1, ("ann", "bob", "dan", "eve"))
    assert [await approve(world, thread, who) for who in ("ann", "eve")] == ["repeated", ""]
    await world.ended(thread, message)
    assert witness.of(thread) == ["rising x by ann+eve"]


async def test_an_escalation_may_ask_for_fewer(world: World) -> None:
    """With one yes already there it lets the call run; with none it waits for its own time, and then expires."""
    one, message = await asked(world, "sinking")
    none, other = await asked(world, "sinking")
    assert await approve(world, one, "bob") == ""
    for thread in (one, none):
        await world.forward(thread, DAY)
    await world.ended(one, message)
    assert witness.of(one) == ["sinking x by bob"]
    assert (await kinds(world, one))[-2:] == ["request.escalated", "request.closed"]
    await risen(world, none)
    await world.forward(none, timedelta(hours=1))
    await world.ended(none, other)
    assert ((await world.client.approvals(none)).closed[0].outcome, witness.of(none)) == ("expired", [])


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_approval_is_remembered_for_the_same_call_of_the_turn_only(world: World) -> None:
    """Not for other arguments, not in the next turn, not after a rewind, not in a fork."""
    thread, message = await asked(world, "remembering again", sender="zoe")
    assert await approve(world, thread, "ann") == ""
    other = await eventually(lambda: world.client.approvals(thread), lambda a: len(a.closed) == len(a.open) == 1)
    assert other.open[0].arguments == {"what": "y"}
    assert witness.of(thread) == ["remembering x by ann"] * 2
    told = await eventually(lambda: kinds(world, thread), lambda told: len(told) == 5)
    assert told[3:] == ["request.remembered", "request.opened"]
    assert await approve(world, thread, "bob") == ""
    await world.ended(thread, message)

    line = await world.client.history(thread)
    fork = (await world.client.fork(thread, line[-2].id, thread=world.thread())).thread_id
    await world.client.rewind(thread, line[-2].id, keep_effects=True, go_on=True)
    for again in (thread, fork):
        assert (await world.opened(again)).open[0].arguments == {"what": "x"}
    assert (len(witness.of(thread)), witness.of(fork)) == (3, [])
    await world.client.cancel(thread)
    await world.client.send(thread, "remembering")
    await eventually(lambda: world.client.approvals(thread), lambda a: [r.turn for r in a.open] == [2])


async def test_where_the_policy_does_not_say_so_nothing_is_remembered(world: World) -> None:
    """The same call, asked for again in the same turn, waits again; also where the same decision is sent again."""
    thread, _ = await asked(world, "forgetting again")
    first = await world.client.request(thread)
    assert await approve(world, thread, "ann", first) == ""
    answer = await eventually(lambda: world.client.approvals(thread), lambda a: len(a.closed) == len(a.open) == 1)
    assert (answer.open[0].digest, answer.open[0].id) == (first.digest, "a2")
    assert await approve(world, thread, "ann", first) == "closed"
    assert witness.of(thread) == ["forgetting x by ann"]


async def test_a_request_has_its_id_for_itself_also_when_the_thread_is_taken_up_again(world: World) -> None:
    """Its workflow had completed, and the same call is asked for again: a late yes to the first is none to this."""
    thread, message = await asked(world, "expiring")
    first = await world.client.request(thread)
    await world.forward(thread, DAY)
    await world.ended(thread, message)
    await world.completes(thread)
    await world.client.send(thread, "expiring")
    [second] = (await world.opened(thread)).open
    assert second.digest == first.digest
    assert await approve(world, thread, "ann", first) == "unknown_request"
    assert (await approve(world, thread, "ann", second), second.id != first.id) == ("", True)
