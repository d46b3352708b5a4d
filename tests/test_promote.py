"""Promotion: the plan of a dry run becomes the thread's next turn. Tools tell a witness what they really did.

Long: one claim for each way in which a plan is followed, ends, or is refused.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from perdure.care.chronicle import Chronicle, chronicle
from perdure.care.repair import repair
from perdure.care.verify import verify
from perdure.contracts import StatusAnswer
from perdure.errors import (
    ConcurrentModification,
    DecisionRefused,
    LeaseHeld,
    PerdureError,
    Refused,
    ThreadBusy,
    ThreadClosed,
    ThreadNotFound,
)
from perdure.examples.orders import desk, story
from perdure.examples.orders.shop import Shop
from perdure.security.keyring import new_key
from perdure.starters.client import Client
from perdure.starters.histories import HistoryReader
from perdure.wire import data_converter
from tests.conftest import MakeWorld
from tests.rehearsal import FAR, SCRIPT, app, calls, dry, holds, line_of, rehearsed, rest, said, turn, witness
from tests.tampering import hands
from tests.world import World, eventually

PAY_AND_WALK = ["pay 7 to tom", "walk 1", "walk 2", "walk 3"]


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The agents on a worker, with a key for what is sensitive."""
    async with make_world(app, SCRIPT, keys=SecretStr(new_key())) as made:
        yield made


async def approve(world: World, thread: str, *people: str, count: int = 1) -> None:
    """Everybody says yes to all that is asked."""
    for request in (await world.opened(thread, count)).open:
        for person in people or ("ann", "bob"):
            await world.client.decide(thread, "approve", request, approver=person)


def asked(world: World) -> int:
    """How often the model was called."""
    return len(world.model.calls_by_key)


# ── the plan is followed ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_plan_is_carried_out_and_the_model_asked_for_its_end_only(world: World) -> None:
    """The calls are made for real, under new keys, behind their gates; the answer is said of what they came to."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Pay and walk.", state={"city": "Bern"}, by="tom", metadata={"what": "if"})
    before, steps = asked(world), len(await line_of(world, thread))
    holds[thread].let_go()
    status = await world.client.promote(thread, fork, by="zoe", reason="it is fine")
    assert (status.turn, status.dry_run) == (2, False)
    assert witness.of(thread) == [] and (await world.opened(thread)).open[0].requesters == ("tom", "zoe")
    await approve(world, thread)
    result = (await rest(world, thread, turns=2)).results[-1]
    assert (result.outcome, result.answer, result.usage.calls) == ("answered", "Paid, and gone.", 1)
    assert asked(world) == before + 1
    assert (witness.of(thread), witness.of(fork)) == (PAY_AND_WALK, [])
    made, simulated = await world.client.effects(thread), await world.client.effects(fork)
    assert calls(made) == [(tool, "done") for tool, _ in calls(simulated)]
    assert {effect.key for effect in made}.isdisjoint(effect.key for effect in simulated)
    first = (await line_of(world, thread))[steps]
    assert (first.source, first.turn, first.metadata) == ("input", 2, {})
    assert first.facts == {"promoted": fork, "by": "zoe", "reason": "it is fine", "asked": ["tom", "zoe"]}
    state = await world.client.state(thread)
    assert (state["city"], state["notes"]) == ("Bern", ["paid 7"])
    assert [text for role, text in await said(world, thread) if role == "user"] == ["Hello.", "Pay and walk."]
    assert (await verify(world.store)).problem is None


async def test_a_plan_that_names_what_was_only_imagined_is_not_followed_there(world: World) -> None:
    """The receipt of a payment that was never made is not printed: the model sees the real one, and says so itself."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Pay and print.")
    before = asked(world)
    await world.client.promote(thread, fork)
    await approve(world, thread)
    status = await rest(world, thread, turns=2)
    paid, printed = witness.of(thread)
    assert paid == "pay 7 to tom" and printed.startswith("print pay-") and printed != "print pay-0"
    assert asked(world) == before + 2
    assert any("the plan" in entry.text and "no longer fits" in entry.text for entry in status.log)


