"""Unclear outcomes: the tool's own hook is asked, then a person; what is known decides, and nothing is done twice.

Long: one claim a way to learn how a call ended.
"""

from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from perdure import Agent, App, Approval, Outcome, ToolContext, tool
from perdure.effects import Effect
from perdure.errors import Conflict, Refused
from perdure.testing import Reply, call, say, together
from tests.conftest import MakeWorld
from tests.crew import audit, both, calls, collapse, first_turn, statuses, told, turn
from tests.witness import Doorkeeper, Holds, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()
truth: dict[str, str] = {}  # by thread: what the hooks find out; by default what ``how`` says
forgotten: set[str] = set()  # threads whose approval is asked for from now on


@tool(effect="irreversible", reconcile="wired", on_error="return")
async def wire(ctx: ToolContext, how: str) -> dict[str, str]:
    """Send money that never comes back. The line breaks, always."""
    witness.saw(ctx, "wire")
    raise ConnectionError("the line broke")


@tool(effect="compensable", compensate="unseat", reconcile="wired", attempts=1)
async def seat(ctx: ToolContext, how: str) -> dict[str, str]:
    """Book a seat. The line breaks, always."""
    witness.saw(ctx, "seat")
    raise ConnectionError("the line broke")


@tool(effect="idempotent", hidden=True)
async def unseat(ctx: ToolContext, receipt: dict[str, str]) -> None:
    """Give the seat back."""
    witness.saw(ctx, f"unseat {receipt['seat']}")


@tool(hidden=True, timeout="20m", deadline="3h", attempts=2)
async def wired(ctx: ToolContext, how: str) -> Any:
    """Tell how it ended, if the bank says so."""
    known = truth.get(ctx.thread_id, how)
    witness.saw(ctx, f"asked: {known}")
    if known == "raises":
        raise ConnectionError("the bank is closed")
    outcomes = {
        "done": Outcome.done({"seat": "12a"}), "not done": Outcome.not_done(), "unknown": Outcome.unknown(),
        "garbage": True, "no json": Outcome.done({"seat": object()}),
    }  # fmt: skip
    return outcomes[known]


@tool(effect="irreversible")
async def launch(ctx: ToolContext) -> str:
    """Nobody can tell how it ended."""
    witness.saw(ctx, "launch")
    raise ConnectionError("the line broke")


@tool(effect="irreversible")
async def slow(ctx: ToolContext, how: str = "") -> str:
    """Takes as long as the test wants; where the worker is told to give it up, it does it all the same."""
    witness.saw(ctx, "slow")
    await holds[ctx.thread_id].wait()
    return "done at last"


@tool(effect="idempotent", attempts=2, approval=Approval(when=lambda args: args.who in forgotten))
async def grant(ctx: ToolContext, who: str) -> str:
    """Nobody has to approve, until its answer is lost."""
    witness.saw(ctx, "grant")
    forgotten.add(who)
    raise ConnectionError("the line broke")


desk = both("desk")
app = App(
    agents=[Agent(name="desk", model="m", tools=[wire, seat, launch, slow, grant, desk[0], collapse])],
    tools=[unseat, wired, desk[1]],
)
UNTOLD = ("unknown", "raises", "garbage", "no json")


def go(*replies: Reply) -> list[Reply]:
    """What the model says after "go"."""
    return [*replies, say("Fine.")]


async def one(world: World, thread: str) -> Effect:
    """The latest effect of the thread."""
    return (await world.client.effects(thread))[-1]


async def is_done(world: World, thread: str, effect: Effect) -> None:
    """Wait until the ledger knows that it is done."""

    async def status() -> str:
        row = await world.store.effect(thread, effect.key)
        return row.entry.status if row else ""

    await eventually(status, lambda found: found == "done")


