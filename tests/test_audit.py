"""The audit of a thread: whatever people said is in it, in order, before anything follows from it, and for good."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest
from perdure.audit import AuditEntry, AuditHead, check_end, follow
from perdure.errors import DecisionRefused, StoreUnreachable
from perdure.stores import Store
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.witness import Witness
from tests.world import World, eventually

witness = Witness()
stores: dict[str, Store] = {}  # by thread: what a tool finds in the audit when it runs


@tool(effect="irreversible", approval=Approval(approvers=["ann", "bob"], quorum=2))
async def pay(ctx: ToolContext, amount: int) -> str:
    """Pay; and look at what is written by now."""
    written = [row.entry.kind for row in await stores[ctx.thread_id].audit(ctx.thread_id, limit=5_000)]
    yes, closed = written.count("decision.counted"), written.count("request.closed")
    witness.saw(ctx, f"paid {amount}, after {yes} decisions and {closed} ends of requests")
    return "paid"


@tool
async def look(number: int) -> str:
    """Look at a number."""
    return f"seen {number}"


APP = App(agents=[Agent(name="clerk", model="m", tools=[pay, look])])
LOOKS = [call("look", number=number) for number in range(8)]
SCRIPT = Script(
    rules=[
        Rule(when="pay twice", replies=[call("pay", amount=1), *LOOKS, call("pay", amount=2), say("Paid.")]),
        Rule(when="pay", replies=[call("pay", amount=1), say("Paid.")]),
    ],
    fallback=say("Hello."),
)  # fmt: skip


async def begin(world: World, message: str) -> tuple[str, str, ApprovalRequest]:
    """A thread, its message, and the request that it waits for."""
    thread, message_id = await world.begin("clerk", message)
    stores[thread] = world.store
    return thread, message_id, (await world.opened(thread)).open[0]


async def approve(world: World, thread: str, request: ApprovalRequest) -> None:
    """Both say yes."""
    for who in ("ann", "bob"):
        await world.client.decide(thread, "approve", request, approver=who)


async def audited(world: World, thread: str, count: int) -> list[AuditEntry]:
    """Wait for so many lines; all of them, in a chain that holds and ends where the thread says."""
    rows = await eventually(lambda: world.store.audit(thread, limit=5_000), lambda rows: len(rows) >= count)
    row = await world.store.thread(thread)
    assert row is not None
    check_end(follow(thread, AuditHead(), rows), row.audit_end)
    assert len({line.entry.id for line in rows}) == len(rows) == count
    return [line.entry for line in rows]


def summary(lines: Sequence[AuditEntry]) -> list[str]:
    """Each line as its kind and, of a refusal, the code."""
    return [f"{line.kind} {line.body.get('code', '')}".strip() for line in lines]


def raw(data: bytes, encoding: str) -> RawValue:
    """A payload as another program might send it."""
    return RawValue(Payload(metadata={"encoding": encoding.encode()}, data=data))


# ── that it has everything ───────────────────────────────────────────────────────────────────────────────────────


JUNK: list[tuple[str, list[Any]]] = [
    ("malformed", ["yes"]),
    ("malformed", [None]),
    ("malformed", [{"request_id": "a1"}]),
    ("undecodable", []),
    ("undecodable", [1, 2]),
    ("undecodable", [raw(b"{", "json/plain")]),
    ("malformed", [raw(b"\x00\xff", "binary/plain")]),
    ("undecodable", [raw(b"\x01", "binary/encrypted")]),
    ("malformed", [{"request_id": "\u0000" * 2_000, "approver": "ann", "digest": "\ud7ff"}]),
]


async def test_everything_that_people_say_is_in_the_audit_in_order(make_world: MakeWorld) -> None:
    """Signals and updates, counted and refused, also what is no decision at all; each with its reason, in the order in
    which they came; and the tool runs when the lines that let it run are written."""
    async with make_world(APP, SCRIPT) as world:
        thread, message, request = await begin(world, "pay")
        handle = world.handle(thread)
        for verdict in ("approve", "reject"):
            for _, args in JUNK:
                await handle.signal(verdict, args=args)
        for who in ("eve", "ann", "ann"):
            await world.client.signal_decision(thread, "approve", request, approver=who)
        with pytest.raises(DecisionRefused):
            await world.client.decide(thread, "reject", request, approver="mallory")
        await world.client.decide(thread, "approve", request, approver="bob")
        await world.ended(thread, message)
        await world.client.signal_decision(thread, "reject", request, approver="ann", reason="too late")
        lines = await audited(world, thread, 2 * len(JUNK) + 8)
        assert summary(lines) == [
            "request.opened", *[f"decision.refused {code}" for code, _ in JUNK] * 2,
            "decision.refused not_an_approver", "decision.counted", "decision.refused repeated",
            "decision.refused not_an_approver", "decision.counted", "request.closed", "decision.refused closed",
        ]  # fmt: skip
        assert "too late" in str(lines[-1].body["said"])
        assert witness.of(thread) == ["paid 1, after 2 decisions and 1 ends of requests"]


# ── that it stays ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_it_outlives_the_runs_of_the_workflow_and_temporal_itself(make_world: MakeWorld) -> None:
    """One chain over a continue-as-new in the middle of a turn, the completion of the workflow, the deletion of its
    history, and the thread's next life."""
    async with make_world(APP, SCRIPT, history_events=60) as world:
        thread, message, request = await begin(world, "pay twice")
        await approve(world, thread, request)
        second = await eventually(lambda: world.client.approvals(thread), lambda answer: len(answer.open) == 1)
        await approve(world, thread, second.open[0])
        await world.ended(thread, message)
        await eventually(lambda: world.runs(thread), lambda runs: len(runs) > 1)
        before = await audited(world, thread, 8)
        await world.completes(thread)
        await world.forget(thread)
        assert await audited(world, thread, 8) == before
        await world.client.send(thread, "pay")
        [third] = (await world.opened(thread)).open
        with pytest.raises(DecisionRefused, match="There is no request"):
            await world.client.decide(thread, "approve", request, approver="ann")
        lines = await audited(world, thread, 10)
        assert lines[:8] == before
        assert summary(lines[8:]) == ["request.opened", "decision.refused unknown_request"]
        assert len({request.id, second.open[0].id, third.id}) == 3
        assert [deed.partition(",")[0] for deed in witness.of(thread)] == ["paid 1", "paid 2"]


