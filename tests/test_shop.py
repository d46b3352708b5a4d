"""The order desk's shop: its ledger, its idempotency, its faults; and the desk's tools against it."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from perdure import ToolContext, ToolError
from perdure.examples.orders import desk, story
from perdure.examples.orders.ledger import Ledger
from perdure.examples.orders.shop import Shop, ShopFault
from perdure.testing import Conversation, Reply

LAPTOPS = {"sku": "laptop", "quantity": 2}


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with Shop(tmp_path / "ledger.db") as running:
        yield running


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx2.AsyncClient]:
    # Not verified, because there is no TLS, so that no certificates are loaded.
    async with httpx2.AsyncClient(base_url=shop.url, timeout=10.0, verify=False) as connected:
        yield connected


async def post(client: httpx2.AsyncClient, path: str, body: Any = None, key: str | None = None) -> Any:
    """POST that must succeed; returns the answer."""
    response = await client.post(path, json=body, headers=keyed(key))
    assert response.status_code == 200, response.text
    return response.json()


def keyed(key: str | None) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


def available(shop: Shop, sku: str) -> int:
    return {item.sku: item.available for item in shop.ledger.stock()}[sku]


async def test_an_order_and_its_undoing(shop: Shop, client: httpx2.AsyncClient) -> None:
    """Every effect is an entry; its undoing is another, that names it; the stock goes and comes back."""
    before = available(shop, "laptop")
    reserved = await post(client, "/reservations", LAPTOPS, "k1")
    assert reserved == {"reservation_id": "reservation-1", **LAPTOPS, "total": 2500.0}
    charged = await post(client, "/charges", {"card": "tok_1", "amount": 2500}, "k2")
    booked = await post(client, "/bookings", {"address": "1 Quay", "reservation_id": reserved["reservation_id"]}, "k3")
    assert available(shop, "laptop") == before - 2

    await client.delete(f"/bookings/{booked['booking_id']}", headers=keyed("k4"))
    refunded = await post(client, f"/charges/{charged['charge_id']}/refund", key="k5")
    await client.delete(f"/reservations/{reserved['reservation_id']}", headers=keyed("k6"))
    assert refunded["amount"] == 2500
    assert available(shop, "laptop") == before
    ledger = (await client.get("/ledger")).json()
    assert [(entry["kind"], entry["status"], entry["undoes"]) for entry in ledger] == [
        ("reserve", "undone", None),
        ("charge", "undone", None),
        ("book", "undone", None),
        ("cancel", "done", "booking-3"),
        ("refund", "done", "charge-2"),
        ("release", "done", "reservation-1"),
    ]


async def test_a_repeated_key_does_nothing_again(shop: Shop, client: httpx2.AsyncClient) -> None:
    """The same answer, one effect, and the attempts are counted; also for an undoing."""
    body = {"card": "tok_1", "amount": 40}
    answers = [await post(client, "/charges", body, "k1") for _ in range(3)]
    assert answers[0] == answers[1] == answers[2]
    undone = [await post(client, "/charges/charge-1/refund", key="k2") for _ in range(2)]
    assert undone[0] == undone[1]
    entries = shop.ledger.entries()
    assert [(entry.kind, entry.key, entry.attempts) for entry in entries] == [
        ("charge", "k1", 3),
        ("refund", "k2", 2),
    ]


async def test_without_a_key_it_is_done_each_time(shop: Shop, client: httpx2.AsyncClient) -> None:
    """The shop is no cleverer than a real one: what nobody names twice is two."""
    for _ in range(2):
        await post(client, "/charges", {"card": "tok_1", "amount": 40})
    assert [(entry.id, entry.attempts) for entry in shop.ledger.entries()] == [
        ("charge-1", 1),
        ("charge-2", 1),
    ]


async def test_a_key_belongs_to_one_request(shop: Shop, client: httpx2.AsyncClient) -> None:
    """A key under which something else was asked is refused: somebody makes keys wrongly."""
    await post(client, "/charges", {"card": "tok_1", "amount": 40}, "k1")
    other = await client.post("/charges", json={"card": "tok_1", "amount": 41}, headers=keyed("k1"))
    assert (other.status_code, other.json()["reason"][:10]) == (422, "The key k1")
    refund = await client.post("/charges/charge-1/refund", headers=keyed("k1"))
    assert refund.status_code == 422
    assert len(shop.ledger.entries()) == 1


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/reservations", {"sku": "unicorn", "quantity": 1}, 404, "has no unicorn"),
        ("POST", "/reservations", {"sku": "gold bar", "quantity": 2}, 409, "only 1 of gold bar left"),
        ("POST", "/reservations", {"sku": "laptop", "quantity": 0}, 422, "quantity"),
        ("POST", "/charges", {"card": "tok_declined", "amount": 5}, 409, "was declined"),
        ("POST", "/charges", {"card": "tok_1", "amount": -5}, 422, "amount"),
        (
            "POST",
            "/bookings",
            {"address": "1 Atlantis", "reservation_id": "reservation-1"},
            409,
            "No courier goes",
        ),
        (
            "POST",
            "/bookings",
            {"address": "1 Quay", "reservation_id": "reservation-9"},
            404,
            "no reservation",
        ),
        ("POST", "/charges/charge-9/refund", None, 404, "no charge charge-9"),
        ("DELETE", "/reservations/charge-1", None, 404, "no reservation charge-1"),
    ],
)
async def test_refusals_change_nothing(
    shop: Shop, client: httpx2.AsyncClient, method: str, path: str, body: Any, status: int, reason: str
) -> None:
    """A refusal has a reason, leaves no entry, and does not use up its key."""
    stock = shop.ledger.stock()
    for _ in range(2):
        response = await client.request(method, path, json=body, headers=keyed("k1"))
        assert response.status_code == status
        assert reason in response.json()["reason"]
    assert shop.ledger.entries() == []
    assert shop.ledger.stock() == stock


async def test_nothing_is_undone_twice(shop: Shop, client: httpx2.AsyncClient) -> None:
    """A second undoing under another key, or none, is refused: money doesn't come back twice."""
    await post(client, "/charges", {"card": "tok_1", "amount": 40}, "k1")
    await post(client, "/charges/charge-1/refund", key="k2")
    for key in ("k3", None):
        response = await client.post("/charges/charge-1/refund", headers=keyed(key))
        assert (response.status_code, response.json()["reason"]) == (409, "charge-1 was undone before.")
    await post(client, "/reservations", LAPTOPS, "k4")
    await client.delete("/reservations/reservation-3", headers=keyed("k5"))
    booking = {"address": "1 Quay", "reservation_id": "reservation-3"}
    assert (await client.post("/bookings", json=booking)).status_code == 409