# ── the hook ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["wire", "seat"])
async def test_what_the_hook_knows_to_be_done_is_done(make_world: MakeWorld, name: str) -> None:
    """Its result is the call's: the model is told it, a compensation receives it. The call is not made again, and
    nobody is asked."""
    said = told(go=go(call(name, how="done")))
    async with make_world(app, said) as world:
        thread, result = await first_turn(world, "desk", "go")
        assert (result.outcome, result.answer) == ("answered", "Fine.")
        assert said.told()[-1] == ("tool", '{"seat":"12a"}')
        assert witness.of(thread) == [name, "asked: done"]
        (line,) = await audit(world, thread, "effect.reconciled")
        assert (line["status"], line["by"], line["tool"]) == ("done", "wired", name)
        assert await statuses(world, thread) == [(name, "done")]
        if name == "seat":
            await world.client.compensate(thread)
            assert witness.of(thread)[2:] == ["unseat 12a"]
        rows = await world.store.audit(thread)
        assert "effect.in_doubt" not in {row.entry.kind for row in rows}


@pytest.mark.parametrize("name", ["wire", "seat"])
async def test_what_the_hook_knows_not_to_be_done_has_failed(make_world: MakeWorld, name: str) -> None:
    """The model reads why and goes on; an irreversible call is not made again by itself, and nothing is undone."""
    said = told(go=go(call(name, how="not done")), fail=calls("collapse"))
    async with make_world(app, said) as world:
        thread, result = await first_turn(world, "desk", "go")
        assert result.outcome == "answered"
        assert said.told()[-1] == ("tool", "Error: ConnectionError: the line broke")
        effect = await one(world, thread)
        assert (effect.status, effect.settled_by, effect.attempts) == ("failed", "wired", 1)
        with pytest.raises(Refused, match="nothing to undo"):
            await world.client.compensate(thread)
        assert witness.of(thread) == [name, "asked: not done"]
        assert (await world.client.status(thread)).status == "idle"


@pytest.mark.parametrize("settled", ["done", "not done"])
@pytest.mark.parametrize("how", UNTOLD)
async def test_what_the_hook_cannot_tell_is_in_doubt(make_world: MakeWorld, how: str, settled: str) -> None:
    """Unknown, an error, or an answer that is none: a person is asked, who may ask the hook again. What it then tells
    is told to the model: the call's own result, or that it was not done."""
    said = told(go=go(call("wire", how=how)))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        asked = [f"asked: {how}"] * (2 if how == "raises" else 1)
        assert witness.of(thread) == ["wire", *asked]
        (line,) = await audit(world, thread, "effect.in_doubt")
        assert line["error"] == "ConnectionError: the line broke"
        effect = await one(world, thread)
        with pytest.raises(Refused, match="wired can't tell"):
            await world.client.resolve(thread, effect.key, done=None, by="ann")
        assert (await world.client.status(thread)).status == "in_doubt"
        truth[thread] = settled
        found = await world.client.resolve(thread, effect.key, done=None, by="ann")
        assert found.status == ("done" if settled == "done" else "failed")
        assert (await world.ended(thread, message_id)).answer == "Fine."
        if settled == "done":
            assert said.told()[-1] == ("tool", '{"seat":"12a"}')
        else:
            assert said.told()[-1] == ("tool", "It was not done, according to wired.")
        (line,) = await audit(world, thread, "effect.reconciled")
        assert (line["by"], line["asked_by"]) == ("wired", "ann")
        assert witness.of(thread) == ["wire", *asked, *asked, f"asked: {settled}"]
        assert (await world.client.status(thread)).status == "idle"


