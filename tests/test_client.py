"""The Python client where the command line doesn't reach: leases that renew themselves, questions asked again."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from perdure.errors import LeaseHeld, Refused, TemporalUnreachable
from perdure.starters.client import Client
from perdure.starters.connect import ask, insist, whole
from tests.clerk import app, holds, script
from tests.cli import Cli
from tests.conftest import MakeWorld
from tests.programs import perdure
from tests.world import World, eventually

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """A world of clerks."""
    async with make_world(app, script) as made:
        yield made


async def answered(world: World) -> str:
    """A thread at rest."""
    thread, message = await world.begin("clerk", "hello")
    await world.ended(thread, message)
    return thread


def another(world: World) -> Client:
    """Somebody else."""
    return Client(world.temporal, world.settings)


# ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_lease_holds_as_long_as_its_body(world: World) -> None:
    """It is renewed in time; its holder writes by itself, others are refused; at the end anybody writes again."""
    thread, other = await answered(world), another(world)
    async with world.client.lease(thread, holder="ann", seconds=1) as held:
        assert held.holder == "ann"
        for _ in range(4):
            await asyncio.sleep(0.5)
            with pytest.raises(LeaseHeld, match="ann holds the lease"):
                await other.update_state(thread, {"title": "Tea"})
            await world.client.update_state(thread, {"title": "Coffee"})
        await world.client.send(thread, "hello")
        with pytest.raises(LeaseHeld):
            await other.send(thread, "hello")
    await eventually(lambda: world.client.status(thread), lambda status: not status.node)
    await other.update_state(thread, {"title": "Tea"})
    assert (await world.client.state(thread))["title"] == "Tea"
    await other.close()


async def test_a_lease_that_is_lost_stops_its_body(world: World) -> None:
    """Whose lease is gone must not go on writing: the body is cancelled, and the reason raised in its place."""
    thread, went_on, started = await answered(world), False, time.monotonic()
    with pytest.raises(Refused, match="run out"):
        async with world.client.lease(thread, holder="ann", seconds=1) as held:
            assert await another(world).release_lease(thread, token=held.token)
            await asyncio.sleep(60)
            went_on = True
    assert not went_on
    assert time.monotonic() - started < 30
    await world.client.update_state(thread, {"title": "Tea"})  # and without its token
    await asyncio.sleep(0)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_lease_that_nobody_can_renew_is_lost(make_world: MakeWorld) -> None:
    """Where no worker answers any more, the body ends before the lease does."""
    async with make_world(app, script, serve=False) as world:
        async with AsyncExitStack() as worker:
            await worker.enter_async_context(world.worker())
            thread, began = await answered(world), time.monotonic()
            with pytest.raises(TemporalUnreachable, match="could not be renewed in time"):
                async with world.client.lease(thread, holder="ann", seconds=6):
                    await worker.aclose()
                    await asyncio.sleep(60)
            assert 2 < time.monotonic() - began < 12
        await world.handle(thread).terminate()


async def test_who_is_cancelled_gives_the_lease_back(world: World) -> None:
    """A cancelled body is just that, and the next one needn't wait."""
    thread, holds = await answered(world), asyncio.Event()

    async def write() -> None:
        async with world.client.lease(thread, holder="ann", seconds=600):
            holds.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(write())
    await holds.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await another(world).acquire_lease(thread, holder="bob")).holder == "bob"


async def test_what_the_body_raises_is_raised(world: World) -> None:
    """An error of the body comes out as it is; the lease is given back."""
    thread = await answered(world)
    with pytest.raises(ZeroDivisionError):
        async with world.client.lease(thread, holder="ann", seconds=600):
            _ = 1 / 0
    await another(world).update_state(thread, {"title": "Tea"})


