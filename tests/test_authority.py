"""Authority is used once: what people allowed, and what a token allows, holds for one call and for no other."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from perdure import Agent, App, Approval, OneTime, ToolContext, ToolError, tool
from perdure.approvals import ApprovalRequest
from perdure.contracts import TurnResult
from perdure.effects import Effect
from perdure.errors import DefinitionError
from perdure.testing import Reply, call, say, together
from tests.conftest import MakeWorld
from tests.crew import first_turn, statuses, told, turn
from tests.witness import Listener, Witness
from tests.world import World, eventually

witness = Witness()


@tool(effect="compensable", compensate="give_back", approval=Approval(approvers=["ann"]))
async def take(ctx: ToolContext, amount: int) -> int:
    """Take money, if somebody allows it."""
    witness.saw(ctx, f"take {amount} by {', '.join(ctx.approved_by)}")
    return amount


@tool(effect="idempotent", approval=Approval(approvers=["ann"], remember=True))
async def tell(ctx: ToolContext, amount: int) -> int:
    """Tell of money: within a turn one yes is enough."""
    witness.saw(ctx, f"tell {amount} by {', '.join(ctx.approved_by)}")
    return amount


@tool(effect="idempotent", hidden=True)
async def give_back(ctx: ToolContext, receipt: int) -> None:
    """Give it back."""
    witness.saw(ctx, f"give back {receipt}")


@tool(effect="compensable", compensate="unredeem")
async def redeem(ctx: ToolContext, voucher: Annotated[str, OneTime], how: str = "") -> str:
    """Redeem a voucher."""
    if how == "refused":
        raise ToolError("The till is closed.")
    witness.saw(ctx, f"redeem {voucher}")
    if how == "broken" and ctx.attempt == 1:
        raise ConnectionError("the line broke")
    return f"redeemed {voucher}"


@tool(effect="idempotent", hidden=True)
async def unredeem(ctx: ToolContext, voucher: str) -> None:
    """Take it back; the voucher is torn all the same."""
    witness.saw(ctx, f"unredeem {voucher}")


@tool(effect="irreversible")
async def launch(ctx: ToolContext, code: Annotated[str, OneTime] | None = None) -> str:
    """Launch. The line breaks, always."""
    witness.saw(ctx, f"launch {code}")
    raise ConnectionError("the line broke")


TOOLS = [take, tell, redeem, launch]
app = App(agents=[Agent(name="desk", model="m", tools=TOOLS)], tools=[give_back, unredeem])


def spend(voucher: str, how: str = "") -> Reply:
    """The model redeems a voucher."""
    return call("redeem", voucher=voucher, how=how)


SPENT = "needs a one-time token that"


@pytest.fixture
def said() -> Listener:
    """What the model says in these tests."""
    return told(
        take=[call("take", amount=7), say("Taken.")],
        tell=[call("tell", amount=7), call("tell", amount=7), call("tell", amount=8), say("Told.")],
        spend=[spend("v1"), say("Spent.")],
        again=[spend("v1"), say("So be it.")],
        other=[spend("v2"), say("Spent.")],
        broken=[spend("v1", "broken"), say("Spent.")],
        closed=[spend("v1", "refused"), spend("v1"), spend("v1"), say("So be it.")],
        pair=[together(spend("v1"), spend("v1")), say("So be it.")],
        rocket=[call("launch", code="v1"), say("So be it.")],
        none=[call("launch"), say("So be it.")],
    )


@pytest.fixture
async def world(make_world: MakeWorld, said: Listener) -> AsyncIterator[World]:
    """The desk on a worker."""
    async with make_world(app, said) as made:
        yield made


async def allow(world: World, thread: str) -> ApprovalRequest:
    """Wait for the request that is open, and approve it."""
    (request,) = (await world.opened(thread)).open
    await world.client.decide(thread, "approve", request, approver="ann")
    return request


async def rest(world: World, thread: str, turns: int) -> TurnResult:
    """Wait until so many turns have ended."""
    status = await eventually(
        lambda: world.client.status(thread), lambda s: len(s.results) >= turns and s.status == "idle" and not s.node
    )
    return status.results[-1]


async def start_of(world: World, thread: str) -> str:
    """The checkpoint of its first message."""
    return (await world.client.history(thread, limit=100))[-1].id


# ── approvals ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_yes_is_not_risen_from_the_branch_that_it_was_given_on(world: World) -> None:
    """Approve, act, rewind, act again: the same call with the same arguments is asked for anew, and is not made before
    somebody says yes to it. The answer to the first request doesn't count for the second."""
    thread, message_id = await world.begin("desk", "take")
    first = await allow(world, thread)
    await world.ended(thread, message_id)
    await world.client.rewind(thread, await start_of(world, thread), go_on=True)
    (second,) = (await world.opened(thread)).open
    assert (second.id, second.digest, second.branch) == ("a2", first.digest, 1)
    assert second.key != first.key
    old = {"request_id": first.id, "approver": "ann", "digest": first.digest}
    await world.handle(thread).signal("approve", old)
    refused = await eventually(
        lambda: world.client.approvals(thread), lambda answer: len(answer.refused_decisions) == 1
    )
    assert (refused.refused_decisions[0].code, len(refused.open)) == ("closed", 1)
    assert witness.of(thread) == ["take 7 by ann", "give back 7"]
    await allow(world, thread)
    await rest(world, thread, 2)
    assert witness.of(thread)[2:] == ["take 7 by ann"]
    assert await statuses(world, thread) == [("take", "undone"), ("take", "done")]


