"""The app under fire: tools of each class that ask the shop, which plays the bank, to do one thing.

A tool is called ``CLASS_HOOK``. Its hook, if any, tells how a call ended: ``knows`` looks into the shop's books,
``unsure`` can't tell, ``broken`` raises. ``firm_CLASS`` rolls its turn back where the shop refuses. ``chain_X``,
``side_X`` and ``then_c`` are undone by ``undo_X``: one after the other, side by side, and after ``side_a``.
"""

import os
from collections.abc import Sequence
from typing import Any

import httpx2

from perdure import Agent, App, Approval, Outcome, ToolContext, ToolError, tool
from perdure.effects import EffectClass
from perdure.tool import OnError, Tool
from tests.crash.standing import stand

EFFECTS: tuple[EffectClass, ...] = ("idempotent", "compensable", "irreversible")
HOOKS = ("alone", "knows", "unsure", "broken")  # alone: it has none
TIMEOUT = "FAULTS_TIMEOUT"  # variable with the time-out of the tools under fire
_REFUSALS = (404, 409, 422)
_GATE = Approval(when=lambda args: args.gated, approvers=["finance"])


async def _ask(ctx: ToolContext, method: str, path: str, subject: str) -> dict[str, Any]:
    """One request under the key of this call. Raises ToolError where the shop says no."""
    await stand("asking")
    body = {"card": subject, "amount": 1}
    with_it: dict[str, Any] = {"params": {"for": subject}} if method == "GET" else {"json": body}
    url, headers = os.environ["ORDERS_SHOP_URL"], {"Idempotency-Key": ctx.idempotency_key}
    async with httpx2.AsyncClient(base_url=url, timeout=90.0, verify=False) as shop:
        response = await shop.request(method, path, headers=headers, **with_it)
    if response.status_code in _REFUSALS:
        raise ToolError(response.json()["reason"])
    response.raise_for_status()
    answer = response.json()
    return {"shelves": len(answer)} if isinstance(answer, list) else dict(answer)


async def _charges(key: str) -> list[dict[str, Any]]:
    """The charges in the shop's books that were made under this key, or for this card."""
    async with httpx2.AsyncClient(base_url=os.environ["ORDERS_SHOP_URL"], verify=False) as shop:
        entries = (await shop.get("/ledger")).json()
    return [e for e in entries if e["kind"] == "charge" and key in (e["key"], e["subject"])]


# ── how a call ended ─────────────────────────────────────────────────────────────────────────────────────────────────


@tool(hidden=True)
async def knows(ctx: ToolContext, subject: str) -> Outcome:
    """Look it up by its key."""
    for entry in await _charges(ctx.idempotency_key):
        return Outcome.done({"charge_id": entry["id"], "card": subject, "amount": entry["amount"]})
    return Outcome.not_done()


@tool(hidden=True)
async def unsure(ctx: ToolContext) -> Outcome:
    """Nobody can tell."""
    return Outcome.unknown()


@tool(hidden=True, attempts=1)
async def broken(ctx: ToolContext) -> Outcome:
    """It can't even be asked."""
    raise ConnectionError("the books are closed")


# ── undoing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _undoing(name: str) -> Tool:
    @tool(name=name, effect="idempotent", hidden=True)
    async def undo(ctx: ToolContext, subject: str, receipt: dict[str, Any] | None) -> None:
        """Give the money back. Without a receipt (a person said that it was done) the books tell which."""
        number = receipt["charge_id"] if receipt else (await _charges(subject))[0]["id"]
        await _ask(ctx, "POST", f"/charges/{number}/refund", subject)

    return undo


# ── doing ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _deed(
    name: str, effect: EffectClass, *, hook: str = "", on_error: OnError = "return", undone_by: str = "refund",
    undo_after: Sequence[str] | None = None, timeout: str = "60s",
) -> Tool:  # fmt: skip
    compensate = undone_by if effect == "compensable" else ""

    @tool(
        name=name, effect=effect, compensate=compensate, reconcile=hook, on_error=on_error, undo_after=undo_after,
        approval=_GATE, timeout=timeout,
    )  # fmt: skip
    async def deed(ctx: ToolContext, subject: str, gated: bool = False) -> dict[str, Any]:
        """Do it."""
        path = "/stock" if effect == "read" else "/charges"
        return await _ask(ctx, "GET" if effect == "read" else "POST", path, subject)

    return deed


@tool(on_error="rollback")
async def give_up() -> None:
    """End the turn and take everything back."""
    raise ToolError("It was all for nothing.")


def _deeds() -> list[Tool]:
    timeout = os.environ.get(TIMEOUT, "60s")
    struck = [
        _deed(f"{effect}_{hook}", effect, hook="" if hook == "alone" else hook, timeout=timeout)
        for effect in EFFECTS
        for hook in HOOKS
    ]
    firm = [_deed(f"firm_{effect}", effect, on_error="rollback", timeout=timeout) for effect in ("read", *EFFECTS)]
    chain = [_deed(f"chain_{x}", "compensable", undone_by=f"undo_{x}") for x in "abc"]
    side = [_deed(f"side_{x}", "compensable", undone_by=f"undo_{x}", undo_after=()) for x in "abc"]
    then = _deed("then_c", "compensable", undone_by="undo_c", undo_after=["side_a"])
    return [_deed("read_alone", "read", timeout=timeout), *struck, *firm, *chain, *side, then]


prelude = _deed("prelude", "compensable")
app = App(
    agents=[Agent(name="bank", model="gpt-5-mini", tools=[*_deeds(), prelude, give_up])],
    tools=[knows, unsure, broken, _undoing("refund"), *(_undoing(f"undo_{x}") for x in "abc")],
)
