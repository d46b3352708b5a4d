"""Sagas: what belongs together is undone together, in the order that was declared, and nothing else is touched."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from perdure import Agent, App, ToolContext, ToolError, tool
from perdure.errors import DefinitionError, Refused
from perdure.testing import say, together
from tests.conftest import MakeWorld
from tests.crew import (
    audit,
    both,
    calls,
    collapse,
    deed,
    first_turn,
    holds,
    mended,
    statuses,
    told,
    turn,
    undoing,
    undone,
    witness,
)
from tests.world import World, eventually


@tool(effect="compensable", compensate="unflight")
async def flight(ctx: ToolContext, how: str = "") -> str:
    """Says in the call that it is part of the booking."""
    ctx.saga("booking")
    witness.saw(ctx, "flight")
    return f"flight of {ctx.thread_id}"


@tool(effect="compensable", compensate="uncar")
def car(ctx: ToolContext, how: str = "") -> str:
    """The same from a thread of the interpreter."""
    ctx.saga("booking")
    witness.saw(ctx, "car")
    return f"car of {ctx.thread_id}"


@tool(effect="idempotent", on_error="rollback")
async def pay(ctx: ToolContext) -> str:
    """Pay for the booking, which fails."""
    ctx.saga("booking")
    raise ToolError("The card was refused.")


HOUSE = [
    both("foundation"), both("garden"), both("roof", undo_after=[]), both("walls", undo_after=["roof"]),
    both("windows", undo_after=["roof"]),
]  # fmt: skip
TRIP = [both("hotel", saga="booking"), both("party", saga="feast"), both("visa", saga="thread"), both("taxi")]
app = App(
    agents=[
        Agent(name="builder", model="m", tools=[*(do for do, _ in HOUSE), collapse]),
        Agent(name="agency", model="m", tools=[*(do for do, _ in TRIP), flight, car, pay, collapse]),
    ],
    tools=[*(undo for _, undo in [*HOUSE, *TRIP]), undoing("flight"), undoing("car")],
)


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_word_one_is_undone_after_the_other(make_world: MakeWorld) -> None:
    """The latest first; while one compensation is at work, none of those before it has begun."""
    said = told(go=calls("foundation", "garden:held", "taxi", "collapse"))
    plain = [both("foundation"), both("garden"), both("taxi")]
    desk = App(
        agents=[Agent(name="desk", model="m", tools=[*(do for do, _ in plain), collapse])],
        tools=[undo for _, undo in plain],
    )
    async with make_world(desk, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[f"{thread}/ungarden"].arrived()
        assert (await world.client.status(thread)).status == "compensating"
        assert [kind for kind, _ in await undos(world, thread)] == ["undo:untaxi", "undo:ungarden"]
        holds[f"{thread}/ungarden"].let_go()
        residue = (await world.ended(thread, message_id)).residue
        assert witness.of(thread)[3:] == ["untaxi", "ungarden", "unfoundation"]
        assert [label.partition("(")[0] for label in residue.undone] == ["taxi", "garden", "foundation"]


async def test_a_declared_order_runs_side_by_side_and_waits_where_it_says(make_world: MakeWorld) -> None:
    """Walls and windows wait for the roof and for nothing else, and go on together; the foundation, which says
    nothing, waits for all that came after it; the garden, which came last, for nobody."""
    said = told(go=calls("foundation", "walls:held", "windows:held", "roof:held", "garden:held", "collapse"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("builder", "go")
        for name in ("roof", "garden"):
            await holds[f"{thread}/un{name}"].arrived()
        assert {kind for kind, _ in await undos(world, thread)} == {"undo:unroof", "undo:ungarden"}
        holds[f"{thread}/unroof"].let_go()
        for name in ("walls", "windows"):  # both stand here at once
            await holds[f"{thread}/un{name}"].arrived()
        assert witness.of(thread)[5:] == ["unroof"]
        holds[f"{thread}/unwalls"].let_go()
        holds[f"{thread}/unwindows"].let_go()
        await eventually(lambda: seen(thread), lambda deeds: {"unwalls", "unwindows"} <= set(deeds))
        assert "undo:unfoundation" not in [kind for kind, _ in await undos(world, thread)], "the garden is not undone"
        holds[f"{thread}/ungarden"].let_go()
        residue = (await world.ended(thread, message_id)).residue
        assert witness.of(thread)[-2:] == ["ungarden", "unfoundation"]
        assert len(residue.undone) == 5 and residue.lines()[1:] == []


async def test_calls_that_ran_in_parallel_are_undone_in_reverse_of_their_completion(make_world: MakeWorld) -> None:
    """Not of their order in the model's answer: what took longest is undone first."""
    said = told(go=[together(*calls("taxi:late", "hotel", "party")), *calls("collapse")])
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("agency", "go")
        await eventually(lambda: statuses(world, thread), lambda found: [one[1] for one in found].count("done") == 2)
        holds[f"{thread}/taxi"].let_go()
        await world.ended(thread, message_id)
        effects = sorted(await world.client.effects(thread), key=lambda effect: effect.finished_at, reverse=True)
        assert effects[0].tool == "taxi"
        assert witness.of(thread)[3:] == [f"un{effect.tool}" for effect in effects]