async def test_a_remembered_yes_is_forgotten_by_a_rewind(world: World) -> None:
    """Within its turn it holds for the same arguments; on another branch, and in another turn, it doesn't."""
    thread, message_id = await world.begin("desk", "tell")
    await allow(world, thread)
    await eventually(lambda: world.opened(thread), lambda answer: answer.open[0].arguments["amount"] == 8)
    assert witness.of(thread) == ["tell 7 by ann", "tell 7 by ann"]
    await allow(world, thread)
    await world.ended(thread, message_id)
    await world.client.rewind(thread, await start_of(world, thread), go_on=True)
    (again,) = (await world.opened(thread)).open
    assert (again.id, again.arguments) == ("a3", {"amount": 7})
    assert len(witness.of(thread)) == 3
    await world.client.cancel(thread)
    await world.client.send(thread, "tell")
    (later,) = (await eventually(lambda: world.client.approvals(thread), lambda a: a.open != () and
                                 a.open[0].id == "a4")).open  # fmt: skip
    assert (later.branch, later.turn, len(witness.of(thread))) == (1, 2, 3)
    await world.client.cancel(thread)


async def test_a_fork_inherits_no_yes(world: World) -> None:
    """It asks for itself, under a key of its own; what people say to it doesn't count where it comes from."""
    origin, message_id = await world.begin("desk", "take")
    first = await allow(world, origin)
    await world.ended(origin, message_id)
    fork = (await world.client.fork(origin, await start_of(world, origin), thread=world.thread())).thread_id
    (asked,) = (await world.opened(fork)).open
    assert (asked.digest == first.digest, asked.key == first.key) == (True, False)
    assert witness.of(fork) == []
    await allow(world, fork)
    await rest(world, fork, 1)
    assert (witness.of(fork), witness.of(origin)) == (["take 7 by ann"], ["take 7 by ann"])


# ── one-time tokens ──────────────────────────────────────────────────────────────────────────────────────────────


async def refused(world: World, said: Listener, thread: str, message: str = "again") -> None:
    """The next turn's call is refused: the model reads why, nothing is called, and the thread goes on."""
    before = witness.of(thread)
    result = await turn(world, thread, message)
    assert (result.outcome, result.answer) == ("answered", "So be it.")
    role, text = said.told()[-1]
    assert role == "tool" and SPENT in text and "v1" not in text, text
    assert witness.of(thread) == before
    assert (await world.client.status(thread)).status == "idle"


async def test_a_token_is_for_one_call(world: World, said: Listener) -> None:
    """Another call with it is refused, also one of another tool; another token is another matter."""
    thread, _ = await first_turn(world, "desk", "spend")
    await refused(world, said, thread)
    await refused(world, said, thread, "rocket")
    await turn(world, thread, "other")
    assert witness.of(thread) == ["redeem v1", "redeem v2"]
    assert await statuses(world, thread) == [
        ("redeem", "done"), ("redeem", "failed"), ("launch", "failed"), ("redeem", "done"),
    ]  # fmt: skip


async def test_of_two_calls_at_once_one_has_it(world: World) -> None:
    """Side by side in one step."""
    thread, result = await first_turn(world, "desk", "pair")
    assert (result.outcome, witness.of(thread)) == ("answered", ["redeem v1"])
    assert sorted(status for _, status in await statuses(world, thread)) == ["done", "failed"]


async def test_a_token_stays_spent_after_a_rewind(world: World, said: Listener) -> None:
    """Undoing what it was spent on doesn't bring it back."""
    thread, _ = await first_turn(world, "desk", "spend")
    await world.client.rewind(thread, await start_of(world, thread), go_on=True)
    result = await rest(world, thread, 2)
    assert result.outcome == "answered"
    assert SPENT in said.told()[-1][1]
    assert witness.of(thread) == ["redeem v1", "unredeem v1"]
    await refused(world, said, thread)


