"""Comparison: what each of two branches has done since they had a common past."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from perdure.errors import CheckpointNotFound, ThreadNotFound
from perdure.patch import applied
from perdure.security.keyring import new_key
from perdure.starters.compare import Comparison, Side
from tests.conftest import MakeWorld
from tests.rehearsal import SCRIPT, app, calls, dry, line_of, rehearsed, rest, turn
from tests.world import World


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The agents on a worker, with a key for what is sensitive."""
    async with make_world(app, SCRIPT, keys=SecretStr(new_key())) as made:
        yield made


async def compared(world: World, one: str, other: str, **at: str) -> Comparison:
    """The comparison, and that its patch leads from the one state to the other."""
    found = await world.client.compare(one, other, **at)
    assert applied(
        await world.client.state(one, at.get("at", "")), found.difference.patch
    ) == await world.client.state(other, at.get("other_at", ""))  # fmt: skip
    turned = await world.client.compare(other, one, at=at.get("other_at", ""), other_at=at.get("at", ""))
    assert (turned.common, turned.one, turned.other) == (found.common, found.other, found.one)
    return found


def deeds(side: Side) -> list[tuple[str, str]]:
    """Tool and status of each call of a side."""
    return calls(side.effects)


async def step_of(world: World, thread: str, number: int) -> str:
    """The checkpoint of a step."""
    return (await line_of(world, thread))[number].id


async def test_a_thread_and_its_dry_run(world: World) -> None:
    """What it would cost and do more than the thread, which stands where the dry run began."""
    thread = await turn(world, "Hello.")
    fork = await rehearsed(world, thread, "Pay and walk.", state={"city": "Bern"})
    found = await compared(world, thread, fork)
    head = (await line_of(world, thread))[-1]
    assert found.common is not None and found.common.checkpoint_id == head.id
    assert (found.one.steps, found.one.usage.calls, deeds(found.one), found.one.dry_run) == (0, 0, [], False)
    assert (found.other.steps, found.other.usage.calls, found.other.dry_run) == (2 + 4 * 2 + 1, 5, True)
    assert deeds(found.other) == [("pay", "simulated"), *[("walk", "simulated")] * 3]
    assert found.other.usage.tokens > 0 and found.same == ()
    assert {change.path[0] for change in found.difference.changes} == {"city", "messages", "notes"}
    assert found.other.effects[0].gate == "2 of ann, bob, eve"


async def test_two_branches_that_do_the_same_differ_in_nothing_but_their_keys(world: World) -> None:
    """Calls are the same by tool and arguments, each with one of the other side; what was saved is told."""
    thread = await turn(world, "Plan the trip.")
    fork = await dry(world, thread, "0")
    await rest(world, fork)
    found = await compared(world, thread, fork)
    assert found.common is not None and found.common.step == 0
    assert (deeds(found.one), deeds(found.other)) == ([("book", "done")] * 2, [("book", "simulated")] * 2)
    assert [(pair.one, pair.other) for pair in found.same] == [
        (one.key, other.key) for one, other in zip(found.one.effects, found.other.effects, strict=True)
    ]
    assert (found.one.usage.saved, found.other.usage.tokens) == (0, 0)
    assert found.other.usage.saved == found.one.usage.tokens > 0


async def test_two_forks_of_one_thread_and_a_fork_of_a_fork(world: World) -> None:
    """Each has what it did itself, and what the threads between it and the common past did on the way to it."""
    thread = await turn(world, "Plan the trip.")
    one = await rehearsed(world, thread, "Pay now.")
    other = (await world.client.fork(thread, "turn:1", thread=world.thread(), message="One car.")).thread_id
    await rest(world, other)
    found = await compared(world, one, other)
    assert found.common is not None and found.common.thread_id == thread
    assert (deeds(found.one), deeds(found.other)) == ([("pay", "simulated")], [("book", "done")])
    child = (await world.client.fork(other, "head", thread=world.thread(), message="Two cars.")).thread_id
    await rest(world, child)
    found = await compared(world, thread, child)
    assert (found.one.steps, deeds(found.other)) == (0, [("book", "done")] * 3)
    early = (
        await world.client.fork(other, await step_of(world, other, -2), thread=world.thread(), hold=True)
    ).thread_id
    assert deeds((await compared(world, thread, early)).other) == [("book", "done")]  # the car had been booked by then
    before = (
        await world.client.fork(other, await step_of(world, other, -3), thread=world.thread(), hold=True)
    ).thread_id
    found = await compared(world, thread, before)
    assert (deeds(found.one), deeds(found.other)) == ([], [])  # and here not yet
    assert found.other.usage.calls == 1


async def test_two_checkpoints_of_one_thread(world: World) -> None:
    """On one line: the earlier one is the common past. On two branches: what a rewind has left is a side of its own."""
    thread = await turn(world, "Plan the trip.")
    start, middle = await step_of(world, thread, 0), await step_of(world, thread, 2)
    end = await step_of(world, thread, -1)
    found = await compared(world, thread, thread, at=middle)
    assert found.common is not None and found.common.checkpoint_id == middle
    assert (found.one.steps, deeds(found.one), deeds(found.other)) == (0, [], [("book", "done")])
    await world.client.rewind(thread, start, go_on=True)
    await rest(world, thread, turns=2)
    found = await compared(world, thread, thread, at=end)
    assert found.common is not None and found.common.checkpoint_id == start
    assert deeds(found.one) == [("book", "undone")] * 2 and deeds(found.other) == [("book", "done")] * 2
    assert len(found.same) == 2
    same = await compared(world, thread, thread)
    assert (same.one.steps, same.other.steps, same.difference.patch) == (0, 0, [])


async def test_what_has_nothing_in_common(world: World) -> None:
    """Then each side is the whole of its thread. What isn't there is told."""
    one, other = await turn(world, "Hello."), await turn(world, "Plan the trip.")
    found = await compared(world, one, other)
    assert (found.common, found.one.steps, found.other.steps) == (None, 2, 6)
    assert (deeds(found.one), deeds(found.other)) == ([], [("book", "done")] * 2)
    with pytest.raises(ThreadNotFound):
        await world.client.compare(one, "nobody")
    with pytest.raises(CheckpointNotFound):
        await world.client.compare(one, other, other_at="99")
