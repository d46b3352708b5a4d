"""Dry runs: what a thread would do, without doing it. Tools tell a witness what they really did."""

import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from perdure.activities.dry_run import recorded
from perdure.activities.records import Record
from perdure.care.verify import verify
from perdure.effects import arguments_digest
from perdure.errors import Refused
from perdure.security.keyring import new_key
from perdure.stores.base import Receipt, Store
from perdure.stores.memory import MemoryStore
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.writer import Writer
from tests.conftest import MakeWorld
from tests.properties import brief
from tests.rehearsal import SCRIPT, app, calls, dry, line_of, rehearsed, rest, said, turn, witness
from tests.world import World, eventually


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The agents on a worker, with a key for what is sensitive."""
    async with make_world(app, SCRIPT, keys=SecretStr(new_key())) as made:
        yield made


# ── what answers ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_same_calls_are_answered_by_their_receipts(world: World) -> None:
    """Run once more from its beginning, a turn comes to the same and does nothing; no model is asked, nobody pays."""
    thread = await turn(world, "Plan the trip.")
    asked, deeds = len(world.model.calls_by_key), witness.of(thread)
    fork = await dry(world, thread, "0")
    assert (await rest(world, fork)).results[-1].answer == "All is booked."
    assert len(world.model.calls_by_key) == asked
    assert (witness.of(thread), witness.of(fork)) == (deeds, [])
    assert await said(world, fork) == await said(world, thread)
    assert (await world.client.state(fork))["notes"] == (await world.client.state(thread))["notes"]
    made, simulated = await world.client.effects(thread), await world.client.effects(fork)
    assert calls(simulated) == [("book", "simulated")] * 2
    assert [effect.source for effect in simulated] == [effect.key for effect in made]
    assert (await verify(world.store)).problem is None


async def test_nobody_makes_it_a_real_thread_unnoticed(world: World) -> None:
    """That it is a dry run stands in its first checkpoint too, under a seal: a changed row of the thread is found."""
    thread = await turn(world, "One car.")
    fork = await dry(world, thread, "0")
    await rest(world, fork)
    with closing(sqlite3.connect(world.settings.home / "store.db")) as database, database:
        database.execute("UPDATE threads SET dry_run = 1 - dry_run WHERE thread_id = ?", (fork,))
    problem = (await verify(world.store)).problem
    assert problem is not None and (problem.table, problem.thread_id) == ("threads", fork)


async def test_what_was_undone_answers_too(world: World) -> None:
    """A receipt tells what a call came to, whatever has become of it."""
    thread = await turn(world, "One car.")
    await world.client.compensate(thread)
    fork = await rehearsed(world, thread, "One car, again.")
    [simulated], [made] = await world.client.effects(fork), await world.client.effects(thread)
    assert (simulated.source, made.status) == (made.key, "undone")
    assert (witness.of(thread), witness.of(fork)) == (["book car", "cancel car"], [])


async def test_each_receipt_answers_once_those_after_the_fork_first(world: World) -> None:
    """Also where the same calls are made side by side, and in a fork of the dry run."""
    thread = await turn(world, "One car.")
    second = await world.client.send(thread, "Two cars.")
    await world.ended(thread, second.message_id)
    one, *two = [effect.key for effect in await world.client.effects(thread)]
    fork = await rehearsed(world, thread, "Three cars.", at="turn:1")
    sources = [effect.source for effect in await world.client.effects(fork)]
    assert (sorted(sources[:2]), sources[2]) == (sorted(two), one)
    more = await world.client.send(fork, "One car.")
    result = await world.ended(fork, more.message_id)
    assert (result.outcome, result.error_type) == ("failed", "NotSimulated")
    again = await dry(world, fork, "turn:2", message="One car.")
    assert (await rest(world, again)).results[-1].error_type == "NotSimulated"
    before = next(c for c in await line_of(world, fork) if c.source == "fork")
    fresh = await dry(world, fork, before.id, message="Three cars.")  # there none was used yet
    assert (await rest(world, fresh)).results[-1].outcome == "answered"
    assert [witness.of(name) for name in (fork, again, fresh)] == [[], [], []]


async def test_a_rewound_dry_run_may_use_its_receipts_again(world: World) -> None:
    """On the branch that is left nothing was used up; and the rewind undoes nothing."""
    thread = await turn(world, "One car.")
    fork = await rehearsed(world, thread, "One car, again.")
    start = next(c for c in await line_of(world, fork) if c.source == "fork")
    plan = await world.client.rewind_plan(fork, start.id)
    assert (plan.undo, plan.keep, plan.impossible, plan.unsettled) == ((), (), (), ())
    await world.client.rewind(fork, start.id)
    await world.client.send(fork, "One car, once more.")
    assert (await rest(world, fork, turns=2)).results[-1].outcome == "answered"
    first, second = await world.client.effects(fork)
    assert (first.source, first.branch, second.branch) == (second.source, 0, 1)
    assert witness.of(fork) == []


async def test_a_call_that_nothing_answers_stops_the_turn_and_says_so(world: World) -> None:
    """Which tool, and what to do. Nothing is in the ledger, and the dry run goes on with the next message."""
    thread = await turn(world, "Hello.")
    fork = await dry(world, thread, message="Post it.")
    result = (await rest(world, fork)).results[-1]
    assert (result.outcome, result.error_type) == ("failed", "NotSimulated")
    assert "post has no recorded receipt" in result.error and "`simulate`" in result.error
    assert [row.entry for row in await world.store.effects(fork)] == []
    more = await world.client.send(fork, "Pay now.")
    assert (await world.ended(fork, more.message_id)).outcome == "answered"
    assert (witness.of(thread), witness.of(fork)) == ([], [])


async def test_a_simulation_answers_nobody_is_asked_and_the_entry_tells_who_would_be(world: World) -> None:
    """What it returns, what it writes; side by side too."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Pay both.", by="ann")
    effects = await world.client.effects(fork)
    assert [(e.label(), e.status, e.source, e.gate) for e in effects] == [
        (f'pay(amount={n}, to="{who}")', "simulated", "", "2 of ann, bob, eve") for n, who in ((1, "tom"), (2, "tim"))
    ]
    answer = await world.client.approvals(fork)
    assert (answer.open, answer.closed) == ((), ())
    assert (await world.client.state(fork))["notes"] == ["imagined 1", "imagined 2"]
    assert witness.of(fork) == []


