"""perdure graph."""

from enum import StrEnum
from typing import Annotated

import typer

from perdure.contracts import START, NodeSpec
from perdure.errors import UsageError
from perdure.starters.cli.command import Session, command
from perdure.starters.cli.output import safe
from perdure.values import Value

GraphName = Annotated[str, typer.Argument(metavar="NAME", help="The agent's or graph's name.", show_default=False)]


class Picture(StrEnum):
    """How a graph is drawn."""

    mermaid = "mermaid"
    terminal = "terminal"


As = Annotated[
    Picture | None,
    typer.Option(
        "--format", metavar="mermaid|terminal", show_default=False,
        help="How it is drawn: in characters on a terminal, as a Mermaid flowchart elsewhere.",
    ),
]  # fmt: skip


class Drawing(Value):
    """A graph: what it starts with, its nodes and where they lead; and the same as a Mermaid flowchart."""

    name: str
    start: tuple[str, ...]
    nodes: dict[str, NodeSpec]
    mermaid: str


@command
async def graph(session: Session, name: GraphName, form: As = None) -> None:
    """Draw the graph of an agent."""
    app = session.app()
    if app is None:
        raise UsageError("Which app?", hint="Name it with --app MODULE:ATTR or PERDURE_APP.")
    from perdure.graphs.drawing import mermaid, terminal

    found = app.graph(name)
    flowchart = mermaid(found)
    seen = session.out.console.is_terminal if form is None else form is Picture.terminal
    start = found.chosen_by(START) or found.start
    document = Drawing(name=name, start=start, nodes=dict(found.specs), mermaid=flowchart)
    session.out.show(document, safe(terminal(found) if seen else flowchart))