async def test_a_person_may_know_what_no_hook_tells(make_world: MakeWorld) -> None:
    """Where there is no hook it can't be asked; where it can't tell, a person's word counts."""
    said = told(go=go(call("launch"), call("wire", how="unknown")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        effect = await one(world, thread)
        with pytest.raises(Refused, match="no hook"):
            await world.client.resolve(thread, effect.key, done=None, by="ann")
        await world.client.resolve(thread, effect.key, done=False, by="ann")
        await eventually(lambda: one(world, thread), lambda found: (found.tool, found.status) == ("wire", "in_doubt"))
        effect = await one(world, thread)
        await world.stands(thread, "in_doubt")
        assert (await world.client.resolve(thread, effect.key, done=True, by="bob")).settled_by == "bob"
        await world.ended(thread, message_id)
        assert said.told()[-1] == ("tool", "It was done, according to bob.")
        assert [line["by"] for line in await audit(world, thread, "effect.settled", 2)] == ["ann", "bob"]


async def test_a_hook_says_which_saga_the_call_is_in(make_world: MakeWorld) -> None:
    """A call whose worker died could not say it any more; what it did is taken back with the saga all the same."""

    @tool(effect="compensable", compensate="unseat", reconcile="seated", attempts=1)
    async def lost(ctx: ToolContext) -> dict[str, str]:
        """Gone before it could say anything."""
        raise ConnectionError("the line broke")

    @tool(hidden=True)
    async def seated(ctx: ToolContext) -> Outcome:
        """It is found in the booking."""
        ctx.saga("booking")
        return Outcome.done({"seat": "12a"})

    agency = App(agents=[Agent(name="desk", model="m", tools=[lost])], tools=[unseat, seated])
    async with make_world(agency, told(go=go(call("lost")))) as world:
        thread, _ = await first_turn(world, "desk", "go")
        assert (await world.client.compensate(thread, saga="booking")).undone == ("lost()",)
        assert witness.of(thread) == ["unseat 12a"]


async def test_a_hook_has_its_own_patience(make_world: MakeWorld) -> None:
    """What it declares as time-out and deadline holds in the turn, at a person's request, and at a rollback."""
    said = told(go=go(call("wire", how="unknown")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        with pytest.raises(Refused):
            await world.client.resolve(thread, (await one(world, thread)).key, done=None, by="ann")
        await world.client.cancel(thread)
        await world.ended(thread, message_id)
        scheduled = [e.activity_task_scheduled_event_attributes for e in (await world.fetch(thread)).events]
        asked = [task for task in scheduled if task.activity_type.name == "reconcile:wired"]
        assert len(asked) == 3
        for task in asked:
            assert task.start_to_close_timeout.ToTimedelta() > timedelta(minutes=20)
            assert task.schedule_to_close_timeout.ToTimedelta() > timedelta(hours=3)


# ── in doubt, and then taken back ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("known", ["done", "not done", "unknown"])
async def test_what_is_in_doubt_is_asked_about_before_it_is_undone(make_world: MakeWorld, known: str) -> None:
    """Only what is known to be done is undone, with the receipt that the hook gave; what nobody knows stays in doubt,
    and the rest is undone all the same."""
    said = told(go=go(call("desk"), call("seat", how="unknown")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        truth[thread] = known
        await world.client.cancel(thread)
        residue = (await world.ended(thread, message_id)).residue
        undone = ["unseat 12a"] if known == "done" else []
        assert witness.of(thread) == ["seat", "asked: unknown", f"asked: {known}", *undone]
        label, other = 'seat(how="unknown")', 'desk(how="")'
        assert residue.undone == ((label, other) if known == "done" else (other,))
        assert residue.in_doubt == ((label,) if known == "unknown" else ())
        assert residue.settled == ((f"{label} is failed, says wired",) if known == "not done" else ())
        status = await world.client.status(thread)
        assert status.status == ("in_doubt" if known == "unknown" else "idle")
        assert len(status.attention) == (1 if known == "unknown" else 0)
        if known == "unknown":  # it is learnt later, and undone on request
            truth[thread] = "done"
            left = await world.client.compensate(thread)
            assert (left.undone, left.in_doubt) == ((other, label), ())
            assert witness.of(thread)[3:] == ["asked: done", "unseat 12a"]


async def test_another_saga_s_doubts_are_not_asked_about(make_world: MakeWorld) -> None:
    """Of two effects of one turn the one in doubt is in the turn's saga; another saga is compensated."""
    party = both("party", saga="feast")
    world_app = App(
        agents=[Agent(name="desk", model="m", tools=[seat, party[0]])], tools=[unseat, wired, party[1]],
    )  # fmt: skip
    said = told(go=go(call("party"), call("seat", how="unknown")))
    async with make_world(world_app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        await world.client.cancel(thread, compensate=False)
        await world.ended(thread, message_id)
        truth[thread] = "done"
        left = await world.client.compensate(thread, saga="feast")
        assert left.undone == ('party(how="")',) and left.in_doubt == ()
        assert witness.of(thread) == ["seat", "asked: unknown"]
        assert await statuses(world, thread) == [("party", "undone"), ("seat", "in_doubt")]


async def test_what_is_known_later_is_undone_in_its_place(make_world: MakeWorld) -> None:
    """An effect that was in doubt for a while was done before what came after it: it is undone after that."""
    seats = both("party", saga="thread")
    early = tool(name="early", effect="compensable", compensate="unseat", reconcile="wired", attempts=1, saga="thread")(
        seat.function
    )
    world_app = App(
        agents=[Agent(name="desk", model="m", tools=[early, seats[0], collapse])], tools=[unseat, wired, seats[1]],
    )  # fmt: skip
    said = told(go=go(call("early", how="unknown")), then=calls("party", "collapse"))
    async with make_world(world_app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        await world.client.cancel(thread, compensate=False)
        await world.ended(thread, message_id)
        truth[thread] = "done"
        result = await turn(world, thread, "then")
        assert [label.partition("(")[0] for label in result.residue.undone] == ["party", "early"]


async def test_a_terminated_workflow_s_call_is_asked_about_when_the_thread_is_taken_up(make_world: MakeWorld) -> None:
    """Nobody waits for its attempt any more; its hook is asked before anything else, once, and it is written down."""
    hold = Doorkeeper("tool:wire")
    said = told(go=go(call("wire", how="done")))
    async with make_world(app, said, serve=False) as world:
        async with world.worker(interceptors=[hold]):
            thread, _ = await world.begin("desk", "go")
            await hold.hold.arrived()
            await world.handle(thread).terminate()
            hold.hold.let_go()  # it reaches the ledger, and its answer reaches nobody
            await eventually(lambda: statuses(world, thread), lambda found: found == [("wire", "attempted")])
        async with world.worker():
            result = await turn(world, thread, "more")
            assert result.answer == "All is well."
            assert witness.of(thread) == ["wire", "asked: done"]
            assert await statuses(world, thread) == [("wire", "done")]
            assert (await world.client.status(thread)).status == "idle"
            (line,) = await audit(world, thread, "effect.in_doubt")
            assert "ended before its outcome was known" in str(line["error"])
            (line,) = await audit(world, thread, "effect.reconciled")
            assert line["by"] == "wired"


async def test_an_approval_that_is_gone_does_not_make_an_attempt_unmade(make_world: MakeWorld) -> None:
    """The answer of the first attempt is lost, the second may not run: the first may have been done all the same."""
    async with make_world(app, told(go=go(call("grant", who="x")))) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        assert witness.of(thread) == ["grant"]
        effect = await one(world, thread)
        assert (effect.status, "needs an approval" in effect.error) == ("in_doubt", True)
        await world.client.resolve(thread, effect.key, done=False, by="ann")
        await world.ended(thread, message_id)


# ── what ends late ───────────────────────────────────────────────────────────────────────────────────────────────


async def give_up(world: World, thread: str, name: str = "tool:slow") -> None:
    """Let Temporal take the call's attempt for lost, as where its worker stands still; the attempt goes on."""
    run = await world.handle(thread).describe()
    (attempt,) = [a for a in run.raw_description.pending_activities if a.activity_type.name == name]
    handle = world.temporal.get_async_activity_handle(
        workflow_id=thread, run_id=run.run_id, activity_id=attempt.activity_id
    )
    await handle.fail(ApplicationError("no sign of life", non_retryable=True))


@pytest.mark.parametrize("alone", [True, False])
async def test_a_call_that_ends_late_contradicts_who_said_otherwise(make_world: MakeWorld, alone: bool) -> None:
    """Given up, in doubt, and then done: the ledger learns it. Whoever says that it was not done is told so, and so is
    the audit; the model reads what the call returned. It was called once."""
    replies = [call("slow")] if alone else [together(call("slow"), call("desk"))]
    said = told(go=go(*replies))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await give_up(world, thread)
        await world.stands(thread, "in_doubt")
        (effect,) = [e for e in await world.client.effects(thread) if e.tool == "slow"]
        holds[thread].let_go()
        await is_done(world, thread, effect)
        with pytest.raises(Conflict, match="is done, says the ledger"):
            await world.client.resolve(thread, effect.key, done=False, by="ann", reason="nothing there")
        assert (await world.ended(thread, message_id)).answer == "Fine."
        assert ("tool", "done at last") in said.told()
        (line,) = await audit(world, thread, "effect.settled")
        assert (line["by"], line["agreed"], line["status"]) == ("ann", False, "done")
        assert witness.of(thread) == ["slow"]
        assert (await world.client.status(thread)).status == "idle"


async def test_who_says_that_a_late_call_was_done_is_right(make_world: MakeWorld) -> None:
    """And the model reads its result all the same."""
    said = told(go=go(call("slow")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await give_up(world, thread)
        await world.stands(thread, "in_doubt")
        effect = await one(world, thread)
        holds[thread].let_go()
        await is_done(world, thread, effect)
        assert (await world.client.resolve(thread, effect.key, done=True, by="ann")).status == "done"
        await world.ended(thread, message_id)
        assert said.told()[-1] == ("tool", "done at last")
        assert witness.of(thread) == ["slow"]


async def test_a_call_that_ends_just_in_time_is_nobody_s_question(make_world: MakeWorld) -> None:
    """It is done before it is written down as in doubt: no person is asked, and the turn goes on."""
    door = Doorkeeper("settle_effect")
    said = told(go=go(call("slow")))
    async with make_world(app, said, serve=False) as world, world.worker(interceptors=[door]):
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await give_up(world, thread)
        await door.hold.arrived()
        holds[thread].let_go()
        effect = await one(world, thread)
        await is_done(world, thread, effect)
        door.hold.let_go()
        assert (await world.ended(thread, message_id)).answer == "Fine."
        assert said.told()[-1] == ("tool", "done at last")
        assert witness.of(thread) == ["slow"]
        rows = await world.store.audit(thread)
        assert [row.entry.kind for row in rows] == []


async def test_a_person_who_was_wrong_is_contradicted_when_it_shows(make_world: MakeWorld) -> None:
    """Somebody says "not done", and then the call ends after all: the ledger says done, the audit has both, and a
    rewind can't go back behind it."""
    said = told(go=go(call("slow")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await give_up(world, thread)
        await world.stands(thread, "in_doubt")
        effect = await one(world, thread)
        assert (await world.client.resolve(thread, effect.key, done=False, by="ann")).status == "failed"
        await world.ended(thread, message_id)
        holds[thread].let_go()
        await is_done(world, thread, effect)
        (line,) = await audit(world, thread, "effect.late")
        assert (line["taken_for"], line["contradicts"], line["tool"]) == ("failed", "ann", "slow")
        start = (await world.client.history(thread))[-1].id
        assert [e.tool for e in (await world.client.rewind_plan(thread, start)).impossible] == ["slow"]
        assert witness.of(thread) == ["slow"]
