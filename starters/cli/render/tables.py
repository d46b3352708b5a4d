"""What all renderings have in common: tables without lines, statuses in colour, times."""

from collections.abc import Iterable, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from perdure.starters.cli.output import line

_COLOURS = {
    "running": "cyan", "awaiting_approval": "yellow", "awaiting_input": "yellow", "compensating": "magenta",
    "in_doubt": "red", "needs_attention": "red", "out_of_budget": "yellow", "failed": "red", "closed": "dim",
    "done": "green", "undone": "dim",
}  # fmt: skip


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