async def test_a_simulation_that_fails_ends_the_turn_where_the_call_would(world: World) -> None:
    """As a clear failure of the tool itself does; there is nothing to undo."""
    thread = await turn(world, "A box.")
    fork = await dry(world, thread, message="Ship it.")
    result = (await rest(world, fork)).results[-1]
    assert (result.outcome, result.error_type, result.residue.lines()) == ("failed", "ToolError", [])
    assert "No courier goes to atlantis" in result.error
    assert calls(await world.client.effects(fork))[0] == ("book", "simulated")
    assert (witness.of(thread), witness.of(fork)) == (["book box"], [])


async def test_what_only_reads_is_read_unless_it_is_simulated_or_not_without_a_yes(world: World) -> None:
    """A dry run is no way around a gate."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Look there.")
    assert witness.of(fork) == ["look at map"]
    assert [text for role, text in await said(world, fork) if role == "tool"] == ["seen map", "imagined rain"]
    assert await world.client.effects(fork) == []
    diary = await dry(world, thread, message="Diary, please.")
    result = (await rest(world, diary)).results[-1]
    assert (result.error_type, witness.of(diary)) == ("NotSimulated", [])
    assert "read_diary" in result.error


async def test_what_is_sensitive_is_there_and_stays_sealed(world: World) -> None:
    """A receipt brings what its call had written, and only the tools of the dry run can read it."""
    thread = await turn(world, "Card, please.")
    fork = await rehearsed(world, thread, "Card, please.", at="0")
    assert witness.of(fork) == []
    assert (await rest(world, fork)).results[-1].answer == "So it ends with tom."
    assert (await world.client.state(fork))["card"] == "[sensitive]"
    stored = [row.receipt or b"" for row in await world.store.effects(fork)]
    assert stored and not any(b"number 4242" in receipt for receipt in stored)
    written = b"".join(event.SerializeToString() for event in (await world.fetch(fork)).events)
    assert b"keep_card" in written and b"number 4242" not in written


# ── what it stays ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_stays_a_dry_run(make_world: MakeWorld) -> None:
    """Its later messages are dry, also after it continued as new, and after it completed and was taken up again, from
    Temporal's memory or from the store's alone; and so is whatever is forked from it."""
    async with make_world(app, SCRIPT, keys=SecretStr(new_key()), history_events=50) as world:
        thread = await turn(world, "Hello.")
        fork = await rehearsed(world, thread, "Pay now.")
        for _ in range(3):
            more = await world.client.send(fork, "Pay now.")
            await world.ended(fork, more.message_id)
        assert len(await world.runs(fork)) > 1, "it has continued as new"
        await world.completes(fork)
        more = await world.client.send(fork, "Pay now.")
        await world.ended(fork, more.message_id)
        await world.completes(fork)
        await world.forget(fork)
        assert (await world.client.status(fork)).dry_run
        more = await world.client.send(fork, "Pay now.")
        await world.ended(fork, more.message_id)
        assert (await world.client.status(fork)).dry_run
        assert calls(await world.client.effects(fork)) == [("pay", "simulated")] * 6
        for at in ("head", next(c.id for c in await line_of(world, fork) if c.source == "fork")):
            name = world.thread()
            with pytest.raises(Refused, match="dry run"):
                await world.client.fork(fork, at, thread=name)
            assert await world.store.thread(name) is None
        child = await rehearsed(world, fork, "Pay now.")
        assert witness.of(fork) == witness.of(child) == []
        real = await world.client.fork(fork, "0", thread=world.thread())  # what both share is not the dry run's
        assert not (await world.client.status(real.thread_id)).dry_run
        world.threads.remove(fork)  # a part of its history was deleted


async def test_there_is_nothing_to_undo_or_to_settle(world: World) -> None:
    """Compensation, a cancelled turn and a person's word change nothing outside, nor in the ledger."""
    thread = await turn(world, "One car.")
    fork = await rehearsed(world, thread, "One car, again.")
    [effect] = await world.client.effects(fork)
    with pytest.raises(Refused, match="nothing to undo"):
        await world.client.compensate(fork)
    with pytest.raises(Refused, match="nothing to settle"):
        await world.client.resolve(fork, effect.key, done=True, by="ann")
    sent = await world.client.send(fork, "Pay and walk.")
    await world.client.cancel(fork, by="ann")
    await world.ended(fork, sent.message_id)
    assert {effect.status for effect in await world.client.effects(fork)} == {"simulated"}
    assert (witness.of(thread), witness.of(fork)) == (["book car"], [])


