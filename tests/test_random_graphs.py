"""Whatever a graph does and however its thread travels: a state is what its deltas make, from the root on."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import END, START, App, Graph, Send, State, append, maximum, merge, union
from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.delta import apply, fold
from perdure.stores import Store
from perdure.testing import Script
from tests.conftest import MakeWorld
from tests.properties import few
from tests.world import World, eventually


class Sheet(State):
    """A plan of steps, each a list of tasks; and channels of every kind that the tasks write to."""

    plan: list[list[dict[str, Any]]] = []
    round: Annotated[int, maximum] = 0
    lines: Annotated[list[str], append] = []
    tree: Annotated[dict[str, Any], merge] = {}
    seen: Annotated[list[int], union] = []


async def work(arg: dict[str, Any]) -> dict[str, Any]:
    """Write what the plan says."""
    return arg


async def gate(state: Sheet) -> dict[str, Any]:
    """Where the tasks of a step meet."""
    return {"round": state.round + 1}


def following(state: Sheet) -> list[Send] | str:
    """The tasks of the plan's next step."""
    rounds = [step for step in state.plan if step]
    return [Send("work", task) for task in rounds[state.round]] if state.round < len(rounds) else END


sheet = Graph("sheet", state=Sheet)
sheet.node("work", work)
sheet.node("gate", gate)
sheet.router(START, following, ["work", END])
sheet.edge("work", "gate")
sheet.router("gate", following, ["work", END])
app = App(agents=[sheet])

leaves = st.integers(-9, 9) | st.text(max_size=3) | st.booleans()
trees = st.dictionaries(st.sampled_from("abc"), leaves | st.dictionaries(st.sampled_from("xy"), leaves, max_size=2))
tasks = st.fixed_dictionaries(
    {},
    optional={
        "lines": st.lists(st.text(max_size=5), max_size=3),
        "tree": trees,
        "seen": st.lists(st.integers(0, 9), max_size=3),
    },
)
plans = st.lists(st.lists(tasks, max_size=3), max_size=4)
travels = st.lists(
    st.tuples(st.sampled_from(["fork", "rewind", "update"]), st.integers(0, 10**6), tasks), max_size=4
)  # fmt: skip


async def checked(store: Store, thread_id: str) -> dict[str, Any]:
    """The state of a thread; on the way: each state on its line is what the deltas make, one by one and all at once."""
    row = await store.thread(thread_id)
    assert row is not None
    line = list(reversed(await store.path(thread_id, row.head_id, limit=1000)))
    values: dict[str, Any] = {}
    for checkpoint in line:
        values = apply(values, checkpoint.delta)
        at = Checkpointer(store, cache_bytes=0)
        assert (await at.load(checkpoint.thread_id, checkpoint.id)).values == values
    assert fold({}, (checkpoint.delta for checkpoint in line)) == values
    return values


def expected(plan: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What the tasks of a plan make, one after the other, told by plain Python."""
    lines: list[str] = []
    tree: dict[str, Any] = {}
    seen: list[int] = []
    for task in (task for step in plan for task in step):
        lines += task.get("lines", [])
        seen += [number for number in dict.fromkeys(task.get("seen", [])) if number not in seen]
        for name, value in task.get("tree", {}).items():
            both = isinstance(value, dict) and isinstance(tree.get(name), dict)
            tree[name] = {**tree[name], **value} if both else value
    return {"lines": lines, "tree": tree, "seen": seen}


async def travel(world: World, thread: str, how: str, number: int, task: dict[str, Any]) -> str:
    """One step through time; the thread that it leads to."""
    line = await world.client.history(thread, limit=1000)
    own = [checkpoint.id for checkpoint in line if checkpoint.thread_id == thread]
    if how == "fork":
        at = line[number % len(line)]
        forked = await world.client.fork(at.thread_id, at.id, thread=world.thread(), state=task, hold=number % 2 == 0)
        thread = forked.thread_id
    elif how == "rewind" and own[1:]:
        await world.client.rewind(thread, own[1:][number % len(own[1:])], go_on=number % 2 == 0)
    else:
        await world.client.update_state(thread, task, metadata={"number": number})
    await eventually(
        lambda: world.client.checkpoint(thread), lambda now: now.status == "idle" and (not now.next or number % 2 == 0)
    )
    return thread


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The graph on a worker."""
    async with make_world(app, Script()) as made:
        yield made


@few
@given(plan=plans, travelled=travels)
async def test_a_state_is_what_its_deltas_make(
    world: World, plan: list[list[dict[str, Any]]], travelled: list[tuple[str, int, dict[str, Any]]]
) -> None:
    """For any graph of tasks, then any forks, rewinds and updates: every state is the fold of its deltas from the root,
    the first is what plain Python makes of the plan, and every digest is right."""
    thread, accepted = await world.client.start("sheet", "go", state={"plan": plan}, thread=world.thread())
    await world.ended(thread, accepted.message_id)
    state = await checked(world.store, thread)
    told = {name: state.get(name, type(value)()) for name, value in expected(plan).items()}
    assert told == expected(plan)
    for how, number, task in travelled:
        thread = await travel(world, thread, how, number, task)
        await checked(world.store, thread)
        assert (await verify(world.store, thread)).problem is None
