"""How things look to a person: tables, and panels on a terminal. Nothing here is read by a program."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perdure.approvals import ApprovalRequest
from perdure.checkpoint import Checkpoint
from perdure.contracts import ApprovalsAnswer, StatusAnswer, TurnResult
from perdure.effects import Effect, Residue
from perdure.starters.cli.output import line, safe

_COLOURS = {
    "running": "cyan", "awaiting_approval": "yellow", "awaiting_input": "yellow", "compensating": "magenta",
    "in_doubt": "red", "needs_attention": "red", "out_of_budget": "yellow", "failed": "red", "closed": "dim",
    "done": "green", "undone": "dim",
}  # fmt: skip
_SHOWN_LOG = 12


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> RenderableType:
    """A table without lines, so that it can be cut and searched; a sentence where there is nothing to show."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:  # the first names the row: on a narrow terminal the others are folded
        shown.add_column(column.upper(), no_wrap=not shown.columns, overflow="fold")
    for row in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else Text(line(str(cell))) for cell in row))
    return shown if shown.row_count else Text(empty, style="dim")


def state_of(status: str) -> Text:
    """A status as words, in its colour."""
    return Text(line(status.replace("_", " ")), style=_COLOURS.get(status, ""))


def moment(stamp: object) -> str:
    """A time to the second; times are UTC."""
    return str(stamp)[:19].replace("T", " ")


# ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────────


def status(answer: StatusAnswer, link: str = "") -> RenderableType:
    """A thread: what it does, what it waits for and how to answer, how turns ended, what happened lately."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for name, value in _facts(answer, link):
        facts.add_row(name, value if isinstance(value, Text) else Text(safe(value)))
    return Panel(facts, title=Text(answer.thread_id), title_align="left", expand=False)


def _facts(answer: StatusAnswer, link: str) -> Iterable[tuple[str, str | Text]]:
    yield "thread", answer.thread_id
    yield "agent", answer.agent
    yield "status", state_of(answer.status)
    if answer.node:
        yield f"turn {answer.turn}", f"at {answer.node}; {_used(answer)}"
    if answer.queued:
        yield "queued", f"{answer.queued} messages"
    for need in needs(answer):
        yield "needs", need
    for result in answer.results[-3:]:
        yield f"turn {result.turn}", "\n".join([result.outcome, *result_lines(result)])
    for entry in answer.log[-_SHOWN_LOG:]:
        yield moment(entry.at)[11:], line(entry.text)
    if link:
        yield "ui", link


def _used(answer: StatusAnswer) -> str:
    steps = f"{answer.steps_used} of {answer.budget.steps}" if answer.budget.steps is not None else answer.steps_used
    tokens = f" of {answer.budget.tokens}" if answer.budget.tokens is not None else ""
    return f"{steps} steps, {answer.usage.calls} model calls, {answer.usage.tokens}{tokens} tokens"


def needs(answer: StatusAnswer) -> list[str]:
    """What the thread waits for, each with the command that answers."""
    thread = answer.thread_id
    lines = [_approval(thread, waiting) for waiting in answer.waiting_for]
    lines += [_unsettled(thread, effect) for effect in answer.attention]
    if answer.status == "out_of_budget":
        lines.append(f"more budget\n  perdure extend {thread} --steps 50")
    return lines


def _approval(thread: str, waiting: str) -> str:
    named = re.search(r"\ba[0-9]+\b", waiting.partition(":")[0])  # what comes after is the model's
    request = named[0] if named else "REQUEST"
    return (
        f"{line(waiting)}\n  perdure approve {thread} {request} --as WHO"
        f"\n  perdure reject {thread} {request} --as WHO --reason TEXT"
    )


def _unsettled(thread: str, effect: str) -> str:
    again = f"\n  perdure compensate {thread}" if effect.endswith("(needs_attention)") else ""
    return f"{line(effect)}\n  perdure resolve {thread} {effect.partition(':')[0]} --done|--not-done --as WHO{again}"


def result_lines(result: TurnResult) -> list[str]:
    """How a turn ended."""
    lines = [safe(text) for text in (result.answer, result.error) if text]
    if result.note:
        lines.append(f"note: {line(result.note)}")
    return [*lines, *residue_lines(result.residue)]


def residue_lines(left: Residue) -> list[str]:
    """What a rollback undid and what it left."""
    return [line(text) for text in left.lines()]


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────


def history(page: Sequence[Checkpoint]) -> RenderableType:
    """Checkpoints, newest first."""
    rows = [
        (c.id, c.step, c.turn, " ".join((c.source, *c.nodes)), _changes(c), c.size, moment(c.created_at)) for c in page
    ]
    columns = ("checkpoint", "step", "turn", "source", "changes", "bytes", "made (UTC)")
    return table(columns, rows, empty="No checkpoints.")


def _changes(checkpoint: Checkpoint) -> str:
    return ", ".join(f"{channel} {_change(operation)}" for channel, operation in checkpoint.delta.items())


def _change(operation: dict[str, Any]) -> str:
    added = len(operation.get("items", operation.get("put", ())))
    return f"+{added}" if added else str(operation["op"])


def state(values: dict[str, Any]) -> RenderableType:
    """A state: the conversation, then the other channels."""
    parts = [_message(message) for message in values.get("messages", ())]
    parts += [_channel(name, value) for name, value in values.items() if name != "messages"]
    return Group(*parts) if parts else Text("The state is empty.", style="dim")


def _message(message: dict[str, Any]) -> Text:
    text = Text(f"{line(message['role'])}: ", style="bold")
    calls = [f"{call['name']}({call['arguments']})" for call in message.get("tool_calls") or ()]
    note = f"[{message['note']}]" if message.get("note") else ""
    body = " ".join(part for part in (message.get("content") or "", *calls, note) if part)
    return text.append(safe(body), style="not bold")


def _channel(name: str, value: Any) -> Text:
    body = json.dumps(value, ensure_ascii=False, indent=2 if isinstance(value, dict | list) and value else None)
    return Text(f"{line(name)}: ", style="bold").append(safe(body), style="not bold")


# ── approvals and effects ────────────────────────────────────────────────────────────────────────────────────────


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
    """Everything about the approvals of one thread."""
    parts = [requests([(thread_id, asked) for asked in answer.open])]
    if answer.closed:
        rows = [(asked.id, asked.summary, asked.verdict_line(), moment(asked.closed_at)) for asked in answer.closed]
        parts += [Text(), table(("closed", "call", "outcome", "when (UTC)"), rows, empty="")]
    if answer.refused_decisions:
        refused = [(r.verdict, r.why, r.said, moment(r.at)) for r in answer.refused_decisions]
        parts += [Text(), table(("refused", "why", "said", "when (UTC)"), refused, empty="")]
    return Group(*parts)


def effects(ledger: Sequence[Effect]) -> RenderableType:
    """The ledger of a thread, oldest first."""
    rows = [(e.key, e.turn, e.label(), _standing(e), _undo(e)) for e in ledger]
    return table(("effect", "turn", "call", "status", "to undo"), rows, empty="No effects.")


def _standing(effect: Effect) -> Text:
    text = state_of(effect.status)
    if effect.attempts > 1:
        text.append(f" ({effect.attempts} attempts)")
    return text.append(f": {line(effect.error)}") if effect.error else text


def _undo(effect: Effect) -> str:
    if effect.effect == "irreversible":
        return "impossible"
    return f"{effect.effect}, {effect.compensation}" if effect.compensation else effect.effect