async def test_a_compensation_is_tried_as_often_as_it_says(make_world: MakeWorld) -> None:
    """Its own attempts count, not those of the call, nor the default."""
    tries: list[int] = []

    @tool(effect="idempotent", hidden=True, attempts=2)
    async def unroof(ctx: ToolContext) -> None:
        """Undo the roof, which never works."""
        tries.append(ctx.attempt)
        raise ConnectionError("nobody is there")

    desk = App(agents=[Agent(name="desk", model="m", tools=[deed("roof", attempts=4), collapse])], tools=[unroof])
    async with make_world(desk, told(go=calls("roof", "collapse"))) as world:
        thread, result = await first_turn(world, "desk", "go")
        assert (tries, result.residue.needs_attention) == ([1, 2], ('roof(how="")',))
        (effect,) = await world.client.effects(thread)
        assert "nobody is there" in effect.error


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ({"roof": ["walls"], "walls": ["roof"]}, "wait for one another: .*roof"),
        ({"roof": ["walls"], "walls": ["floor"], "floor": ["roof"]}, "wait for one another"),
        ({"roof": ["roof"]}, "wait for one another"),
        ({"roof": ["cellar"]}, "'cellar', which is unknown"),
    ],
)
def test_an_order_that_could_not_be_kept_is_refused(order: dict[str, list[str]], said: str) -> None:
    """When the app is made, with the names: a circle, or a tool that isn't there."""
    pairs = [both(name, undo_after=after) for name, after in order.items()]
    agent = Agent(name="desk", model="m", tools=[do for do, _ in pairs])
    with pytest.raises(DefinitionError, match=said):
        App(agents=[agent], tools=[undo for _, undo in pairs])


# ── scopes ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def agency(make_world: MakeWorld) -> AsyncIterator[World]:
    """The travel agency. Turns are named by what is done in them."""
    said = told(
        taxi=[*calls("taxi"), say("Taken.")],
        trip=[*calls("taxi", "hotel", "party"), say("Booked.")],
        seats=[*calls("flight", "car"), say("Seated.")],
        visa=[*calls("visa"), say("Granted.")],
        last=calls("taxi", "visa", "collapse"),
        pay=calls("pay"),
        fail=calls("taxi", "collapse"),
    )
    async with make_world(app, said) as made:
        yield made


async def test_a_turn_is_undone_alone(agency: World) -> None:
    """What other turns did without a word stands."""
    thread, _ = await first_turn(agency, "agency", "taxi")
    await turn(agency, thread, "fail")
    assert witness.of(thread) == ["taxi", "taxi", "untaxi"]
    assert await statuses(agency, thread) == [("taxi", "done"), ("taxi", "undone")]


async def test_a_failing_call_rolls_back_the_saga_that_it_has_joined(agency: World) -> None:
    """Across turns, in reverse order of completion, whether its calls were declared or said so themselves, in async
    functions and in others. What other sagas and other turns did stands."""
    thread, _ = await first_turn(agency, "agency", "trip")
    await turn(agency, thread, "seats")
    assert [(e.tool, e.saga) for e in await agency.client.effects(thread)] == [
        ("taxi", ""), ("hotel", "booking"), ("party", "feast"), ("flight", "booking"), ("car", "booking"),
    ]  # fmt: skip
    result = await turn(agency, thread, "pay")
    assert (result.outcome, result.error) == ("failed", "pay(): The card was refused.")
    assert witness.of(thread)[5:] == ["uncar", "unflight", "unhotel"]
    assert result.residue.lines() == ['Undone: car(how=""), flight(how=""), hotel(how="").']
    assert await statuses(agency, thread) == [
        ("taxi", "done"), ("hotel", "undone"), ("party", "done"), ("flight", "undone"), ("car", "undone"),
        ("pay", "failed"),
    ]  # fmt: skip
    (line,) = await audit(agency, thread, "saga.rolled_back")
    assert (line["turn"], len(line["undone"]), line["still_done"]) == (3, 3, [])


