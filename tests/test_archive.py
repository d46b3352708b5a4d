"""Threads as the store has them: histories across branches and forks, trees, differences, metadata."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from perdure.canonical import canonical
from perdure.errors import CheckpointNotFound, ThreadNotFound
from perdure.patch import applied
from perdure.settings import Settings
from perdure.starters.archive import Archive
from perdure.starters.branches import Stretch, Tree
from perdure.starters.cli.output import Format, Output
from perdure.starters.cli.render import checkpoints as render
from perdure.stores.base import Store
from perdure.stores.memory import MemoryStore
from tests.lines import Line

_numbers = itertools.count(1)
Print = Callable[[Any], list[str]]


@pytest.fixture
def url() -> str:
    """A store of its own."""
    return f"memory://archive-{next(_numbers)}"


@pytest.fixture
def line(url: str) -> Line:
    """A thread that has not begun."""
    return Line(MemoryStore.named(url.removeprefix("memory://")))


@pytest.fixture
def archive(url: str) -> Archive:
    """The archive over the same store."""
    return Archive(Settings(store=url))


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Print:
    """What a rendering prints where no terminal is, as lines without their alignment."""

    def show(text: Any) -> list[str]:
        Output(Format.text).show(None, text)
        return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]

    return show


async def page(archive: Archive, line: Line, **more: Any) -> list[str]:
    """The ids of a page of history."""
    fields: dict[str, Any] = {"limit": 20, "where": {}, **more}
    return [entry.id for entry in await archive.history(line.thread_id, **fields)]


# ── histories ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_history_is_the_heads_line(archive: Archive, line: Line) -> None:
    """Newest first, without what a rewind has left, unless that is asked for, and then it is marked."""
    first, second = await line.turn()
    left = [*await line.turn()]
    back = await line.rewind(second)
    assert await page(archive, line) == [back, second, first]
    entries = await archive.history(line.thread_id, limit=20, where={}, all_branches=True)
    assert {entry.id for entry in entries if entry.left} == set(left)
    assert {entry.id for entry in entries if not entry.left} == {back, second, first}
    assert [entry.step for entry in entries] == [3, 2, 2, 1, 0]
    assert await page(archive, line, all_branches=True, limit=2) == [entry.id for entry in entries[:2]]
    older = await archive.history(line.thread_id, limit=20, before=left[1], where={})
    assert [(entry.id, entry.left) for entry in older] == [(left[0], True), (second, False), (first, False)]


async def test_pages(archive: Archive, line: Line) -> None:
    """Pages of any length make up the whole, each going on where the last one ended; `before` takes any name."""
    ids = [id for _ in range(6) for id in await line.turn()][::-1]
    for limit in (1, 5, 12, 50):
        found, before = [], ""
        while more := await page(archive, line, limit=limit, before=before):
            assert len(more) <= limit
            found += more
            before = more[-1]
        assert found == ids
    assert await page(archive, line, before="turn:2") == ids[-3:]
    assert await page(archive, line, before="0") == []
    with pytest.raises(CheckpointNotFound):
        await page(archive, line, before="99")


async def test_a_history_crosses_forks(archive: Archive, line: Line, printed: Print) -> None:
    """A fork's history goes on in the thread it was forked from, and shows where; so does a fork of a fork."""
    first, second = await line.turn()
    await line.turn()
    fork = await line.fork(second)
    third, fourth = await fork.turn()
    again = await fork.fork(third)
    assert again.head is not None
    assert (await page(archive, again))[1:] == [third, *(await page(archive, fork))[2:3], second, first]
    entries = await archive.history(again.thread_id, limit=20, where={}, all_branches=True)
    assert [entry.thread_id for entry in entries] == [again.thread_id, *[fork.thread_id] * 2, *[line.thread_id] * 2]
    assert not any(entry.left for entry in entries)
    shown = printed(render.history(again.thread_id, entries))
    assert f"fork of {fork.thread_id}" in shown[1]
    assert f"fork of {line.thread_id} (in {fork.thread_id})" in shown[3]
    assert f"step model (in {line.thread_id})" in shown[4]
    assert fourth not in "\n".join(shown)


async def test_what_was_done_at_each_checkpoint(archive: Archive, line: Line, printed: Print) -> None:
    """Tokens, and the effects of the calls that were made there, with their status; also across a fork."""
    await line.say("pay")
    asked, done = await line.call("pay")
    await line.effect("launch", "irreversible", "in_doubt")
    answered = await line.answer()
    fork = await line.fork(answered)
    for thread in (fork, line):
        page = await archive.history(thread.thread_id, limit=20, where={})
        entries = {entry.id: entry for entry in page}
        assert [(effect.tool, effect.status) for effect in entries[asked].effects] == [("pay", "done")]
        assert [(effect.tool, effect.status) for effect in entries[done].effects] == [("launch", "in_doubt")]
        assert entries[answered].effects == ()
        assert (entries[asked].usage.tokens, entries[done].usage.tokens) == (15, 0)
        (row,) = [text for text in printed(render.history(thread.thread_id, page)) if text.startswith(asked)]
        assert "notes +1 15 pay done" in row


