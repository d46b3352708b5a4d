"""The task of a tools node: the calls of one model answer, side by side.

Each stands behind its gate, and in the ledger before it is attempted.
"""

from temporalio import workflow
from temporalio.exceptions import FailureError
from temporalio.workflow import ActivityHandle

from perdure.audit import AuditEntry
from perdure.contracts import (
    INSPECT_EFFECT,
    NOT_EXECUTED,
    SETTLE_EFFECT,
    Brief,
    CallTool,
    Commit,
    Committed,
    Common,
    Ended,
    InspectEffect,
    Known,
    Part,
    Settle,
    ToolDone,
    ToolPlan,
    ToolSpec,
    tool_stub,
    whole,
)
from perdure.effects import Effect, EffectStatus
from perdure.failures import bounded, describe, root
from perdure.workflows.calls import error_type, give_up, side_by_side, start_tool, store_call
from perdure.workflows.display import Display
from perdure.workflows.gate import Gate, Passed
from perdure.workflows.record import Record, Stop, Stopped, Turn
from perdure.workflows.saga import doubt, reconciled, stamp_now

_UNTOUCHED = {"ToolError", "NotSimulated", "TokenSpent"}  # clear: nothing was done
_ROUNDS = 3  # how often a call is scheduled anew when the ledger proves that no attempt of it ever began
_BROKEN = {
    "InvalidInput",
    "Refused",
    "Conflict",
    "ConcurrentModification",
    "IntegrityError",
}  # the step can't be committed
_SUMMARY = 60  # characters of a call in the timeline of Temporal's UI, in every history for ever
_FINAL = (*_BROKEN, "ToolGone", "ApprovalVoid")  # the same again would end the same