async def test_told_to_refuse_or_to_fail(shop: Shop, client: httpx2.AsyncClient) -> None:
    """Faults hit what they are meant for, as often as told; nothing is done, and a retry works."""
    shop.add_fault(ShopFault(path="/charges", mode="refuse", match="tok_2", reason="Not today."))
    shop.add_fault(ShopFault(path="/charges", mode="error"))
    shop.add_fault(ShopFault(path="/charges/*", mode="refuse", method="POST"))
    refused = await client.post("/charges", json={"card": "tok_2", "amount": 1}, headers=keyed("k1"))
    assert (refused.status_code, refused.json()) == (409, {"reason": "Not today."})
    assert (await client.post("/charges", json={"card": "tok_1", "amount": 1})).status_code == 500
    assert shop.ledger.entries() == []
    charged = await post(client, "/charges", {"card": "tok_2", "amount": 1}, "k1")
    refund = f"/charges/{charged['charge_id']}/refund"
    assert (await client.post(refund, headers=keyed("k2"))).status_code == 409
    await post(client, refund, key="k2")
    assert [(made.path, made.key, made.status, made.fault) for made in shop.log] == [
        ("/charges", "k1", 409, "refuse"),
        ("/charges", None, 500, "error"),
        ("/charges", "k1", 200, None),
        ("/charges/charge-1/refund", "k2", 409, "refuse"),
        ("/charges/charge-1/refund", "k2", 200, None),
    ]


async def test_a_request_without_a_body_is_told_apart_by_its_query(shop: Shop, client: httpx2.AsyncClient) -> None:
    """Also what only reads can be meant by a fault."""
    shop.add_fault(ShopFault(path="/stock", mode="error", match="for=mice"))
    assert (await client.get("/stock", params={"for": "laptops"})).status_code == 200
    assert (await client.get("/stock", params={"for": "mice"})).status_code == 500


async def test_hang_does_nothing_until_released(shop: Shop, client: httpx2.AsyncClient) -> None:
    """While it hangs nothing is done; released, it is done; given up, it never is."""
    shop.add_fault(ShopFault(path="/reservations", mode="hang", times=2))
    answer = asyncio.create_task(post(client, "/reservations", LAPTOPS, "k1"))
    await shop.held()
    assert shop.ledger.entries() == []
    shop.release()
    await answer
    assert len(shop.ledger.entries()) == 1

    with pytest.raises(httpx2.ReadTimeout):
        await client.post("/reservations", json=LAPTOPS, headers=keyed("k2"), timeout=0.1)
    await shop.idle()
    assert [entry.key for entry in shop.ledger.entries()] == ["k1"]