async def test_everybody_is_told_that_it_is_one(world: World) -> None:
    """The status, the details in Temporal's UI, the list, and the thread's row."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Pay now.")
    assert (await world.client.status(fork)).dry_run
    assert not (await world.client.status(thread)).dry_run
    details = await world.handle(fork).query("__temporal_workflow_metadata")
    assert "dry run" in str(details).lower()
    listed = await eventually(world.client.threads, lambda found: {fork, thread} <= {one.thread_id for one in found})
    assert {one.thread_id: one.dry_run for one in listed if one.thread_id in (fork, thread)} == {
        fork: True, thread: False
    }  # fmt: skip


# ── graphs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def stopped_journey(world: World) -> str:
    """A thread of the graph that was stopped when it asked its question; what it did stands."""
    thread = world.thread()
    await world.client.start("journey", "A journey.", thread=thread)
    await asked(world, thread)
    await world.client.cancel(thread, compensate=False)
    await rest(world, thread)
    assert witness.of(thread) == ["pack the bag", "book train"]
    return thread


async def asked(world: World, thread: str) -> str:
    """Wait until a question is open; its id."""
    answer = await eventually(lambda: world.client.approvals(thread), lambda found: bool(found.questions))
    return answer.questions[0].id


async def test_a_graph_with_a_function_a_person_and_two_models(world: World) -> None:
    """People are asked what only they know; every call is answered, by receipts and by simulations."""
    origin = await stopped_journey(world)
    before = witness.of(origin)
    fork = await dry(world, origin, "0")
    await world.client.answer(fork, await asked(world, fork), "Bern", by="eve")
    result = (await rest(world, fork)).results[-1]
    assert (result.outcome, result.answer) == ("answered", "Gone.")
    assert calls(await world.client.effects(fork)) == [
        ("book", "simulated"), ("pay", "simulated"), ("walk", "simulated")
    ]  # fmt: skip
    state = await world.client.state(fork)
    assert (state["city"], state["notes"]) == ("Bern", ["packed", "booked train", "imagined 9"])
    assert (witness.of(origin), witness.of(fork)) == (before, [])


async def test_a_function_is_told_and_what_it_comes_to_is_not_kept_for_others(world: World) -> None:
    """It may answer as nothing but a dry run should; the thread itself runs its own, later."""
    origin = await stopped_journey(world)
    fork = await dry(world, origin, message="A journey.")
    await asked(world, fork)
    assert witness.of(fork) == ["pack nothing"]
    await world.client.send(origin, "A journey.")
    await asked(world, origin)
    assert witness.of(origin)[2:] == ["pack the bag", "book train"]


# ── which receipt answers which call ─────────────────────────────────────────────────────────────────────────────────

_CALLS = st.lists(st.sampled_from("abc"), max_size=3)


async def _work(store: Store, thread: Writer, wanted: list[str], numbers: Iterator[int]) -> None:
    """A step of a thread with calls that are really made."""
    for name in wanted:
        row = effect_row(thread, f"made-{next(numbers)}", tool=name)
        await store.claim(row, head=thread.head.ref.id)
        await store.finish(thread.thread_id, Receipt(key=row.entry.key, result=Record(ok=True, content="").dump()))
    await thread.commit()


async def _rehearse(
    store: Store, thread: Writer, wanted: list[str], numbers: Iterator[int], order: list[int]
) -> list[str]:
    """A step of a dry run with calls side by side, which come to their end in some order; what answered each."""
    answers = [""] * len(wanted)
    for at in [*order, *order]:  # each is tried twice
        name, digest = wanted[at], arguments_digest(wanted[at], b"{}")
        found = await recorded(store, thread.thread_id, thread.head.ref, name, digest, wanted[:at].count(name))
        assert answers[at] in ("", found[0] if found else "")
        if found and not answers[at]:
            answers[at] = found[0]
            row = effect_row(thread, f"dry-{next(numbers)}", tool=name, source=found[0])
            await store.record_simulated(row, head=thread.head.ref.id)
    await thread.commit()
    return answers


@brief
@given(st.lists(_CALLS, max_size=4), st.lists(_CALLS, max_size=4), st.lists(_CALLS, max_size=4), st.data())
async def test_whatever_was_made(
    before: list[list[str]], after: list[list[str]], rehearsal: list[list[str]], data: st.DataObject
) -> None:
    """Each receipt answers one call of its own kind, those after the fork first; and none is left out that fits."""
    store, numbers = MemoryStore(), itertools.count(1)
    thread = Writer(store)
    await thread.commit(source="input")
    for wanted in before:
        await _work(store, thread, wanted, numbers)
    point = thread.head
    for wanted in after:
        await _work(store, thread, wanted, numbers)
    kinds = {row.entry.key: row.entry.tool for row in await store.effects(thread.thread_id)}
    late = {row.entry.key for row in await store.effects(thread.thread_id) if row.entry.step >= point.ref.step}
    fork = Writer(store, origin=point)
    draft = await fork.draft(source="fork")
    await store.commit(draft.step.model_copy(update={"dry_run": True}))
    fork.drafts.append(draft)
    left = dict(kinds)
    for wanted in rehearsal:
        order = data.draw(st.permutations(range(len(wanted))))
        answers = await _rehearse(store, fork, wanted, numbers, list(order))
        for name, key in zip(wanted, answers, strict=True):
            fitting = {key for key, kind in left.items() if kind == name}
            assert (key in (fitting & late or fitting)) if fitting else key == ""
            left.pop(key, None)
