"""The client's look at threads: which there are, what they do, what they did outside."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import temporalio.client
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError

from perdure.contracts import DRY_RUN, WORKFLOW, EffectsAnswer, StatusAnswer
from perdure.effects import Effect
from perdure.errors import StoreUnreachable, ThreadNotFound
from perdure.starters.connect import rpc_error
from perdure.starters.connection import Connection
from perdure.starters.patience import Patience
from perdure.values import Value


class ThreadSummary(Value):
    """A thread as a list shows it."""

    thread_id: str
    agent: str
    status: str
    open: bool
    step: int
    pending: int
    tenant: str = ""
    dry_run: bool = False
    started_at: datetime


class Threads(Connection):
    """What threads do."""

    async def threads(
        self, *, agent: str = "", status: str = "", tenant: str = "", waiting: bool = False, limit: int = 50
    ) -> list[ThreadSummary]:
        """Threads, newest first, from Temporal's visibility; with ``waiting`` those that run and wait for people."""
        terms = [f"WorkflowType = '{WORKFLOW}'", "ExecutionStatus != 'ContinuedAsNew'"]
        for name, value in (("PerdureAgent", agent), ("PerdureStatus", status), ("PerdureTenant", tenant)):
            if value:
                terms.append(f"{name} = '{_quoted(value)}'")
        if waiting:
            terms.append("PerdurePending > 0 AND ExecutionStatus = 'Running'")
        found: dict[str, ThreadSummary] = {}
        try:
            async for run in self.temporal.list_workflows(" AND ".join(terms), page_size=min(limit * 2, 1000)):
                found.setdefault(run.id, _summary(run, await run.memo_value(DRY_RUN, False, type_hint=bool)))
                if len(found) >= limit:
                    break
        except RPCError as error:
            raise rpc_error("", error) from error
        return list(found.values())

    async def status(self, thread_id: str) -> StatusAnswer:
        """What the thread does; one that Temporal has forgotten, as the store has it.

        Raises ThreadNotFound, TemporalUnreachable.
        """
        try:
            return await self._query(thread_id, "status", StatusAnswer)
        except ThreadNotFound as unknown:
            try:
                return await self._archive.status(thread_id)
            except (ThreadNotFound, StoreUnreachable):
                raise unknown from None

    async def effects(self, thread_id: str) -> list[Effect]:
        """The ledger: all of it from the store, with what only the running workflow knows yet."""
        known = {effect.key: effect for effect in await self._archive.effects(thread_id)}
        try:
            live = {effect.key: effect for effect in (await self._query(thread_id, "effects", EffectsAnswer)).effects}
        except ThreadNotFound:
            await self._resumable(thread_id)  # Temporal may have forgotten it, the store must not
            live = {}
        return sorted((live | known).values(), key=lambda e: (e.turn, e.step, e.index))

    async def watch(self, thread_id: str) -> AsyncIterator[StatusAnswer]:
        """The status each time it has changed; ends when the thread has completed."""
        shown: StatusAnswer | None = None
        patience = Patience()
        while True:
            status = await self.status(thread_id)
            if status != shown:
                yield status
                shown, patience = status, Patience()
            if await self._open_run(thread_id) is None:
                return
            await patience.pause()


def _summary(run: temporalio.client.WorkflowExecution, dry_run: bool) -> ThreadSummary:
    attributes = run.typed_search_attributes

    def value(name: str, default: Any) -> Any:
        return next((pair.value for pair in attributes.search_attributes if pair.key.name == name), default)

    return ThreadSummary(
        thread_id=run.id, agent=value("PerdureAgent", ""), status=value("PerdureStatus", "running"),
        open=run.status == WorkflowExecutionStatus.RUNNING, step=value("PerdureStep", 0),
        pending=value("PerdurePending", 0), tenant=value("PerdureTenant", ""), dry_run=dry_run,
        started_at=run.start_time,
    )  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
