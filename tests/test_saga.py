"""Sagas: what a turn did outside is undone in order, once, and what can't be undone is said.

Long: one claim a way to be undone.
"""

import asyncio
import gc
from datetime import timedelta
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowExecutionStatus
from temporalio.common import RawValue

from perdure import Agent, App, Approval, ToolContext, ToolError, tool
from perdure.effects import Effect
from perdure.errors import EffectNotFound, Refused
from perdure.testing import ModelFault, Reply, Rule, call, say, together
from tests.conftest import MakeWorld
from tests.witness import Doorkeeper, Holds, Listener, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()
mended: set[str] = set()  # threads in which what is shaky can be released after all


@tool
async def look(ctx: ToolContext, what: str) -> str:
    """Look something up."""
    if what == "slow":
        await holds[ctx.thread_id].wait()
    witness.saw(ctx, f"looked at {what}")
    return f"seen {what}"


@tool(effect="compensable", compensate="release")
async def reserve(ctx: ToolContext, item: str) -> dict[str, str]:
    """Reserve something."""
    if item == "gold":
        raise ToolError("There is no gold.")
    if item == "novels":
        raise ToolError("No novels. " * 100_000)
    if item in ("slow", "eel"):
        await holds[ctx.thread_id].wait()
    if item == "eel" or (item == "wobbly" and ctx.attempt == 1):
        raise ConnectionError("the line broke")
    witness.saw(ctx, f"reserve {item}")
    return {"place": f"shelf of {item}"}


@tool(effect="idempotent", hidden=True)
async def release(ctx: ToolContext, receipt: dict[str, str], item: str) -> None:
    """Put it back."""
    if item == "shaky" and ctx.thread_id not in mended:
        witness.saw(ctx, "failed to release shaky")
        raise ToolError("The shelf is locked.")
    assert receipt == {"place": f"shelf of {item}"}
    witness.saw(ctx, f"release {item}")


@tool(effect="compensable", compensate="refund", approval=Approval(when=lambda args: args.amount > 100))
async def charge(ctx: ToolContext, amount: int) -> int:
    """Take money."""
    witness.saw(ctx, f"charge {amount}")
    return amount


@tool(effect="idempotent", hidden=True)
async def refund(ctx: ToolContext, receipt: int) -> None:
    """Give it back."""
    witness.saw(ctx, f"refund {receipt}")


@tool(effect="compensable", compensate="recall", on_error="rollback")
async def ship(ctx: ToolContext, to: str) -> str:
    """Send it. Where that can't be, the whole order is taken back."""
    if to == "atlantis":
        raise ToolError("No courier goes to atlantis.")
    witness.saw(ctx, f"ship to {to}")
    return to


@tool(effect="idempotent", hidden=True)
async def recall(ctx: ToolContext, receipt: str) -> None:
    """Call it back."""
    witness.saw(ctx, f"recall from {receipt}")


@tool(effect="irreversible")
async def wire(ctx: ToolContext, amount: int) -> str:
    """Send money that never comes back."""
    witness.saw(ctx, f"wire {amount}")
    if amount == 14:
        await holds[ctx.thread_id].wait()
    if amount == 15:
        raise ConnectionError("the line broke " * 100_000)
    if amount in (13, 14):
        raise ConnectionError("the line broke")
    return "sent"


app = App(
    agents=[Agent(name="desk", model="m", tools=[look, reserve, charge, ship, wire])],
    tools=[release, refund, recall],
)


def told(*replies: Reply) -> Listener:
    """A model that says these things after "go", and after "more" that all is well."""
    return Listener(rules=[Rule(when="go", replies=replies), Rule(when="more", replies=[say("All is well.")])])


async def effects(world: World, thread: str) -> dict[str, Effect]:
    """The ledger by what each effect is called."""
    return {effect.label(): effect for effect in await world.client.effects(thread)}


async def statuses(world: World, thread: str) -> dict[str, str]:
    """What became of each effect."""
    return {label: effect.status for label, effect in (await effects(world, thread)).items()}


