"""What the threads of the crash tests are about, and what must be true of each once it has ended."""

from perdure.examples.orders.story import ONE_MONITOR, STORY, TWO_LAPTOPS
from perdure.testing import Rule, call, say, together
from perdure.values import Value

TOGETHER = "Please look after three things at once."
GARBLED = "Please call what can't be called."
LOOK = "Please look at the mice."
WIRE = "Please send 900 to the landlord."
GLANCE = "Please look at two accounts."
HELLO = "Are you still there?"
FAN = "Please reserve a mouse and take a note."

SCRIPT = STORY.model_copy(
    update={
        "rules": [
            Rule(
                when=TOGETHER,
                replies=[
                    together(
                        call("reserve_stock", sku="laptop", quantity=2),
                        call("check_stock", sku="mouse"),
                        call("reserve_stock", sku="monitor", quantity=1),
                    ),
                    say("All three are done."),
                ],
            ),
            Rule(when=GARBLED, replies=[together(call("reserve_stock", sku="laptop"), call("fly"))]),
            Rule(when=LOOK, replies=[call("check_stock", sku="mouse"), say("There are {check_stock.available}.")]),
            Rule(when=WIRE, replies=[call("send_wire", account="landlord", amount=900), say("Settled.")]),
            Rule(
                when=GLANCE,
                replies=[
                    call("glance", account="one"),
                    together(call("glance", account="two"), call("glance", account="three")),
                    say("All in order."),
                ],
            ),
            Rule(when=FAN, replies=[call("reserve_stock", sku="mouse", quantity=1), say("A mouse is reserved.")]),
            Rule(when=HELLO, replies=[say("I am.")]),
            *STORY.rules,
        ]
    }
)


class Story(Value):
    """One thread: its message, and how it ends however often a worker dies on the way.

    ``ledger`` is what the shop has in its books, as (kind, subject, status); ``effects`` what the thread's own ledger
    says of each; ``sources`` are its checkpoints, ``calls`` its logical model calls.
    """

    name: str
    message: str
    outcome: str
    answer: str = ""
    sources: tuple[str, ...]
    calls: int
    app: str = "perdure.examples.orders.desk:app"
    agent: str = "orders"
    approval: float | None = None
    ledger: tuple[tuple[str, str, str], ...] = ()
    effects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


ORDER = Story(
    name="order",
    message=TWO_LAPTOPS,
    outcome="answered",
    answer="Your order is on its way: reservation-1, paid with charge-2, brought by booking-3.",
    approval=2500.0,
    ledger=(
        ("reserve", "laptop", "done"),
        ("charge", "tok_visa_1", "done"),
        ("book", "12 Harbour Street", "done"),
    ),
    effects=("done", "done", "done"),
    notes=(
        "Reserved 2 of laptop as reservation-1.",
        "Charged 2500.00 to tok_visa_1 as charge-2.",
        "Booked a courier to 12 Harbour Street as booking-3.",
    ),
    sources=("input", *["step"] * 7),
    calls=4,
)

TAKEN_BACK = Story(
    name="taken back",
    message=ONE_MONITOR,
    outcome="failed",
    ledger=(
        ("reserve", "monitor", "undone"),
        ("charge", "tok_visa_1", "undone"),
        ("refund", "tok_visa_1", "done"),
        ("release", "monitor", "done"),
    ),
    effects=("undone", "undone", "failed"),
    notes=("Reserved 1 of monitor as reservation-1.", "Charged 89.00 to tok_visa_1 as charge-2."),
    sources=("input", *["step"] * 5, "compensation"),
    calls=3,
)

THREE_AT_ONCE = Story(
    name="three at once",
    message=TOGETHER,
    outcome="answered",
    answer="All three are done.",
    ledger=(
        ("reserve", "laptop", "done"),
        ("reserve", "monitor", "done"),
    ),
    effects=("done", "done"),
    sources=("input", *["step"] * 3),
    calls=2,
)

NOT_CALLED = Story(
    name="not called",
    message=GARBLED,
    outcome="answered",
    answer=f"I could not complete the order: {GARBLED}",
    sources=("input", *["step"] * 3),
    calls=2,
)

LOOKED = Story(
    name="looked",
    message=LOOK,
    outcome="answered",
    answer="There are 1000.",
    sources=("input", *["step"] * 3),
    calls=2,
)

GLANCED = Story(
    name="glanced",
    message=GLANCE,
    app="tests.crash.wires:app",
    agent="looker",
    outcome="answered",
    answer="All in order.",
    sources=("input", *["step"] * 5),
    calls=3,
)

WIRED = Story(
    name="wired",
    message=WIRE,
    app="tests.crash.wires:app",
    agent="wires",
    outcome="answered",
    answer="Settled.",
    ledger=(("charge", "landlord", "done"),),
    effects=("done",),
    sources=("input", *["step"] * 3),
    calls=2,
)

FANNED = Story(
    name="fanned",
    message=FAN,
    app="tests.crash.graphs:app",
    agent="fan",
    outcome="answered",
    answer="A mouse is reserved.",
    ledger=(("reserve", "mouse", "done"),),
    effects=("done",),
    notes=(f"Asked: {FAN}", "Reserved 1 of mouse as reservation-1.", "2 notes were taken."),
    sources=("input", *["step"] * 5),
    calls=2,
)

STILL_THERE = Story(name="still there", message=HELLO, outcome="answered", answer="I am.", sources=(), calls=1)
