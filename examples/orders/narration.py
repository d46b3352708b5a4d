"""How the demo speaks: numbered steps, short sentences, calm colours; plain text where there is no terminal."""

import asyncio
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from perdure.approvals import ApprovalRequest
from perdure.contracts import LogEntry, TurnResult
from perdure.examples.orders.ledger import Entry
from perdure.examples.orders.processes import APP
from perdure.examples.orders.verdict import Check
from perdure.starters.cli.output import line as one_line
from perdure.starters.cli.output import safe

_INDENT = 4
_WIDTH = 100
_RIGHT = "The books are right: each effect happened once, and what had to be undone was undone once."
_WRONG = "The books are WRONG."
_KEY = 6  # characters of a key that are shown; enough to see which entries belong together


def make_console() -> Console:
    """Standard output: as wide as the terminal, or a hundred columns where there is none."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH, markup=False, highlight=False, emoji=False)


class Narrator:
    """Tells the story on a console, and pauses so that a person can follow. Never asks anything."""

    def __init__(self, console: Console, *, pause: float = 0.0) -> None:
        self._console = console
        self._pause = pause
        self._steps = 0
        self._told: set[LogEntry] = set()

    def title(self, text: str) -> None:
        """The first line."""
        self._console.print(Text(text, style="bold"))

    async def step(self, title: str) -> None:
        """Begin the next step."""
        await asyncio.sleep(self._pause)
        self._steps += 1
        self._console.print()
        row = Table.grid()
        row.add_column(width=_INDENT)
        row.add_row(Text(f"{self._steps}", style="bold cyan"), Text(title, style="bold"))
        self._console.print(row)

    def say(self, text: str) -> None:
        """A sentence or two."""
        self._indented(Text(text))

    def fact(self, name: str, value: str, note: str = "") -> None:
        """A name and what it stands for, on one line however long, so that it can be copied."""
        said = one_line(value)
        line = Text.assemble(" " * _INDENT, (f"{name:<10}", "cyan"), said, (f"  {note}" if note else "", "dim"))
        self._console.print(line, soft_wrap=True)

    def log(self, thread: str, entries: Iterable[LogEntry]) -> None:
        """What is new in a thread's own log."""
        for entry in entries:
            if entry not in self._told:
                self._told.add(entry)
                line = Text.assemble(" " * _INDENT, (f"{thread} | ", "dim cyan"), (one_line(entry.text), "dim"))
                self._console.print(line, soft_wrap=True)

    def request(self, request: ApprovalRequest, command: str, link: str) -> None:
        """What a person is asked, and the two ways to see and answer it."""
        arguments = ", ".join(f"{name} = {value}" for name, value in request.arguments.items())
        who = " or ".join(request.policy.approvers) or "anyone"
        self.fact("asked", f"{request.tool}: {arguments}")
        self.fact("why", request.policy.reason)
        self.fact("who", f"{who}, until {request.expires_at:%Y-%m-%d %H:%M} UTC")
        self.fact("command", command)
        self.fact("or in UI", link)

    def books(self, entries: Sequence[Entry]) -> None:
        """The shop's own ledger as a table."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="cyan")
        for name in ("id", "kind", "amount", "key", "attempts", "status", "undoes"):
            table.add_column(name, justify="right" if name in ("amount", "attempts") else "left", overflow="fold")
        for entry in entries:
            key, attempts = _short(entry.key), str(entry.attempts)
            cells = [entry.id, entry.kind, f"{entry.amount:g}", key, attempts, entry.status, entry.undoes or ""]
            table.add_row(*cells, style="dim" if entry.status == "undone" or entry.undoes else "")
        self._indented(table)

    def checks(self, checks: Iterable[Check]) -> None:
        """The verdict, claim by claim."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for check in checks:
            mark = Text("ok", style="green") if check.ok else Text("WRONG", style="bold red")
            table.add_row(mark, Text.assemble(check.claim, (f": {check.found}" if check.found else "", "red")))
        self._indented(table)

    def result(self, result: TurnResult) -> None:
        """How a turn ended, and what it left behind."""
        self.fact(result.outcome, result.answer or result.error)
        for line in result.residue.lines():
            name, _, what = line.partition(": ")
            self.fact(name.lower(), what)

    def verdict(self, *, right: bool) -> None:
        """The last words."""
        said, style = (_RIGHT, "bold green") if right else (_WRONG, "bold red")
        self._console.print()
        self._console.print(Text(said, style=style))

    def kept(self, home: Path) -> None:
        """Where to look afterwards."""
        self._console.print()
        self._console.print(Text(f"Kept: {home}. To look at the threads again:"))
        self._console.print(Text(f"   PERDURE_HOME={home} perdure dev --app {APP}", style="cyan"), soft_wrap=True)

    def trouble(self, text: str, details: str = "") -> None:
        """What went wrong, and what a log says about it."""
        self._console.print()
        self._console.print(Text(text, style="bold red"))
        for line in details.splitlines():
            self._console.print(Text(" " * _INDENT + safe(line), style="dim"), soft_wrap=True)

    def _indented(self, what: RenderableType) -> None:
        self._console.print(Padding(what, (0, 0, 0, _INDENT), expand=False))


def _short(key: str | None) -> str:
    """A key by its beginning, with what marks a compensation's key."""
    if key is None:
        return "none"
    name, dash, suffix = key.partition("-")
    return name[:_KEY] + dash + suffix
