"""An app with a tool that can't be undone, and that is never attempted twice: money that leaves by wire; and with one
that only looks, beside the workflow."""

import os
from typing import Any

import httpx2

from perdure import Agent, App, ToolContext, tool


@tool(effect="irreversible", timeout="30s")
async def send_wire(ctx: ToolContext, account: str, amount: float) -> dict[str, Any]:
    """Send money to an account. The shop plays the bank."""
    async with httpx2.AsyncClient(base_url=os.environ["ORDERS_SHOP_URL"], timeout=20.0, verify=False) as bank:
        response = await bank.post(
            "/charges", json={"card": account, "amount": amount}, headers={"Idempotency-Key": ctx.idempotency_key}
        )
    response.raise_for_status()
    return dict(response.json())


@tool(beside=True, timeout="5s")
async def glance(account: str) -> str:
    """Look at an account: a moment, beside the workflow."""
    return f"{account} is in order"


app = App(
    agents=[
        Agent(name="wires", model="gpt-5-mini", tools=[send_wire]),
        Agent(name="looker", model="gpt-5-mini", tools=[glance]),
    ]
)
