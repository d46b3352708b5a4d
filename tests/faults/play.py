"""One round: its threads, its worker process, the strike, and the people who settle what is in doubt."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from temporalio.client import Client as TemporalClient
from temporalio.common import SearchAttributeKey

from perdure.contracts import StatusAnswer, TurnResult
from perdure.examples.orders.shop import Shop
from perdure.testing import Script
from tests.crash.process import WorkerProcess
from tests.crash.scene import duty_in
from tests.crash.standing import Stand
from tests.faults.bank import TIMEOUT, app
from tests.faults.matrix import Case, Deed, Round, struck
from tests.faults.oracle import OPERATOR, in_doubt, rolled_back, said_done
from tests.world import World, eventually, world

PATIENCE = 60.0  # seconds for anything that is waited for; many times what it takes on a quiet machine
# A lost attempt is noticed in seconds. Where no worker is struck none can be lost: there even a server that stands
# still for a quarter of a minute must not lose one, for the shop would be asked once less.
_HEARTBEAT, _UNSTRUCK_HEARTBEAT = 5.0, 60.0
_QUICK = {"sticky": 2.0, "task_timeout": 3.0}
_LOOK = 0.5  # seconds between two looks at all threads
_STATUS = SearchAttributeKey.for_keyword("PerdureStatus")


class Play:
    """A round on its own world. ``results`` is how each thread's turn has ended, by case."""

    def __init__(self, made: World, shop: Shop, folder: Path, played: Round) -> None:
        self.made = made
        self.shop = shop
        self.round = played
        self.threads = {case.name: made.thread() for case in played.cases}
        self.results: dict[str, TurnResult] = {}
        self._points = len(list(played.points()))
        self._folder = folder
        self._workers: list[WorkerProcess] = []
        self._shown: dict[str, str] = {}

    async def run(self) -> None:
        """Everything, until no thread has anything left to do."""
        for fault in self.round.faults():
            self.shop.add_fault(fault)
        first = await self._worker(self._stands())
        async with asyncio.TaskGroup() as going:
            looking = going.create_task(self._look())
            await asyncio.gather(*(self._begin(case) for case in self.round.cases))
            if self.round.strike:
                await self._strike(first)
                await self._worker({})
            await asyncio.gather(*(self._to_its_end(case) for case in self.round.cases))
            looking.cancel()
        if self.round.strike == "SIGSTOP":
            await self._goes_on(first)

    async def end(self) -> None:
        """No process is left."""
        await asyncio.gather(*(worker.goes() for worker in self._workers))

    # ── the worker ───────────────────────────────────────────────────────────────────────────────────────────────

    def _stands(self) -> dict[str, Stand]:
        """Where the first worker's calls stand still, by thread."""
        stands = {}
        for case in self.round.cases:
            types = frozenset(deed.activity for deed, _ in struck(case))
            for moment in {fault.moment for _, fault in struck(case)}:
                if moment:
                    stands[self.threads[case.name]] = Stand(moment=moment, types=types)
        return stands

    async def _worker(self, stands: dict[str, Stand]) -> WorkerProcess:
        told = {TIMEOUT: self.round.timeout} if self.round.timeout else {}
        if stands and self.round.strike == "SIGSTOP":  # full with what stands in it, it takes no more from the queue
            told["PERDURE_MAX_CONCURRENT_ACTIVITIES"] = str(self._points)
        log = self._folder / f"worker-{len(self._workers) + 1}.log"
        duty = duty_in(self.made, self.shop, "tests.faults.bank:app", log)
        duty = duty.model_copy(update={"stands": stands, "environment": duty.environment | told})
        worker = WorkerProcess(duty)
        self._workers.append(worker)
        await worker.says("ready")
        return worker

    async def _strike(self, worker: WorkerProcess) -> None:
        """Once every call under fire stands at its moment."""
        held = sum(fault.at_the_shop for _, fault in self.round.points())
        await self.shop.held(held, within=PATIENCE)
        await worker.says_often("stands", self._points - held)
        if self.round.strike == "SIGKILL":
            await worker.is_killed()
        else:
            worker.stands_still()

    async def _goes_on(self, worker: WorkerProcess) -> None:
        """The frozen worker finds itself overtaken; until each of its calls has come to an end."""
        heard = len(worker.said)
        await worker.goes_on()
        await worker.says_often("ended", self._points, since=heard)

    # ── the threads ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _begin(self, case: Case) -> None:
        """Start the thread, and let a person approve by signal what stands behind a gate."""
        thread = self.threads[case.name]
        await self.made.client.start("bank", case.message, thread=thread)
        gated = {deed.subject: deed for deed in case.deeds if deed.gated}
        if not gated:
            return
        asked = await eventually(
            lambda: self.made.client.approvals(thread), lambda seen: len(seen.open) == len(gated), within=PATIENCE
        )
        for request in asked.open:
            deed = gated[request.arguments["subject"]]
            said: dict[str, Any] = {"request_id": request.id, "approver": "finance", "digest": request.digest}
            if deed.edited:
                said["arguments"] = {"subject": deed.made_for, "gated": True}
            await self.made.handle(thread).signal("approve", said)

    async def _to_its_end(self, case: Case) -> None:
        """Wait for the end of the turn; what is in doubt on the way is settled by a person, or the turn cancelled."""
        thread, doubts = self.threads[case.name], in_doubt(case)
        if doubts:
            await self._shows(thread, "in_doubt")
            await self._sees(thread, lambda seen: len(seen.attention) == len(doubts))
            await self._is_open(thread, len(doubts))
            if case.end == "is cancelled":
                await self.made.client.cancel(thread, by=OPERATOR)
            else:
                await asyncio.gather(*(self._settle(thread, deed) for deed in doubts))
        if not (doubts and case.end == "is cancelled"):
            await self._shows(thread, "failed" if rolled_back(case) else "idle")
        seen = await self._sees(thread, lambda seen: len(seen.results) == 1)
        self.results[case.name] = seen.results[0]

    async def _settle(self, thread: str, deed: Deed) -> None:
        (effect,) = [e.entry for e in await self.made.store.effects(thread) if deed.made_for in e.entry.summary]
        await self.made.client.resolve(thread, effect.key, done=said_done(deed), by=OPERATOR)

    async def _is_open(self, thread: str, count: int) -> None:
        """The operator's queue has it."""

        async def queued() -> list[str]:
            return [row.entry.status for row in await self.made.store.open_effects() if row.thread_id == thread]

        await eventually(queued, lambda seen: seen == ["in_doubt"] * count, within=PATIENCE)

    async def _sees(self, thread: str, holds: Callable[[StatusAnswer], bool]) -> StatusAnswer:
        return await eventually(lambda: self.made.client.status(thread), holds, within=PATIENCE)

    # ── what Temporal itself shows ───────────────────────────────────────────────────────────────────────────────

    async def _look(self) -> None:
        """Follow the search attributes of all threads at once; no worker is asked."""
        query = f"TaskQueue = '{self.made.settings.task_queue}'"
        while True:
            async for run in self.made.temporal.list_workflows(query):
                self._shown[run.id] = run.typed_search_attributes.get(_STATUS) or ""
            await asyncio.sleep(_LOOK)

    async def _shows(self, thread: str, status: str) -> None:
        until = time.monotonic() + PATIENCE
        while self._shown.get(thread) != status:
            assert time.monotonic() < until, f"not {status}: {await self.made.client.status(thread)}"
            await asyncio.sleep(_LOOK)


@asynccontextmanager
async def played(temporal: TemporalClient, folder: Path, round: Round) -> AsyncIterator[Play]:
    """The round, played to its end, with its shop and store still open."""
    script = Script(rules=[case.rule() for case in round.cases])
    told = {**_QUICK, "heartbeat": _HEARTBEAT if round.strike else _UNSTRUCK_HEARTBEAT}
    async with world(temporal, folder, app, script, serve=False, **told) as made, Shop(folder / "shop.db") as shop:
        play = Play(made, shop, folder, round)
        try:
            await play.run()
            yield play
        finally:
            await play.end()
