"""The agents that the tests of time travel on the command line talk to; `--app tests.traveller:app` finds them too."""

from typing import Annotated

from pydantic import BaseModel

from perdure import END, START, Agent, App, Approval, Graph, Sensitive, State, ToolContext, append, tool
from perdure.testing import Rule, Script, call, say
from tests.witness import Holds, Witness

witness = Witness()
holds = Holds()


class Trip(State):
    """A trip that is planned."""

    notes: Annotated[list[str], append] = []
    city: str = ""


class Secret(State):
    """What not everybody may read."""

    card: Annotated[str, Sensitive] = ""
    city: str = ""


@tool(effect="compensable", compensate="cancel", approval=Approval(when=lambda args: args.what == "yacht"))
async def book(ctx: ToolContext, what: str) -> dict[str, str]:
    """Book something."""
    witness.saw(ctx, f"book {what}")
    ctx.update(notes=[f"booked {what}"])
    return {"booking": what}


@tool(effect="idempotent", hidden=True)
async def cancel(ctx: ToolContext, receipt: dict[str, str]) -> None:
    """Cancel it."""
    witness.saw(ctx, f"cancel {receipt['booking']}")


@tool(effect="irreversible")
async def post(ctx: ToolContext, text: str) -> str:
    """Send a letter."""
    witness.saw(ctx, f"post {text}")
    return "sent"


@tool
async def think(ctx: ToolContext) -> str:
    """Take as long as the test wants."""
    await holds[ctx.thread_id].wait()
    return "thought"


class Verdict(BaseModel):
    """What a person thinks of it."""

    good: bool
    why: str = ""


advice = Graph("advice", state=Trip)
advice.human("city", "Where to?", answer=str, into="city")
advice.human(
    "verdict", lambda state: f"Is {state.city} good?", answer=Verdict,
    into=lambda state, answer: {"notes": [f"good: {answer.good}"]},
)  # fmt: skip
advice.edge(START, "city")
advice.edge("city", "verdict")
advice.edge("verdict", END)

TOOLS = [book, post, think]
app = App(
    agents=[
        Agent(name="traveller", model="m", state=Trip, tools=TOOLS),
        Agent(name="keeper", model="m", state=Secret),
        advice,
    ],
    tools=[cancel],
)

script = Script(
    rules=[
        Rule(when="book twice", replies=[call("book", what="train"), call("book", what="hotel"), say("Booked.")]),
        Rule(when="book and post", replies=[call("book", what="hotel"), call("post", text="hi"), say("Posted.")]),
        Rule(when="yacht", replies=[call("book", what="yacht"), say("Ahoy.")]),
        Rule(when="think", replies=[call("think"), say("Thought.")]),
    ],
    fallback=say("Good day."),
)
