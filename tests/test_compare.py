"""Comparison: what each of two branches has done since they had a common past."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from perdure.checkpointer import Position
from perdure.errors import CheckpointNotFound, ThreadNotFound
from perdure.patch import applied
from perdure.security.keyring import new_key
from perdure.starters.compare import Comparison, Side, compare
from perdure.starters.entries import Difference, Place
from perdure.stores.memory import MemoryStore
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.writer import Writer
from tests.conftest import MakeWorld
from tests.properties import brief
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


# ── whatever happened ────────────────────────────────────────────────────────────────────────────────────────────────


class Wood:
    """Threads that grow, fork and rewind by chance. Each place knows what led to it: its steps, and its calls.

    What is compared is worked out from that alone, and not by going back.
    """

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.threads: list[Writer] = []
        self.steps: dict[str, tuple[str, ...]] = {}  # by checkpoint: all that it goes back to, itself the last
        self.calls: dict[str, frozenset[str]] = {}  # and the keys of the calls on the way
        self._pending: dict[str, set[str]] = {}  # by thread: calls made on its head
        self._branches: dict[str, int] = {}
        self._numbers = itertools.count(1)

    async def plant(self) -> None:
        """A new thread."""
        thread = Writer(self.store)
        self.threads.append(thread)
        await thread.commit(source="input")
        self._stands(thread, (), frozenset())

    async def grow(self, thread: Writer) -> None:
        """A step, which follows from what was called."""
        before = thread.head.ref.id
        made = self.calls[before] | self._pending[thread.thread_id]
        await thread.commit()
        self._stands(thread, self.steps[before], made)

    async def call(self, thread: Writer) -> None:
        """A call on the head."""
        key = f"k{next(self._numbers)}"
        await self.store.claim(effect_row(thread, key), head=thread.head.ref.id)
        self._pending[thread.thread_id].add(key)

    async def fork(self, thread: Writer, at: Position) -> None:
        """A thread that begins at a place of another."""
        new = await thread.fork(at)
        self.threads.append(new)
        self._stands(new, self.steps[at.ref.id], self.calls[at.ref.id])

    async def rewind(self, thread: Writer, to: Position) -> None:
        """The head goes back to a place of the thread."""
        self._branches[thread.thread_id] = branch = self._branches.get(thread.thread_id, 0) + 1
        await thread.rewind(to, branch=branch)
        self._stands(thread, self.steps[to.ref.id], self.calls[to.ref.id])

    def _stands(self, thread: Writer, steps: tuple[str, ...], calls: frozenset[str]) -> None:
        self.steps[thread.head.ref.id] = (*steps, thread.head.ref.id)
        self.calls[thread.head.ref.id] = calls
        self._pending[thread.thread_id] = set()

    def led_to(self, thread: Writer) -> frozenset[str]:
        """The calls that belong to where a thread stands, those under way included."""
        return self.calls[thread.head.ref.id] | self._pending[thread.thread_id]

    async def check(self, one: Writer, other: Writer) -> None:
        """What both share is their past, and each has the rest."""
        ends = [await self.store.checkpoint(thread.thread_id, thread.head.ref.id) for thread in (one, other)]
        places = [Place(thread_id=end.thread_id, checkpoint_id=end.id, step=end.step) for end in ends if end]
        assert ends[0] is not None and ends[1] is not None
        difference = Difference(before=places[0], after=places[1], patch=[], changes=())
        found = await compare(self.store, ends[0], ends[1], difference)
        shared = [a for a, b in zip(self.steps[ends[0].id], self.steps[ends[1].id], strict=False) if a == b]
        assert (found.common.checkpoint_id if found.common else "") == (shared[-1] if shared else "")
        past = self.calls[shared[-1]] if shared else frozenset()
        for side, thread, end in ((found.one, one, ends[0]), (found.other, other, ends[1])):
            assert {effect.key for effect in side.effects} == self.led_to(thread) - past
            assert side.steps == len(self.steps[end.id]) - len(shared)
        assert len(found.same) == min(len(found.one.effects), len(found.other.effects))  # all are the same call


@brief
@given(st.data())
async def test_whatever_threads_went_through(data: st.DataObject) -> None:
    """Forks of forks, rewinds, calls under way: what each side did since the common past is what led to it."""
    wood = Wood()
    await wood.plant()
    for _ in range(data.draw(st.integers(1, 25))):
        thread = data.draw(st.sampled_from(wood.threads))
        place = data.draw(st.sampled_from(thread.positions))
        deed = data.draw(st.sampled_from(["grow", "grow", "call", "call", "fork", "rewind", "plant"]))
        if deed == "fork":
            await wood.fork(thread, place)
        elif deed == "rewind" and place is not thread.head:
            await wood.rewind(thread, place)
        elif deed == "plant":
            await wood.plant()
        else:
            await (wood.call(thread) if deed == "call" else wood.grow(thread))
    for one, other in itertools.product(wood.threads[:4], wood.threads[:4]):
        await wood.check(one, other)
