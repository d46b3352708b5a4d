"""Graphs within graphs run as they are drawn, on a worker."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest

from perdure import (
    END,
    START,
    App,
    Command,
    Graph,
    Message,
    NodeFailure,
    Retry,
    Send,
    State,
    append,
    messages,
    tool,
)
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.world import World, eventually


class Part(State):
    """What the inner graphs work on."""

    lines: Annotated[list[str], append] = []
    kind: str = ""


class Whole(State):
    """What the outer graphs work on."""

    lines: Annotated[list[str], append] = []
    kind: str = ""
    side: Annotated[list[Message], messages] = []
    total: int = 0


def notes(line: str) -> Any:
    """A node that writes which class of state it saw."""

    def note(state: State) -> dict[str, Any]:
        return {"lines": [f"{line} {type(state).__name__}"]}

    return note


# ── a subgraph with a router at its beginning, between joins, before a router ────────────────────────────────────

inner = Graph("inner", state=Part)
inner.node("map", lambda arg: {"lines": [f"map {arg}"]})
inner.node("reduce", notes("reduce"), goto=[END])
inner.router(START, lambda state: [Send("map", n) for n in range(2)], ["map"])
inner.edge("map", "reduce")
inner.edge("reduce", END)

outer = Graph("outer", state=Whole)
outer.node("left", notes("left"))
outer.node("right", notes("right"))
outer.subgraph("sub", inner)
outer.node("more", lambda state: Command(update={"lines": ["more"]}, goto=["plain"]), goto=["plain"])
outer.subgraph("plain", inner)
outer.edge(START, "left")
outer.edge(START, "right")
outer.edge(["left", "right"], "sub")
outer.router("sub", lambda state: "more" if len(state.lines) == 5 else END, ["more", END])
outer.edge("plain", END)

# ── errors inside ────────────────────────────────────────────────────────────────────────────────────────────────

breaking = Graph("breaking", state=Part)


@breaking.node("breaks", retry=Retry(attempts=1))
async def breaks(state: Part) -> None:
    raise ConnectionError("the line broke")


breaking.edge(START, "breaks")
breaking.edge("breaks", END)

rescued = Graph("rescued", state=Whole)


@rescued.node("mend")
def mend(failure: NodeFailure) -> dict[str, Any]:
    return {"lines": [failure.node, failure.type, failure.message]}


rescued.subgraph("sub", breaking)
rescued.edge(START, "sub")
rescued.edge("sub", END)
rescued.edge("sub", "mend", on="error")
rescued.edge("mend", END)

# ── a model on a conversation of its own, and a person who takes part in it ──────────────────────────────────────


@tool
async def weather(city: str) -> str:
    """Look at the sky."""
    return f"sunny in {city}"


aside = Graph("aside", state=Whole)
aside.human("which", lambda state: f"Which city, {state.kind}?", into="side")
aside.model("think", model="m", instructions="Help.", tools=[weather], channel="side")
aside.tools("act", tools=[weather], channel="side")
aside.node("done", lambda state: {"lines": [state.side[-1].content]})
aside.edge(START, "which")
aside.edge("which", "think")
aside.edge("think", "act", on="tool_calls")
aside.edge("act", "think")
aside.edge("think", "done")
aside.edge("done", END)

app = App(agents=[outer, rescued, aside])
script = Script(rules=[Rule(when="Bern", replies=[call("weather", city="Bern"), say("It is sunny.")])])


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """These graphs on a worker; the model asks for the weather once."""
    async with make_world(app, script) as made:
        yield made


async def test_a_subgraph_between_joins_and_routers(world: World) -> None:
    """Its nodes see its own state, what is mapped inside is reduced inside, and what comes after it comes once."""
    thread, accepted = await world.client.start("outer", state={"kind": "x"}, thread=world.thread())
    assert (await world.ended(thread, accepted.message_id)).outcome == "answered"
    state = await world.client.state(thread)
    assert state["lines"] == [
        "left Whole", "right Whole", "map 0", "map 1", "reduce Part", "more", "map 0", "map 1", "reduce Part",
    ]  # fmt: skip
    steps = [entry.nodes for entry in reversed(await world.client.history(thread))]
    assert steps == [
        (), ("left", "right"), ("sub/start",), ("sub/map", "sub/map"), ("sub/reduce",), ("sub/end",), ("more",),
        ("plain/start",), ("plain/map", "plain/map"), ("plain/reduce",),
    ]  # fmt: skip


async def test_an_error_inside_is_mended_outside(world: World) -> None:
    """The route of the subgraph is taken, and is told which node failed and why."""
    thread, accepted = await world.client.start("rescued", state={"kind": "x"}, thread=world.thread())
    assert (await world.ended(thread, accepted.message_id)).outcome == "answered"
    assert (await world.client.state(thread))["lines"] == [
        "sub/breaks", "ConnectionError", "ConnectionError: the line broke",
    ]  # fmt: skip


async def test_a_person_and_a_model_talk_in_a_channel_of_their_own(world: World) -> None:
    """The answer is a user's message there; the model's calls are run there; the main conversation stays empty."""
    thread, accepted = await world.client.start("aside", state={"kind": "Ann"}, thread=world.thread())
    open_now = await eventually(lambda: world.client.approvals(thread), lambda found: len(found.questions) == 1)
    assert open_now.questions[0].text == "Which city, Ann?"
    await world.client.answer(thread, open_now.questions[0].id, "Bern", by="ann")
    assert (await world.ended(thread, accepted.message_id)).outcome == "answered"
    state = await world.client.state(thread)
    said = [(message["role"], message.get("content", "")) for message in state["side"]]
    assert said == [("user", "Bern"), ("assistant", ""), ("tool", "sunny in Bern"), ("assistant", "It is sunny.")]
    assert (state["lines"], state.get("messages", [])) == (["It is sunny."], [])
