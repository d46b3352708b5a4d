"""The gate before a call: it stands open, or people decide on exactly what will run."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow

from perdure.approvals import ApprovalPolicy, ApprovalRequest, Evidence
from perdure.canonical import canonical
from perdure.contracts import ToolPlan
from perdure.effects import arguments_digest
from perdure.workflows.display import Display
from perdure.workflows.record import Record, Stopped, Turn


@dataclass(frozen=True)
class Passed:
    """A call may run: as planned, or with the ``arguments`` that a person gave it instead."""

    plan: ToolPlan
    evidence: Evidence | None = None
    arguments: dict[str, Any] | None = None


class Gate:
    """The gates of one turn."""

    def __init__(self, record: Record, turn: Turn, display: Display) -> None:
        self._record = record
        self._turn = turn
        self._display = display

    async def passed(self, plan: ToolPlan) -> Passed | str:
        """Wait for the approval that a call needs; else why it may not run. Raises Stopped.

        In a dry run nobody is asked: nothing is done.
        """
        if plan.approval is None or self._record.dry_run:
            return Passed(plan)
        if why := self._unfit(plan, plan.approval):
            self._record.note(f"{plan.summary}: {why}")
            return why
        number, branch = self._turn.number, self._record.branch
        request = self._record.book.remembered(plan.tool, plan.digest, turn=number, branch=branch)
        if request is None:
            request = await self._decided(self._open(plan, plan.approval))
        self._record.book.trim(request.id)
        journal, approved = self._record.journal, request.outcome == "approved"
        journal.take()
        # What was decided is written down before anything follows from it: a call that may be made does that itself.
        if not approved or not journal.is_light:
            await journal.written()
        if self._record.stop:
            raise Stopped
        return self._approved(plan, request) if approved else request.verdict_line()

    def _unfit(self, plan: ToolPlan, policy: ApprovalPolicy) -> str:
        """Why nobody can be asked."""
        shown = arguments_digest(plan.tool, canonical(plan.arguments or {}))
        if shown != plan.digest:
            return "what people would be shown is not what would run"
        if "requester" in policy.separation and not self._turn.requesters:
            return "whoever asked for it can't approve it, and nobody is named as the one who asked"
        return ""

    def _open(self, plan: ToolPlan, policy: ApprovalPolicy) -> ApprovalRequest:
        record = self._record
        request = record.book.open(
            call_id=plan.call_id, tool=plan.tool, summary=plan.summary, arguments=plan.arguments or {},
            digest=plan.digest, key=plan.key, policy=policy, requesters=self._turn.requesters or (record.agent,),
            turn=self._turn.number, branch=record.branch, step=record.head.step if record.head else 0,
            index=plan.index, channel=plan.channel, now=workflow.now(),
        )  # fmt: skip
        record.note(f"approval {request.id} is needed for {plan.summary}")
        return request

    async def _decided(self, request: ApprovalRequest) -> ApprovalRequest:
        """Wait until it is closed, or the turn is stopped; remind people, and turn to others, on the way."""
        record, name = self._record, request.id
        reminded = request.opened_at

        def answered() -> bool:
            return record.stop is not None or record.book.requests[name].outcome != "open"

        while not answered():
            request = record.book.requests[name]
            record.journal.take()
            self._display.refresh()
            due = _due(request, reminded)
            try:
                await workflow.wait_condition(
                    answered, timeout=max(due - workflow.now(), timedelta(0)), timeout_summary=request.waits_for()
                )
            except TimeoutError:
                reminded = due
                if due < request.expires_at:
                    record.book.remind(name)
                else:
                    record.book.pass_time(workflow.now())  # a decision may have been quicker, and begun the next level
        closed = record.book.requests[name]
        record.note(f"approval {name}: {closed.verdict_line()}")
        return closed

    def _approved(self, plan: ToolPlan, request: ApprovalRequest) -> Passed:
        evidence = request.evidence()
        if request.digest == plan.digest:
            return Passed(plan, evidence)
        changed = {"summary": request.summary, "digest": request.digest, "key": request.key}
        return Passed(plan.model_copy(update=changed), evidence, request.arguments)


def _due(request: ApprovalRequest, after: datetime) -> datetime:
    """When something is to be done next: a reminder, or the end of the request's level."""
    reminders = [request.expires_at - timedelta(seconds=before) for before in request.asked.reminders]
    return min([moment for moment in reminders if moment > after] + [request.expires_at])