async def goes_on(world: World, thread: str, said: Listener) -> list[tuple[str, str]]:
    """The next turn works: the model is asked with a conversation it accepts. What it is told."""
    accepted = await world.client.send(thread, "more")
    result = await world.ended(thread, accepted.message_id)
    assert (result.outcome, result.answer) == ("answered", "All is well."), result
    assert [entry.status for entry in world.model.log if entry.status != 200 and not entry.fault] == []
    return said.told()


# ── what sets a rollback off ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_tool_that_says_so_ends_the_turn_and_undoes_it(make_world: MakeWorld) -> None:
    """`on_error="rollback"`: everything done in the turn is compensated in reverse order of completion."""
    said = told(call("reserve", item="desk"), call("charge", amount=5), call("ship", to="atlantis"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        result = await world.ended(thread, message_id)
        assert witness.of(thread) == ["reserve desk", "charge 5", "refund 5", "release desk"]
        assert (result.outcome, result.error_type) == ("failed", "ToolError")
        assert "No courier goes to atlantis." in result.error
        assert result.residue.undone == ("charge(amount=5)", 'reserve(item="desk")')
        assert (result.residue.still_done, result.residue.needs_attention, result.residue.in_doubt) == ((), (), ())
        assert await statuses(world, thread) == {
            'reserve(item="desk")': "undone",
            "charge(amount=5)": "undone",
            'ship(to="atlantis")': "failed",
        }
        assert (await world.client.status(thread)).status == "failed"
        conversation = await goes_on(world, thread, said)
        assert (await world.client.status(thread)).status == "idle"
        role, note = conversation[-2]
        assert role == "assistant"
        assert 'Undone: charge(amount=5), reserve(item="desk").' in note
        assert "No courier goes to atlantis." in note


async def test_a_model_that_fails_for_good_undoes_the_turn(make_world: MakeWorld) -> None:
    """A refused request is not tried again; the turn fails and is rolled back."""
    said = told(call("reserve", item="desk"))
    async with make_world(app, said) as world:
        world.model.add_fault(ModelFault(mode="status", status=400, after=1, message="too long"))
        thread, message_id = await world.begin("desk", "go")
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.error_type) == ("failed", "ModelError")
        assert "too long" in result.error
        assert witness.of(thread) == ["reserve desk", "release desk"]
        await goes_on(world, thread, said)


@pytest.mark.parametrize("compensate", [True, False])
async def test_a_cancelled_turn_is_undone_unless_told_otherwise(make_world: MakeWorld, compensate: bool) -> None:
    """The open request is withdrawn, the call never runs, the model reads what happened."""
    said = told(call("reserve", item="desk"), call("charge", amount=500))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.opened(thread)
        await world.client.cancel(thread, by="ann", reason="changed my mind", compensate=compensate)
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.error) == ("cancelled", "cancelled by ann: changed my mind")
        assert witness.of(thread) == ["reserve desk", *(["release desk"] if compensate else [])]
        assert (await statuses(world, thread))['reserve(item="desk")'] == ("undone" if compensate else "done")
        assert [r.outcome for r in (await world.client.approvals(thread)).closed] == ["withdrawn"]
        conversation = await goes_on(world, thread, said)
        assert conversation[-3] == ("tool", "Not executed: the turn was stopped.")
        assert ("Undone" in conversation[-2][1]) is compensate
        assert (await world.client.status(thread)).status == "idle"


async def test_a_cancel_that_does_not_fit_changes_nothing(make_world: MakeWorld) -> None:
    """It is told in the thread's log; the plain one, with nothing or null, cancels."""
    junk: list[list[Any]] = [
        ["now"], [""], [0], [False], [[]], [[1]], [{}, {}], [{"compensate": "perhaps"}], [{"reason": "x" * 100_000}],
        [RawValue(Payload(metadata={"encoding": b"json/plain"}, data=b"{"))],
    ]  # fmt: skip
    async with make_world(app, told(call("charge", amount=500))) as world:
        for plain in ([], [None]):
            thread, message_id = await world.begin("desk", "go")
            await world.opened(thread)
            for args in junk:
                await world.handle(thread).signal("cancel_turn", args=args)
            status = await world.client.status(thread)
            assert status.status == "awaiting_approval"
            assert len([entry for entry in status.log if entry.text.startswith("cancel refused")]) == len(junk)
            await world.handle(thread).signal("cancel_turn", args=cast("list[Any]", plain))
            assert (await world.ended(thread, message_id)).error == "cancelled"


