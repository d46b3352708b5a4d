"""perdure graph."""

from typing import Annotated

import typer

from perdure.contracts import Limits
from perdure.errors import UsageError
from perdure.starters.cli.command import Session, command
from perdure.values import Value

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="The agent's name.", show_default=False)]


class Drawing(Value):
    """An agent's graph as a Mermaid flowchart."""

    agent: str
    mermaid: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(graph)


@command
async def graph(session: Session, agent: AgentName) -> None:
    """Draw an agent's graph as a Mermaid flowchart."""
    app = session.app()
    if app is None:
        raise UsageError("Which app?", hint="Name it with --app MODULE:ATTR or PERDURE_APP.")
    from perdure.graph import mermaid

    spec = app.agent(agent).definition(app.tools, Limits()).spec
    drawing = mermaid(spec.nodes, spec.start)
    session.out.show(Drawing(agent=agent, mermaid=drawing), drawing)
