"""Graphs run as they are drawn: side by side, joined, routed, mapped, repaired, and paused for people."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel

from perdure import END, START, Agent, App, Cache, Command, Graph, Retry, Send, State, append, tool
from perdure.errors import InvalidInput, Refused, RequestNotFound
from perdure.graphs.nodes import NodeContext
from perdure.testing import Rule, Script, call, say
from tests.conftest import MakeWorld
from tests.witness import Holds, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()


class Board(State):
    """What the graphs of these tests write on."""

    lines: Annotated[list[str], append] = []
    kind: str = ""
    total: int = 0
    approved: bool = False


def saw(ctx: NodeContext, deed: str) -> None:
    """A node ran."""
    witness.saw(ctx, deed)


# ── branches and joins ───────────────────────────────────────────────────────────────────────────────────────────

diamond = Graph("diamond", state=Board)


@diamond.node("begin")
async def begin(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "begin")
    return {"lines": ["begin"]}


@diamond.node("left")
async def left(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "left")
    return {"lines": ["left"]}


@diamond.node("right")
def right(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "right")
    return {"lines": ["right"], "kind": "r"}


@diamond.node("further")
async def further(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "further")
    return {"lines": ["further"]}


@diamond.node("join")
async def join(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "join")
    return {"lines": [f"join of {len(state.lines)}"]}


diamond.edge(START, "begin")
diamond.edge("begin", "left")
diamond.edge("begin", "right")
diamond.edge("right", "further")
diamond.edge(["left", "further"], "join")
diamond.edge("join", END)


# ── routers, Send, Command ───────────────────────────────────────────────────────────────────────────────────────

mapped = Graph("mapped", state=Board)


def spread(state: Board) -> list[Send]:
    """One task a line that was given."""
    return [Send("square", int(line)) for line in state.lines]


@mapped.node("square")
async def square(arg: int, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, f"square {arg}")
    return {"lines": [f"{arg}*{arg}={arg * arg}"]}


@mapped.node("sum", goto=["big", END])
async def add_up(state: Board) -> Command:
    total = sum(int(line.rpartition("=")[2]) for line in state.lines if "=" in line)
    return Command(update={"total": total}, goto="big" if total > 20 else END)


@mapped.node("big")
async def big(state: Board) -> dict[str, Any]:
    return {"kind": "big"}


mapped.router(START, spread, ["square"])
mapped.edge("square", "sum")
mapped.edge("big", END)


# ── failures ─────────────────────────────────────────────────────────────────────────────────────────────────────

fragile = Graph("fragile", state=Board)


@fragile.node("shaky", retry=Retry(attempts=2, backoff="0.1s"))
async def shaky(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, f"attempt {ctx.attempt}")
    if state.kind == "once" and ctx.attempt == 2:
        return {"lines": ["mended"]}
    raise ConnectionError("the line broke")


@fragile.node("repair")
async def repair(arg: dict[str, str]) -> dict[str, Any]:
    return {"lines": [f"{arg['node']}: {arg['message']}"]}


fragile.edge(START, "shaky")
fragile.edge("shaky", END)
fragile.edge("shaky", "repair", on="error")
fragile.edge("repair", END)

clash = Graph("clash", state=Board)


@clash.node("one")
async def one(state: Board) -> dict[str, Any]:
    return {"kind": "one"}


@clash.node("two")
async def two(state: Board) -> dict[str, Any]:
    return {"kind": "two"} if state.total == 0 else {"total": "many"}


clash.edge(START, "one")
clash.edge(START, "two")
clash.edge("one", END)
clash.edge("two", END)


# ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Verdict(BaseModel):
    """What the reviewer says."""

    good: bool
    why: str = ""


review = Graph("review", state=Board)


@review.node("draft")
async def draft(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "draft")
    return {"lines": ["a draft"]}


def judged(state: Board, answer: Verdict) -> dict[str, Any]:
    """What a verdict writes."""
    return {"approved": answer.good, "lines": [answer.why] if answer.why else []}


@review.node("late")
async def late(state: Board) -> dict[str, Any]:
    return {"kind": "late"}


review.human("ask", lambda state: f"Is {state.lines[-1]!r} good?", answer=Verdict, into=judged, expires="24h")
review.edge(START, "draft")
review.edge("draft", "ask")
review.edge("ask", END)
review.edge("ask", "late", on="expired")
review.edge("late", END)


# ── models inside of graphs, cached nodes ────────────────────────────────────────────────────────────────────────


@tool
async def weather(city: str) -> str:
    """Look at the sky."""
    return f"sunny in {city}"


triage = Graph("triage", state=Board)


@triage.node("classify", cache=Cache(ttl="1h", key=lambda state, arg: state.messages[-1].content))
async def classify(state: Board, ctx: NodeContext) -> dict[str, Any]:
    saw(ctx, "classify")
    return {"kind": "question" if state.messages[-1].content.endswith("?") else "chat"}


def by_kind(state: Board) -> Literal["helper", "end"]:
    """Only questions go to the agent."""
    return "helper" if state.kind == "question" else "end"


triage.node("helper", Agent(name="helper", model="m", instructions="Help.", tools=[weather], state=Board))
triage.edge(START, "classify")
triage.router("classify", by_kind, ["helper", END])
triage.edge("helper", END)

asked = Graph("asked", state=Board)
for name in ("one", "other"):
    asked.node(name, Agent(name=name, model="m", tools=[weather], state=Board))
    asked.edge(START, name)
    asked.edge(name, END)

app = App(agents=[asked, diamond, mapped, fragile, clash, review, triage])


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """These graphs on a worker; the model asks for the weather once."""
    async with make_world(
        app, Script(rules=[Rule(replies=[call("weather", city="Bern"), say("It is sunny.")])])
    ) as made:
        yield made


async def run(world: World, graph: str, message: str = "", **state: Any) -> tuple[str, dict[str, Any]]:
    """A turn of a graph: the thread, and its state after it."""
    thread, accepted = await world.client.start(graph, message, state=state, thread=world.thread())
    result = await world.ended(thread, accepted.message_id)
    assert result.outcome == "answered", result
    return thread, await world.client.state(thread)


async def test_branches_run_side_by_side_and_a_join_waits_for_the_longest(world: World) -> None:
    thread, state = await run(world, "diamond", kind="x")
    assert state["lines"] == ["begin", "left", "right", "further", "join of 4"]
    assert sorted(witness.of(thread)) == ["begin", "further", "join", "left", "right"]
    steps = [(c.step, c.nodes, c.next.nodes) for c in reversed(await world.client.history(thread))]
    assert steps == [
        (0, (), ("begin",)),
        (1, ("begin",), ("left", "right")),
        (2, ("left", "right"), ("further",)),
        (3, ("further",), ("join",)),
        (4, ("join",), ()),
    ]


async def test_a_router_maps_a_node_over_what_it_finds_and_a_command_goes_on(world: World) -> None:
    thread, state = await run(world, "mapped", lines=["2", "3", "4"])
    assert state["lines"][3:] == ["2*2=4", "3*3=9", "4*4=16"]
    assert (state["total"], state["kind"]) == (29, "big")
    assert sorted(witness.of(thread)) == ["square 2", "square 3", "square 4"]
    _, state = await run(world, "mapped", lines=["2"])
    assert (state["total"], state.get("kind", "")) == (4, "")


async def test_a_node_is_tried_again_and_then_its_error_route_is_taken(world: World) -> None:
    thread, state = await run(world, "fragile", kind="always")
    assert state["lines"] == ["shaky: ConnectionError: the line broke"]
    assert witness.of(thread) == ["attempt 1", "attempt 2"]
    thread, state = await run(world, "fragile", kind="once")
    assert state["lines"] == ["mended"]


async def test_two_writers_of_one_channel_fail_the_turn_and_both_are_named(world: World) -> None:
    thread, accepted = await world.client.start("clash", state={"lines": ["x"]}, thread=world.thread())
    result = await world.ended(thread, accepted.message_id)
    assert result.outcome == "failed"
    assert "one" in result.error and "two" in result.error and "Board.kind" in result.error
    assert "kind" not in await world.client.state(thread)


async def test_an_update_that_does_not_fit_fails_its_node_with_channel_type_and_reason(world: World) -> None:
    thread, accepted = await world.client.start("clash", state={"total": 1}, thread=world.thread())
    result = await world.ended(thread, accepted.message_id)
    assert result.outcome == "failed"
    assert "Board.total takes int, not this str" in result.error
    state = await world.client.state(thread)
    assert state["total"] == 1 and "kind" not in state


async def question_of(world: World, thread: str) -> str:
    """Wait until a question is open; its id."""
    answer = await eventually(lambda: world.client.approvals(thread), lambda found: len(found.questions) == 1)
    return answer.questions[0].id


async def test_a_human_node_waits_and_nothing_runs_again_when_the_answer_comes(world: World) -> None:
    thread, accepted = await world.client.start("review", state={"kind": "x"}, thread=world.thread())
    question = await question_of(world, thread)
    status = await world.stands(thread, "awaiting_input")
    assert "q1" in status.waiting_for[0] and "Is 'a draft' good?" in status.waiting_for[0]
    with pytest.raises(InvalidInput):
        await world.client.answer(thread, question, "perhaps", by="anna")
    with pytest.raises(RequestNotFound):
        await world.client.answer(thread, "q9", {"good": True}, by="anna")
    before = await world.client.checkpoint(thread)
    await world.client.answer(thread, question, {"good": True, "why": "short"}, by="anna")
    result = await world.ended(thread, accepted.message_id)
    assert result.outcome == "answered"
    state = await world.client.state(thread)
    assert (state["approved"], state["lines"]) == (True, ["a draft", "short"])
    assert witness.of(thread) == ["draft"]
    assert before.head is not None and before.next == ("ask",)
    with pytest.raises(Refused):
        await world.client.answer(thread, question, {"good": False}, by="ben")


async def test_a_question_that_nobody_answers_takes_its_own_route(world: World) -> None:
    thread, accepted = await world.client.start("review", state={"kind": "x"}, thread=world.thread())
    await question_of(world, thread)
    await world.forward(thread, timedelta(hours=25))
    await world.ended(thread, accepted.message_id)
    assert (await world.client.state(thread))["kind"] == "late"


async def test_an_answer_by_signal_counts_and_one_that_does_not_fit_is_noted(world: World) -> None:
    thread, accepted = await world.client.start("review", state={"kind": "x"}, thread=world.thread())
    question = await question_of(world, thread)
    handle = world.handle(thread)
    await handle.signal("answer", "what?")
    await handle.signal("answer", {"question_id": question, "by": "anna", "value": {"good": "maybe"}})
    status = await eventually(
        lambda: world.client.status(thread), lambda s: sum("answer refused" in e.text for e in s.log) == 2
    )
    assert status.status == "awaiting_input"
    await handle.signal("answer", {"question_id": question, "by": "anna", "value": {"good": False}})
    assert (await world.ended(thread, accepted.message_id)).outcome == "answered"
    assert (await world.client.state(thread))["approved"] is False


async def test_of_two_answers_at_once_one_counts_and_the_other_is_refused(world: World) -> None:
    thread, accepted = await world.client.start("review", state={"kind": "x"}, thread=world.thread())
    question = await question_of(world, thread)

    def answered(good: bool) -> Any:
        return world.client.answer(thread, question, {"good": good}, by="x")

    came = await asyncio.gather(answered(True), answered(False), return_exceptions=True)
    assert sum(isinstance(one, Refused) for one in came) == 1
    await world.ended(thread, accepted.message_id)
    assert len([c for c in await world.client.history(thread) if c.nodes == ("ask",)]) == 1


async def test_an_agent_is_a_node_of_a_graph_and_a_router_decides_whether_it_is_asked(world: World) -> None:
    thread, state = await run(world, "triage", "How is the weather?")
    assert state["messages"][-1]["content"] == "It is sunny."
    assert [c.nodes for c in reversed(await world.client.history(thread))] == [
        (), ("classify",), ("helper/model",), ("helper/tools",), ("helper/model",),
    ]  # fmt: skip
    _, state = await run(world, "triage", "Nice day.")
    assert len(state["messages"]) == 1 and len(world.model.calls_by_key) == 2


async def test_two_models_that_call_tools_at_once_in_one_conversation_fail_the_turn_and_are_told_why(
    world: World,
) -> None:
    thread, sent = await world.client.start("asked", "How is the weather?", thread=world.thread())
    result = await world.ended(thread, sent.message_id)
    assert result.outcome == "failed" and "give one its own channel" in result.error
    assert [c.source for c in await world.client.history(thread)] == ["compensation", "input"]


async def test_a_cached_node_runs_once_for_the_same_request_of_a_thread(world: World) -> None:
    thread, _ = await run(world, "triage", "Nice day.")
    accepted = await world.client.send(thread, "Nice day.")
    await world.ended(thread, accepted.message_id)
    assert witness.of(thread) == ["classify"]
    [newest, *_] = await world.client.history(thread)
    assert newest.facts == {"cached": True}
    accepted = await world.client.send(thread, "Another day.")
    await world.ended(thread, accepted.message_id)
    assert witness.of(thread) == ["classify", "classify"]
