"""What a thread writes down for good: the lines of its audit, and news that a webhook is told."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

from perdure.approvals import stamp
from perdure.audit import NOTIFIED, AuditEntry, AuditHead, AuditKind
from perdure.canonical import Json
from perdure.contracts import APPEND_AUDIT, NOTIFY, AppendAudit, Notify, ToolDone, lean
from perdure.effects import Effect
from perdure.failures import describe, root
from perdure.workflows.calls import error_type, store_call

if TYPE_CHECKING:
    from perdure.workflows.record import Record

_AT_ONCE = 50  # lines in one call of the store
_BYTES = 500_000  # and about how many bytes: a payload may have 2 MB
_PAUSE = timedelta(minutes=1)
_ATTEMPT = timedelta(seconds=20)
_DEADLINE = timedelta(hours=24)  # a receiver that is down for a day is an outage for people
_WAITING = 50  # pieces of news at once: each is a pending activity, and all are carried, with up to 10 KB
_PATIENT = RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(minutes=5))


class Journal:
    """Lines are written in their order, one call of the store at a time, or by a call of a tool that follows from them;
    news goes out beside them.

    ``head`` is the end of the audit as far as it is known here. ``notices`` are those that the webhook has not taken.
    """

    def __init__(self, record: "Record", head: AuditHead, notices: tuple[AuditEntry, ...]) -> None:
        self.head = head
        self.notices = {notice.id: notice for notice in notices}
        self._record = record
        self._lines: list[AuditEntry] = []  # that the store may not have yet
        self._due: set[str] = set()  # those which no call of a tool writes
        self._writing: asyncio.Task[None] | None = None
        self._sending: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Go on with what an earlier run of the workflow could not tell; the receiver knows a delivery by its id."""
        for notice in self.notices.values():
            self._send(notice)

    def write(self, kind: AuditKind, **body: Json) -> None:
        """One line."""
        entry = AuditEntry(id=str(workflow.uuid4()), at=stamp(workflow.now()), kind=kind, body=body)
        self._lines.append(entry)
        self._must_write([entry])
        if self._record.limits.notify and kind in NOTIFIED:
            self._tell(entry)

    def write_of(self, kind: AuditKind, effect: Effect, **more: Json) -> None:
        """One line about an effect."""
        self.write(kind, key=effect.key, tool=effect.tool, summary=effect.label(), **more)

    def take(self) -> None:
        """The lines that the book of approvals has to tell."""
        told, self._record.book.told = self._record.book.told, []
        for kind, body in told:
            self.write(kind, **body)

    @property
    def is_written(self) -> bool:
        """Whether the store has all lines. A thread that never began has none to keep."""
        return not self._lines or self._record.head is None

    @property
    def is_light(self) -> bool:
        """Whether the lines that are left to write can go along with a call."""
        return len(self._next(len(self._lines))) == len(self._lines)

    @property
    def is_told(self) -> bool:
        """Whether, besides, nothing is left to tell anybody."""
        return self.is_written and not self.notices

    async def written(self) -> None:
        """Wait until the store has the lines that there are by now: what follows from a decision comes after its line,
        and needs not wait for what others go on saying."""
        if not self.is_written:
            last = self._lines[-1]
            await workflow.wait_condition(lambda: last not in self._lines)

    async def along(self, call: Callable[[tuple[AuditEntry, ...]], Awaitable[ToolDone]]) -> ToolDone:
        """Make a call that is given the lines to write before it does anything else; then nobody else need write them.

        Raises what the call raises, once they are written all the same.
        """
        lines = tuple(self._lines)
        self._due.clear()
        try:
            done = await call(lines)
        except Exception:  # whether it came to write them nobody knows; twice is once
            self._must_write(line for line in lines if line in self._lines)
            await self.written()
            raise
        self._have(lines, done.audit)
        return done

    def _must_write(self, lines: Iterable[AuditEntry]) -> None:
        self._due.update(line.id for line in lines)
        if self._due and self._writing is None:
            self._writing = asyncio.create_task(self._write())

    def _have(self, lines: Iterable[AuditEntry], end: AuditHead | None) -> None:
        """The store has these lines, and with them its audit ends here."""
        known = {line.id for line in lines}
        self._lines = [line for line in self._lines if line.id not in known]
        self._due -= known
        if end and end.number > self.head.number:
            self.head = end

    async def _write(self) -> None:
        record = self._record
        await workflow.wait_condition(lambda: record.head is not None)  # decisions may come before a thread has begun
        await workflow.wait_condition(lambda: True)  # and what follows from a line at this moment may take it along
        while self._due:
            lines = self._next(1 + max(place for place, line in enumerate(self._lines) if line.id in self._due))
            task = AppendAudit(thread_id=record.thread_id, entries=lines)
            summary = f"audit: {', '.join(line.kind for line in lines)}"[:200]
            end = None
            try:
                end = await store_call(APPEND_AUDIT, task, summary=summary, limits=record.limits)
            except ActivityError as error:
                record.note(f"the audit can't be written: {describe(root(error))}")
                if error_type(error) != "ThreadNotFound":  # that was deleted, and its audit with it
                    await workflow.sleep(_PAUSE)
                    continue  # whatever it is, it may end; until then nothing follows from what is not written
            self._have(lines, end)
        self._writing = None

    def _next(self, count: int) -> tuple[AuditEntry, ...]:
        """The first of so many lines that one call of the store takes."""
        lines = self._lines[: min(count, _AT_ONCE)]
        while len(lines) > 1 and sum(len(line.model_dump_json()) for line in lines) > _BYTES:
            del lines[len(lines) // 2 :]
        return tuple(lines)

    def _tell(self, notice: AuditEntry) -> None:
        if len(self.notices) >= _WAITING:
            self._record.note(
                f"the webhook is not told of {notice.kind}: {_WAITING} pieces of news wait for it already"
            )
            return
        self.notices[notice.id] = notice
        self._send(notice)

    def _send(self, notice: AuditEntry) -> None:
        self._sending[notice.id] = asyncio.create_task(self._deliver(notice))

    async def _deliver(self, notice: AuditEntry) -> None:
        record = self._record
        task = Notify(thread_id=record.thread_id, agent=record.agent, tenant=record.tenant, entry=notice)
        try:
            told = await workflow.execute_activity(
                NOTIFY.name, lean(task), result_type=NOTIFY.gives, start_to_close_timeout=_ATTEMPT,
                schedule_to_close_timeout=_DEADLINE, retry_policy=_PATIENT, summary=f"tell: {notice.kind}",
            )  # fmt: skip
            if not told:
                record.note(f"nobody was told of {notice.kind}: a worker has no webhook")
        except ActivityError as error:
            record.note(f"the webhook was not told of {notice.kind}: {describe(root(error))}")
        del self.notices[notice.id], self._sending[notice.id]