async def test_a_plan_is_followed_from_the_middle_of_a_turn(world: World) -> None:
    """The thread stands before its calls: they are made, side by side, and their approvals asked for anew."""
    origin, sent = await world.begin("trips", "Pay both.")
    await approve(world, origin, count=2)
    await world.ended(origin, sent)
    start = next(c for c in await line_of(world, origin) if c.next.nodes == ("tools",))
    thread = (await world.client.fork(origin, start.id, thread=world.thread(), hold=True)).thread_id
    fork = await dry(world, thread)
    assert (await rest(world, fork)).results[-1].answer == "Both are paid."
    before = asked(world)
    status = await world.client.promote(thread, fork, by="zoe")
    assert status.turn == 1
    requests = (await world.opened(thread, 2)).open
    assert {len(request.decisions) for request in requests} == {0}
    await approve(world, thread, "ann", "eve", count=2)
    result = (await rest(world, thread)).results[-1]
    assert (result.outcome, result.answer) == ("answered", "Both are paid.")
    assert sorted(witness.of(thread)) == sorted(witness.of(origin)) == ["pay 1 to tom", "pay 2 to tim"]
    assert witness.of(fork) == []
    assert asked(world) == before + 1
    promoted = [c for c in await line_of(world, thread) if "promoted" in c.facts]
    assert [(c.source, c.turn, c.delta) for c in promoted] == [("update", 1, {})]
    assert (await verify(world.store)).problem is None


async def test_a_graph_is_followed_too(world: World) -> None:
    """Its function runs for real, its person is asked anew, and of its two models only the last one, for its end."""
    thread = world.thread()
    await world.client.start("journey", "Hello.", thread=thread)
    await _answer(world, thread, "Nowhere")
    await rest(world, thread)
    fork = await dry(world, thread, message="Tour.")
    await _answer(world, fork, "Bern")
    await rest(world, fork)
    before, deeds = asked(world), len(witness.of(thread))
    await world.client.promote(thread, fork)
    await _answer(world, thread, "Rome")
    await approve(world, thread)
    assert (await rest(world, thread, turns=2)).results[-1].answer == "Gone."
    assert witness.of(thread)[deeds:] == ["pack the bag", "walk 5", "pay 9 to tom", "walk 1"]
    assert witness.of(fork) == ["pack nothing"]
    state = await world.client.state(thread)
    assert (state["city"], state["notes"][-2:]) == ("Rome", ["packed", "paid 9"])
    assert asked(world) == before + 1


async def _answer(world: World, thread: str, city: str) -> None:
    found = await eventually(lambda: world.client.approvals(thread), lambda answer: bool(answer.questions))
    await world.client.answer(thread, found.questions[0].id, city, by="eve")


# ── where it ends ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_rejected_call_is_the_end_of_the_plan(world: World) -> None:
    """The model is told, and asked what now; nothing that was planned after it is done."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Pay and walk.")
    before = asked(world)
    await world.client.promote(thread, fork)
    [request] = (await world.opened(thread)).open
    await world.client.decide(thread, "reject", request, approver="ann", reason="no")
    result = (await rest(world, thread, turns=2)).results[-1]
    assert (result.answer, witness.of(thread), asked(world)) == ("Then not.", [], before + 1)


async def test_a_call_that_fails_is_the_end_of_the_plan(world: World) -> None:
    """It was simulated with more hope than was right."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Bring tea.")
    await world.client.promote(thread, fork)
    result = (await rest(world, thread, turns=2)).results[-1]
    assert (result.answer, witness.of(thread)) == ("Then later.", ["bring tea"])


