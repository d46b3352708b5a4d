"""What every part of the client stands on: the ways to a thread through Temporal, and the store beside it."""

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

import temporalio.client
from temporalio.client import WithStartWorkflowOperation, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from perdure.contracts import WORKFLOW, ThreadInput, lean
from perdure.errors import Conflict, ThreadClosed, ThreadNotFound
from perdure.settings import Settings
from perdure.starters.connect import ask, insist, rpc_error, whole
from perdure.starters.ids import checked_id
from perdure.starters.service import Service
from perdure.workers.connect import connect

if TYPE_CHECKING:
    from perdure.starters.archive import Archive

Answer = TypeVar("Answer")

_AGENT = SearchAttributeKey.for_keyword("PerdureAgent")
_TENANT = SearchAttributeKey.for_keyword("PerdureTenant")
_PENDING = SearchAttributeKey.for_int("PerdurePending")
_STEP = SearchAttributeKey.for_int("PerdureStep")
STATUS = SearchAttributeKey.for_keyword("PerdureStatus")


class Connection:
    """Temporal, and the store that the settings name. Each noun of the client adds its methods to it."""

    def __init__(self, temporal: temporalio.client.Client, settings: Settings | None = None) -> None:
        self.temporal = temporal
        self._settings = settings or Settings()
        self._service = Service(temporal)
        self._tokens: dict[str, str] = {}  # of the leases that this client holds, by thread

    @classmethod
    async def connect(
        cls, *, address: str = "", namespace: str = "", profile: str = "", settings: Settings | None = None
    ) -> Self:
        """Connect to Temporal. Raises TemporalUnreachable."""
        return cls(await connect(address=address, namespace=namespace, profile=profile), settings)

    async def close(self) -> None:
        """Let go of the store's connections."""
        if "_archive" in vars(self):
            await self._archive.close()

    @cached_property
    def _archive(self) -> "Archive":
        from perdure.starters.archive import Archive  # many questions don't need it

        return Archive(self._settings)

    def _token(self, thread_id: str, given: str) -> str:
        """The token that a write carries: the one that was given, else that of the lease that this client holds."""
        return given or self._tokens.get(thread_id, "")

    # ── a thread that runs ───────────────────────────────────────────────────────────────────────────────────────

    def _handle(self, thread_id: str) -> WorkflowHandle[Any, Any]:
        return self.temporal.get_workflow_handle(checked_id(thread_id))

    async def _query(self, thread_id: str, name: str, gives: type[Answer], *, patience: float = 30) -> Answer:
        handle = self._handle(thread_id)
        once = lambda timeout: handle.query(name, result_type=gives, rpc_timeout=timeout)  # noqa: E731
        asked = ask(thread_id, lambda: insist(once), patience=patience)
        return await self._service.unless_deserted(thread_id, asked)

    async def _signal(self, thread_id: str, name: str, said: Any) -> None:
        handle = self._handle(thread_id)
        try:
            await ask(thread_id, lambda: handle.signal(name, said))
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise Conflict(f"Thread {thread_id} has completed; nothing is running.") from None

    async def _update(
        self, thread_id: str, name: str, said: Any, gives: type[Answer], *, wake: bool = False, patience: float = 60
    ) -> Answer:
        """Send an update. ``wake``: a thread whose workflow has completed is started again for it, else ThreadNotFound
        is raised."""
        handle = self._handle(thread_id)
        args = [] if said is None else [said]
        try:
            call = lambda: handle.execute_update(name, args=args, result_type=gives)  # noqa: E731
            return await self._service.unless_deserted(thread_id, ask(thread_id, call, patience=patience))
        except ThreadNotFound:
            if not wake:
                raise
        agent, tenant = await self._resumable(thread_id)
        given = ThreadInput(agent=agent, tenant=tenant, resume=True)
        return await self._update_with_start(thread_id, given, "woken", name, said, gives, patience=patience)

    # ── a thread that doesn't ────────────────────────────────────────────────────────────────────────────────────

    async def _update_with_start(
        self, thread_id: str, given: ThreadInput, about: str, name: str, said: Any, gives: type[Answer], *,
        patience: float = 60,
    ) -> Answer:  # fmt: skip
        options = await self._begin(thread_id, given, about)
        start = WithStartWorkflowOperation[Any, Any](WORKFLOW, lean(given), **options)
        update = self.temporal.execute_update_with_start_workflow
        args = [] if said is None else [said]
        call = lambda: update(name, args=args, start_workflow_operation=start, result_type=gives)  # noqa: E731
        return await ask(thread_id, call, patience=patience)

    async def _start_workflow(self, thread_id: str, given: ThreadInput, about: str) -> None:
        options = await self._begin(thread_id, given, about)
        await ask(thread_id, lambda: self.temporal.start_workflow(WORKFLOW, lean(given), **options))

    async def _begin(self, thread_id: str, given: ThreadInput, about: str) -> dict[str, Any]:
        """How a thread's workflow is started. Raises TemporalUnreachable where no worker would take it."""
        await self._service.require(self._settings.task_queue)  # or an empty workflow would wait there for a worker
        attributes: list[SearchAttributePair[Any]] = [
            SearchAttributePair(_AGENT, given.agent), SearchAttributePair(_TENANT, given.tenant or "default"),
            # What it would write itself at once, each write being an event.
            SearchAttributePair(STATUS, "running"), SearchAttributePair(_PENDING, 0), SearchAttributePair(_STEP, 0),
        ]  # fmt: skip
        text = " ".join(about.split())
        return {
            "id": thread_id, "task_queue": self._settings.task_queue,
            "task_timeout": timedelta(seconds=self._settings.task_timeout),
            # Two who begin a thread at once don't share it; two who wake one do.
            "id_conflict_policy":
                WorkflowIDConflictPolicy.USE_EXISTING if given.resume else WorkflowIDConflictPolicy.FAIL,
            "search_attributes": TypedSearchAttributes(attributes),
            "static_summary": f"{given.agent}: {text[:100]}",
            "static_details": f"A thread of agent **{given.agent}**. Everything about it is under *current details*; "
            f"`perdure status {thread_id}` shows the same.",
        }  # fmt: skip

    async def _require_free(self, thread_id: str) -> str:
        """An id for a new thread. Raises InvalidInput, Conflict where there is such a thread."""
        run = await self._last_run(checked_id(thread_id))
        if run is not None and run.status != WorkflowExecutionStatus.FAILED:  # failed: it could not even begin
            raise Conflict(f"There is a thread {thread_id} already.", hint="Send to it, or choose another id.")
        return thread_id

    async def _last_run(self, thread_id: str) -> temporalio.client.WorkflowExecutionDescription | None:
        try:
            return await whole(self._handle(thread_id).describe)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise rpc_error(thread_id, error) from error

    async def _open_run(self, thread_id: str) -> temporalio.client.WorkflowExecutionDescription | None:
        """Its latest run, while that goes on."""
        run = await self._last_run(thread_id)
        return run if run is not None and run.status == WorkflowExecutionStatus.RUNNING else None

    async def _resumable(self, thread_id: str) -> tuple[str, str]:
        """Agent and tenant of a thread whose workflow has completed, from Temporal or else the store."""
        run = await self._last_run(thread_id)
        if run is not None and run.workflow_type == WORKFLOW:
            if run.typed_search_attributes.get(STATUS) == "closed":
                raise ThreadClosed(f"Thread {thread_id} is closed.", hint="Start a new one.")
            agent, tenant = (run.typed_search_attributes.get(key) or "" for key in (_AGENT, _TENANT))
            return agent, tenant
        try:
            row = await self._archive.thread(thread_id)
        except ThreadNotFound:
            unknown = f"There is no thread {thread_id}."
            raise ThreadNotFound(unknown, hint="`perdure list` shows what there is.") from None
        if row.closed:
            raise ThreadClosed(f"Thread {thread_id} is closed.", hint="Start a new one.")
        return row.agent, row.tenant
