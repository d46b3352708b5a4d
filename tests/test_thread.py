"""A thread from its first message to its end."""

from typing import Annotated

from perdure import Agent, App, Approval, State, ToolContext, append, tool
from perdure.contracts import TurnResult
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld

charged: list[str] = []
refunded: list[str] = []


class Order(State):
    notes: Annotated[list[str], append] = []


@tool(
    effect="compensable",
    compensate="refund_card",
    approval=Approval(when=lambda args: args.amount > 100, approvers=["finance"]),
)
async def charge_card(ctx: ToolContext, card: str, amount: float) -> dict[str, float]:
    """Charge a card."""
    charged.append(ctx.idempotency_key)
    ctx.update(notes=[f"charged {amount}"])
    return {"charged": amount}


@tool(effect="idempotent", hidden=True)
async def refund_card(ctx: ToolContext, receipt: dict[str, float]) -> None:
    """Give it back."""
    refunded.append(ctx.idempotency_key)


app = App(agents=[Agent(name="orders", model="m", state=Order, tools=[charge_card])], tools=[refund_card])
script = Script(
    rules=[
        Rule(when="laptops", replies=[call("charge_card", card="x", amount=250), say("Bought.")]),
        Rule(when="hello", replies=[say("Hi.")]),
    ]
)


async def test_a_message_is_answered(make_world: MakeWorld) -> None:
    """The plainest thread: a message, an answer, two checkpoints, one model call."""
    async with make_world(app, script) as world:
        thread, accepted = await world.client.start("orders", "hello", thread=world.thread())
        result = await world.client.wait(thread, accepted.message_id)
        assert isinstance(result, TurnResult)
        assert (result.outcome, result.answer) == ("answered", "Hi.")
        assert [c.source for c in await world.client.history(thread)] == ["step", "input"]
        assert len(world.model.log) == 1
