"""What a person sees who only has the Temporal UI: current details and search attributes."""

import json
import re
import shlex
from typing import Any

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from perdure.approvals import ApprovalRequest
from perdure.canonical import Json
from perdure.contracts import Status
from perdure.effects import THREAD, Effect
from perdure.questions import Question
from perdure.workflows.record import Record

_SEARCHED: tuple[SearchAttributeKey[Any], ...] = (
    SearchAttributeKey.for_keyword("PerdureStatus"),
    SearchAttributeKey.for_int("PerdurePending"),
    SearchAttributeKey.for_int("PerdureStep"),
)
_SHOWN_LOG = 12
_SAYS: dict[Status, str] = {
    "idle": "Waiting for a message.",
    "running": "At work.",
    "awaiting_approval": "Waiting for a person to decide.",
    "awaiting_input": "Waiting for a person's answer.",
    "compensating": "Undoing what the turn did outside.",
    "in_doubt": "An effect was attempted and its outcome is unknown. A person has to look and settle it.",
    "needs_attention": "Something could not be undone. A person has to look.",
    "out_of_budget": "The turn has used up its budget.",
    "failed": "The last turn failed. The next message starts a new one.",
    "closed": "Closed. It takes no more messages.",
}


class Display:
    """Keeps the UI in step with the record."""

    def __init__(self, record: Record) -> None:
        self._record = record
        given = workflow.info().typed_search_attributes  # by whoever started it, or the run before
        self._shown = tuple(given.get(key) for key in _SEARCHED)

    def refresh(self) -> None:
        """Write search attributes when the status or what is pending changes, and only then: each write is an event for
        ever. Only those that are others now, since each costs time."""
        record = self._record
        status = record.status()
        pending = len(record.book.pending()) + len(record.questions.open()) + len(record.attention())
        if self._shown[:2] != (status, pending):
            before, self._shown = self._shown, (status, pending, record.head.step if record.head else 0)
            changes = zip(_SEARCHED, self._shown, before, strict=True)
            workflow.upsert_search_attributes([key.value_set(now) for key, now, then in changes if now != then])


def details(record: Record) -> str:
    """The thread as Markdown: what it does now, what it waits for, how to answer, what happened."""
    status = record.status()
    parts = [f"## {status.replace('_', ' ')}\n{_SAYS[status]}"]
    if record.dry_run:
        parts.append("**A dry run**: nothing is done outside, and nobody is asked to approve anything.")
    if record.turn:
        turn = record.turn
        limit = f" of {turn.budget.steps}" if turn.budget.steps is not None else ""
        parts.append(
            f"Turn {turn.number}: {turn.steps}{limit} steps, {turn.usage.calls} model calls, {turn.usage.tokens} tokens"
        )
    parts += [_request(record.thread_id, request) for request in record.book.pending()]
    parts += [_question(record.thread_id, question) for question in record.questions.open()]
    parts += [
        _standing(record),
        _open_effects(record),
        _budget(record),
        _results(record),
        _refused(record),
        _log(record),
    ]
    return "\n\n".join(part for part in parts if part)


def _request(thread_id: str, request: ApprovalRequest) -> str:
    arguments = "\n".join(f"- {name}: {_json(value)}" for name, value in request.arguments.items())
    edits = "\n".join(
        f"- {_name(edit.by)} changed {name}: {_json(before)} → {_json(after)}"
        for edit in request.edits
        for name, (before, after) in edit.changes.items()
    )
    title = f"### Approval {request.id}: `{request.tool}`\n{request.policy.reason}"
    shown = (title, arguments, edits, _who(request), _how_to_decide(thread_id, request))
    return "\n\n".join(part for part in shown if part)


def _who(request: ApprovalRequest) -> str:
    """Who may decide now, how many must, by when; and who may not."""
    asked, separation = request.asked, request.policy.separation
    lines = [
        f"Who: {', '.join(asked.approvers) or 'anyone'} ({request.approvals()} of {asked.quorum}). "
        f"Until {request.expires_at:%Y-%m-%d %H:%M} UTC.",
        f"Asked for by: {', '.join(map(_name, request.requesters))}"
        + (", who can't approve it." if "requester" in separation else "."),
    ]
    if "steps" in separation:
        lines.append("Nor can who approved another call of this turn.")
    if request.level:
        lines.append(f"Escalation {request.level} of {len(request.policy.escalations)}: nobody had decided in time.")
    return "\n".join(lines)


