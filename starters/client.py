"""The client: everything the CLI does, as a Python API.

client = await Client.connect()
await client.start("orders", "Buy two laptops", thread="orders-17")
result = await client.wait("orders-17")

Long, because one object with one method a command is what its users want to find.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, TypeVar

import temporalio.client
from temporalio.client import WithStartWorkflowOperation, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from perdure.approvals import ApprovalRequest, Verdict
from perdure.budget import Budget
from perdure.checkpoint import Checkpoint
from perdure.contracts import (
    WORKFLOW,
    Accepted,
    ApprovalsAnswer,
    CancelTurn,
    CheckpointAnswer,
    Compensate,
    Decide,
    EffectsAnswer,
    ExtendBudget,
    ResolveEffect,
    Send,
    StatusAnswer,
    ThreadInput,
    TurnResult,
    lean,
)
from perdure.delta import Values
from perdure.effects import Effect, Residue
from perdure.errors import (
    AmbiguousRequest,
    Conflict,
    DecisionRefused,
    NotFound,
    Refused,
    RequestNotFound,
    StoreUnreachable,
    ThreadClosed,
    ThreadNotFound,
    TurnFailed,
)
from perdure.settings import Settings
from perdure.starters.archive import Archive, checked_id
from perdure.starters.connect import ask, rpc_error
from perdure.starters.service import Service
from perdure.values import Value
from perdure.workers.connect import connect

Answer = TypeVar("Answer")

_POLL = 0.25  # seconds between two looks at a thread that works
_LOOKS = 8  # after so many looks, one whether its workflow is alive at all
_AGENT = SearchAttributeKey.for_keyword("PerdureAgent")
_TENANT = SearchAttributeKey.for_keyword("PerdureTenant")
_WAITS_FOR_PEOPLE = frozenset({"awaiting_approval", "awaiting_input", "in_doubt", "out_of_budget"})


class ThreadSummary(Value):
    """A thread as a list shows it."""

    thread_id: str
    agent: str
    status: str
    open: bool
    step: int
    pending: int
    tenant: str = ""
    started_at: datetime


class Client:
    """Talks to threads through Temporal, and to the store where a question needs it."""

    def __init__(self, temporal: temporalio.client.Client, settings: Settings | None = None) -> None:
        self.temporal = temporal
        self._settings = settings or Settings()
        self._service = Service(temporal)
        self._archive = Archive(self._settings)

    @classmethod
    async def connect(
        cls, *, address: str = "", namespace: str = "", profile: str = "", settings: Settings | None = None
    ) -> "Client":
        """Connect to Temporal. Raises TemporalUnreachable."""
        return cls(await connect(address=address, namespace=namespace, profile=profile), settings)

    async def close(self) -> None:
        """Let go of the store's connections."""
        await self._archive.close()

    # ── messages ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def start(
        self, agent: str, message: str = "", *, thread: str = "", state: dict[str, Any] | None = None,
        sender: str = "", tenant: str = "", message_id: str = "",
    ) -> tuple[str, Accepted]:  # fmt: skip
        """Start a thread with its first message; its id and the acknowledgement.

        Raises InvalidInput, AgentNotFound, Conflict if the thread exists, TemporalUnreachable.
        """
        said = _message(message, state, sender, message_id)
        thread_id = checked_id(thread or f"{agent}-{uuid.uuid4().hex[:8]}")
        run = await self._last_run(thread_id)
        if run is not None and run.status != WorkflowExecutionStatus.FAILED:  # failed: its first message was refused
            raise Conflict(f"There is a thread {thread_id} already.", hint="Send to it, or choose another id.")
        return thread_id, await self._send_with_start(thread_id, agent, tenant, said)

    async def send(
        self, thread_id: str, message: str = "", *, state: dict[str, Any] | None = None, sender: str = "",
        message_id: str = "",
    ) -> Accepted:  # fmt: skip
        """Send a message; a thread that had completed is started again from its head checkpoint.

        The same ``message_id`` twice is one message. Raises ThreadNotFound, ThreadClosed, ThreadBusy, InvalidInput.
        """
        said = _message(message, state, sender, message_id)
        try:
            return await self._update(thread_id, "send", said, Accepted)
        except ThreadNotFound:
            agent, tenant = await self._resumable(thread_id)
        return await self._send_with_start(thread_id, agent, tenant, said, resume=True)

    async def wait(self, thread_id: str, message_id: str = "", *, for_people: bool = True) -> TurnResult | StatusAnswer:
        """Wait until the turn of a message (default: whatever runs now) has ended; its result.

        With ``for_people`` also return, with the status, as soon as the thread waits for a person. Raises NotFound
        where the thread is at rest and doesn't remember the message, TurnFailed where its workflow has ended in the
        middle of a turn.
        """
        looks = 0
        while True:
            status = await self._query(thread_id, "status", StatusAnswer)
            at_rest = not (status.node or status.queued) and status.status not in ("running", "compensating")
            for result in reversed(status.results):
                if message_id in result.message_ids or (at_rest and not message_id):
                    return result
            if (for_people and status.status in _WAITS_FOR_PEOPLE) or (at_rest and not message_id):
                return status
            if at_rest:
                hint = "It keeps those of its latest turns; `perdure history` shows the others."
                raise NotFound(f"Thread {thread_id} has no result of message {message_id}.", hint=hint)
            looks += 1
            if looks % _LOOKS == 0 and not await self._is_open(thread_id):
                ended = f"The workflow of thread {thread_id} ended in the middle of a turn."
                raise TurnFailed(ended, hint="Temporal shows why; the next message takes the thread up again.")
            await asyncio.sleep(_POLL)

    async def run(self, thread_id: str, message: str) -> str:
        """Send a message and wait for the answer. Raises TurnFailed where there is none."""
        accepted = await self.send(thread_id, message)
        result = await self.wait(thread_id, accepted.message_id, for_people=False)
        if not isinstance(result, TurnResult) or result.outcome != "answered":
            raise TurnFailed(f"Turn of {thread_id} ended without an answer: {getattr(result, 'error', '')}.")
        return result.answer

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def threads(self, *, agent: str = "", status: str = "", limit: int = 50) -> list[ThreadSummary]:
        """Threads, newest first, from Temporal's visibility."""
        terms = [f"WorkflowType = '{WORKFLOW}'", "ExecutionStatus != 'ContinuedAsNew'"]
        for name, value in (("PerdureAgent", agent), ("PerdureStatus", status)):
            if value:
                terms.append(f"{name} = '{_quoted(value)}'")
        found: dict[str, ThreadSummary] = {}
        try:
            async for run in self.temporal.list_workflows(" AND ".join(terms), page_size=min(limit * 2, 1000)):
                found.setdefault(run.id, _summary(run))
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

    async def checkpoint(self, thread_id: str) -> CheckpointAnswer:
        """The current checkpoint; a state too large for a query is completed from the store."""
        answer = await self._query(thread_id, "checkpoint", CheckpointAnswer)
        if not answer.truncated or answer.head is None:
            return answer
        state = await self.state(thread_id, answer.head.id)
        return answer.model_copy(update={"state": state, "truncated": False, "omitted": {}})

    async def state(self, thread_id: str, checkpoint_id: str = "") -> Values:
        """The state at a checkpoint (default: the head), from the store, checked against its digests.

        Raises ThreadNotFound, CheckpointNotFound, IntegrityError.
        """
        return await self._archive.state(thread_id, checkpoint_id)

    async def history(self, thread_id: str, *, limit: int = 20, before_step: int | None = None) -> list[Checkpoint]:
        """A page of checkpoints, newest first, from the store. Raises ThreadNotFound."""
        return await self._archive.history(thread_id, limit=limit, before_step=before_step)

    async def blob(self, digest: str) -> bytes:
        """A large tool result by the digest that its message names. Raises CheckpointNotFound, IntegrityError."""
        return await self._archive.blob(digest)

    async def approvals(self, thread_id: str, *, patience: float = 30) -> ApprovalsAnswer:
        """Approval requests of a thread, and decisions that were refused."""
        return await self._query(thread_id, "approvals", ApprovalsAnswer, patience=patience)

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
        while True:
            status = await self.status(thread_id)
            if status != shown:
                yield status
                shown = status
            if not await self._is_open(thread_id):
                return
            await asyncio.sleep(_POLL)

    # ── deciding ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def request(self, thread_id: str, request_id: str = "") -> ApprovalRequest:
        """An open request; the only one where none is named. Raises RequestNotFound, AmbiguousRequest."""
        answer = await self.approvals(thread_id)
        if not request_id and len(answer.open) == 1:
            return answer.open[0]
        names = ", ".join(f"{request.id} ({request.summary})" for request in answer.open) or "none"
        if not request_id and answer.open:
            raise AmbiguousRequest(f"Several requests of {thread_id} are open: {names}.", hint="Name one.")
        for request in (*answer.open, *answer.closed):
            if request.id == request_id:
                return request
        wanted = f"request {request_id!r}" if request_id else "open request"
        raise RequestNotFound(f"Thread {thread_id} has no {wanted}.", hint=f"Open: {names}.")

    async def decide(
        self, thread_id: str, verdict: Verdict, request: ApprovalRequest, *, approver: str, reason: str = ""
    ) -> ApprovalsAnswer:
        """Decide on exactly the arguments of the request that was shown. Raises DecisionRefused."""
        decision = {"request_id": request.id, "approver": approver, "digest": request.digest, "reason": reason}
        try:
            return await self._update(thread_id, "decide", Decide(verdict=verdict, decision=decision), ApprovalsAnswer)
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise DecisionRefused(f"Thread {thread_id} has completed; no request is open.", code="closed") from None

    async def signal_decision(
        self, thread_id: str, verdict: Verdict, request: ApprovalRequest, *, approver: str, reason: str = ""
    ) -> None:
        """The same by signal: not acknowledged, and kept by Temporal also while no worker runs."""
        decision = {"request_id": request.id, "approver": approver, "digest": request.digest, "reason": reason}
        await self._signal(thread_id, verdict, decision)

    # ── operating ────────────────────────────────────────────────────────────────────────────────────────────────

    async def cancel(self, thread_id: str, *, by: str = "", reason: str = "", compensate: bool = True) -> None:
        """Stop the running turn. Raises ThreadNotFound."""
        await self._signal(thread_id, "cancel_turn", CancelTurn(by=by, reason=reason, compensate=compensate))

    async def compensate(self, thread_id: str, *, turn: int | None = None, by: str = "", reason: str = "") -> Residue:
        """Undo the effects of a turn; a thread that had completed is woken for it. Raises Refused if there are none."""
        task = Compensate(turn=turn, by=by, reason=reason)
        return await self._update(thread_id, "compensate", task, Residue, wake=True, patience=3600)

    async def resolve(self, thread_id: str, key: str, *, done: bool, by: str, reason: str = "") -> Effect:
        """Settle an effect that is in doubt or could not be undone. Raises EffectNotFound, Refused."""
        task = ResolveEffect(key=key, done=done, by=by, reason=reason)
        return await self._update(thread_id, "resolve_effect", task, Effect, wake=True)

    async def extend(self, thread_id: str, *, steps: int = 0, tokens: int = 0, by: str = "") -> Budget:
        """Give the running turn more room. Raises Refused if none runs."""
        task = ExtendBudget(steps=steps, tokens=tokens, by=by)
        try:
            return await self._update(thread_id, "extend_budget", task, Budget)
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise Refused(f"Thread {thread_id} has completed; no turn is running.") from None

    async def close_thread(self, thread_id: str) -> None:
        """Let the thread finish its turn and take no more messages."""
        await self._update(thread_id, "close", None, type(None), wake=True)

    # ── through Temporal ─────────────────────────────────────────────────────────────────────────────────────────

    def _handle(self, thread_id: str) -> WorkflowHandle[Any, Any]:
        return self.temporal.get_workflow_handle(checked_id(thread_id))

    async def _query(self, thread_id: str, name: str, gives: type[Answer], *, patience: float = 30) -> Answer:
        handle = self._handle(thread_id)
        asked = ask(thread_id, lambda: handle.query(name, result_type=gives), patience=patience)
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
        handle = self._handle(thread_id)
        args = [] if said is None else [said]
        try:
            call = lambda: handle.execute_update(name, args=args, result_type=gives)  # noqa: E731
            return await self._service.unless_deserted(thread_id, ask(thread_id, call, patience=patience))
        except ThreadNotFound:
            if not wake:
                raise
        agent, tenant = await self._resumable(thread_id)
        start = await self._start_operation(thread_id, agent, tenant, "woken", True)
        update = self.temporal.execute_update_with_start_workflow
        return await ask(
            thread_id,
            lambda: update(name, args=args, start_workflow_operation=start, result_type=gives),
            patience=patience,
        )

    async def _send_with_start(
        self, thread_id: str, agent: str, tenant: str, said: Send, *, resume: bool = False
    ) -> Accepted:
        start = await self._start_operation(thread_id, agent, tenant, said.content, resume)
        update = self.temporal.execute_update_with_start_workflow
        return await ask(
            thread_id, lambda: update("send", said, start_workflow_operation=start, result_type=Accepted), patience=60
        )

    async def _start_operation(
        self, thread_id: str, agent: str, tenant: str, about: str, resume: bool
    ) -> WithStartWorkflowOperation[Any, Any]:
        await self._service.require(self._settings.task_queue)  # or an empty workflow would wait there for a worker
        attributes = [SearchAttributePair(_AGENT, agent), SearchAttributePair(_TENANT, tenant or "default")]
        text = " ".join(about.split())
        return WithStartWorkflowOperation(
            WORKFLOW, lean(ThreadInput(agent=agent, tenant=tenant, resume=resume)), id=thread_id,
            task_queue=self._settings.task_queue, task_timeout=timedelta(seconds=self._settings.task_timeout),
            # Two who begin a thread at once don't share it; two who wake one do.
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING if resume else WorkflowIDConflictPolicy.FAIL,
            search_attributes=TypedSearchAttributes(attributes),
            static_summary=f"{agent}: {text[:100]}",
            static_details=f"A thread of agent **{agent}**. Everything about it is under *current details*; "
            f"`perdure status {thread_id}` shows the same.",
        )  # fmt: skip

    async def _last_run(self, thread_id: str) -> temporalio.client.WorkflowExecutionDescription | None:
        try:
            return await self._handle(thread_id).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return None
            raise rpc_error(thread_id, error) from error

    async def _is_open(self, thread_id: str) -> bool:
        run = await self._last_run(thread_id)
        return run is not None and run.status == WorkflowExecutionStatus.RUNNING

    async def _resumable(self, thread_id: str) -> tuple[str, str]:
        """Agent and tenant of a thread whose workflow has completed, from Temporal or else the store."""
        run = await self._last_run(thread_id)
        if run is not None and run.workflow_type == WORKFLOW:
            if run.typed_search_attributes.get(SearchAttributeKey.for_keyword("PerdureStatus")) == "closed":
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


def _message(content: str, state: dict[str, Any] | None, sender: str, message_id: str) -> Send:
    """A message that may be sent. Raises InvalidInput."""
    said = Send(id=message_id or str(uuid.uuid4()), content=content, state=state or {}, sender=sender)
    if fault := said.fault():
        raise fault
    return said


def _summary(run: temporalio.client.WorkflowExecution) -> ThreadSummary:
    attributes = run.typed_search_attributes

    def value(name: str, default: Any) -> Any:
        return next((pair.value for pair in attributes.search_attributes if pair.key.name == name), default)

    return ThreadSummary(
        thread_id=run.id, agent=value("PerdureAgent", ""), status=value("PerdureStatus", "running"),
        open=run.status == WorkflowExecutionStatus.RUNNING, step=value("PerdureStep", 0),
        pending=value("PerdurePending", 0), tenant=value("PerdureTenant", ""), started_at=run.start_time,
    )  # fmt: skip


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
