"""What names a checkpoint, the way back to it, and what going back would do to the world outside."""

import pytest

from perdure.effects import EffectClass, EffectStatus
from perdure.errors import AmbiguousCheckpoint, CheckpointNotFound, InvalidInput
from perdure.stores.memory import MemoryStore
from perdure.travel import named, rewind_plan, way_back
from tests.lines import MODEL, Line


@pytest.fixture
def line() -> Line:
    """A thread that has not begun, in a store of its own."""
    return Line(MemoryStore())


async def meant(line: Line, name: str) -> str:
    """The id of the checkpoint that a name means."""
    row = await line.store.thread(line.thread_id)
    assert row is not None
    return (await named(line.store, row, name)).id


async def test_heads_and_steps(line: Line) -> None:
    """`head`, nothing at all, `head~N` and a step number; what isn't there is told with what is."""
    first, second = await line.turn()
    third, fourth = await line.turn()
    ids = [first, second, third, fourth]
    assert [await meant(line, name) for name in ("", "head", "head~0")] == [fourth] * 3
    assert [await meant(line, f"head~{back}") for back in range(4)] == ids[::-1]
    assert [await meant(line, str(step)) for step in range(4)] == ids
    for name in ("head~4", "4", "99", "00", "head~", "head~-1", "turn:", "-1", "nonsense", "x", "turn:one", "head~1~1"):
        with pytest.raises(CheckpointNotFound, match=name):
            await meant(line, name)


async def test_steps_are_those_of_the_heads_line(line: Line) -> None:
    """After a rewind a step is the one that the head rests on, not the one that was left."""
    first, _ = await line.turn()
    left, _ = await line.turn()
    back = await line.rewind(first)
    assert await meant(line, "1") == back
    assert await meant(line, "head~1") == first
    assert await meant(line, left) == left


@pytest.mark.parametrize("turns", [1, 2, 3, 30])
async def test_ends_of_turns(line: Line, turns: int) -> None:
    """`turn:N` is the last checkpoint of turn N, for every N, however many there are and however long they are."""
    ends = []
    for number in range(turns):
        await line.say("go")
        for _ in range(number % 4):
            await line.call()
        ends.append(await line.answer())
    assert [await meant(line, f"turn:{number + 1}") for number in range(turns)] == ends
    for name in ("turn:0", f"turn:{turns + 1}"):
        with pytest.raises(CheckpointNotFound, match=rf"latest turn is {turns}"):
            await meant(line, name)


async def test_a_turn_that_has_not_ended(line: Line) -> None:
    """The end of a running turn isn't there yet; an update after a turn belongs to it."""
    await line.turn()
    updated = await line.put(source="update")
    assert await meant(line, "turn:1") == updated
    await line.say("go")
    with pytest.raises(CheckpointNotFound, match="has not ended"):
        await meant(line, "turn:2")
    assert await meant(line, "turn:1") == updated


async def test_parts_of_ids(line: Line) -> None:
    """An id, its end or its beginning, in any case of letters; with fewer than four characters nothing is meant."""
    ids = [checkpoint for _ in range(20) for checkpoint in await line.turn()]
    for id in ids:
        assert await meant(line, id) == await meant(line, id[-8:]) == await meant(line, id[-12:].upper()) == id
        assert await meant(line, id[:-1]) == id
    with pytest.raises(CheckpointNotFound):
        await meant(line, ids[5][-3:])
    with pytest.raises(CheckpointNotFound):
        await meant(line, ids[5][4:-4])


async def test_a_part_that_fits_several(line: Line) -> None:
    """Every id begins with the time: such a part names the candidates, the newest first, and counts the others."""
    ids = [checkpoint for _ in range(4) for checkpoint in await line.turn()]
    with pytest.raises(AmbiguousCheckpoint) as refused:
        await meant(line, ids[0][:5])  # in digits, but no step is written with noughts in front
    assert [id in refused.value.message for id in reversed(ids)] == [True] * 5 + [False] * 3
    assert "and 3 more" in refused.value.message
    assert refused.value.exit_code == 4


async def test_a_part_in_digits(line: Line) -> None:
    """Digits are a step as long as the thread has it; beyond, they may be the end of an id."""
    await line.turn()
    assert line.head is not None
    while not line.head.ref.id[-4:].isdecimal() or line.head.ref.id[-4:] < "1":
        await line.put()
    id = line.head.ref.id
    assert int(id[-4:]) > line.head.ref.step, "or the test's numbers are unlucky"
    assert await meant(line, id[-4:]) == id


async def test_parts_of_what_was_left(line: Line) -> None:
    """A part that fits nothing on the head's line is looked for on the branches that rewinds have left."""
    first, _ = await line.turn()
    left, _ = await line.turn()
    await line.rewind(first)
    assert await meant(line, left[-8:]) == left


async def test_names_reach_across_forks(line: Line) -> None:
    """In a fork, steps, turns and parts of ids reach into the thread it was forked from, which is named."""
    first, second = await line.turn()
    await line.turn()
    fork = await line.fork(second)
    third, _ = await fork.turn()
    assert await meant(fork, "0") == await meant(fork, first[-8:]) == first
    assert await meant(fork, "turn:1") != second, "the fork's own first checkpoint still belongs to turn 1"
    assert await meant(fork, "head~1") == third
    row = await fork.store.thread(fork.thread_id)
    assert row is not None
    assert (await named(fork.store, row, "1")).thread_id == line.thread_id
    with pytest.raises(CheckpointNotFound):
        await meant(fork, (await line.checkpoint(await meant(line, "head"))).id)