def _how_to_decide(thread_id: str, request: ApprovalRequest) -> str:
    command = f"perdure approve {thread_id} {request.id} --as YOU"
    if request.policy.signed:
        return f"Only signed decisions count. To answer: `{command} --key FILE`"
    answer = {"request_id": request.id, "approver": "YOU", "digest": request.digest, "reason": ""}
    return (
        f"To answer: `{command}`, or send the signal `approve` or `reject` with\n"
        f"```json\n{json.dumps(answer, indent=1)}\n```"
    )


def _question(thread_id: str, asked: Question) -> str:
    told = f"\n\n```json\n{json.dumps(asked.details, ensure_ascii=False, indent=1)}\n```" if asked.details else ""
    until = asked.expires_at[:16].replace("T", " ")
    answer = {"question_id": asked.id, "by": "YOU", "value": "…"}
    return (
        f"### Question {asked.id} of `{asked.node}`\n{asked.text}{told}\n\nUntil {until} UTC.\n\n"
        f"To answer: `perdure answer {thread_id} {asked.id} --as YOU --input JSON`, or send the signal `answer` with\n"
        f"```json\n{json.dumps(answer, ensure_ascii=False, indent=1)}\n```"
    )


def _standing(record: Record) -> str:
    if record.turn or not record.next or record.opening:
        return ""
    nodes = ", ".join(f"`{node}`" for node in record.next)
    return f"### Standing before {nodes}\n`perdure resume {record.thread_id}` goes on; a message begins a new turn."


def _json(value: Json) -> str:
    return _code(json.dumps(value, ensure_ascii=False))


def _name(text: str) -> str:
    """A name that somebody gave: as it is where it can't be anything else."""
    return text if re.fullmatch(r"[\w.@+-]+( [\w.@+-]+)*", text) else _json(text)


def _code(text: str) -> str:
    """As code: what a model wrote stays what it is, also where it contains Markdown."""
    ticks = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{ticks}{text}{ticks}"


def _open_effects(record: Record) -> str:
    lines = [_open_effect(record.thread_id, effect) for effect in record.attention()]
    return "### Needs a person\n" + "\n".join(lines) if lines else ""


def _open_effect(thread_id: str, effect: Effect) -> str:
    """What a person has to settle, and how: in the words of the commands that do it."""
    settle, why = f"perdure resolve {thread_id} {effect.key}", " ".join(effect.error.split())
    more = ""
    if effect.status == "needs_attention":
        named = effect.saga not in ("", THREAD) and effect.saga == shlex.quote(effect.saga)
        which = f"--saga {effect.saga}" if named else f"--turn {effect.turn}"
        more = f", or try again: `perdure compensate {thread_id} {which}`"
    elif effect.reconcile:
        more = f", or let `{effect.reconcile}` find out: `{settle} --ask --as YOU`"
    return (
        f"- **{effect.status.replace('_', ' ')}**: {effect.label()} (`{effect.key}`, {_saga(effect)}) {why}\n"
        f"  `{settle} --done --as YOU` if it stands outside, `{settle} --not-done --as YOU` if it doesn't{more}"
    )


def _saga(effect: Effect) -> str:
    if not effect.saga:
        return f"turn {effect.turn}"
    return "saga of the thread" if effect.saga == THREAD else f"saga {_name(effect.saga)}"


def _budget(record: Record) -> str:
    if not record.out_of_budget:
        return ""
    more = f"`perdure extend {record.thread_id} --steps 50`"
    return f"### Budget\n{record.out_of_budget}. Go on with {more}, or cancel the turn."


def _results(record: Record) -> str:
    if not record.results:
        return ""
    last = record.results[-1]
    said = "\n".join(f"> {line}" for line in last.answer.splitlines()) if last.answer else last.error
    return "\n".join([f"### Turn {last.turn}: {last.outcome}", said, *(f"- {line}" for line in last.residue.lines())])


def _refused(record: Record) -> str:
    lines = [f"- {refusal.at} {refusal.verdict}: {refusal.why}" for refusal in record.book.refused[-3:]]
    return "### Refused decisions (they changed nothing)\n" + "\n".join(lines) if lines else ""


def _log(record: Record) -> str:
    lines = [f"- {entry.at[11:19]} {entry.text}" for entry in reversed(record.log[-_SHOWN_LOG:])]
    return "### Lately\n" + "\n".join(lines) if lines else ""
