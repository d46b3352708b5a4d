"""What people are asked: approval requests and questions."""

import json
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perdure.approvals import ApprovalRequest
from perdure.contracts import ApprovalsAnswer
from perdure.questions import Question
from perdure.starters.cli.output import line, safe
from perdure.starters.cli.render.tables import moment, table


def request(thread_id: str, asked: ApprovalRequest) -> RenderableType:
    """A request as its approver must see it: exactly what will run."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _asked(thread_id, asked):
        facts.add_row(name, safe(value))
    return Panel(facts, title=Text(f"approval {asked.id}"), title_align="left", expand=False)


def _asked(thread_id: str, asked: ApprovalRequest) -> Iterable[tuple[str, str]]:
    yield "request", f"{asked.id} of {thread_id}: {asked.verdict_line()}"
    yield "tool", asked.tool
    for name, value in asked.arguments.items():
        yield f"  {line(name)}", json.dumps(value, ensure_ascii=False)
    yield "digest", asked.digest
    if asked.policy.reason:
        yield "reason", asked.policy.reason
    yield "who", _who(asked)
    yield "until", f"{moment(asked.expires_at)} UTC"
    for decision in asked.decisions:
        yield (
            decision.verdict,
            f"{decision.approver}, {moment(decision.at)} UTC: {decision.reason or 'no reason given'}",
        )


def _who(asked: ApprovalRequest) -> str:
    return f"{', '.join(asked.policy.approvers) or 'anyone'} ({asked.approvals()} of {asked.policy.quorum})"


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
        rows = [(asked.id, asked.summary, asked.verdict_line(), moment(asked.closed_at)) for asked in answer.closed]
        parts += [Text(), table(("closed", "call", "outcome", "when (UTC)"), rows, empty="")]
    if answer.refused_decisions:
        refused = [(r.verdict, r.why, r.said, moment(r.at)) for r in answer.refused_decisions]
        parts += [Text(), table(("refused", "why", "said", "when (UTC)"), refused, empty="")]
    return Group(*parts)


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