async def test_a_flood_of_junk_is_kept_in_the_audit_and_bounded_in_the_workflow(make_world: MakeWorld) -> None:
    """Three hundred junk signals, and in the middle of them two people who mean it: all are written, the call runs
    once, and the thread carries only the newest refusals into its next run."""
    async with make_world(APP, SCRIPT, history_events=60) as world:
        thread, message, request = await begin(world, "pay")
        handle = world.handle(thread)

        async def flood(numbers: range) -> None:
            for number in numbers:
                await handle.signal("approve", {"request_id": f"junk {number} " + "x" * 5_000, "approver": "eve"})

        await flood(range(150))
        await asyncio.gather(flood(range(150, 300)), approve(world, thread, request))
        assert (await world.ended(thread, message)).outcome == "answered"
        lines = await audited(world, thread, 304)
        said = [str(line.body["said"]).split()[2] for line in lines if line.kind == "decision.refused"]
        assert said == [str(number) for number in range(300)]
        assert max(len(line.model_dump_json()) for line in lines) < 2_500
        assert len(witness.of(thread)) == 1
        await world.ended(thread, (await world.client.send(thread, "hello")).message_id)
        runs = await eventually(lambda: world.runs(thread), lambda runs: len(runs) > 1)
        carried = runs[-1].events[0].workflow_execution_started_event_attributes.input
        assert carried.ByteSize() < 150_000
        assert len((await world.client.approvals(thread)).refused_decisions) == 50


# ── that it comes first ──────────────────────────────────────────────────────────────────────────────────────────


class Fragile:
    """A store whose audit can't be written to while it is down."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.down = False
        self.turned_away = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def append_audit(self, thread_id: str, entries: Sequence[AuditEntry]) -> AuditHead:
        """Unless it is down."""
        if self.down:
            self.turned_away += 1
            raise StoreUnreachable("The store is down.")
        return await self._store.append_audit(thread_id, entries)


async def test_nothing_runs_before_it_is_written_why(make_world: MakeWorld) -> None:
    """The audit can't be written to while people decide: the request is approved, and the call waits. When the store is
    back, every line is there, once and in order, before the call runs."""
    async with make_world(APP, SCRIPT, serve=False) as world:
        fragile = Fragile(world.store)
        world.store = cast(Store, fragile)
        async with world.worker():
            thread, message, request = await begin(world, "pay")
            await audited(world, thread, 1)
            fragile.down = True
            await world.handle(thread).signal("approve", "junk")
            await approve(world, thread, request)
            await eventually(_count(fragile), lambda count: count >= 2)
            [closed] = (await world.client.approvals(thread)).closed
            assert (closed.outcome, witness.of(thread)) == ("approved", [])
            await audited(world, thread, 1)
        async with world.worker():  # the one before has forgotten everything
            await world.client.status(thread)
            fragile.down = False
            await world.ended(thread, message)
            assert witness.of(thread) == ["paid 1, after 2 decisions and 1 ends of requests"]
            assert summary(await audited(world, thread, 5)) == [
                "request.opened", "decision.refused malformed", *["decision.counted"] * 2, "request.closed",
            ]  # fmt: skip


def _count(fragile: Fragile) -> Any:
    async def look() -> int:
        return fragile.turned_away

    return look
