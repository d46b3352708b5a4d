"""The agents that the tests of dry runs, promotion and comparison talk to."""

import itertools
from collections.abc import Sequence
from typing import Annotated, Any

from perdure import (
    END,
    START,
    Agent,
    App,
    Approval,
    Cache,
    Graph,
    NodeContext,
    Sensitive,
    State,
    ToolContext,
    ToolError,
    append,
    tool,
)
from perdure.checkpoint import Checkpoint
from perdure.contracts import StatusAnswer
from perdure.effects import Effect
from perdure.testing import Rule, Script, call, result, say, together
from tests.witness import Holds, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()
_numbers = itertools.count(1)


class Trip(State):
    """A trip that is planned."""

    notes: Annotated[list[str], append] = []
    card: Annotated[str, Sensitive] = ""
    city: str = ""


# ── tools: each tells the witness what it really does ────────────────────────────────────────────────────────────────


@tool(effect="compensable", compensate="cancel")
async def book(ctx: ToolContext, what: str) -> dict[str, str]:
    """Book something. The same name each time; only its key is another."""
    witness.saw(ctx, f"book {what}")
    ctx.update(notes=[f"booked {what}"])
    return {"booking": what, "key": ctx.idempotency_key}


@tool(effect="idempotent", hidden=True)
async def cancel(ctx: ToolContext, receipt: dict[str, str]) -> None:
    """Cancel it."""
    witness.saw(ctx, f"cancel {receipt['booking']}")


@tool(effect="irreversible")
async def post(ctx: ToolContext, text: str) -> str:
    """Send a letter."""
    witness.saw(ctx, f"post {text}")
    return "sent"


def imagine_payment(ctx: ToolContext, amount: int, to: str) -> dict[str, Any]:
    """What a payment would tell."""
    ctx.update(notes=[f"{'imagined' if ctx.dry_run else 'paid'} {amount}"])
    return {"payment": "pay-0", "amount": amount}


@tool(
    effect="irreversible", simulate=imagine_payment,
    approval=Approval(approvers=["ann", "bob", "eve"], quorum=2),
)  # fmt: skip
async def pay(ctx: ToolContext, amount: int, to: str) -> dict[str, Any]:
    """Pay. Each payment has a name of its own."""
    witness.saw(ctx, f"pay {amount} to {to}")
    ctx.update(notes=[f"paid {amount}"])
    return {"payment": f"pay-{next(_numbers)}", "amount": amount}


@tool(
    effect="irreversible", simulate=lambda amount: "sent",
    approval=Approval(approvers=["ann", "bob", "eve"], separation=["requester"]),
)  # fmt: skip
async def wire(ctx: ToolContext, amount: int) -> str:
    """Wire money, which nobody may approve who asked for it."""
    witness.saw(ctx, f"wire {amount} by {ctx.approved_by[0]}")
    return "sent"


@tool(effect="idempotent", simulate=lambda payment: f"receipt of {payment}")
async def print_receipt(ctx: ToolContext, payment: str) -> str:
    """Print a receipt, on paper."""
    witness.saw(ctx, f"print {payment}")
    return f"receipt of {payment}"


@tool(effect="idempotent", simulate=lambda step: f"went {step}")
async def walk(ctx: ToolContext, step: int) -> str:
    """Take a step, as soon as the test lets it."""
    witness.saw(ctx, f"walk {step}")
    if step == 2:
        await holds[ctx.thread_id].wait()
    return f"went {step}"


def imagine_courier(to: str) -> str:
    """None goes to Atlantis."""
    if to == "atlantis":
        raise ToolError(f"No courier goes to {to}.")
    return "gone"


@tool(effect="irreversible", on_error="rollback", simulate=imagine_courier)
async def ship(ctx: ToolContext, to: str) -> str:
    """Ship it, or take back everything."""
    witness.saw(ctx, f"ship to {to}")
    return "gone"


@tool(effect="compensable", compensate="cancel", simulate=lambda what: "brought")
async def bring(ctx: ToolContext, what: str) -> str:
    """Bring something to somebody, which is simulated with more hope than is right."""
    witness.saw(ctx, f"bring {what}")
    raise ToolError("Nobody is at home.")


@tool
async def look(ctx: ToolContext, what: str) -> str:
    """Look at something."""
    witness.saw(ctx, f"look at {what}")
    return f"seen {what}"


@tool(simulate=lambda what: f"imagined {what}")
async def ask_oracle(ctx: ToolContext, what: str) -> str:
    """Only reads, and costs too much for a rehearsal."""
    witness.saw(ctx, f"ask about {what}")
    return f"known {what}"


@tool(approval=Approval(approvers=["ann"]))
async def read_diary(ctx: ToolContext, day: str) -> str:
    """Only reads, and yet not without a yes."""
    witness.saw(ctx, f"read {day}")
    return "dear diary"


@tool(effect="idempotent")
async def keep_card(ctx: ToolContext, holder: str) -> str:
    """Keep a card's number where nobody reads it."""
    witness.saw(ctx, f"keep card of {holder}")
    ctx.update(card=f"number 4242 of {holder}")
    return "kept"


@tool
async def check_card(ctx: ToolContext) -> str:
    """Whether there is a card."""
    state = ctx.state
    assert isinstance(state, Trip)
    return f"it ends with {state.card[-3:]}"


# ── agents ───────────────────────────────────────────────────────────────────────────────────────────────────────────

TOOLS = [book, post, pay, wire, print_receipt, walk, ship, bring, look, ask_oracle, read_diary, keep_card, check_card]


async def pack(ctx: NodeContext) -> dict[str, Any]:
    """A node that is told whether this is a rehearsal."""
    witness.saw(ctx, f"pack {'nothing' if ctx.dry_run else 'the bag'}")
    return {"notes": ["imagined packing" if ctx.dry_run else "packed"]}