async def test_temporal_s_own_cancel_stops_in_good_order(make_world: MakeWorld) -> None:
    """The button in the Temporal UI: what was done is undone, the workflow ends as cancelled, the thread goes on."""
    said = told(call("reserve", item="desk"), call("charge", amount=500))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.opened(thread)
        await world.handle(thread).cancel()
        await eventually(world.handle(thread).describe, lambda run: run.status == WorkflowExecutionStatus.CANCELED)
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.error) == ("cancelled", "the workflow was cancelled")
        assert witness.of(thread) == ["reserve desk", "release desk"]
        await goes_on(world, thread, said)


async def test_temporal_s_cancel_of_an_idle_thread_waits_for_its_compensations(make_world: MakeWorld) -> None:
    """An operation that runs between turns is finished before the workflow ends."""
    keeper = Doorkeeper("undo:release")
    async with make_world(app, told(call("reserve", item="desk"), say("Done.")), serve=False) as world:
        async with world.worker(interceptors=[keeper]):
            thread, message_id = await world.begin("desk", "go")
            await world.ended(thread, message_id)
            undoing = asyncio.create_task(world.client.compensate(thread))
            await keeper.hold.arrived()
            await world.handle(thread).cancel()
            keeper.hold.let_go()
            assert (await undoing).undone == ('reserve(item="desk")',)
            await eventually(world.handle(thread).describe, lambda run: run.status == WorkflowExecutionStatus.CANCELED)
        assert witness.of(thread) == ["reserve desk", "release desk"]


