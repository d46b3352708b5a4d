"""One thread's own shop, model, store and task queue; its workers are processes; and what is true at the end."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, TypeVar

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client as TemporalClient
from temporalio.common import SearchAttributeKey
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from perdure.checkpoint import layer_of
from perdure.checkpointer import verify_line
from perdure.contracts import TurnResult
from perdure.examples.orders import desk
from perdure.examples.orders.shop import Shop
from perdure.stores import Store
from perdure.wire import data_converter
from perdure.workflows.thread import AgentThread
from tests.crash.points import Point
from tests.crash.process import WorkerProcess
from tests.crash.stories import SCRIPT, STILL_THERE, Story
from tests.crash.worker import Duty
from tests.world import World, eventually, world

T = TypeVar("T")

PATIENCE = 90.0  # seconds for a thread to get where it must; on a busy machine it takes ten
# A lost attempt is noticed within seconds, and so is a lost workflow task: the tests wait for nothing else.
_QUICK = {"heartbeat": 2.0, "sticky": 1.0, "task_timeout": 2.0}
_STATUS = SearchAttributeKey.for_keyword("PerdureStatus")


class Scene:
    """A thread that has not begun, and everything it will meet."""

    def __init__(self, made: World, shop: Shop, folder: Path, story: Story) -> None:
        self.story = story
        self.shop = shop
        self.model = made.model
        self.client = made.client
        self.thread = made.thread()
        self._world = made
        self._folder = folder
        self._workers: list[WorkerProcess] = []

    @property
    def store(self) -> Store:
        """The store that its workers share."""
        return self._world.store

    def another(self) -> str:
        """An id for another thread."""
        return self._world.thread()

    async def update(self, name: str, said: Any, gives: type[T]) -> T:
        """An update of the thread as Temporal keeps it: it waits while no worker runs."""
        done: T = await self._world.handle(self.thread).execute_update(name, said, result_type=gives)
        return done

    async def worker(self, at: Point | None = None, **environment: str) -> WorkerProcess:
        """Start a worker process; ``at`` is where it is struck."""
        log = self._folder / f"worker-{len(self._workers) + 1}.log"
        worker = WorkerProcess(duty_in(self._world, self.shop, self.story.app, log, at=at, **environment))
        self._workers.append(worker)
        await worker.says("ready")
        return worker

    async def end(self) -> None:
        """No process is left."""
        await asyncio.gather(*(worker.goes() for worker in self._workers))

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────

    @asynccontextmanager
    async def begun(self, *, approving: bool = True) -> AsyncIterator[asyncio.Task[str]]:
        """Send the message, and approve what needs it, while other things happen. Gives the message's id."""
        async with asyncio.TaskGroup() as meanwhile:
            sending = meanwhile.create_task(self._send())
            if approving and self.story.approval:
                meanwhile.create_task(self.approve())
            yield sending

    async def _send(self) -> str:
        _, accepted = await self.client.start(self.story.agent, self.story.message, thread=self.thread)
        return accepted.message_id

    async def approve(self) -> None:
        """Once Temporal shows that the charge waits for approval, approve it by signal. Needs no worker."""
        await self.shows("awaiting_approval")
        arguments = desk.charge_card.arguments(card="tok_visa_1", amount=self.story.approval)
        decision = {"request_id": "a1", "approver": "finance", "digest": desk.charge_card.digest(arguments)}
        await self._world.handle(self.thread).signal("approve", decision)

    async def shows(self, status: str) -> None:
        """Return once Temporal itself shows this status; asks no worker."""
        await eventually(self._shown, lambda shown: shown == status, within=PATIENCE)

    async def _shown(self) -> str:
        try:
            run = await self._world.handle(self.thread).describe()
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
            return ""
        return run.typed_search_attributes.get(_STATUS) or ""

    async def ends(self, message_id: str, outcome: str, answer: str = "") -> None:
        """Return once the message's turn has ended like this."""
        async with asyncio.timeout(PATIENCE):
            result = await self.client.wait(self.thread, message_id, for_people=False)
        assert isinstance(result, TurnResult)
        assert (result.outcome, result.answer) == (outcome, answer), self._told(result)

    async def ends_well(self, message_id: str) -> None:
        """Return once the message's turn has ended as the story does."""
        await self.ends(message_id, self.story.outcome, self.story.answer)

    async def goes_on(self) -> None:
        """The thread takes another message and answers it: the model accepts its conversation."""
        accepted = await self.client.send(self.thread, STILL_THERE.message)
        await self.ends(accepted.message_id, STILL_THERE.outcome, STILL_THERE.answer)

    # ── what is true at the end ──────────────────────────────────────────────────────────────────────────────────

    async def is_whole(self, *, repaid: int | None = None, attempts: Mapping[str, int] | None = None) -> None:
        """All that must be true of the story, whatever was struck.

        ``repaid`` is the number of the logical model call that was answered twice; ``attempts`` tells how often the
        shop was asked for an effect (``charge tok_visa_1``), where not once.
        """
        self._paid_once(repaid)
        self.shop_did(self.story.ledger, attempts or {})
        await self.store_is_whole(self.story.sources)
        await self.ledger_says(self.story.effects)
        if self.story.notes:
            assert (await self.client.state(self.thread))["notes"] == list(self.story.notes)
        await self.history_is_clean()

    def _paid_once(self, repaid: int | None) -> None:
        answered = list(self.model.calls_by_key.values())
        expected = [2 if number == repaid else 1 for number in range(1, self.story.calls + 1)]
        assert answered == expected, self._told(answered)

    def shop_did(self, ledger: Sequence[tuple[str, str, str]], attempts: Mapping[str, int] | None = None) -> None:
        """One entry (kind, subject, status) for each logical effect, each asked for under a key of its own."""
        entries = self.shop.ledger.entries()
        seen = sorted((entry.kind, entry.subject, entry.status) for entry in entries)
        assert seen == sorted(ledger), self._told(seen)
        again = {f"{entry.kind} {entry.subject}": entry.attempts for entry in entries if entry.attempts > 1}
        assert again == (attempts or {}), self._told(again)
        assert len({entry.key for entry in entries if entry.key}) == len(entries)

    async def ledger_says(self, statuses: Sequence[str]) -> None:
        """What became of each effect, as the thread's own ledger has it."""
        seen = [effect.status for effect in await self.client.effects(self.thread)]
        assert seen == list(statuses), self._told(seen)

    async def store_is_whole(self, sources: Sequence[str]) -> None:
        """One unbroken line of checkpoints, every digest right, the thread at its end; no receipt is left over."""
        line = tuple(reversed(await self.client.history(self.thread, limit=1000)))
        seen = [checkpoint.source for checkpoint in line]
        assert seen == list(sources), self._told(seen)
        assert [checkpoint.parent_id for checkpoint in line] == [None, *(checkpoint.id for checkpoint in line[:-1])]
        verify_line(self.thread, None, map(layer_of, line))
        row, known = await self._world.store.thread(self.thread), await self.client.checkpoint(self.thread)
        assert row is not None
        assert (known.head, row.head_id) == (line[-1].ref, line[-1].id)
        assert known.state == await self.client.state(self.thread)
        assert self._rows("receipts") == []

    async def history_is_clean(self) -> None:
        """No workflow task failed (one that timed out with its worker did not), and the history replays."""
        history = await self._world.fetch(self.thread)
        failed = [event for event in history.events if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
        assert not failed
        # Unsandboxed, as it was made: the sandbox takes a second of everybody's CPU for each history.
        runner = UnsandboxedWorkflowRunner()
        replayer = Replayer(workflows=[AgentThread], data_converter=data_converter, workflow_runner=runner)
        await replayer.replay_workflow(history)

    async def everything(self) -> dict[str, object]:
        """All that an attempt could change: the store row by row, Temporal's history, the shop's books; of these only
        not how often an effect was asked for."""
        store: dict[str, object] = {name: self._rows(name) for name in (await self._world.store.sizes())["rows"]}
        history = await self._world.fetch(self.thread)
        books = [entry.model_dump(exclude={"attempts"}) for entry in self.shop.ledger.entries()]
        return {**store, "history": len(history.events), "books": books}

    def _rows(self, table: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self._folder / "store.db")) as database:
            return list(database.execute(f"SELECT * FROM {table} ORDER BY 1, 2"))

    def _told(self, seen: object) -> str:
        """What was seen, and what all workers said, for an assertion that fails."""
        return "\n".join([str(seen), *(str(worker.said) for worker in self._workers)])


def duty_in(made: World, shop: Shop, app: str, log: Path, *, at: Point | None = None, **environment: str) -> Duty:
    """What a worker process of this world is told; ``at`` is where it is struck."""
    settings = made.settings
    base = {
        "OPENAI_BASE_URL": made.model.base_url, "OPENAI_API_KEY": "offline", "ORDERS_SHOP_URL": shop.url,
        "PERDURE_STORE": settings.store, "PERDURE_HOME": str(settings.home),
        "PERDURE_TASK_QUEUE": settings.task_queue, "PERDURE_HEARTBEAT": str(settings.heartbeat),
        "PERDURE_STICKY": str(settings.sticky),
    }  # fmt: skip
    address = made.temporal.service_client.config.target_host
    return Duty(address=address, app=app, at=at, environment=base | environment, log=log)


@asynccontextmanager
async def scene(temporal: TemporalClient, folder: Path, story: Story) -> AsyncIterator[Scene]:
    """A scene without a worker; at its end no process is left."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(world(temporal, folder, desk.app, SCRIPT, serve=False, **_QUICK))
        shop = await stack.enter_async_context(Shop(folder / "ledger.db"))
        set_up = Scene(made, shop, folder, story)
        stack.push_async_callback(set_up.end)
        yield set_up