async def test_where(archive: Archive, line: Line) -> None:
    """Only what has these entries in its metadata, all of them, as the same JSON; the limit counts what fits."""
    await line.say("go", metadata={"n": 1, "who": "ann"})
    ids = [await line.put(metadata={"n": number % 3, "deep": {"a": [1]}}) for number in range(9)][::-1]
    assert await page(archive, line, where={"n": 2}) == [ids[0], ids[3], ids[6]]
    assert await page(archive, line, where={"n": 2}, limit=2) == [ids[0], ids[3]]
    assert await page(archive, line, where={"n": 2, "deep": {"a": [1]}}, before=ids[3]) == [ids[6]]
    for wrong in ({"n": True}, {"n": 1.0}, {"n": 1, "who": "bob"}, {"nothing": None}):
        assert await page(archive, line, where=wrong) == []
    assert len(await page(archive, line, where={"n": 1, "who": "ann"})) == 1


async def test_find(archive: Archive, line: Line) -> None:
    """Metadata is found in all threads, newest first, also on branches that were left; or in the one that is named."""
    start = await line.say("go", metadata={"ticket": "OPS-1"})
    left = await line.put(metadata={"ticket": "OPS-1"})
    await line.rewind(start)
    other = Line(line.store)
    there = await other.say("go", metadata={"ticket": "OPS-1", "more": 1})
    assert [c.id for c in await archive.find({"ticket": "OPS-1"})] == [there, left, start]
    assert [c.id for c in await archive.find({"ticket": "OPS-1"}, thread_id=line.thread_id, limit=1)] == [left]
    assert [c.id for c in await archive.find({"ticket": "OPS-1", "more": 1})] == [there]
    assert await archive.find({"ticket": "OPS-2"}) == []
    with pytest.raises(ThreadNotFound):
        await archive.find({"ticket": "OPS-1"}, thread_id="nobody")


# ── trees ────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn(tree: Tree) -> Any:
    """A tree in short: steps of each stretch, with what hangs on it."""

    def short(stretch: Stretch) -> Any:
        steps = f"{stretch.first_step}-{stretch.last_step} {stretch.source}" + (" head" if stretch.is_head else "")
        sides = [*([list(stretch.forks)] if stretch.forks else []), *(list(map(short, side)) for side in stretch.left)]
        return (steps, *sides) if sides else steps

    return [list(map(short, branch)) for branch in tree.branches]


async def test_a_line_is_one_stretch(archive: Archive, line: Line) -> None:
    """However long a thread is that only ran: inputs and steps are nothing to tell."""
    for _ in range(5):
        await line.turn()
    tree = await archive.tree(line.thread_id)
    assert drawn(tree) == [["0-9 input head"]]
    ((stretch,),) = tree.branches
    assert (stretch.first_turn, stretch.last_turn) == (1, 5)
    assert (stretch.first, stretch.last) == (await _at(archive, line, "0"), await _at(archive, line, "head"))


async def _at(archive: Archive, line: Line, name: str) -> str:
    return (await archive.checkpoint(line.thread_id, name)).id


async def test_branches(archive: Archive, line: Line, printed: Print) -> None:
    """What rewinds have left hangs where it was left; the head's line goes on. Forks hang where they were made."""
    _, one = await line.turn()
    _, two = await line.turn()
    await line.turn()
    await line.rewind(two)
    await line.rewind(one)
    await line.turn()
    await line.put(source="update")
    fork = await line.fork(one, "a-fork")
    await line.fork(two, "another")
    tree = await archive.tree(line.thread_id)
    left = [("2-3 input", ["another"], ["4-5 input"]), "4-4 rewind"]
    assert drawn(tree) == [[("0-1 input", ["a-fork"], left), "2-2 rewind", "3-4 input", "5-5 update head"]]
    shown = printed(render.tree(tree))
    assert shown[0] == line.thread_id
    assert f"step 5 update turn 2 …{line.head and line.head.ref.id[-8:]} ← head" in shown[-1]
    assert [text for text in shown if "fork:" in text] == ["│ ├── fork: a-fork", "│ │ ├── fork: another"]
    tree = await archive.tree(fork.thread_id)
    assert (drawn(tree), tree.origin_thread, tree.origin_id) == ([["2-2 fork head"]], line.thread_id, one)
    assert printed(render.tree(tree))[0] == f"a-fork (fork of {line.thread_id} at …{one[-8:]})"