journey = Graph("journey", state=Trip)
journey.node("pack", pack, cache=Cache(key=lambda state, arg: len(state.messages)))
journey.node("planner", Agent(name="planner", model="m", tools=TOOLS, state=Trip))
journey.human("city", "Where to?", answer=str, into="city")
journey.node("booker", Agent(name="booker", model="n", tools=TOOLS, state=Trip))
journey.edge(START, "pack")
journey.edge("pack", "planner")
journey.edge("planner", "city")
journey.edge("city", "booker")
journey.edge("booker", END)

pair = Graph("pair", state=Trip)
for _name in ("left", "right"):
    pair.node(_name, lambda state: {"notes": ["met"]})
    pair.edge(START, _name)
    pair.edge(_name, END)

app = App(agents=[Agent(name="trips", model="m", state=Trip, tools=TOOLS), journey, pair], tools=[cancel])

FAR = 12  # steps of a long walk: more than fit in one run of 50 events
CARS = [call("book", what="car")] * 3
SCRIPT = Script(
    rules=[
        Rule(when="trip", replies=[call("book", what="train"), call("book", what="hotel"), say("All is booked.")]),
        Rule(when="One car", replies=[call("book", what="car"), say("One car.")]),
        Rule(when="Two cars", replies=[together(*CARS[:2]), say("Two cars.")]),
        Rule(when="Three cars", replies=[together(*CARS), say("Three cars.")]),
        Rule(when="Four cars", replies=[together(*CARS, *CARS[:1]), say("Four cars.")]),
        Rule(when="Post", replies=[call("post", text="hi"), say("Sent.")]),
        Rule(when="Pay and walk", replies=[
            call("pay", amount=7, to="tom"), call("walk", step=1), call("walk", step=2), call("walk", step=3),
            say("Paid, and gone."),
        ]),
        Rule(when="Pay and print", replies=[
            call("pay", amount=7, to="tom"), call("print_receipt", payment=result("pay.payment")),
            say("Here is {pay.payment}."),
        ]),
        Rule(when="Pay both", replies=[
            together(call("pay", amount=1, to="tom"), call("pay", amount=2, to="tim")), say("Both are paid."),
        ]),
        Rule(when="Pay", replies=[call("pay", amount=7, to="tom"), say("Paid {pay.payment}.")]),
        Rule(when="A box", replies=[call("book", what="box"), say("A box.")]),
        Rule(when="Bring", replies=[call("bring", what="tea"), call("walk", step=1), say("Brought.")]),
        Rule(when="Walk far", replies=[*(call("walk", step=10 + n) for n in range(FAR)), say("Far away.")]),
        Rule(when="Ship", replies=[call("book", what="box"), call("ship", to="atlantis"), say("Shipped.")]),
        Rule(when="Wire", replies=[call("wire", amount=7), say("Sent.")]),
        Rule(when="Tour", model="m", replies=[call("walk", step=5), say("Walked.")]),
        Rule(when="Tour", model="n", replies=[
            *[say("-")] * 2, call("pay", amount=9, to="tom"), call("walk", step=1), say("Gone."),
        ]),
        Rule(when="Look", replies=[call("look", what="map"), call("ask_oracle", what="rain"), say("Seen.")]),
        Rule(when="Diary", replies=[call("read_diary", day="monday"), say("Read.")]),
        Rule(when="Card", replies=[call("keep_card", holder="tom"), call("check_card"), say("So {check_card}.")]),
        Rule(when="journey", model="m", replies=[call("book", what="train"), say("The train is booked.")]),
        Rule(when="journey", model="n", replies=[
            *[say("-")] * 2,  # of the planner, in the same conversation
            call("pay", amount=9, to="tom"), call("walk", step=1), say("Gone."),
        ]),
        Rule(on_error="rejected by", replies=[say("Then not.")]),
        Rule(on_error="Nobody is at home", replies=[say("Then later.")]),
    ],
    fallback=say("Hello."),
)  # fmt: skip


# ── what the tests do with them ──────────────────────────────────────────────────────────────────────────────────────


async def turn(world: World, message: str, agent: str = "trips") -> str:
    """A thread after the turn of a message."""
    thread, sent = await world.begin(agent, message)
    assert (await world.ended(thread, sent)).outcome == "answered"
    return thread


async def dry(world: World, origin: str, at: str = "", **more: Any) -> str:
    """A dry run of a thread; its id."""
    return (await world.client.fork(origin, at, thread=world.thread(), dry_run=True, **more)).thread_id


async def rest(world: World, thread: str, turns: int = 1) -> StatusAnswer:
    """Wait until so many turns have ended and nothing is running."""
    return await eventually(
        lambda: world.client.status(thread), lambda s: len(s.results) >= turns and not s.node and not s.queued
    )


async def rehearsed(world: World, origin: str, message: str, **more: Any) -> str:
    """A dry run of a message, that has ended with an answer."""
    fork = await dry(world, origin, message=message, **more)
    assert (await rest(world, fork)).results[-1].outcome == "answered"
    return fork


def calls(effects: Sequence[Effect]) -> list[tuple[str, str]]:
    """Tool and status of each."""
    return [(effect.tool, effect.status) for effect in effects]


async def line_of(world: World, thread: str) -> list[Checkpoint]:
    """All its checkpoints, the oldest first."""
    return list(reversed(await world.client.history(thread, limit=1000)))


async def said(world: World, thread: str) -> list[tuple[str, str]]:
    """Its conversation as role and text."""
    messages = (await world.client.state(thread))["messages"]
    return [(message["role"], message.get("content", "")) for message in messages]