# ── the last good state ──────────────────────────────────────────────────────────────────────────────────────────


async def test_the_last_good_state(line: Line) -> None:
    """`good` is the newest end of a turn that was answered: not one that was stopped, nor the middle of one."""
    await line.say("go")
    with pytest.raises(CheckpointNotFound, match="ended with an answer"):
        await meant(line, "good")
    good = await line.answer()
    assert await meant(line, "good") == good
    await line.say("again")
    await line.call()
    assert await meant(line, "good") == good
    await line.put(source="compensation")
    assert await meant(line, "good") == good
    await line.put(source="update")
    assert await meant(line, "good") == good


async def test_back_at_the_last_good_state(line: Line) -> None:
    """A rewind that changed nothing is as good as what it went back to: whoever restores twice moves once."""
    _, good = await line.turn()
    await line.say("again")
    back = await line.rewind(good)
    assert await meant(line, "good") == back
    twice = await line.rewind(back)
    assert await meant(line, "good") == twice
    await line.put({"notes": {"op": "append", "items": ["x"]}}, source="update")
    assert await meant(line, "good") == twice


async def test_what_was_undone_is_not_good(line: Line) -> None:
    """An answer that tells of something that was undone later doesn't hold any more; the one before it does."""
    _, good = await line.turn()
    await line.say("pay")
    await line.call()
    await line.answer("Paid.")
    _, also = await line.turn()
    assert await meant(line, "good") == also
    await line.store.settle(line.thread_id, line.effects[0], "undone")
    await line.put(source="compensation")
    assert await meant(line, "good") == good


async def test_what_was_undone_elsewhere_spoils_nothing(line: Line) -> None:
    """What a rewind has undone on the branch that it left says nothing against the line of the head."""
    start = await line.say("pay")
    await line.call()
    await line.answer("Paid.")
    await line.store.settle(line.thread_id, line.effects[0], "undone")
    await line.rewind(start)
    good = await line.answer("I'd rather not.")
    assert await meant(line, "good") == good


# ── what a rewind would do ───────────────────────────────────────────────────────────────────────────────────────


async def plan(line: Line, to: str) -> dict[str, list[str]]:
    """What a rewind would do to which tools' calls."""
    assert line.head is not None
    way = await way_back(line.store, line.thread_id, line.head.ref.id, to)
    planned = rewind_plan([row.entry for row in await line.store.effects(line.thread_id)], way)
    assert planned.steps == len(way) - 1
    groups = {name: getattr(planned, name) for name in ("undo", "keep", "impossible", "unsettled")}
    return {name: [effect.tool for effect in effects] for name, effects in groups.items() if effects}


@pytest.mark.parametrize(
    ("effect", "status", "group"),
    [
        ("compensable", "done", "undo"), ("compensable", "needs_attention", "undo"), ("idempotent", "done", "keep"),
        ("read", "done", "keep"), ("irreversible", "done", "impossible"), ("irreversible", "in_doubt", "unsettled"),
        ("compensable", "in_doubt", "unsettled"), ("idempotent", "attempted", "unsettled"),
        ("compensable", "undone", ""), ("compensable", "failed", ""), ("irreversible", "failed", ""),
    ],
)  # fmt: skip
async def test_classes_of_a_plan(line: Line, effect: EffectClass, status: EffectStatus, group: str) -> None:
    """Every class and every status has its place in the plan, or none."""
    start = await line.say("go")
    await line.call("it", effect, status)
    assert await plan(line, start) == ({group: ["it"]} if group else {})


async def test_a_plan_has_what_lies_between(line: Line) -> None:
    """What was done before the target stays; a call that was made on the target itself is undone; the last comes first.

    A rewind to the end of a turn leaves that turn's effects alone.
    """
    await line.say("one")
    asked, done = await line.call("first")
    end = await line.answer()
    await line.say("two")
    await line.call("second")
    await line.call("third")
    assert await plan(line, end) == {"undo": ["third", "second"]}
    assert await plan(line, done) == {"undo": ["third", "second"]}
    assert await plan(line, asked) == {"undo": ["third", "second", "first"]}


async def test_what_an_earlier_rewind_kept_is_not_asked_about_again(line: Line) -> None:
    """A call on a branch that was left is not on the way back, also where that was left at the very checkpoint."""
    start = await line.say("go")
    asked, _ = await line.call("post", "irreversible")
    assert await plan(line, start) == {"impossible": ["post"]}
    await line.rewind(asked)
    await line.call("again")
    assert await plan(line, asked) == {"undo": ["again"]}
    assert await plan(line, start) == {"undo": ["again"]}


async def test_there_is_no_way_back(line: Line) -> None:
    """To the head itself, to a branch that was left, to another thread, to nowhere."""
    first, _ = await line.turn()
    left, _ = await line.turn()
    back = await line.rewind(first)
    fork = await line.fork(first)
    for to, kind in ((back, InvalidInput), (left, InvalidInput), ("nowhere", CheckpointNotFound)):
        with pytest.raises(kind):
            await plan(line, to)
    await fork.put(next=MODEL)
    with pytest.raises(CheckpointNotFound, match=first):
        await plan(fork, first)


@pytest.mark.parametrize("length", [1, 199, 200, 201, 450])
async def test_the_way_back_is_whole(line: Line, length: int) -> None:
    """However long the way is, every checkpoint on it is there once, newest first."""
    ids = [await line.say("go"), *[await line.put(next=MODEL) for _ in range(length)]]
    way = await way_back(line.store, line.thread_id, ids[-1], ids[0])
    assert [checkpoint.id for checkpoint in way] == ids[::-1]
