"""What the scripted model says in the demo: one order that succeeds, and one that has to be taken back.

The laptops cost more than 100, so the charge waits for finance. The monitor costs less; but no courier goes
to Atlantis, and ``book_courier`` rolls back what was done before it. As JSON, for a model server of its own:

    python -m perdure.examples.orders.story > story.json
    python -m perdure.testing.model_server --script story.json --port 8002
"""

import sys

from perdure.testing import Reply, Rule, Script, call, result, say

TWO_LAPTOPS = "Please order two laptops for 12 Harbour Street, on card tok_visa_1."
ONE_MONITOR = "Please order one monitor for 1 Palace Road, Atlantis, on card tok_visa_1."


def _order(sku: str, quantity: int, address: str) -> list[Reply]:
    return [
        call("reserve_stock", sku=sku, quantity=quantity),
        call("charge_card", card="tok_visa_1", amount=result("reserve_stock.total")),
        call("book_courier", address=address, reservation_id=result("reserve_stock.reservation_id")),
        say(
            "Your order is on its way: {reserve_stock.reservation_id}, paid with {charge_card.charge_id}, "
            "brought by {book_courier.booking_id}."
        ),
    ]


_NOT_PAID = say("The charge was not approved, so nothing was charged and nothing will be sent.")

STORY = Script(
    rules=[
        Rule(when=TWO_LAPTOPS, replies=_order("laptop", 2, "12 Harbour Street")),
        Rule(when=ONE_MONITOR, replies=_order("monitor", 1, "1 Palace Road, Atlantis")),
        Rule(on_error="rejected by", replies=[_NOT_PAID]),
        Rule(on_error="approval expired", replies=[_NOT_PAID]),
        Rule(on_error="Error: ", replies=[say("I could not complete the order: {user}")]),
    ],
    fallback=say("I can order two laptops to Harbour Street, or one monitor to Atlantis."),
)

if __name__ == "__main__":
    sys.stdout.write(STORY.model_dump_json(indent=2, exclude_defaults=True) + "\n")