async def test_a_long_story(archive: Archive, line: Line) -> None:
    """A thousand updates one after the other, or rewinds to one place, make no deep tree."""
    start = await line.say("go")
    for number in range(500):
        await line.put(source="update" if number % 2 else "step")
    for _ in range(100):
        await line.put()
        await line.rewind(start)
    tree = await archive.tree(line.thread_id)
    (branch,) = tree.branches
    assert len(branch[0].left) == 100
    assert Tree.model_validate_json(tree.model_dump_json()) == tree
    assert render.tree(tree) is not None


# ── differences ──────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_difference(archive: Archive, line: Line, printed: Print) -> None:
    """By channel, with what was there; the patch leads from the first state to the second."""
    one = await line.put({"title": {"op": "set", "value": "Tea"}, "old": {"op": "set", "value": [1, 2]}})
    message = {"content": "Good\nday.", "id": "m1", "role": "assistant"}
    two = await line.put(
        {
            "title": {"op": "set", "value": "Coffee"}, "old": {"op": "set", "value": [2]},
            "role": {"op": "set", "value": [{"role": "x"}, 0, None]}, "ticks": {"op": "set", "value": {"a/b": 1}},
            "messages": {"op": "messages", "put": [message]},
        }
    )  # fmt: skip
    found = await archive.diff((line.thread_id, one), (line.thread_id, "head"))
    states = [await archive.state(line.thread_id, id) for id in (one, two)]
    assert canonical(applied(states[0], found.patch)) == canonical(states[1])
    assert (found.before.checkpoint_id, found.after.step) == (one, 1)
    shown = printed(render.difference(found))
    assert shown[0] == f"from step 0 …{one[-8:]} to step 1 …{two[-8:]}"
    assert sorted(shown[1:]) == sorted(
        [
            "title", '~ "Tea" → "Coffee"', "old", "- [0] 1", "ticks", '+ {"a/b": 1}',
            "role", '+ [{"role": "x"}, 0, null]',
            "messages", "+ [0] assistant: Good day.",
        ]
    )  # fmt: skip
    await line.put({"messages": {"op": "set", "value": [message | {"id": "m2"}]}})
    other = await archive.diff((line.thread_id, two), (line.thread_id, "head"))
    assert [operation["path"] for operation in other.patch] == ["/messages/0/id"]
    assert printed(render.difference(other))[0].endswith("are the same, but for the ids of messages.")
    same = await archive.diff((line.thread_id, one), (line.thread_id, "0"))
    assert same.patch == []
    assert printed(render.difference(same)) == [f"step 0 …{one[-8:]} and step 0 …{one[-8:]} are the same."]


async def test_a_fork_and_its_origin(archive: Archive, line: Line, printed: Print) -> None:
    """Across threads the places are named by them; a message is shown as what it says."""
    said = {"id": "m1", "role": "user", "content": "hello"}
    one = await line.put({"messages": {"op": "messages", "put": [said]}, "title": {"op": "set", "value": "Tea"}})
    fork = await line.fork(one, delta={"title": {"op": "set", "value": "Cake"}})
    answer = {"id": "m2", "role": "assistant", "content": "Good\nday."}
    await fork.put({"messages": {"op": "messages", "put": [answer]}})
    found = await archive.diff((line.thread_id, "head"), (fork.thread_id, "head"))
    shown = printed(render.difference(found))
    assert shown[0].startswith(f"from step 0 …{one[-8:]} of {line.thread_id} to step 2 …")
    assert shown[0].endswith(f" of {fork.thread_id}")
    assert sorted(shown[1:]) == ["+ [1] assistant: Good day.", "messages", "title", '~ "Tea" → "Cake"']


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────


class Counted:
    """A store that counts what it is asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._store, name)


@pytest.mark.parametrize("length", [20, 1_000])
async def test_a_page_costs_the_same_however_long_the_thread(
    url: str, line: Line, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    """A page, a state, a step: the same few questions at 20 and at 1,000 checkpoints; a turn a few more, by halving."""
    counted = Counted(line.store)
    monkeypatch.setattr("perdure.stores.open.open_existing", lambda url: counted)
    archive = Archive(Settings(store=url))
    for number in range(length):
        await (line.say("go") if number % 2 == 0 else line.answer())

    async def asked(question: Awaitable[object]) -> list[str]:
        counted.asked.clear()
        await question
        return list(counted.asked)

    page = archive.history(line.thread_id, limit=20, where={})
    assert await asked(page) == ["thread", "path", "effects"]
    page = archive.history(line.thread_id, limit=5, before="7", where={})
    assert await asked(page) == ["thread", "checkpoint", "ancestor", "path", "ancestor", "effects"]
    assert await asked(archive.state(line.thread_id, "head~3")) == ["thread", "checkpoint", "ancestor", "line"]
    assert len(await asked(archive.checkpoint(line.thread_id, "turn:3"))) <= 13
