"""What people are asked: approval requests and questions."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perdure.approvals import ApprovalPolicy, ApprovalRequest, CountedDecision, Duty
from perdure.approvals.book import changes
from perdure.canonical import Json
from perdure.contracts import ApprovalsAnswer
from perdure.questions import Question
from perdure.starters.cli.output import line, safe
from perdure.starters.cli.render.tables import moment, table
from perdure.starters.inbox import InboxChange, Look

Changes = Mapping[str, tuple[Any, Any]]  # what an argument was, and what it is, by name

_DUTIES: dict[Duty, str] = {
    "requester": "not whoever asked for it or changed it",
    "steps": "not whoever approved another call of the turn",
}


def request(thread_id: str, asked: ApprovalRequest, wanted: dict[str, Json] | None = None) -> RenderableType:
    """A request as its approver must see it: exactly what will run, and how that differs from other arguments that are
    ``wanted``."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _asked(thread_id, asked, changes(asked.arguments, wanted) if wanted is not None else {}):
        facts.add_row(name, safe(value))
    return Panel(facts, title=Text(f"approval {asked.id}"), title_align="left", expand=False)


def _asked(thread_id: str, asked: ApprovalRequest, changed: Changes) -> Iterable[tuple[str, str]]:
    yield "request", f"{asked.id} of {thread_id}: {asked.verdict_line()}"
    yield "tool", asked.tool
    for name, value in {**asked.arguments, **dict.fromkeys(changed.keys() - asked.arguments.keys())}.items():
        yield f"  {line(name)}", _arrow(changed[name]) if name in changed else _json(value)
    yield "digest", asked.digest
    if asked.policy.reason:
        yield "reason", asked.policy.reason
    if asked.requesters:
        yield "asked by", ", ".join(asked.requesters)
    yield "who", _who(asked)
    yield from _rules(asked.policy)
    yield "until", f"{moment(asked.expires_at)} UTC{_afterwards(asked)}"
    for edit in asked.edits:
        yield "changed", f"by {edit.by}, {moment(edit.at)} UTC: {_edits(edit.changes)}"
    for said in asked.decisions:
        yield said.verdict, f"{_by(said)}, {moment(said.at)} UTC: {said.reason or 'no reason given'}"


def _rules(policy: ApprovalPolicy) -> Iterable[tuple[str, str]]:
    if policy.separation:
        yield "but", "; ".join(_DUTIES[duty] for duty in policy.separation)
    if policy.signed:
        yield "signed", "only signed decisions count (--key)"


def _afterwards(asked: ApprovalRequest) -> str:
    """What silence means, where the request is open."""
    if asked.outcome != "open":
        return ""
    if asked.level < len(asked.policy.escalations):
        further = asked.policy.escalations[asked.level]
        return f", then {' or '.join(further.approvers)} may decide too"
    return ", then it is rejected" if asked.policy.silence == "reject" else ", then it expires"


def _who(asked: ApprovalRequest) -> str:
    level = f", escalated {asked.level} of {len(asked.policy.escalations)}" if asked.level else ""
    return f"{', '.join(asked.asked.approvers) or 'anyone'} ({asked.approvals()} of {asked.asked.quorum}{level})"


def _by(said: CountedDecision) -> str:
    return f"{said.approver} (signed)" if said.signature else said.approver


def _edits(changed: Changes) -> str:
    return "; ".join(f"{line(name)} {_arrow(pair)}" for name, pair in changed.items())


def _arrow(pair: tuple[Any, Any]) -> str:
    return f"{_json(pair[0])} → {_json(pair[1])}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def standing(asked: ApprovalRequest) -> str:
    """How a request stands after a decision, without a full stop; of an open one also who must decide now."""
    if asked.outcome != "open":
        return line(asked.verdict_line()).rstrip(".")
    said = f"{asked.approvals()} of {asked.asked.quorum} have said yes"
    if asked.edits and not asked.decisions:
        said = f"it is changed, and {said}"
    barred = {d.approver for d in asked.decisions}
    if "requester" in asked.policy.separation:
        barred |= set(asked.requesters)
    left = [name for name in asked.asked.approvers if name not in barred]
    return line(f"{said}; it waits for {' or '.join(left) or 'somebody else'}")