async def test_nobody_who_asked_for_it_approves_it(world: World) -> None:
    """Neither who wrote the message of the dry run nor who promotes it, also after the turn was taken up anew."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Wire it.", by="ann")
    await world.client.promote(thread, fork, by="bob")
    await _are_refused(world, thread, "ann", "bob")
    promoted = next(c for c in await line_of(world, thread) if "promoted" in c.facts)
    await world.client.rewind(thread, promoted.id, go_on=True)
    await eventually(lambda: world.client.approvals(thread), lambda answer: [r.id for r in answer.open] == ["a2"])
    await _are_refused(world, thread, "ann", "bob")
    assert witness.of(thread) == []
    await approve(world, thread, "eve")
    await eventually(lambda: asyncio.sleep(0, witness.of(thread)), lambda deeds: deeds == ["wire 7 by eve"])


async def _are_refused(world: World, thread: str, *people: str) -> None:
    [request] = (await world.opened(thread)).open
    for person in people:
        with pytest.raises(DecisionRefused) as refused:
            await world.client.decide(thread, "approve", request, approver=person)
        assert refused.value.code == "separation"


# ── what may happen on the way ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_that_is_gone_in_the_middle(make_world: MakeWorld) -> None:
    """Another one goes on with the plan; what was done is not done again."""
    async with make_world(app, SCRIPT, keys=SecretStr(new_key()), serve=False) as world:
        async with world.worker():
            thread = await turn(world, "Hello.")
            fork = await rehearsed(world, thread, "Pay and walk.")
            before = asked(world)
            await world.client.promote(thread, fork)
            await approve(world, thread)
            await holds[thread].arrived()
        holds[thread].let_go()
        async with world.worker():
            result = (await rest(world, thread, turns=2)).results[-1]
            assert (result.answer, asked(world)) == ("Paid, and gone.", before + 1)
            assert [deed for deed in witness.of(thread) if deed != "walk 2"] == ["pay 7 to tom", "walk 1", "walk 3"]
            assert {e.status for e in await world.client.effects(thread)} == {"done"}


async def test_a_long_plan_is_followed_through_several_runs(make_world: MakeWorld) -> None:
    """Continued as new in the middle, it asks no model."""
    async with make_world(app, SCRIPT, keys=SecretStr(new_key()), history_events=50) as world:
        thread = await turn(world, "Hello.")
        fork = await rehearsed(world, thread, "Walk far.")
        before = asked(world)
        await world.client.promote(thread, fork)
        assert (await rest(world, thread, turns=2)).results[-1].answer == "Far away."
        assert witness.of(thread) == [f"walk {10 + n}" for n in range(FAR)]
        assert asked(world) == before
        runs = await eventually(lambda: world.runs(thread), lambda found: len(found) > 2)
        started = runs[-1].events[0].workflow_execution_started_event_attributes
        assert b'"plan"' in started.input.payloads[0].data, "it was continued in the middle of the plan"


async def test_of_two_at_once_one_wins_and_then_the_thread_has_moved(world: World) -> None:
    """Everything is done once."""
    thread = await turn(world, "Hello.")
    forks = [await rehearsed(world, thread, "Pay now.") for _ in range(2)]

    async def promote(fork: str) -> PerdureError | StatusAnswer:
        try:
            return await world.client.promote(thread, fork)
        except PerdureError as error:
            return error

    came = await asyncio.gather(*(promote(fork) for fork in [*forks, *forks]))
    assert sorted(type(one).__name__ for one in came) == ["StatusAnswer", *["ThreadBusy"] * 3]
    await approve(world, thread)
    await rest(world, thread, turns=2)
    for fork in forks:
        assert isinstance(await promote(fork), ConcurrentModification)
    assert (witness.of(thread), calls(await world.client.effects(thread))) == (["pay 7 to tom"], [("pay", "done")])


# ── where it is refused ──────────────────────────────────────────────────────────────────────────────────────────────

Case = Callable[[World, str], Awaitable[str]]  # makes what is promoted, of a thread; its id


async def _no_dry_run(world: World, thread: str) -> str:
    fork = await world.client.fork(thread, thread=world.thread(), message="Walk far.")
    await rest(world, fork.thread_id)
    return fork.thread_id


async def _of_another(world: World, thread: str) -> str:
    return await rehearsed(world, await turn(world, "Hello."), "Pay now.")


async def _of_a_dry_run(world: World, thread: str) -> str:
    return await rehearsed(world, await rehearsed(world, thread, "Hello."), "Pay now.")


async def _failed(world: World, thread: str) -> str:
    fork = await dry(world, thread, message="Post it.")
    await rest(world, fork)
    return fork


async def _two_turns(world: World, thread: str) -> str:
    fork = await rehearsed(world, thread, "Pay now.")
    await world.ended(fork, (await world.client.send(fork, "Pay now.")).message_id)
    return fork


async def _nothing_happened(world: World, thread: str) -> str:
    return await dry(world, thread, hold=True)


async def _unknown(world: World, thread: str) -> str:
    return "nobody"


@pytest.mark.parametrize(
    ("case", "error", "why"),
    [
        (_no_dry_run, Refused, "is no dry run of"), (_of_another, Refused, "is no dry run of"),
        (_of_a_dry_run, Refused, "is no dry run of"), (_failed, Refused, "not one turn that has come to its end"),
        (_two_turns, Refused, "not one turn"), (_nothing_happened, Refused, "not one turn"),
        (_unknown, ThreadNotFound, "nobody"),
    ],
)  # fmt: skip
async def test_what_can_not_be_promoted(world: World, case: Case, error: type[PerdureError], why: str) -> None:
    """It is refused with the reason, and the thread is as it was."""
    thread = await turn(world, "Hello.")
    fork = await case(world, thread)
    before, deeds = await line_of(world, thread), witness.of(thread)
    with pytest.raises(error, match=why):
        await world.client.promote(thread, fork)
    assert (await line_of(world, thread), witness.of(thread)) == (before, deeds)
    assert (await world.client.status(thread)).status == "idle"


async def test_nodes_that_ran_side_by_side_can_not_be_followed(world: World) -> None:
    """Which answer came before which, nobody knows."""
    thread, sent = await world.begin("pair", "Hello.")
    await world.ended(thread, sent)
    fork = await rehearsed(world, thread, "Hello again.")
    with pytest.raises(Refused, match="side by side"):
        await world.client.promote(thread, fork)


async def test_a_thread_that_can_not_take_it(world: World) -> None:
    """Busy, leased, moved on, expected elsewhere, closed, or a dry run itself; nothing was changed."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Walk far.")
    [head] = [c.id for c in (await line_of(world, thread))[-1:]]
    with pytest.raises(Refused, match="a dry run itself"):
        await world.client.promote(fork, fork)
    with pytest.raises(ConcurrentModification):
        await world.client.promote(thread, fork, expected_version=fork)
    stranger = Client(world.temporal, world.settings)
    async with world.client.lease(thread, holder="anna", seconds=600):
        with pytest.raises(LeaseHeld, match="anna"):
            await stranger.promote(thread, fork)
    await stranger.close()
    assert [c.id for c in (await line_of(world, thread))[-1:]] == [head]

    sent = await world.client.send(thread, "Pay now.")
    await world.opened(thread)
    with pytest.raises(ThreadBusy):
        await world.client.promote(thread, fork)
    await world.client.cancel(thread)
    await world.ended(thread, sent.message_id)
    with pytest.raises(ConcurrentModification, match="another state") as moved:
        await world.client.promote(thread, fork)
    assert moved.value.expected == head
    await world.client.rewind(thread, head)
    await world.client.close_thread(thread)
    with pytest.raises(ThreadClosed):
        await world.client.promote(thread, fork)
    assert witness.of(thread) == []


