"""An app whose agent is one branch of a graph: it works beside a function, and both are joined."""

from typing import Any

from perdure import END, START, Agent, App, Graph
from perdure.examples.orders import desk

clerk = Agent(name="clerk", model="gpt-5-mini", state=desk.Desk, tools=[desk.reserve_stock, desk.check_stock])
fan = Graph("fan", state=desk.Desk)


@fan.node("note")
async def note(state: desk.Desk) -> dict[str, Any]:
    """Write down that the message came."""
    return {"notes": [f"Asked: {state.messages[-1].content}"]}


@fan.node("tell")
async def tell(state: desk.Desk) -> dict[str, Any]:
    """Count what was written down."""
    return {"notes": [f"{len(state.notes)} notes were taken."]}


fan.node("clerk", clerk)
fan.edge(START, "note")
fan.edge(START, "clerk")
fan.edge(["note", "clerk"], "tell")
fan.edge("tell", END)

app = App(agents=[fan], tools=[desk.release_stock])