async def test_the_saga_of_the_thread_spans_all_its_turns(agency: World) -> None:
    """A turn that fails takes along what was declared for the thread, and leaves what was not."""
    thread, _ = await first_turn(agency, "agency", "trip")
    await turn(agency, thread, "visa")
    await turn(agency, thread, "last")
    assert witness.of(thread)[4:] == ["taxi", "visa", "unvisa", "untaxi", "unvisa"]
    assert [status for _, status in await statuses(agency, thread)] == ["done"] * 3 + ["undone"] * 3


async def test_a_turn_that_took_no_part_in_a_saga_leaves_it_alone(agency: World) -> None:
    """A turn fails between two that are in it."""
    thread, _ = await first_turn(agency, "agency", "seats")
    await turn(agency, thread, "fail")
    assert witness.of(thread) == ["flight", "car", "taxi", "untaxi"]


async def test_a_saga_is_compensated_by_its_name(agency: World) -> None:
    """On request: one saga, then what is left of the thread; what was undone is not undone again."""
    thread, _ = await first_turn(agency, "agency", "trip")
    await turn(agency, thread, "seats")
    with pytest.raises(Refused, match="nothing to undo"):
        await agency.client.compensate(thread, saga="nothing")
    left = await agency.client.compensate(thread, saga="feast", by="ann")
    assert (left.undone, witness.of(thread)[5:]) == (('party(how="")',), ["unparty"])
    await agency.client.compensate(thread, saga="booking")
    assert witness.of(thread)[6:] == ["uncar", "unflight", "unhotel"]
    with pytest.raises(Refused, match="nothing to undo"):
        await agency.client.compensate(thread, saga="booking")
    await agency.client.compensate(thread, saga="thread")
    assert witness.of(thread)[9:] == ["untaxi"]
    assert {status for _, status in await statuses(agency, thread)} == {"undone"}
    assert [undone[f"{effect.key}-undo"] for effect in await agency.client.effects(thread)] == [1] * 5


async def test_a_rewind_takes_what_it_undoes_out_of_the_saga(agency: World) -> None:
    """What lies on the branch that was left is not undone a second time, nor told of."""
    thread, _ = await first_turn(agency, "agency", "trip")
    await turn(agency, thread, "seats")
    await agency.client.rewind(thread, "turn:1")
    assert witness.of(thread)[5:] == ["uncar", "unflight"]
    await turn(agency, thread, "seats")
    left = await agency.client.compensate(thread, saga="booking")
    assert witness.of(thread)[7:] == ["flight", "car", "uncar", "unflight", "unhotel"]
    assert len(left.undone) == 3


async def test_a_fork_has_sagas_of_its_own(agency: World) -> None:
    """It undoes what it did itself; the effects of the thread that it comes from are that one's."""
    origin, _ = await first_turn(agency, "agency", "trip")
    head = (await agency.client.history(origin))[0].id
    fork = (await agency.client.fork(origin, head, thread=agency.thread())).thread_id
    with pytest.raises(Refused, match="nothing to undo"):
        await agency.client.compensate(fork, saga="booking")
    await turn(agency, fork, "seats")
    assert (await agency.client.compensate(fork, saga="thread")).undone == ('car(how="")', 'flight(how="")')
    assert witness.of(fork) == ["flight", "car", "uncar", "unflight"]
    assert witness.of(origin) == ["taxi", "hotel", "party"]
    await agency.client.compensate(origin, saga="booking")
    assert (witness.of(origin)[3:], witness.of(fork)[4:]) == (["unhotel"], [])


# ── compensations that fail ──────────────────────────────────────────────────────────────────────────────────────

ROW = ("foundation", "garden", "taxi")
LOOSE = ("walls", "windows", "roof")  # undone side by side, but for the roof, which comes first
ENDINGS = ("done", "not done", "again")


async def test_each_compensation_may_fail_and_the_others_run(make_world: MakeWorld) -> None:
    """For each of n, one after the other and side by side: the report is exact, the thread needs attention, and a
    person settles it, or has it tried again: then only that one runs. Nothing runs twice."""
    pairs = [both(name) for name in ROW] + [*HOUSE[2:]]
    desk = App(
        agents=[Agent(name="desk", model="m", tools=[*(do for do, _ in pairs), collapse])],
        tools=[undo for _, undo in pairs],
    )
    stories = [(names, k, ending) for names in (ROW, LOOSE) for k in range(len(names)) for ending in ENDINGS]
    said = told(
        **{
            f"say{number}e": calls(*(f"{name}:stuck" if i == k else name for i, name in enumerate(names)), "collapse")
            for number, (names, k, _) in enumerate(stories)
        }
    )
    async with make_world(desk, said) as world:
        await asyncio.gather(*(fails(world, f"say{n}e", *story) for n, story in enumerate(stories)))