async def test_a_thread_that_came_back_takes_it(world: World) -> None:
    """Rewound to where the dry run began, and asleep meanwhile: it stands there again."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Walk far.")
    [head] = [c.id for c in (await line_of(world, thread))[-1:]]
    await world.ended(thread, (await world.client.send(thread, "Hello.")).message_id)
    await world.client.rewind(thread, head)
    await world.completes(thread)
    await world.client.promote(thread, fork, expected_version=(await line_of(world, thread))[-1].id)
    assert (await rest(world, thread)).results[-1].answer == "Far away."
    assert len(witness.of(thread)) == FAR


# ── what its history tells ───────────────────────────────────────────────────────────────────────────────────────────


async def test_both_are_made_again_from_their_histories(world: World) -> None:
    """Every checkpoint of a promoted turn, to the last fact; and a dry run whose row is lost comes back as one."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Walk far.", state={"city": "Bern"}, by="tom")
    await world.client.promote(thread, fork, by="zoe", reason="now")
    await rest(world, thread, turns=2)
    for name in (thread, fork):
        before = {c.id: c.model_dump(exclude={"created_at"}) async for c in world.store.walk(name)}
        row = await world.store.thread(name)
        for lost in before:
            await hands(world.store, name).drop(lost)
        await hands(world.store, name).drop_thread()
        done = await repair(world.store, await _told(world, name))
        assert (done.missed, done.problem, len(done.rebuilt)) == ((), None, len(before))
        assert {c.id: c.model_dump(exclude={"created_at"}) async for c in world.store.walk(name)} == before
        again = await world.store.thread(name)
        assert row is not None and again is not None
        assert (again.dry_run, again.lineage, again.head_id) == (row.dry_run, row.lineage, row.head_id)


async def _told(world: World, thread: str) -> Chronicle:
    """What Temporal knows of a thread of one run."""
    reader = HistoryReader(data_converter)
    for event in (await world.fetch(thread)).events:
        await reader.read(event)
    return chronicle(thread, [reader.run()])


# ── with a real shop ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_order_is_rehearsed_and_then_placed(
    make_world: MakeWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shop's ledger is empty after the dry run. Promoted, the order is placed once, and the courier fetches what
    was really reserved."""
    async with Shop(tmp_path / "ledger.db") as shop, make_world(desk.app, story.STORY) as world:
        monkeypatch.setenv("ORDERS_SHOP_URL", shop.url)
        thread, sent = await world.begin("orders", "What can you do?")
        await world.ended(thread, sent)
        fork = await rehearsed(world, thread, story.TWO_LAPTOPS)
        assert [(e.tool, e.status, e.gate) for e in await world.client.effects(fork)] == [
            ("reserve_stock", "simulated", ""), ("charge_card", "simulated", "finance"),
            ("book_courier", "simulated", ""),
        ]  # fmt: skip
        assert shop.ledger.entries() == []
        before = asked(world)
        await world.client.promote(thread, fork, by="ann")
        await approve(world, thread, "finance")
        result = (await rest(world, thread, turns=2)).results[-1]
        assert result.answer == "Your order is on its way: reservation-1, paid with charge-2, brought by booking-3."
        assert [(e.kind, e.amount, e.attempts) for e in shop.ledger.entries()] == [
            ("reserve", 2, 1), ("charge", 2500.0, 1), ("book", 1, 1)
        ]  # fmt: skip
        assert asked(world) == before + 2  # for the courier, who needs the real reservation, and for the end
