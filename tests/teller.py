"""The agents that the tests of trust on the command line talk to; `--app tests.teller:app` finds them too."""

from perdure import Agent, App, Approval, Escalation, Outcome, ToolContext, ToolError, tool
from perdure.testing import Rule, Script, call, say, together
from tests.witness import Witness

witness = Witness()


@tool(
    effect="compensable", compensate="refund", simulate=lambda to, amount: {"paid": amount},
    approval=Approval(when=lambda args: args.amount > 100, approvers=["ann", "bob"]),
)  # fmt: skip
async def pay(ctx: ToolContext, to: str, amount: float) -> dict[str, float]:
    """Pay somebody."""
    witness.saw(ctx, f"pay {to} {amount:g}")
    return {"paid": amount}


@tool(effect="idempotent", hidden=True)
async def refund(ctx: ToolContext, to: str, receipt: dict[str, float]) -> None:
    """Get it back."""
    witness.saw(ctx, f"refund {to} {receipt['paid']:g}")


@tool(
    effect="idempotent",
    approval=Approval(
        approvers=["ann", "bob"], quorum=2, separation=["requester"], reason="Four eyes.",
        escalations=[Escalation(approvers=["carl"], quorum=2)],
    ),
)  # fmt: skip
async def wire(ctx: ToolContext, to: str, amount: float) -> str:
    """Wire money: two people, and neither is who asked for it."""
    witness.saw(ctx, f"wire {to} {amount:g} by {'+'.join(ctx.approved_by)}")
    return "wired"


@tool(effect="irreversible", reconcile="landed")
async def launch(ctx: ToolContext, what: str) -> str:
    """Launch something. The line is cut on the way."""
    witness.saw(ctx, f"launch {what}")
    raise OSError("the line was cut")


@tool(hidden=True)
async def landed(ctx: ToolContext, what: str) -> Outcome:
    """Whether it came down somewhere; of a kite nobody knows, and of a rocket only who asks twice."""
    witness.saw(ctx, f"look for {what}")
    asked = witness.of(ctx.thread_id).count(f"look for {what}")
    return Outcome.done("landed") if what == "rocket" and asked > 1 else Outcome.unknown()


@tool(effect="compensable", compensate="unship", saga="voyage")
async def ship(ctx: ToolContext, what: str) -> str:
    """Ship something."""
    witness.saw(ctx, f"ship {what}")
    return "shipped"


@tool(effect="idempotent", hidden=True)
async def unship(ctx: ToolContext, what: str) -> None:
    """Call it back. Tea can't be."""
    if what == "tea":
        raise ToolError("The ship has sailed.")
    witness.saw(ctx, f"unship {what}")


TOOLS = [pay, wire, launch, ship]
app = App(
    agents=[Agent(name=name, model="m", tools=TOOLS) for name in ("teller", "cashier")],
    tools=[refund, landed, unship],
)

script = Script(
    rules=[
        Rule(when="pay 50", replies=[call("pay", to="x", amount=50), say("Paid.")]),
        Rule(when="pay 250", replies=[call("pay", to="x", amount=250), say("Paid.")]),
        Rule(when="wire", replies=[call("wire", to="y", amount=900), say("Wired.")]),
        Rule(when="rocket", replies=[call("launch", what="rocket"), say("Launched.")]),
        Rule(when="kite", replies=[call("launch", what="kite"), say("Launched.")]),
        Rule(when="tea", replies=[together(call("ship", what="tea"), call("ship", what="silk")), say("Shipped.")]),
        Rule(when="silk", replies=[call("ship", what="silk"), say("Shipped.")]),
    ],
    fallback=say("Good day."),
)