async def test_hang_after_loses_the_answer(shop: Shop, client: httpx2.AsyncClient) -> None:
    """The effect is done, the answer lost; the retry under the same key gets it and does nothing more."""
    shop.add_fault(ShopFault(path="/charges", mode="hang_after"))
    body = {"card": "tok_1", "amount": 40}
    lost = asyncio.create_task(post(client, "/charges", body, "k1"))
    await shop.held()
    assert [entry.kind for entry in shop.ledger.entries()] == ["charge"]
    lost.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lost
    assert (await post(client, "/charges", body, "k1"))["charge_id"] == "charge-1"
    assert [(entry.kind, entry.attempts) for entry in shop.ledger.entries()] == [("charge", 2)]
    assert [made.status for made in shop.log] == [None, 200]


@pytest.mark.parametrize(("mode", "done"), [("cut", 0), ("cut_after", 1)])
async def test_cuts(shop: Shop, client: httpx2.AsyncClient, mode: Any, done: int) -> None:
    """Cut before or after the effect: the client can't tell which, the ledger can."""
    shop.add_fault(ShopFault(path="/reservations", mode=mode))
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.post("/reservations", json=LAPTOPS, headers=keyed("k1"))
    assert len(shop.ledger.entries()) == done
    await post(client, "/reservations", LAPTOPS, "k1")
    assert [entry.attempts for entry in shop.ledger.entries()] == [1 + done]


async def test_many_at_once_under_one_key(shop: Shop, client: httpx2.AsyncClient) -> None:
    """Racing requests under one key make one effect."""
    body = {"card": "tok_1", "amount": 40}
    answers = await asyncio.gather(*(post(client, "/charges", body, "k1") for _ in range(20)))
    assert {answer["charge_id"] for answer in answers} == {"charge-1"}
    assert [entry.attempts for entry in shop.ledger.entries()] == [20]


async def test_the_ledger_outlives_the_shop(tmp_path: Path) -> None:
    """A shop opened over the same file knows its entries, its keys and its stock."""
    for _ in range(2):
        async with Shop(tmp_path / "ledger.db") as shop, httpx2.AsyncClient(base_url=shop.url) as client:
            await post(client, "/reservations", LAPTOPS, "k1")
    ledger = Ledger(tmp_path / "ledger.db")
    try:
        assert [(entry.key, entry.attempts) for entry in ledger.entries()] == [("k1", 2)]
        assert {item.sku: item.available for item in ledger.stock()}["laptop"] == 998
    finally:
        ledger.close()


async def test_it_serves_as_a_process(tmp_path: Path) -> None:
    """The process tells its address, takes faults over HTTP, and leaves a whole ledger when it is killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "perdure.examples.orders.shop", "--ledger", str(tmp_path / "ledger.db"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    url = json.loads(await process.stdout.readline())["url"]
    async with httpx2.AsyncClient(base_url=url) as client:
        fault = {"path": "/charges", "mode": "hang_after", "times": 1, "match": "tok_1"}
        assert (await client.post("/_faults", json=fault)).status_code == 204
        lost = asyncio.create_task(post(client, "/charges", {"card": "tok_1", "amount": 40}, "k1"))
        assert (await client.get("/_waiting", params={"count": 1})).json() == {"waiting": 1}
        process.kill()
        with pytest.raises(httpx2.TransportError):
            await lost
    _, errors = await process.communicate()
    assert errors == b""
    with sqlite3.connect(tmp_path / "ledger.db") as books:
        assert books.execute("SELECT kind, key, attempts FROM entries").fetchall() == [("charge", "k1", 1)]
    books.close()


# ---- the desk's tools against the shop, and the story ----


def answer(messages: list[dict[str, Any]]) -> Reply:
    return story.STORY.reply(Conversation.model_validate({"model": "m", "messages": messages}))


def context(key: str) -> ToolContext:
    return ToolContext(thread_id="orders-1", turn=1, step=1, idempotency_key=key)


async def test_the_tools_of_the_desk(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tool makes its effect under its key and notes it; each compensation takes it back."""
    monkeypatch.setenv("ORDERS_SHOP_URL", shop.url)
    assert (await desk.check_stock("monitor"))["price"] == 89.0
    first = context("k1")
    reserved = await desk.reserve_stock(first, "monitor", 1)
    assert first.updates == {"notes": ["Reserved 1 of monitor as reservation-1."]}
    charged = await desk.charge_card(context("k2"), "tok_1", reserved["total"])
    third = context("k3")
    booked = await desk.book_courier(third, "1 Quay", reserved["reservation_id"])
    assert third.updates["orders"] == {"booking-3": "1 Quay"}
    await desk.cancel_courier(context("k4"), booked)
    await desk.refund_card(context("k5"), charged)
    await desk.release_stock(context("k6"), reserved)
    assert [(entry.kind, entry.key, entry.status) for entry in shop.ledger.entries()] == [
        ("reserve", "k1", "undone"),
        ("charge", "k2", "undone"),
        ("book", "k3", "undone"),
        ("cancel", "k4", "done"),
        ("refund", "k5", "done"),
        ("release", "k6", "done"),
    ]