async def fails(world: World, message: str, names: tuple[str, ...], k: int, ending: str) -> None:
    """One story: the k-th compensation is stuck."""
    thread, result = await first_turn(world, "desk", message)
    stuck, others = names[k], {name for name in names if name != names[k]}
    deeds = witness.of(thread)
    assert deeds[:3] == list(names) and set(deeds[3:]) == {f"un{name}" for name in others} | {f"{stuck} is stuck"}
    residue = result.residue
    assert {label.partition("(")[0] for label in residue.undone} == others
    assert residue.needs_attention == (f'{stuck}(how="stuck")',)
    assert (residue.still_done, residue.in_doubt, residue.settled) == ((), (), ())
    status = await world.client.status(thread)
    assert (status.status, len(status.attention)) == ("needs_attention", 1)
    (line,) = await audit(world, thread, "effect.needs_attention")
    assert (line["tool"], line["error"]) == (stuck, "It is stuck.")
    (effect,) = [e for e in await world.client.effects(thread) if e.status == "needs_attention"]
    if ending == "again":
        assert (await world.client.compensate(thread)).needs_attention == residue.needs_attention
        mended.add(thread)
        assert len((await world.client.compensate(thread)).undone) == len(names)
        assert witness.of(thread) == [*deeds, f"{stuck} is stuck", f"un{stuck}"]
    else:
        settled = await world.client.resolve(thread, effect.key, done=ending == "done", by="ann", reason="looked")
        assert (settled.status, settled.settled_by) == ("done" if ending == "done" else "undone", "ann")
        assert witness.of(thread) == deeds
        (line,) = await audit(world, thread, "effect.settled")
        assert (line["by"], line["why"], line["status"]) == ("ann", "looked", settled.status)
    assert (await world.client.status(thread)).status in ("idle", "failed")
    keys = [f"{effect.key}-undo" for effect in await world.client.effects(thread)]
    assert [undone[key] for key in keys] == [int(ending == "again" or name != stuck) for name in names]


async def test_the_report_says_who_settled_what(make_world: MakeWorld) -> None:
    """Of two that were stuck a person has settled one, when the other is undone after all."""
    said = told(go=calls("walls:stuck", "windows:stuck", "collapse"))
    async with make_world(app, said) as world:
        thread, _ = await first_turn(world, "builder", "go")
        walls, _ = await world.client.effects(thread)
        await world.client.resolve(thread, walls.key, done=False, by="ann", reason="tore them down")
        mended.add(thread)
        left = await world.client.compensate(thread)
        assert set(left.undone) == {'walls(how="stuck")', 'windows(how="stuck")'}
        assert left.settled == ('walls(how="stuck") is undone, says ann',)
        assert 'Settled: walls(how="stuck") is undone, says ann.' in left.lines()
        assert witness.of(thread).count("unwalls") == 0
        lines = await audit(world, thread, "saga.rolled_back", 2)
        assert [line["settled"] for line in lines] == [[], list(left.settled)]


async def test_a_worker_that_goes_between_two_compensations_repeats_none(make_world: MakeWorld) -> None:
    """The first is undone, the second is under way when the worker stops; another worker goes on from there."""
    said = told(go=calls("foundation", "garden:broken", "walls", "collapse"))
    async with make_world(app, said, serve=False) as world:
        worker = world.worker()
        running = asyncio.create_task(worker.run())
        thread, message_id = await world.begin("builder", "go")
        await holds[f"{thread}/ungarden"].arrived()
        stopping = asyncio.create_task(worker.shutdown())
        holds[f"{thread}/ungarden"].let_go()  # its attempt fails
        await asyncio.gather(stopping, running)
        async with world.worker():
            residue = (await world.ended(thread, message_id)).residue
            assert len(residue.undone) == 3
            assert sorted(witness.of(thread)[3:]) == ["unfoundation", "ungarden", "unwalls"]
            keys = [f"{effect.key}-undo" for effect in await world.client.effects(thread)]
            assert [undone[key] for key in keys] == [1, 1, 1]


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def undos(world: World, thread: str) -> list[tuple[str, str]]:
    """Compensations that were scheduled: activity type and id."""
    scheduled = [e.activity_task_scheduled_event_attributes for e in (await world.fetch(thread)).events]
    return [(s.activity_type.name, s.activity_id) for s in scheduled if s.activity_type.name.startswith("undo:")]


async def seen(thread: str) -> list[str]:
    """What was done so far."""
    return witness.of(thread)
