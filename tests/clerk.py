"""The agents that the tests of the command line talk to; `perdure --app tests.clerk:app` finds them too."""

from typing import Annotated

from perdure import Agent, App, Approval, Budget, State, ToolContext, ToolError, append, tool
from perdure.graphs.compiled import CompiledGraph
from perdure.testing import Rule, Script, call, say, together
from tests.witness import Holds

holds = Holds()
REPORT = "".join(f"line {number} of a long report\n" for number in range(5_000))


class Desk(State):
    notes: Annotated[list[str], append] = []
    title: str = ""


@tool(
    effect="compensable", compensate="refund",
    approval=Approval(when=lambda args: args.amount > 100, approvers=["ann", "bob"], reason="It is above 100."),
)  # fmt: skip
async def pay(ctx: ToolContext, to: str, amount: float) -> dict[str, float]:
    """Pay somebody."""
    ctx.update(notes=[f"paid {amount:g} to {to}"])
    return {"paid": amount}


@tool(effect="idempotent", hidden=True)
async def refund(ctx: ToolContext, receipt: dict[str, float]) -> None:
    """Get it back."""


@tool(effect="irreversible")
async def launch(ctx: ToolContext, what: str) -> str:
    """Launch something. The line is cut on the way, so nobody knows."""
    raise OSError("the line was cut")


@tool(effect="compensable", compensate="unship")
async def ship(ctx: ToolContext, what: str) -> str:
    """Ship something."""
    return "shipped"


@tool(effect="idempotent", hidden=True)
async def unship(ctx: ToolContext, receipt: str) -> None:
    """It can't be called back."""
    raise ToolError("The ship has sailed.")


@tool(on_error="rollback")
async def stumble() -> str:
    """Fail, and the turn with it."""
    raise ToolError("The floor is wet.")


@tool
async def read_report() -> str:
    """A result too large for a message."""
    return REPORT


@tool
async def dig(ctx: ToolContext) -> str:
    """Take as long as the test wants."""
    await holds[ctx.thread_id].wait()
    return "dug"


TOOLS = [pay, launch, ship, stumble, read_report, dig]
app = App(
    agents=[
        Agent(name="clerk", model="m", state=Desk, tools=TOOLS),
        Agent(name="frugal", model="m", state=Desk, tools=TOOLS, budget=Budget(steps=1)),
        Agent(name="strict", model="m", state=Desk, tools=TOOLS, on_busy="reject"),
    ],
    tools=[refund, unship],
)


class Broken(App):
    """An app that is not wrong in any way we know of."""

    def graph(self, name: str) -> CompiledGraph:
        raise RuntimeError("the app is broken")


broken = Broken(agents=[])
no_app = "not an app"

PAY_TWICE = together(call("pay", to="x", amount=250), call("pay", to="y", amount=300))
TRICK = "\x1b[1A\x1b[2Knobody\u202e"  # one line up, clear it; and what follows reads from right to left

script = Script(
    rules=[
        Rule(when="hello", replies=[say("Good day.")]),
        Rule(when="pay 50", replies=[call("pay", to="x", amount=50), say("Paid.")]),
        Rule(when="pay 250", replies=[call("pay", to="x", amount=250), say("Paid.")]),
        Rule(when="pay twice", replies=[PAY_TWICE, say("Paid.")]),
        Rule(when="pay the trickster", replies=[call("pay", to=TRICK, amount=999), say("\x1b[31mPaid.")]),
        Rule(on_error="rejected by", replies=[say("Then not.")]),
        Rule(when="launch", replies=[call("launch", what="rocket"), say("Launched.")]),
        Rule(when="ship", replies=[call("ship", what="tea"), say("Shipped.")]),
        Rule(when="stumble", replies=[call("stumble")]),
        Rule(when="report", replies=[call("read_report"), say("Read.")]),
        Rule(when="dig", replies=[call("dig"), say("Dug.")]),
    ]
)
