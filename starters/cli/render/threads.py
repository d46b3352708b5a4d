"""Threads as people see them: what they do, what they wait for, how their turns ended."""

import re
from collections.abc import Iterable

from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from perdure.contracts import StatusAnswer, TurnResult
from perdure.starters.cli.output import line, safe
from perdure.starters.cli.render.effects import residue_lines
from perdure.starters.cli.render.tables import moment, state_of

_SHOWN_LOG = 12


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
    if answer.dry_run:
        yield "dry run", "it does nothing outside"
    if answer.node:
        yield f"turn {answer.turn}", f"at {answer.node}; {_used(answer)}"
    elif answer.next:
        yield "stands", f"before {', '.join(answer.next)}\n  perdure resume {answer.thread_id}"
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
    lines = [_answer(thread, waiting) for waiting in answer.waiting_for]
    lines += [_unsettled(thread, effect) for effect in answer.attention]
    if answer.status == "out_of_budget":
        lines.append(f"more budget\n  perdure extend {thread} --steps 50")
    return lines


def _answer(thread: str, waiting: str) -> str:
    what = waiting.partition(":")[0]  # what comes after is the model's
    if asked := re.match(r"question (q[0-9]+)\b", what):
        return f"{line(waiting)}\n  perdure answer {thread} {asked[1]} --as WHO --input JSON"
    named = re.search(r"\ba[0-9]+\b", what)
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