class Batch:
    """Runs the planned calls of a tools node. With one call in a step of one task, the call commits the step itself."""

    def __init__(
        self, record: Record, turn: Turn, display: Display, commit: Commit, number: int, node: str,
        plans: tuple[ToolPlan, ...], *, alone: bool,
    ) -> None:  # fmt: skip
        self._record = record
        self._turn = turn
        self._display = display
        self._commit = commit
        self._number = number
        self.node = node
        self._plans = plans
        self._alone = alone and len(plans) == 1
        self._gate = Gate(record, turn, display)
        self.committed: Committed | None = None
        self._parts = {plan.index: self._message(plan, NOT_EXECUTED) for plan in plans}

    @property
    def parts(self) -> tuple[Part, ...]:
        """What each call has come to, in their order."""
        return tuple(self._parts.values())

    async def run(self) -> Ended | None:
        """Run all calls. None where the turn is told to stop; ``parts`` tell what each call came to all the same."""
        done = await side_by_side([self._call(plan) for plan in self._plans])
        if not all(ended and ended.ok for ended in done):
            self._turn.plan = None  # of a dry run: what it took for granted has not happened, so the model is asked
        self.committed = self._whole(done[0].committed) if done and done[0] and done[0].committed else None
        return None if self._record.stop else Ended(node=self.node, outcome="done")

    def _whole(self, told: Brief) -> Committed:
        """The step, which its one call has committed."""
        commit, (plan,) = self._commit, self._plans
        assert commit.head is not None, "a tool is called on a head"
        return whole(
            told, Common(
                head=commit.head, id=commit.id, node=self.node, turn=commit.turn, channel=plan.channel,
                routes=self._turn.spec.nodes[self.node].routes, call_id=plan.call_id,
            ),
        )  # fmt: skip

    def unmergeable(self, why: str) -> None:
        """The step can't be committed: what was done is told apart from what was not."""
        for plan in self._plans:
            if self._parts[plan.index].key:
                self._say(plan, f"Error: it was done, but its result can't be merged: {why}")

    async def _call(self, plan: ToolPlan) -> ToolDone | None:
        """One call, to its end. It never raises: what it came to stands in ``parts``, or the turn is told to stop."""
        if plan.error:
            self._say(plan, f"Error: {plan.error}")
            self._record.note(f"{plan.tool}: {plan.error}")
            return None
        try:
            passed = await self._gate.passed(plan)
            if isinstance(passed, Passed):
                done = await self._attempt(passed)
            else:
                self._say(plan, f"The call was not made: {passed}.")
                done = None
        except Stopped:
            done = None
        self._display.refresh()
        return done

    # ── the attempt ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _attempt(self, passed: Passed) -> ToolDone | None:
        plan = passed.plan
        spec = self._turn.spec.tools[plan.tool]
        if self._record.stop:
            raise Stopped
        self._parts[plan.index] = self._message(plan, NOT_EXECUTED)  # under its key, which other arguments change
        self._register(plan, spec)
        for left in reversed(range(_ROUNDS)):
            try:
                return self._done(plan, await self._made(passed, spec))
            except FailureError as error:  # one that ran beside the workflow has no ActivityError around its own
                if not await self._failed(plan, spec, error, last=not left):
                    return None
        return None

    async def _made(self, passed: Passed, spec: ToolSpec) -> ToolDone:
        """The end of a call. One that people let pass takes along what the audit must have before it is made."""
        if passed.evidence is None:
            return await self._wait(self._start(passed, spec), spec)
        return await self._record.journal.along(lambda lines: self._wait(self._start(passed, spec, lines), spec))

    def _start(
        self, passed: Passed, spec: ToolSpec, lines: tuple[AuditEntry, ...] = ()
    ) -> ActivityHandle[ToolDone]:  # fmt: skip
        plan = passed.plan
        task = CallTool(
            commit=self._commit, spec=self._turn.spec.digest, node=self.node, index=plan.index, key=plan.key,
            digest=plan.digest, alone=self._alone, branch=self._record.branch, approval=passed.evidence,
            lines=lines, arguments=passed.arguments, dry_run=self._record.dry_run,
        )  # fmt: skip
        limits = self._turn.spec.limits
        return start_tool(tool_stub(plan.tool), task, spec, summary=bounded(plan.summary, _SUMMARY), limits=limits)

    async def _wait(self, handle: ActivityHandle[ToolDone], spec: ToolSpec) -> ToolDone:
        """A read is given up when the turn stops; an effect under way is waited for: its outcome must be known."""
        if spec.effect == "read":
            await workflow.wait_condition(lambda: handle.done() or self._record.stop is not None)
            if not handle.done():
                give_up(handle)
                raise Stopped
        return await handle

    def _register(self, plan: ToolPlan, spec: ToolSpec) -> None:
        if spec.effect != "read":
            self._enter(
                Effect(
                    key=plan.key, tool=plan.tool, effect=spec.effect, turn=self._turn.number, index=plan.index,
                    step=self._record.head.step if self._record.head else 0, summary=plan.summary,
                    checkpoint_id=self._record.head.id if self._record.head else "", branch=self._record.branch,
                    compensation=spec.compensation, reconcile=spec.reconcile, saga=spec.saga, started_at=stamp_now(),
                )
            )  # fmt: skip

    def _done(self, plan: ToolPlan, done: ToolDone) -> ToolDone:
        made: EffectStatus = "simulated" if self._record.dry_run else "done"
        self._mark(plan, made if done.ok else "failed", error=done.error)
        self._record.note(f"{plan.summary}: {made if done.ok else done.error}")
        self._parts[plan.index] = self._message(plan, "")
        return done

    async def _failed(self, plan: ToolPlan, spec: ToolSpec, error: FailureError, *, last: bool) -> bool:
        """Deal with a call that ended without a result; True if it is scheduled again."""
        kind, why = error_type(error), describe(root(error))
        self._record.note(f"{plan.summary} failed: {why}")
        self._say(plan, f"Error: {why}")
        if kind == "AuditUnwritten":
            return True  # it was not begun, and by now the audit has the lines
        if kind in _UNTOUCHED:
            self._mark(plan, "failed", error=why)
        elif spec.effect != "read":
            known = (await self._known(plan)).status
            if known in ("attempted", "in_doubt") and spec.reconcile:
                effect = self._record.effects[plan.key]
                known = (await reconciled(self._record, effect, self._turn.spec.tools)).status
            wanted = known == "done" or (known == "registered" and not self._record.stop)
            if wanted and kind not in _FINAL and not last:
                return True  # the claim in the ledger is atomic: scheduling again attempts it at most once
            if known in ("attempted", "in_doubt"):
                if await self._in_doubt(plan, why) and not last:
                    return True
            else:
                self._mark(plan, "failed" if known == "registered" else known, error=why)
            if known == "done":  # and its result can't be committed
                self._fail(f"{plan.summary}: {why}", kind or "Failed")
        if kind == "ApprovalVoid":
            self._record.journal.write("request.void", tool=plan.tool, summary=plan.summary, why=why)
        elif kind in _BROKEN or kind in ("ToolError", "NotSimulated"):
            self._fail(f"{plan.summary}: {why}", kind)
        return False

    async def _known(self, plan: ToolPlan) -> Known:
        """Ask the ledger: it may prove that nothing was attempted, or that everything was done."""
        inspect = InspectEffect(thread_id=self._record.thread_id, key=plan.key)
        summary = f"what is known of {plan.summary}?"
        return await store_call(INSPECT_EFFECT, inspect, summary=summary, limits=self._record.limits)

    async def _in_doubt(self, plan: ToolPlan, why: str) -> bool:
        """Wait until a person settles what happened; True where the ledger has what the call returned by then.

        Raises Stopped.
        """
        record = self._record
        record.settled.pop(plan.key, None)
        settle = Settle(thread_id=record.thread_id, key=plan.key, status="in_doubt", error=why)
        known = await store_call(SETTLE_EFFECT, settle, summary=f"{plan.summary} is in doubt", limits=record.limits)
        record.enter(known)  # not before the ledger has it: else somebody could settle what that doesn't know yet
        if known.status != "in_doubt":  # an attempt that was given up has come to its end after all
            return known.status == "done"
        doubt(record, record.effects[plan.key])
        self._display.refresh()
        await workflow.wait_condition(lambda: plan.key in record.settled or record.stop is not None)
        if plan.key not in record.settled:
            raise Stopped
        done, said = record.settled.pop(plan.key)
        self._say(plan, f"{'It was done' if done else 'It was not done'}, according to {said}.")
        return done and (await self._known(plan)).answered

    # ── bookkeeping ──────────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, effect: Effect) -> None:
        self._record.enter(effect)
        self._display.refresh()

    def _mark(self, plan: ToolPlan, status: EffectStatus, *, error: str = "") -> None:
        if plan.key in self._record.effects:
            update = {"status": status, "error": error, "finished_at": stamp_now()}
            self._record.enter(self._record.effects[plan.key].model_copy(update=update))

    def _message(self, plan: ToolPlan, content: str) -> Part:
        return Part(
            task=self._number, node=self.node, call_id=plan.call_id, tool=plan.tool, key=plan.key, content=content
        )

    def _say(self, plan: ToolPlan, content: str) -> None:
        self._parts[plan.index] = self._message(plan, content)

    def _fail(self, reason: str, kind: str) -> None:
        if self._record.stop is None:
            self._record.stop = Stop(kind="failed", reason=reason, error_type=kind)