async def test_the_desk_tells_refusals_from_failures(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear no is a ToolError; anything else passes through, for nobody knows what was done."""
    monkeypatch.setenv("ORDERS_SHOP_URL", shop.url)
    with pytest.raises(ToolError, match="The shop has no unicorn"):
        await desk.check_stock("unicorn")
    with pytest.raises(ToolError, match="No courier goes to 2 Atlantis"):
        await desk.book_courier(context("k1"), "2 Atlantis", "reservation-1")
    shop.add_fault(ShopFault(path="/charges", mode="error"))
    shop.add_fault(ShopFault(path="/charges", mode="cut_after"))
    with pytest.raises(httpx2.HTTPStatusError):
        await desk.charge_card(context("k2"), "tok_1", 5.0)
    with pytest.raises(httpx2.TransportError):
        await desk.charge_card(context("k2"), "tok_1", 5.0)
    assert (await desk.charge_card(context("k2"), "tok_1", 5.0))["charge_id"] == "charge-1"
    assert [(entry.kind, entry.attempts) for entry in shop.ledger.entries()] == [("charge", 2)]


def test_what_the_desk_declares() -> None:
    """Only the four tools are shown to the model; large charges need finance; only the courier rolls back."""
    (agent,) = desk.app.graphs.values()
    assert [item.name for item in agent.tools] == [
        "check_stock",
        "reserve_stock",
        "charge_card",
        "book_courier",
    ]
    approval = desk.charge_card.approval
    assert approval is not None
    needs = [approval.required(desk.charge_card.parse(f'{{"card": "c", "amount": {n}}}')) for n in (100, 100.01)]
    assert needs == [None, "The amount is above 100."]
    rolls_back = [item.name for item in desk.app.tools.values() if item.spec.on_error == "rollback"]
    assert rolls_back == ["book_courier"]


@pytest.mark.parametrize(
    ("order", "calls"),
    [
        (story.TWO_LAPTOPS, ["reserve_stock", "charge_card", "book_courier"]),
        (story.ONE_MONITOR, ["reserve_stock", "charge_card"]),
    ],
)
async def test_the_story_fits_the_tools(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, order: str, calls: list[str]
) -> None:
    """Played by hand, the story calls the tools with arguments they accept, up to the courier's refusal."""
    monkeypatch.setenv("ORDERS_SHOP_URL", shop.url)
    messages: list[dict[str, Any]] = [{"role": "user", "content": order}]
    made: list[str] = []
    while (reply := answer(messages)).calls:
        (wanted,) = reply.calls
        tool = desk.app.tools[wanted.name]
        arguments = tool.parse(json.dumps(wanted.arguments)).model_dump()
        try:
            returned = await tool(context(f"k{len(made)}"), **arguments)
        except ToolError as error:
            assert (wanted.name, str(error)) == (
                "book_courier",
                "No courier goes to 1 Palace Road, Atlantis.",
            )
            break
        made.append(wanted.name)
        called = {"id": wanted.name, "function": {"name": wanted.name, "arguments": json.dumps(arguments)}}
        messages.append({"role": "assistant", "tool_calls": [called]})
        messages.append({"role": "tool", "tool_call_id": wanted.name, "content": json.dumps(returned)})
    assert made == calls
    if not reply.calls:
        assert reply.text == "Your order is on its way: reservation-1, paid with charge-2, brought by booking-3."
    amounts = [entry.amount for entry in shop.ledger.entries() if entry.kind == "charge"]
    assert amounts == [2500.0 if calls[-1] == "book_courier" else 89.0]