def inbox(look: Look) -> RenderableType:
    """What waits for people in all threads, and which threads don't answer."""
    requested = [(item.thread_id, item.request) for item in look.items if item.request]
    asked = [(item.thread_id, item.question) for item in look.items if item.question]
    parts = [requests(requested)]
    if asked:
        parts += [Text(), questions(asked)]
    if look.silent:
        parts += [Text(), *(Text(line(f"{name}: {error}"), style="red") for name, error in look.silent.items())]
    return Group(*parts)


def change(new: InboxChange) -> str:
    """What is new in the inbox, on a line."""
    head = f"{moment(new.at)} {new.kind} {new.thread_id}"
    if new.item is None:
        return f"{head}: {new.error}" if new.error else head
    if new.item.question:
        return f"{head} {new.item.question.waits_for()}"
    asked = new.item.request
    assert asked is not None, "an item is one or the other"
    if new.kind == "closed":
        ended = "no longer open" if asked.outcome == "open" else asked.verdict_line()
        return f"{head} {asked.id} {asked.summary}: {ended}"
    return f"{head} {asked.id} {asked.summary}: {_who(asked)}, until {moment(asked.expires_at)}"


def requests(found: Sequence[tuple[str, ApprovalRequest]]) -> RenderableType:
    """Open requests of any threads."""
    rows = [
        (thread, asked.id, asked.summary, _who(asked), moment(asked.expires_at), asked.digest[:12])
        for thread, asked in found
    ]
    columns = ("thread", "request", "call", "who (said yes)", "until (UTC)", "digest")
    return table(columns, rows, empty="Nothing waits for an approval.")


def approvals(thread_id: str, answer: ApprovalsAnswer) -> RenderableType:
    """Everything about the approvals of one thread, and the questions that it asks."""
    parts = [requests([(thread_id, asked) for asked in answer.open])]
    if answer.questions:
        parts += [Text(), questions([(thread_id, asked) for asked in answer.questions])]
    if answer.closed:
        rows = [
            (asked.id, asked.summary, asked.verdict_line(), _changed_by(asked), moment(asked.closed_at))
            for asked in answer.closed
        ]
        parts += [Text(), table(("closed", "call", "outcome", "changed", "when (UTC)"), rows, empty="")]
    if answer.refused_decisions:
        refused = [(r.verdict, r.why, r.said, moment(r.at)) for r in answer.refused_decisions]
        parts += [Text(), table(("refused", "why", "said", "when (UTC)"), refused, empty="")]
    return Group(*parts)


def _changed_by(asked: ApprovalRequest) -> str:
    return "; ".join(f"{edit.by}: {_edits(edit.changes)}" for edit in asked.edits)


def questions(found: Sequence[tuple[str, Question]]) -> RenderableType:
    """Open questions of any threads."""
    rows = [
        (thread, asked.id, asked.node, asked.text, _fitting(asked), moment(asked.expires_at)) for thread, asked in found
    ]
    return table(("thread", "question", "of", "text", "answer", "until (UTC)"), rows, empty="Nothing is asked.")


def question(thread_id: str, asked: Question) -> RenderableType:
    """A question as whoever answers it must see it."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _posed(thread_id, asked):
        facts.add_row(name, safe(value))
    return Panel(facts, title=Text(f"question {asked.id}"), title_align="left", expand=False)


def _posed(thread_id: str, asked: Question) -> Iterable[tuple[str, str]]:
    yield "question", f"{asked.id} of {thread_id}, at {asked.node}"
    yield "text", asked.text
    if asked.details is not None:
        yield "details", json.dumps(asked.details, ensure_ascii=False)
    yield "answer", _fitting(asked)
    yield "until", f"{moment(asked.expires_at)} UTC"


def _fitting(asked: Question) -> str:
    """What a fitting answer is, in short."""
    schema = asked.answer_schema
    if not isinstance(schema, dict):
        return "any JSON"
    if kind := schema.get("type"):
        return str(kind) if kind != "object" else f"an object: {', '.join(schema.get('properties', {}))}"
    return json.dumps(schema, ensure_ascii=False)