async def test_a_finished_turn_can_be_compensated(make_world: MakeWorld) -> None:
    """Also an earlier one by its number. What is undone is undone once: asked again there is nothing to do."""
    said = told(call("reserve", item="desk"), call("charge", amount=5), say("Done."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.ended(thread, message_id)
        accepted = await world.client.send(thread, "go")
        await world.ended(thread, accepted.message_id)
        both = ["reserve desk", "charge 5", "reserve desk", "charge 5"]
        assert witness.of(thread) == both
        left = await world.client.compensate(thread, turn=1, by="ann", reason="wrong desk")
        assert left.undone == ("charge(amount=5)", 'reserve(item="desk")')
        assert witness.of(thread) == [*both, "refund 5", "release desk"]
        assert [(e.turn, e.status) for e in await world.client.effects(thread)] == [
            (1, "undone"), (1, "undone"), (2, "done"), (2, "done"),
        ]  # fmt: skip
        with pytest.raises(Refused, match="nothing to undo"):
            await world.client.compensate(thread, turn=1)
        await world.client.compensate(thread)
        with pytest.raises(Refused, match="nothing to undo"):
            await world.client.compensate(thread)
        assert witness.of(thread) == [*both, "refund 5", "release desk", "refund 5", "release desk"]
        assert "by ann: wrong desk" in str(await goes_on(world, thread, said))


async def test_a_thread_that_has_completed_is_woken_for_its_compensation(make_world: MakeWorld) -> None:
    """Idle for an hour its workflow completes; `compensate` wakes it, and the conversation goes on from there."""
    said = told(call("reserve", item="desk"), say("Done."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.ended(thread, message_id)
        before = await world.client.checkpoint(thread)
        await world.completes(thread)
        left = await world.client.compensate(thread)
        assert left.undone == ('reserve(item="desk")',)
        assert witness.of(thread) == ["reserve desk", "release desk"]
        after = await world.client.checkpoint(thread)
        assert (after.parent_id, before.head and before.head.step) == (before.head and before.head.id, 3)
        assert (after.status, after.agent, after.turn) == ("idle", "desk", 1)
        assert (await world.client.history(thread))[0].source == "compensation"
        assert "Undone" in (await goes_on(world, thread, said))[-2][1]


async def test_compensate_during_a_turn_stops_it(make_world: MakeWorld) -> None:
    """It answers with the residue once the turn is undone."""
    async with make_world(app, told(call("reserve", item="desk"), call("charge", amount=500))) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.opened(thread)
        left = await world.client.compensate(thread, by="ann")
        assert left.undone == ('reserve(item="desk")',)
        assert (await world.ended(thread, message_id)).error == "compensated by ann"
        assert witness.of(thread) == ["reserve desk", "release desk"]


# ── what is under way ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_effect_under_way_is_waited_for_and_then_undone(make_world: MakeWorld) -> None:
    """A cancel can't leave its outcome unknown: the call ends, its step is committed, then it is compensated."""
    said = told(call("reserve", item="slow"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await world.client.cancel(thread)
        assert (await world.client.status(thread)).results == ()
        holds[thread].let_go()
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.residue.undone) == ("cancelled", ('reserve(item="slow")',))
        assert witness.of(thread) == ["reserve slow", "release slow"]
        conversation = await goes_on(world, thread, said)
        assert conversation[-3] == ("tool", '{"place":"shelf of slow"}')


async def test_a_read_under_way_is_given_up(make_world: MakeWorld) -> None:
    """Nothing depends on its outcome, so the turn ends at once."""
    said = told(call("look", what="slow"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await world.client.cancel(thread)
        assert (await world.ended(thread, message_id)).outcome == "cancelled"
        assert witness.of(thread) == []
        conversation = await goes_on(world, thread, said)
        assert conversation[-3] == ("tool", "Not executed: the turn was stopped.")
        holds[thread].let_go()


async def test_what_is_given_up_leaves_no_loose_end(make_world: MakeWorld, caplog: pytest.LogCaptureFixture) -> None:
    """No error is reported later on: a cancelled read, and a cancelled model call, are dealt with."""
    async with make_world(app, told(call("look", what="slow"))) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await world.client.cancel(thread)
        await world.ended(thread, message_id)
        holds[thread].let_go()
        world.model.add_fault(ModelFault(mode="hang"))
        accepted = await world.client.send(thread, "more")
        await world.model.held()
        await world.client.cancel(thread)
        assert (await world.ended(thread, accepted.message_id)).outcome == "cancelled"
        world.model.release()
    gc.collect()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_read_that_was_given_up_may_still_commit_its_step(make_world: MakeWorld) -> None:
    """Its attempt learns of the cancel late: where its commit comes first, the rollback extends that."""
    said, keeper = told(call("look", what="slow")), Doorkeeper("merge_step")
    async with make_world(app, said, serve=False) as world, world.worker(interceptors=[keeper]):
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await world.client.cancel(thread)
        await keeper.hold.arrived()
        holds[thread].let_go()
        await eventually(lambda: world.client.history(thread), lambda checkpoints: len(checkpoints) == 3)
        keeper.hold.let_go()
        assert (await world.ended(thread, message_id)).outcome == "cancelled"
        assert [(c.step, c.source) for c in await world.client.history(thread)][:2] == [
            (3, "compensation"),
            (2, "step"),
        ]
        conversation = await goes_on(world, thread, said)
        assert conversation[-3] == ("tool", "seen slow")
        await _query_and_store_agree(world, thread)


async def test_a_model_call_that_was_given_up_may_still_commit_its_step(make_world: MakeWorld) -> None:
    """The answer that came too late stays in the conversation, and the call it asks for is answered."""
    said, keeper = told(call("reserve", item="desk")), Doorkeeper("merge_step")
    async with make_world(app, said, serve=False) as world, world.worker(interceptors=[keeper]):
        world.model.add_fault(ModelFault(mode="hang"))
        thread, message_id = await world.begin("desk", "go")
        await world.model.held()
        await world.client.cancel(thread)
        await keeper.hold.arrived()
        world.model.release()
        await eventually(lambda: world.client.history(thread), lambda checkpoints: len(checkpoints) == 2)
        keeper.hold.let_go()
        assert (await world.ended(thread, message_id)).outcome == "cancelled"
        assert witness.of(thread) == []
        conversation = await goes_on(world, thread, said)
        assert conversation[-3] == ("tool", "Not executed: the turn was stopped.")
        await _query_and_store_agree(world, thread)


async def _query_and_store_agree(world: World, thread: str) -> None:
    """What the workflow knows as its head, and answers as its state, is what the store has."""
    answer = await world.client.checkpoint(thread)
    row = await world.store.thread(thread)
    assert row is not None and answer.head is not None
    assert row.head_id == answer.head.id
    assert answer.state == await world.client.state(thread)


async def test_parallel_calls_are_undone_together(make_world: MakeWorld) -> None:
    """One of them ends the turn; the others are waited for, or not begun, and undone in reverse order."""
    calls = [call("reserve", item="slow"), call("reserve", item="desk"), call("ship", to="atlantis")]
    said = told(together(*calls, call("charge", amount=500), call("look", what="slow")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived(2)
        await eventually(lambda: _deeds(thread), lambda deeds: "reserve desk" in deeds)
        await eventually(lambda: statuses(world, thread), lambda found: found['ship(to="atlantis")'] == "failed")
        holds[thread].let_go()
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.residue.undone) == ("failed", ('reserve(item="slow")', 'reserve(item="desk")'))
        deeds = [deed for deed in witness.of(thread) if not deed.startswith("looked")]
        assert deeds == ["reserve desk", "reserve slow", "release slow", "release desk"]
        conversation = await goes_on(world, thread, said)
        assert [text for role, text in conversation if role == "tool"] == [
            '{"place":"shelf of slow"}',
            '{"place":"shelf of desk"}',
            "Error: No courier goes to atlantis.",
            "Not executed: the turn was stopped.",
            "Not executed: the turn was stopped.",
        ]


async def _deeds(thread: str) -> list[str]:
    return witness.of(thread)


async def test_a_rollback_under_way_is_finished(make_world: MakeWorld) -> None:
    """Temporal's cancel in the middle of it neither stops it nor starts a second one."""
    keeper = Doorkeeper("undo:refund")
    said = told(call("reserve", item="desk"), call("charge", amount=5), call("ship", to="atlantis"))
    async with make_world(app, said, serve=False) as world, world.worker(interceptors=[keeper]):
        thread, message_id = await world.begin("desk", "go")
        await keeper.hold.arrived()
        assert (await world.client.status(thread)).status == "compensating"
        await world.client.cancel(thread)
        await world.handle(thread).cancel()
        keeper.hold.let_go()
        assert len((await world.ended(thread, message_id)).residue.undone) == 2
        assert witness.of(thread) == ["reserve desk", "charge 5", "refund 5", "release desk"]
        await eventually(world.handle(thread).describe, lambda run: run.status == WorkflowExecutionStatus.CANCELED)
        await goes_on(world, thread, said)


async def test_a_compensation_has_its_own_patience(make_world: MakeWorld) -> None:
    """What its tool declares as time-out and deadline holds during the turn and long after it."""
    slow = App(agents=[Agent(name="slow", model="m", tools=[paint])], tools=[unpaint])
    async with make_world(slow, told(call("paint"), say("Done."))) as world:
        thread, message_id = await world.begin("slow", "go")
        await world.ended(thread, message_id)
        await world.client.compensate(thread)
        scheduled = [e.activity_task_scheduled_event_attributes for e in (await world.fetch(thread)).events]
        (undo,) = [task for task in scheduled if task.activity_type.name == "undo:unpaint"]
        assert undo.start_to_close_timeout.ToTimedelta() > timedelta(minutes=20)
        assert undo.schedule_to_close_timeout.ToTimedelta() > timedelta(hours=3)


@tool(effect="compensable", compensate="unpaint")
async def paint() -> None:
    """Paint the wall."""


@tool(effect="idempotent", hidden=True, timeout="20m", deadline="3h")
async def unpaint() -> None:
    """Scrape it off, which takes longer."""


# ── what doesn't set one off ─────────────────────────────────────────────────────────────────────────────────────


async def test_an_ordinary_tool_error_is_the_model_s_to_read(make_world: MakeWorld) -> None:
    """It goes back to the model and rolls nothing back."""
    said = told(call("reserve", item="desk"), call("reserve", item="gold"), say("No gold."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.answer) == ("answered", "No gold.")
        assert said.told()[-1] == ("tool", "Error: There is no gold.")
        assert witness.of(thread) == ["reserve desk"]
        assert list((await statuses(world, thread)).values()) == ["done", "failed"]


async def test_an_unclear_error_is_tried_again_under_the_same_key(make_world: MakeWorld) -> None:
    """A compensable tool may be repeated: its second attempt is done, and can be undone."""
    async with make_world(app, told(call("reserve", item="wobbly"), say("Done."))) as world:
        thread, message_id = await world.begin("desk", "go")
        assert (await world.ended(thread, message_id)).outcome == "answered"
        (effect,) = await world.client.effects(thread)
        assert (effect.status, effect.attempts) == ("done", 2)
        await world.client.compensate(thread)
        assert witness.of(thread) == ["reserve wobbly", "release wobbly"]


async def test_an_endless_error_stays_bounded(make_world: MakeWorld) -> None:
    """A tool that puts a megabyte into its error: model, history and status get its beginning."""
    said = told(call("reserve", item="novels"), call("wire", amount=15))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        assert len(said.told()[-1][1]) < 20_000
        status = await world.client.status(thread)
        assert len(status.model_dump_json()) < 10_000
        await world.client.cancel(thread)
        await world.ended(thread, message_id)
        assert "the line broke" in (await world.client.effects(thread))[1].error
        answered = [
            e for e in (await world.fetch(thread)).events if not e.HasField("activity_task_failed_event_attributes")
        ]
        assert max(len(event.SerializeToString()) for event in answered) < 50_000
        await goes_on(world, thread, said)


# ── compensations that fail ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_failed_compensation_does_not_stop_the_others(make_world: MakeWorld) -> None:
    """It is left as needing attention, with its error; asked again only it is tried again."""
    order = [call("reserve", item="desk"), call("reserve", item="shaky"), call("charge", amount=5)]
    said = told(*order, call("ship", to="atlantis"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        residue = (await world.ended(thread, message_id)).residue
        done = ["reserve desk", "reserve shaky", "charge 5", "refund 5", "failed to release shaky", "release desk"]
        assert witness.of(thread) == done
        assert residue.undone == ("charge(amount=5)", 'reserve(item="desk")')
        assert residue.needs_attention == ('reserve(item="shaky")',)
        assert (residue.still_done, residue.in_doubt) == ((), ())
        status = await world.client.status(thread)
        assert status.status == "needs_attention"
        assert 'reserve(item="shaky")' in status.attention[0]
        shaky = (await effects(world, thread))['reserve(item="shaky")']
        assert (shaky.status, "The shelf is locked." in shaky.error) == ("needs_attention", True)
        assert "needs attention" in (await goes_on(world, thread, said))[-2][1]

        assert (await world.client.compensate(thread)).needs_attention == ('reserve(item="shaky")',)
        mended.add(thread)
        left = await world.client.compensate(thread)
        assert left.undone == ("charge(amount=5)", 'reserve(item="desk")', 'reserve(item="shaky")')
        assert left.needs_attention == ()
        assert witness.of(thread) == [*done, "failed to release shaky", "release shaky"]
        assert (await world.client.status(thread)).status == "idle"


@pytest.mark.parametrize("woken", [False, True])
@pytest.mark.parametrize("done", [False, True])
async def test_a_person_settles_what_could_not_be_undone(make_world: MakeWorld, done: bool, woken: bool) -> None:
    """`resolve` says whether it still stands outside, also to a thread that had completed; then nothing is open."""
    said = told(call("reserve", item="shaky"), call("ship", to="atlantis"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.ended(thread, message_id)
        if woken:
            await world.completes(thread)
        (key,) = [effect.key for effect in await world.client.effects(thread) if effect.status == "needs_attention"]
        with pytest.raises(EffectNotFound, match="no open effect nothing"):
            await world.client.resolve(thread, "nothing", done=done, by="ann")
        settled = await world.client.resolve(thread, key, done=done, by="ann", reason="went there")
        assert (settled.status, settled.settled_by) == ("done" if done else "undone", "ann")
        assert (await world.client.status(thread)).status in ("idle", "failed")
        with pytest.raises(Refused, match="nothing to settle"):
            await world.client.resolve(thread, key, done=done, by="ann")
        await goes_on(world, thread, said)


# ── in doubt ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("done", [False, True])
async def test_an_irreversible_effect_in_doubt_waits_for_a_person(make_world: MakeWorld, done: bool) -> None:
    """Its attempt ended unclearly: it is never attempted twice; what the person found out is told to the model."""
    said = told(call("wire", amount=13), say("Fine."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        status = await world.stands(thread, "in_doubt")
        assert "wire(amount=13)" in status.attention[0]
        await world.forward(thread, timedelta(days=30))
        (effect,) = await world.client.effects(thread)
        assert (effect.status, effect.attempts, "the line broke" in effect.error) == ("in_doubt", 1, True)
        settled = await world.client.resolve(thread, effect.key, done=done, by="ann", reason="asked the bank")
        assert settled.status == ("done" if done else "failed")
        assert (await world.ended(thread, message_id)).answer == "Fine."
        assert said.told()[-1] == ("tool", f"It was {'' if done else 'not '}done, according to ann: asked the bank.")
        assert witness.of(thread) == ["wire 13"]
        assert (await world.client.status(thread)).status == "idle"


async def test_a_turn_in_doubt_can_be_cancelled(make_world: MakeWorld) -> None:
    """What is in doubt stays in doubt after the turn, until a person settles it; the rest is undone."""
    said = told(call("reserve", item="desk"), call("wire", amount=13))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        await world.client.cancel(thread)
        residue = (await world.ended(thread, message_id)).residue
        assert (residue.undone, residue.in_doubt) == (('reserve(item="desk")',), ("wire(amount=13)",))
        assert (await world.client.status(thread)).status == "in_doubt"
        assert "In doubt: wire(amount=13)." in (await goes_on(world, thread, said))[-2][1]
        (key,) = [effect.key for effect in await world.client.effects(thread) if effect.status == "in_doubt"]
        await world.client.resolve(thread, key, done=True, by="ann")
        assert (await world.client.status(thread)).status == "idle"
        assert witness.of(thread) == ["reserve desk", "wire 13", "release desk"]


async def test_a_cancel_does_not_make_an_unclear_outcome_clear(make_world: MakeWorld) -> None:
    """The attempt that a cancelled turn waits for fails unclearly: its effect is in doubt, not undone, not failed."""
    said = told(call("reserve", item="desk"), call("wire", amount=14))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        await world.client.cancel(thread)
        holds[thread].let_go()
        residue = (await world.ended(thread, message_id)).residue
        assert (residue.undone, residue.in_doubt) == (('reserve(item="desk")',), ("wire(amount=14)",))
        assert (await world.client.status(thread)).status == "in_doubt"
        await goes_on(world, thread, said)


async def test_what_a_terminated_workflow_left_open_is_in_doubt(make_world: MakeWorld) -> None:
    """Nobody waits for that attempt any more; whoever takes the thread up again is told that a person has to look."""
    said = told(call("wire", amount=14))
    async with make_world(app, said) as world:
        thread, _ = await world.begin("desk", "go")
        await holds[thread].arrived()
        await world.handle(thread).terminate()
        await goes_on(world, thread, said)
        status = await world.client.status(thread)
        assert (status.status, "wire(amount=14)" in status.attention[0]) == ("in_doubt", True)
        (effect,) = await world.client.effects(thread)
        assert (effect.status, "ended before its outcome was known" in effect.error) == ("in_doubt", True)
        holds[thread].let_go()
        assert (await world.client.resolve(thread, effect.key, done=False, by="ann")).status == "failed"
        assert (await world.client.status(thread)).status == "idle"


async def test_a_tool_removed_between_two_attempts_leaves_its_effect_in_doubt(make_world: MakeWorld) -> None:
    """The first attempt ended unclearly, the second finds no code: that is no proof that nothing was done."""
    said = told(call("reserve", item="eel"), say("Settled."))
    without = App(agents=[Agent(name="desk", model="m", tools=[look])])
    async with make_world(app, said, serve=False) as world:
        worker = world.worker()
        running = asyncio.create_task(worker.run())
        thread, message_id = await world.begin("desk", "go")
        await holds[thread].arrived()
        stopping = asyncio.create_task(worker.shutdown())  # it takes no more attempts, and waits for this one
        holds[thread].let_go()
        await asyncio.gather(stopping, running)
        async with world.worker(without):
            status = await world.stands(thread, "in_doubt")
            assert 'reserve(item="eel")' in status.attention[0]
            (effect,) = await world.client.effects(thread)
            assert (effect.attempts, "no longer part of the app" in effect.error) == (1, True)
            await world.client.resolve(thread, effect.key, done=False, by="ann")
            assert (await world.ended(thread, message_id)).answer == "Settled."


async def test_what_is_settled_is_settled_once(make_world: MakeWorld) -> None:
    """Two people settle one effect at the same time: one is told that the other was first."""
    async with make_world(app, told(call("wire", amount=13), say("Fine."))) as world:
        thread, message_id = await world.begin("desk", "go")
        await world.stands(thread, "in_doubt")
        (effect,) = await world.client.effects(thread)
        said = [(True, "ann"), (False, "bob")]
        answers = await asyncio.gather(
            *(world.client.resolve(thread, effect.key, done=done, by=by) for done, by in said), return_exceptions=True
        )
        (refused,) = [answer for answer in answers if isinstance(answer, Refused)]
        (settled,) = [answer for answer in answers if isinstance(answer, Effect)]
        assert refused.message
        await world.ended(thread, message_id)
        (effect,) = await world.client.effects(thread)
        assert (effect.status, effect.settled_by) == (settled.status, settled.settled_by)


async def test_what_cannot_be_undone_is_said(make_world: MakeWorld) -> None:
    """The residue names an irreversible effect as still done."""
    said = told(call("wire", amount=5), call("reserve", item="desk"), call("ship", to="atlantis"))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("desk", "go")
        residue = (await world.ended(thread, message_id)).residue
        assert (residue.undone, residue.still_done) == (('reserve(item="desk")',), ("wire(amount=5)",))
        assert "Still done, can't be undone: wire(amount=5)." in (await goes_on(world, thread, said))[-2][1]


async def test_an_irreversible_call_that_no_attempt_reached_is_not_in_doubt(make_world: MakeWorld) -> None:
    """Where the ledger proves that none began, it is scheduled again a few times, and then simply didn't happen."""
    said = told(call("wire", amount=5), say("A pity."))
    broken = Doorkeeper("tool:wire", refuse=True)
    async with make_world(app, said, serve=False) as world, world.worker(interceptors=[broken]):
        thread, message_id = await world.begin("desk", "go")
        result = await world.ended(thread, message_id)
        assert (result.outcome, witness.of(thread)) == ("answered", [])
        assert said.told()[-1][1].startswith("Error: ")
        assert (await world.client.status(thread)).status == "idle"
        assert [effect.status for effect in await world.client.effects(thread)] == ["failed"]
        assert broken.visits == 3
