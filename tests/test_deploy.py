"""Deploys under parked threads: the state of the new code has another version than the one that was stored."""

from typing import Annotated, Any, ClassVar

import pytest

from perdure import Agent, App, Approval, State, ToolContext, append, tool, upcast
from perdure.care.upgrade import upgrade
from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.errors import SchemaTooNew
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.witness import Witness

witness = Witness()


class First(State):
    """What was deployed when the thread began."""

    name: str = ""
    notes: Annotated[list[str], append] = []


class Third(State):
    """Two versions later: the name has two parts, and what was said is counted."""

    version: ClassVar[int] = 3

    given: str = ""
    family: str = ""
    notes: Annotated[list[str], append] = []
    counted: int = 0

    @upcast(1)
    def split(values: dict[str, Any]) -> dict[str, Any]:
        given, _, family = values.pop("name", "").partition(" ")
        return values | {"given": given, "family": family}

    @upcast(2)
    def count(values: dict[str, Any]) -> dict[str, Any]:
        return values | {"counted": len(values.get("notes", []))}


@tool(effect="idempotent", approval=Approval())
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay."""
    seen = ctx.state.model_dump(include={"name", "given", "family", "counted"})
    witness.saw(ctx, f"pay {amount} with {seen}")
    ctx.update(notes=[f"paid {amount}"])
    return "paid"


def deployed(state: type[State]) -> App:
    """The same agent on either state."""
    return App(agents=[Agent(name="clerk", model="m", state=state, tools=[pay])])


async def test_a_thread_parked_under_the_first_version_is_approved_under_the_third(make_world: MakeWorld) -> None:
    script = Script(rules=[Rule(when="Pay", replies=[call("pay", amount=5), call("pay", amount=6), say("Paid.")])])
    async with make_world(deployed(First), script, serve=False) as world:
        async with world.worker():
            thread, sent = await world.begin("clerk", "Pay five and six.")
            (request,) = (await world.opened(thread)).open
        row = await world.store.thread(thread)
        assert row is not None and row.schema_version == 1
        async with world.worker(deployed(Third)):
            await world.client.decide(thread, "approve", request, approver="ann")
            (request,) = (await world.opened(thread)).open
            await world.client.decide(thread, "approve", request, approver="ann")
            assert (await world.ended(thread, sent)).answer == "Paid."
            seen = {"given": "", "family": "", "counted": 0}
            assert witness.of(thread) == [f"pay 5 with {seen}", f"pay 6 with {seen}"]
            versions = [c.schema_version for c in reversed(await world.client.history(thread))]
            assert versions == [1, 1, 3, 3, 3, 3]
            assert (await world.client.state(thread))["notes"] == ["paid 5", "paid 6"]
            assert (await verify(world.store, thread)).problem is None


async def test_forks_rewinds_and_updates_bring_an_old_state_into_the_new_form(make_world: MakeWorld) -> None:
    async with make_world(deployed(First), Script(fallback=say("Good day.")), serve=False) as world:
        async with world.worker():
            thread, accepted = await world.client.start(
                "clerk", "Hello", state={"name": "Ada Lovelace", "notes": ["one", "two"]}, thread=world.thread()
            )
            await world.ended(thread, accepted.message_id)
            old = (await world.client.history(thread))[-1].id
        new = {"given": "Ada", "family": "Lovelace", "counted": 2, "notes": ["one", "two"]}
        async with world.worker(deployed(Third)):
            fork = (await world.client.fork(thread, old, thread=world.thread(), hold=True)).thread_id
            await world.client.update_state(thread, {"counted": 7})
            for at, expected in ((fork, new), (thread, new | {"counted": 7})):
                state = await world.client.state(at)
                assert {name: value for name, value in state.items() if name != "messages"} == expected
            await world.client.rewind(thread, old)
            state = await world.client.state(thread)
            assert {name: value for name, value in state.items() if name != "messages"} == new
            assert [c.schema_version for c in await world.client.history(thread)] == [3, 1]
        # What the old code wrote is still there in its own form.
        assert (await Checkpointer(world.store).load(thread, old)).values["name"] == "Ada Lovelace"
        assert (await verify(world.store)).problem is None


async def test_a_store_upgraded_in_bulk_under_an_idle_workflow_takes_updates_and_rewinds(make_world: MakeWorld) -> None:
    async with make_world(deployed(First), Script(fallback=say("Good day.")), serve=False) as world:
        async with world.worker():
            threads = [await world.begin("clerk", "Hello") for _ in range(2)]
            for thread, sent in threads:
                await world.ended(thread, sent)
        app = deployed(Third)
        assert (await upgrade(world.store, app)).upgraded == 2
        (updated, _), (rewound, _) = threads
        async with world.worker(app):
            await world.client.update_state(updated, {"counted": 7})
            assert [c.nodes for c in await world.client.history(updated)][:2] == [(), ("upgrade",)]
            start = (await world.client.history(rewound))[-1].id
            await world.client.rewind(rewound, start)
            assert [c.source for c in await world.client.history(rewound)] == ["rewind", "input"]
        assert (await verify(world.store)).problem is None


async def test_a_thread_of_newer_code_is_refused_clearly_and_loses_nothing(make_world: MakeWorld) -> None:
    async with make_world(deployed(Third), Script(fallback=say("Good day.")), serve=False) as world:
        async with world.worker():
            thread, sent = await world.begin("clerk", "Hello")
            await world.ended(thread, sent)
        before = await world.client.history(thread)
        async with world.worker(deployed(First)):
            with pytest.raises(SchemaTooNew, match=r"version 3 .* version 1"):
                await world.client.send(thread, "Hello again")
        assert await world.client.history(thread) == before
