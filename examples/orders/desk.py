"""The order desk: an agent as a user writes it.

    ORDERS_SHOP_URL=http://127.0.0.1:PORT perdure dev --app perdure.examples.orders.desk:app

Every tool that changes something tells the shop its idempotency key, so that a repeated attempt is one
effect; every one of them can be taken back; and money above 100 needs a person of finance.
"""

import os
import ssl
from typing import Annotated, Any

import httpx2

from perdure import Agent, App, Approval, State, ToolContext, ToolError, append, merge, tool

_REFUSALS = (404, 409, 422)
_PATIENCE = 20.0  # Seconds for one request: less than a tool's time-out, so that a silent shop shows as one.
_TLS = ssl.create_default_context()  # Once: loading the certificates takes longer than a request.


class Desk(State):
    """What the desk remembers besides the conversation: what it did, and where each courier goes."""

    notes: Annotated[list[str], append] = []
    orders: Annotated[dict[str, str], merge] = {}


@tool
async def check_stock(sku: str) -> dict[str, Any]:
    """How many pieces of a thing the shop has, and at what price."""
    shelves = await _ask("GET", "/stock")
    for item in shelves:
        if item["sku"] == sku:
            return dict(item)
    raise ToolError(f"The shop has no {sku}.")


async def imagine_reservation(sku: str, quantity: int) -> dict[str, Any]:
    """What a reservation would tell: in a dry run, where nothing is set aside."""
    item = await check_stock(sku)
    if quantity > item["available"]:
        raise ToolError(f"The shop has only {item['available']} of {sku}.")
    return {"reservation_id": "res-imagined", "sku": sku, "quantity": quantity, "total": item["price"] * quantity}


def imagine_charge(card: str, amount: float) -> dict[str, Any]:
    """What a charge would tell."""
    return {"charge_id": "ch-imagined", "card": card, "amount": amount}


def imagine_courier(address: str, reservation_id: str) -> dict[str, Any]:
    """What a booking would tell."""
    return {"booking_id": "bk-imagined", "address": address, "reservation_id": reservation_id}


@tool(effect="compensable", compensate="release_stock", simulate=imagine_reservation, timeout="30s")
async def reserve_stock(ctx: ToolContext, sku: str, quantity: int) -> dict[str, Any]:
    """Set pieces aside for this order. Tells the reservation's id and the total price."""
    receipt = await _change(ctx, "POST", "/reservations", {"sku": sku, "quantity": quantity})
    ctx.update(notes=[f"Reserved {quantity} of {sku} as {receipt['reservation_id']}."])
    return receipt


@tool(effect="idempotent", hidden=True, timeout="30s")
async def release_stock(ctx: ToolContext, receipt: dict[str, Any]) -> None:
    """Put reserved pieces back."""
    await _change(ctx, "DELETE", f"/reservations/{receipt['reservation_id']}")


@tool(
    effect="compensable",
    compensate="refund_card",
    approval=Approval(
        when=lambda args: args.amount > 100,
        approvers=["finance"],
        expires="24h",
        reason="The amount is above 100.",
    ),
    simulate=imagine_charge,
    timeout="30s",
)
async def charge_card(ctx: ToolContext, card: str, amount: float) -> dict[str, Any]:
    """Take the amount from the customer's card."""
    receipt = await _change(ctx, "POST", "/charges", {"card": card, "amount": amount})
    ctx.update(notes=[f"Charged {amount:.2f} to {card} as {receipt['charge_id']}."])
    return receipt


@tool(effect="idempotent", hidden=True, timeout="30s")
async def refund_card(ctx: ToolContext, receipt: dict[str, Any]) -> None:
    """Give the money back."""
    await _change(ctx, "POST", f"/charges/{receipt['charge_id']}/refund")


@tool(effect="compensable", compensate="cancel_courier", on_error="rollback", simulate=imagine_courier, timeout="30s")
async def book_courier(ctx: ToolContext, address: str, reservation_id: str) -> dict[str, Any]:
    """Send what is reserved to an address. If no courier goes there, the whole order is taken back."""
    body = {"address": address, "reservation_id": reservation_id}
    receipt = await _change(ctx, "POST", "/bookings", body)
    ctx.update(
        notes=[f"Booked a courier to {address} as {receipt['booking_id']}."],
        orders={receipt["booking_id"]: address},
    )
    return receipt


@tool(effect="idempotent", hidden=True, timeout="30s")
async def cancel_courier(ctx: ToolContext, receipt: dict[str, Any]) -> None:
    """Call the courier off."""
    await _change(ctx, "DELETE", f"/bookings/{receipt['booking_id']}")


async def _change(ctx: ToolContext, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the shop to change something, under the key of this call."""
    return dict(await _ask(method, path, body, {"Idempotency-Key": ctx.idempotency_key}))


async def _ask(
    method: str, path: str, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None
) -> Any:
    """One request to the shop.

    Raises ToolError where the shop says no: then it did nothing, and the agent may be told. Anything else
    (httpx2.HTTPError) leaves open what happened; it passes through, and the engine tries again under the same
    key.
    """
    url = os.environ["ORDERS_SHOP_URL"]
    async with httpx2.AsyncClient(base_url=url, timeout=_PATIENCE, verify=_TLS) as shop:
        response = await shop.request(method, path, json=body, headers=headers)
    if response.status_code in _REFUSALS:
        raise ToolError(response.json()["reason"])
    response.raise_for_status()
    return response.json()


app = App(
    agents=[
        Agent(
            name="orders",
            model=os.environ.get("ORDERS_MODEL", "gpt-5-mini"),
            instructions=(
                "You are the order desk of a small shop. For each order: reserve the stock, charge the card "
                "with the total of the reservation, book a courier, and tell the customer the ids. "
                "One step at a time."
            ),
            state=Desk,
            tools=[check_stock, reserve_stock, charge_card, book_courier],
        )
    ],
    tools=[release_stock, refund_card, cancel_courier],
)
