"""Arguments that a person changes: the tool validates them, they need the quorum afresh, and exactly they run."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from pydantic import Field

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.canonical import canonical
from perdure.effects import arguments_digest
from perdure.errors import DecisionRefused
from perdure.testing import Rule, call, say
from tests.conftest import MakeWorld
from tests.witness import Listener, Witness
from tests.world import World

witness = Witness()
PEOPLE = ["ann", "bob", "cid"]
ASKED = {"to": "x", "amount": 250, "note": "rent"}


@tool(effect="irreversible", approval=Approval(approvers=PEOPLE, quorum=2))
async def wire(ctx: ToolContext, to: str, amount: Annotated[int, Field(gt=0, le=1000)], note: str = "") -> str:
    """Send money."""
    witness.saw(ctx, f"{amount} to {to} ({note}) by {'+'.join(ctx.approved_by)} under {ctx.idempotency_key}")
    return "sent"


@tool(effect="irreversible", approval=Approval(approvers=PEOPLE, separation=["requester"]))
async def post(ctx: ToolContext, text: str) -> str:
    """Publish a text."""
    witness.saw(ctx, f"{text[:9]} by {'+'.join(ctx.approved_by)}")
    return "published"


APP = App(agents=[Agent(name="bank", model="m", tools=[wire, post])])
LONG = "x" * 300_000


@pytest.fixture
def script() -> Listener:
    """One call each, and an end."""
    return Listener(
        rules=[
            Rule(when="wire", replies=[call("wire", **ASKED), say("Sent.")]),
            Rule(when="post much", replies=[call("post", text=LONG), say("Out.")]),
            Rule(when="post", replies=[call("post", text="draft"), say("Out.")]),
        ]
    )


@pytest.fixture
async def world(make_world: MakeWorld, script: Listener) -> AsyncIterator[World]:
    """The bank on a worker."""
    async with make_world(APP, script) as made:
        yield made


async def asked(world: World, message: str) -> tuple[str, str, ApprovalRequest]:
    """A thread, its message, and the request that it waits for."""
    thread, accepted = await world.client.start("bank", message, thread=world.thread(), sender="zoe")
    return thread, accepted.message_id, (await world.opened(thread)).open[0]


async def edit(world: World, thread: str, who: str, arguments: dict[str, Any]) -> ApprovalRequest:
    """Ask for other arguments; the request as it is then."""
    request = await world.client.request(thread)
    answer = await world.client.decide(thread, "approve", request, approver=who, arguments=arguments)
    return next(one for one in (*answer.open, *answer.closed) if one.id == request.id)


async def lines(world: World, thread: str, kind: str) -> list[dict[str, Any]]:
    """What the audit tells of this kind."""
    return [row.entry.body for row in await world.store.audit(thread) if row.entry.kind == kind]


async def test_edited_arguments_need_the_quorum_afresh_and_exactly_they_run(world: World, script: Listener) -> None:
    """ann's yes was to other arguments. What changed stands in the request and in the audit; the tool runs once with
    the edited arguments under a key of their own, and the model is told who changed what."""
    thread, message, request = await asked(world, "wire")
    await world.client.decide(thread, "approve", request, approver="ann")
    wanted = ASKED | {"amount": 7, "note": "part"}
    edited = await edit(world, thread, "bob", wanted)
    assert edited.arguments == wanted
    assert edited.digest == arguments_digest("wire", canonical(wanted)) != request.digest
    assert [(d.approver, d.digest) for d in edited.decisions] == [("bob", edited.digest)]
    changes = {"amount": (250, 7), "note": ("rent", "part")}
    assert [(one.by, one.digest, one.changes) for one in edited.edits] == [("bob", request.digest, changes)]
    assert witness.of(thread) == []
    with pytest.raises(DecisionRefused, match=r"is for .* the decision names") as stale:
        await world.client.decide(thread, "approve", request, approver="cid")
    assert stale.value.code == "wrong_digest"
    await world.client.decide(thread, "approve", edited, approver="ann")
    await world.ended(thread, message)
    assert edited.key != request.key
    assert witness.of(thread) == [f"7 to x (part) by bob+ann under {edited.key}"]
    [told] = await lines(world, thread, "request.edited")
    assert (told["by"], told["before"], told["digest"]) == ("bob", request.digest, edited.digest)
    assert (told["changes"], told["arguments"]) == ({name: list(pair) for name, pair in changes.items()}, wanted)
    [effect] = await world.client.effects(thread)
    assert (effect.key, effect.summary) == (edited.key, edited.summary)
    assert script.told()[-1] == ("tool", 'sent\n[bob changed the arguments: wire(to="x", amount=7, note="part")]')


async def test_an_edit_back_to_the_first_arguments_revives_no_yes(world: World, script: Listener) -> None:
    """Two edits later the digest is the first one again, and yet ann has not said yes to it since."""
    thread, message, request = await asked(world, "wire")
    await world.client.decide(thread, "approve", request, approver="ann")
    await edit(world, thread, "bob", ASKED | {"amount": 7})
    back = await edit(world, thread, "cid", ASKED)
    assert (back.digest, back.outcome) == (request.digest, "open")
    assert [decision.approver for decision in back.decisions] == ["cid"]
    await world.client.decide(thread, "approve", back, approver="bob")
    await world.ended(thread, message)
    assert witness.of(thread) == [f"250 to x (rent) by cid+bob under {request.key}"]
    assert script.told()[-1] == ("tool", "sent"), "nothing was changed in the end"


NO_ARGUMENTS: dict[str, tuple[Any, str]] = {
    "an unknown name": ({**ASKED, "amuont": 7}, "amuont"),
    "a wrong type": ({**ASKED, "amount": "lots"}, "amount"),
    "what the tool forbids": ({**ASKED, "amount": 1001}, "less than or equal to 1000"),
    "one that is missing": ({"to": "x"}, "amount: Field required"),
    "none": ({}, "Field required"),
    "those that it has": (ASKED, "has these arguments already"),
    "the same, written otherwise": ({**ASKED, "amount": 250.0}, "has these arguments already"),
}


async def test_arguments_that_the_tool_does_not_take_change_nothing(world: World) -> None:
    """Each is refused as an invalid edit, with the reason; so is a rejection that changes arguments. The request stays
    as it was, with its one yes."""
    thread, message, request = await asked(world, "wire")
    await world.client.decide(thread, "approve", request, approver="ann")
    before = await world.client.request(thread)
    for case, (arguments, why) in NO_ARGUMENTS.items():
        with pytest.raises(DecisionRefused) as refused:
            await edit(world, thread, "bob", arguments)
        assert (refused.value.code, why in refused.value.message) == ("invalid_edit", True), (case, refused.value)
        assert await world.client.request(thread) == before, case
    with pytest.raises(DecisionRefused, match="A rejection changes no arguments"):
        await world.client.decide(thread, "reject", request, approver="bob", arguments=ASKED | {"amount": 7})
    await world.client.decide(thread, "approve", request, approver="bob")
    await world.ended(thread, message)
    assert [deed.partition(" under")[0] for deed in witness.of(thread)] == ["250 to x (rent) by ann+bob"]
    assert [line["code"] for line in await lines(world, thread, "decision.refused")] == ["invalid_edit"] * 8


async def test_whoever_edits_asks_for_it_and_cannot_approve_it(world: World) -> None:
    """Where duties are separated the editor is one of those who ask: somebody else says yes."""
    thread, message, _ = await asked(world, "post")
    edited = await edit(world, thread, "ann", {"text": "better"})
    assert (edited.requesters, edited.decisions, edited.outcome) == (("zoe", "ann"), (), "open")
    with pytest.raises(DecisionRefused) as refused:
        await world.client.decide(thread, "approve", edited, approver="ann")
    assert (refused.value.code, witness.of(thread)) == ("separation", [])
    await world.client.decide(thread, "approve", edited, approver="cid")
    await world.ended(thread, message)
    assert witness.of(thread) == ["better by cid"]


async def test_long_arguments_are_shown_whole_and_told_in_short(world: World) -> None:
    """300 KB: the approver sees all of it while the request is open; the audit, the diff, and the request once it is
    closed keep only a glance, so that nothing grows with it."""
    thread, message, request = await asked(world, "post much")
    assert request.arguments == {"text": LONG}
    edited = await edit(world, thread, "ann", {"text": "short"})
    [(old, new)] = edited.edits[0].changes.values()
    assert (old[:3], len(old) < 1000, new) == ("xxx", True, "short")
    again = await edit(world, thread, "bob", {"text": "y" * 60_000})
    assert len(again.arguments["text"]) == 60_000
    await world.client.decide(thread, "approve", again, approver="cid")
    await world.ended(thread, message)
    assert witness.of(thread) == ["yyyyyyyyy by cid"]
    assert len((await world.client.approvals(thread)).model_dump_json()) < 10_000
    assert max(len(row.entry.model_dump_json()) for row in await world.store.audit(thread)) < 5_000
    with pytest.raises(DecisionRefused) as refused:
        await world.client.decide(thread, "approve", again, approver="ann")
    assert refused.value.code == "closed"