async def test_a_token_is_spent_for_the_whole_family(world: World, said: Listener) -> None:
    """Spent in the origin it is refused in a fork, though the call has another key there, and in a fork of the fork;
    spent in a fork it is refused in the origin and in other forks."""
    origin, _ = await first_turn(world, "desk", "spend")
    start = await start_of(world, origin)
    fork = (await world.client.fork(origin, start, thread=world.thread())).thread_id
    await rest(world, fork, 1)
    assert SPENT in said.told()[-1][1]
    ours, theirs = [(await world.client.effects(thread))[0].key for thread in (origin, fork)]
    assert ours != theirs and witness.of(fork) == []
    head = (await world.client.history(fork))[0].id
    second = (await world.client.fork(fork, head, thread=world.thread())).thread_id
    await refused(world, said, second)
    await turn(world, second, "other")
    result = await turn(world, origin, "other")
    assert (result.answer, SPENT in said.told()[-1][1]) == ("Spent.", True)
    await turn(world, fork, "other")
    assert SPENT in said.told()[-1][1]
    assert (witness.of(origin), witness.of(fork), witness.of(second)) == (["redeem v1"], [], ["redeem v2"])


async def test_a_call_that_is_tried_again_keeps_its_token(world: World) -> None:
    """The answer of the first attempt is lost; the second is the same call."""
    thread, result = await first_turn(world, "desk", "broken")
    assert (result.answer, witness.of(thread)) == ("Spent.", ["redeem v1"] * 2)
    (effect,) = await world.client.effects(thread)
    assert (effect.status, effect.attempts) == ("done", 2)


async def test_a_call_that_clearly_failed_gives_its_token_back(world: World, said: Listener) -> None:
    """Once: the next call has it, the one after that is refused."""
    thread, _ = await first_turn(world, "desk", "closed")
    assert witness.of(thread) == ["redeem v1"]
    assert [status for _, status in await statuses(world, thread)] == ["failed", "done", "failed"]
    assert SPENT in said.told()[-1][1]


@pytest.mark.parametrize("done", [True, False])
async def test_a_token_in_doubt_is_spent_until_somebody_knows(world: World, said: Listener, done: bool) -> None:
    """While nobody knows how its call ended, another is refused it; it is free once that was not done."""
    thread, message_id = await world.begin("desk", "rocket")
    await world.stands(thread, "in_doubt")
    await world.client.cancel(thread)
    await world.ended(thread, message_id)
    await turn(world, thread, "again")
    assert SPENT in said.told()[-1][1]
    effect: Effect = (await world.client.effects(thread))[0]
    await world.client.resolve(thread, effect.key, done=done, by="ann")
    await turn(world, thread, "again")
    assert (SPENT in said.told()[-1][1]) is done
    assert witness.of(thread) == ["launch v1", *([] if done else ["redeem v1"])]


async def test_strangers_may_have_equal_tokens(world: World) -> None:
    """Threads that share no past; and a call without a token needs none."""
    one, _ = await first_turn(world, "desk", "spend")
    other, _ = await first_turn(world, "desk", "spend")
    assert (witness.of(one), witness.of(other)) == (["redeem v1"], ["redeem v1"])
    for _ in range(2):
        accepted = await world.client.send(one, "none")
        await world.stands(one, "in_doubt")
        key = next(e.key for e in await world.client.effects(one) if e.status == "in_doubt")
        await world.client.resolve(one, key, done=True, by="ann")
        await world.ended(one, accepted.message_id)
    assert witness.of(one)[1:] == ["launch None", "launch None"]


@pytest.mark.parametrize(
    "hint",
    [Annotated[str, OneTime], Annotated[str, OneTime()], Annotated[str, OneTime] | None,
     Annotated[Annotated[int, "seconds"], OneTime], Annotated[list[str], OneTime]],
)  # fmt: skip
def test_a_token_is_one_however_it_is_written(hint: Any) -> None:
    """Also one that may be left out; else it would silently be an ordinary argument."""

    async def act(token: hint, other: str) -> None: ...

    assert tool(effect="idempotent")(act).one_time == ("token",)


@pytest.mark.parametrize("hint", [list[Annotated[str, OneTime]], dict[str, Annotated[str, OneTime]]])
def test_a_token_in_parts_is_refused(hint: Any) -> None:
    """What is spent is a whole argument; a mark inside one would promise what isn't kept."""

    async def act(tokens: hint) -> None: ...

    with pytest.raises(DefinitionError, match="'tokens' is a token in parts"):
        tool(effect="idempotent")(act)
