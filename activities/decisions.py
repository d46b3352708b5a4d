"""What only a worker can see of a decision: whose signature it bears, and whether a tool takes other arguments."""

from collections.abc import Sequence
from typing import Any

from temporalio import activity

from perdure.activities.runtime import Runtime
from perdure.app import App
from perdure.approvals import ApprovalPolicy, ApprovalRequest, Decision, Edited, Evidence, Level
from perdure.audit import AuditEntry, AuditHead
from perdure.canonical import digest as digest_of
from perdure.contracts import CHECK_DECISION, CheckDecision, CheckedDecision
from perdure.effects import call_summary, effect_key
from perdure.errors import (
    AgentNotFound,
    ApprovalVoid,
    AuditUnwritten,
    DecisionRefused,
    InvalidInput,
    PerdureError,
    ToolGone,
)
from perdure.security.signing import ApproverKeys, counted_statement, edit_digest, statement
from perdure.state import channels


class DecisionActivities:
    """Looks at decisions before they count."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=CHECK_DECISION.name)
    async def check_decision(self, task: CheckDecision) -> CheckedDecision:
        """Raises DecisionRefused: unsigned, unknown_key or forged, where only signed decisions count; invalid_edit,
        where the tool doesn't take the arguments that are asked for."""
        decision = Decision.model_validate(task.decision)
        if task.request.policy.signed:
            self._check_signature(task, decision)
        if decision.arguments is None:
            return CheckedDecision()
        try:
            return CheckedDecision(edited=self._edited(task, decision.arguments))
        except (InvalidInput, ToolGone) as error:
            raise DecisionRefused(error.message, code="invalid_edit") from error

    def _check_signature(self, task: CheckDecision, decision: Decision) -> None:
        keys = self._runtime.approver_keys
        if keys is None:
            raise DecisionRefused(
                "This worker has no keys of approvers, and so can't tell whose decision it is.", code="unknown_key",
                hint="Set PERDURE_APPROVER_KEYS on all workers.",
            )  # fmt: skip
        keys.check(decision.approver, statement(task.thread_id, task.verdict, decision), decision.signature)

    def _edited(self, task: CheckDecision, given: dict[str, Any]) -> Edited:
        """Raises InvalidInput, ToolGone."""
        request, tool = task.request, self._runtime.tool(task.request.tool)
        arguments = tool.take(given)
        shown, name = arguments.model_dump(mode="json"), tool.digest(arguments)
        hidden = hides_arguments(self._runtime.app, task.agent)
        return Edited(
            arguments=shown, summary=f"{tool.name}(…)" if hidden else call_summary(tool.name, shown), digest=name,
            key=_key(task.thread_id, request, name), given=edit_digest(given),
        )  # fmt: skip


def _key(thread_id: str, request: ApprovalRequest, name: str) -> str:
    return effect_key(
        thread_id, request.branch, request.turn, request.step, request.index, request.tool, name, request.channel
    )


def hides_arguments(app: App, agent: str) -> bool:
    """Whether an agent's conversation is sensitive, so that its calls are told without their arguments. An agent that
    the app doesn't know may have had such a one."""
    try:
        graph = app.graph(agent)
    except AgentNotFound:
        return True
    kept = channels(graph.state)
    talks = {spec.channel for spec in graph.specs.values() if spec.kind in ("model", "tools")}
    return any(kept[name].sensitive for name in talks if name in kept)


# ── between yes and act ──────────────────────────────────────────────────────────────────────────────────────────


async def written_first(runtime: Runtime, thread_id: str, lines: Sequence[AuditEntry]) -> AuditHead | None:
    """Write the lines of the audit from which a call follows; its end, where there are any. Raises AuditUnwritten."""
    try:
        return await runtime.store.append_audit(thread_id, lines) if lines else None
    except PerdureError as error:
        raise AuditUnwritten(error.message, hint=error.hint) from error


def check_evidence(runtime: Runtime, thread_id: str, tool: str, digest: str, evidence: Evidence) -> None:
    """Look once more, just before a call is made, at why it may be made. Raises ApprovalVoid.

    Where this worker has keys, each signature is verified as of now, and by the tool's own policy, not by what the task
    says of it: so a withdrawn key no longer counts, and a task that somebody has made up runs nothing. A worker without
    keys takes the workflow's word.
    """
    try:
        said = _said_yes(evidence, digest)
        if not _reached(Level(approvers=evidence.approvers, quorum=evidence.quorum), said):
            raise ApprovalVoid(f"{len(said)} have said yes, and {evidence.quorum} must")
        if runtime.approver_keys is not None:
            _check_signatures(runtime.approver_keys, thread_id, evidence)
            _check_policy(runtime.app.policies.get(tool), said)
    except PerdureError as error:
        why = error.message.rstrip(".")
        raise ApprovalVoid(f"The approval {evidence.request_id} of {tool} no longer counts: {why}.") from error


def _said_yes(evidence: Evidence, digest: str) -> set[str]:
    """Raises ApprovalVoid where anything else was approved than this."""
    if evidence.digest != digest or any(d.verdict != "approve" or d.digest != digest for d in evidence.decisions):
        raise ApprovalVoid("what was approved is something else")
    return set(evidence.approved_by)


def _reached(level: Level, said: set[str]) -> bool:
    who = said.intersection(level.approvers) if level.approvers else said
    return len(who) >= max(level.quorum, 1)


def _check_signatures(keys: ApproverKeys, thread_id: str, evidence: Evidence) -> None:
    for decision in evidence.decisions:
        if decision.edited:  # signed for other arguments in place of these
            raise ApprovalVoid(f"{decision.approver} wanted other arguments")
        stated = counted_statement(thread_id, evidence.request_id, decision)
        keys.check(decision.approver, stated, decision.signature)


def _check_policy(policy: ApprovalPolicy | None, said: set[str]) -> None:
    """The quorum of the tool itself, at whatever level of escalation. One that needs no approval any more has none."""
    levels = [policy.level(number) for number in range(len(policy.escalations) + 1)] if policy else []
    if levels and not any(_reached(level, said) for level in levels):
        raise ApprovalVoid("those who said yes are not those whom the tool asks for")


def authority(runtime: Runtime, thread_id: str, tool: str, evidence: Evidence | None) -> tuple[str, ...]:
    """What a call spends of its approval, as one-time tokens: a signed request is for one call, whoever else has signed
    it, unless the tool's policy remembers approvals."""
    policy = runtime.app.policies.get(tool)
    signed = evidence is not None and any(said.signature for said in evidence.decisions)
    if evidence is None or not signed or (policy is not None and policy.remember):
        return ()
    return (digest_of("approval", thread_id, evidence.request_id),)