# ── questions ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_question_is_asked_again() -> None:
    """A try that gets no answer is followed by another, within the caller's patience; any other error comes at once."""
    tries: list[timedelta] = []

    async def answer(within: timedelta) -> str:
        tries.append(within)
        if len(tries) < 3:
            raise RPCError("", RPCStatusCode.DEADLINE_EXCEEDED, b"")
        return "here"

    async def never(within: timedelta) -> str:
        await asyncio.sleep(0.01)
        raise RPCError("", RPCStatusCode.DEADLINE_EXCEEDED, b"")

    async def wrong(within: timedelta) -> str:
        raise RPCError("", RPCStatusCode.NOT_FOUND, b"")

    assert await ask("t", lambda: insist(answer)) == "here"
    assert tries == [timedelta(seconds=5)] * 3
    with pytest.raises(TemporalUnreachable):
        await ask("t", lambda: insist(never), patience=0.1)
    with pytest.raises(RPCError):
        await insist(wrong)


async def test_waiting_for_a_long_turn_keeps_its_worker_from_little(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten looks at a thread that is at work eight ask only the server; what it comes to is seen all the same."""
    asked: Counter[str] = Counter()
    for name in ("query", "describe"):
        monkeypatch.setattr(WorkflowHandle, name, _counted(asked, name, getattr(WorkflowHandle, name)))
    async with make_world(app, script) as world:
        thread, message = await world.begin("clerk", "dig")
        await world.stands(thread, "running")
        asked.clear()
        waiting = asyncio.create_task(world.ended(thread, message))
        await eventually(lambda: _told(asked["describe"]), lambda looks: looks >= 9)
        assert 1 <= asked["query"] <= 3
        holds[thread].let_go()
        assert (await waiting).answer == "Dug."


async def _told(value: int) -> int:
    return value


def _counted(asked: Counter[str], name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    async def counted(*args: Any, **kwargs: Any) -> Any:
        asked[name] += 1
        return await call(*args, **kwargs)

    return counted


async def test_who_waits_sees_the_end_of_a_turn_though_the_next_has_begun(world: World) -> None:
    """The status is the same before and after: what tells is a look at the results."""
    thread, message = await world.begin("clerk", "dig")
    await holds[thread].arrived()
    waiting = asyncio.create_task(world.ended(thread, message))
    await world.client.send(thread, "dig")
    holds.anew(thread).let_go()
    assert (await waiting).answer == "Dug."
    assert (await world.client.status(thread)).status == "running"
    holds[thread].let_go()


async def test_a_worker_that_stands_still_keeps_nobody_waiting(make_world: MakeWorld, tmp_path: Path) -> None:
    """A stopped process takes questions along and never answers; as long as another worker lives, one of the next is
    answered well before a caller's patience ends."""
    async with make_world(app, script) as world:
        thread = await answered(world)
        await world.client.close_thread(thread)  # so that no worker has it in memory, and questions go to any of them
        await world.stands(thread, "closed")
        environment = {**Cli(world).environment, "PERDURE_APP": "tests.clerk:app", "PYTHONPATH": str(ROOT)}
        async with perdure("worker", folder=tmp_path, environment=environment) as program:
            await program.says("worker started")
            program.process.send_signal(signal.SIGSTOP)
            try:
                took = await asyncio.gather(*(_seconds(world, thread) for _ in range(12)))
            finally:
                program.process.send_signal(signal.SIGCONT)
        assert max(took) < 25, took


async def _seconds(world: World, thread: str) -> float:
    began = time.monotonic()
    assert (await world.client.status(thread)).thread_id == thread
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("troubles", "asked"),
    [
        ([], 1),
        ([RPCStatusCode.CANCELLED], 2),
        ([RPCStatusCode.CANCELLED] * 2, 3),
        ([RPCStatusCode.CANCELLED] * 9, 3),
        ([RPCStatusCode.NOT_FOUND] * 9, 1),
    ],
)
async def test_a_question_whose_connection_ends_is_asked_again(troubles: list[RPCStatusCode], asked: int) -> None:
    """Temporal's server ends each connection after some minutes; any other refusal is an answer."""
    times, left = 0, list(troubles)

    async def question() -> str:
        nonlocal times
        times += 1
        if left:
            raise RPCError("operation was canceled", left.pop(), b"")
        return "an answer"

    if len(troubles) < asked:
        assert await whole(question) == "an answer"
    else:
        with pytest.raises(RPCError):
            await whole(question)
    assert times == asked
