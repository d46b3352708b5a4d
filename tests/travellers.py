"""A LangGraph graph that does what LangGraph can, and what a thread of it looks like, whoever keeps it."""

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, RemoveMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, Send, StateSnapshot, interrupt

Graph = CompiledStateGraph[Any, Any, Any, Any]


class Trip(TypedDict, total=False):
    """Channels with and without reducers, messages, and a value that is no JSON."""

    messages: Annotated[list[AnyMessage], add_messages]
    visited: Annotated[list[str], operator.add]
    spent: Annotated[int, operator.add]
    seen: set[str]
    approved: str
    booked: str


class Visit(TypedDict):
    """What a ``Send`` gives."""

    city: str


def plan(state: Trip) -> dict[str, Any]:
    return {"messages": [AIMessage("Three cities.", id="plan")], "seen": {"Rome"}, "spent": 1}


def fan_out(state: Trip) -> list[Send]:
    return [Send("visit", {"city": city}) for city in ("Bern", "Oslo", "Wien")]


def visit(state: Visit) -> dict[str, Any]:
    return {"visited": [state["city"]], "spent": len(state["city"])}


def ask(state: Trip) -> dict[str, Any]:
    answer = interrupt({"question": "Book?", "spent": state["spent"]})
    # The plan is replaced in its place.
    return {"approved": answer, "messages": [AIMessage("Approved.", id="plan"), HumanMessage(answer, id="answer")]}


class Booking(TypedDict, total=False):
    approved: str
    booked: str


def reserve(state: Booking) -> dict[str, Any]:
    return {"booked": "reserved"}


def pay(state: Booking) -> dict[str, Any]:
    return {"booked": f"paid by {interrupt('Which card?')}"}


def home(state: Trip) -> dict[str, Any]:
    return {"messages": [RemoveMessage(id="answer"), AIMessage("Home.", id="home")], "seen": {"Rome", "home"}}


def travel(saver: BaseCheckpointSaver[Any]) -> Graph:
    """The graph: a fan-out, a question to a person, a subgraph that asks too, and the way home."""
    booking = StateGraph(Booking)
    booking.add_node(reserve)
    booking.add_node(pay)
    booking.add_edge(START, "reserve")
    booking.add_edge("reserve", "pay")
    trip = StateGraph(Trip)
    for node in (plan, ask, home):
        trip.add_node(node)
    trip.add_node("visit", visit, input_schema=Visit)
    trip.add_node("book", booking.compile())
    trip.add_edge(START, "plan")
    trip.add_conditional_edges("plan", fan_out, ["visit"])
    trip.add_edge("visit", "ask")
    trip.add_edge("ask", "book")
    trip.add_edge("book", "home")
    trip.add_edge("home", END)
    return trip.compile(checkpointer=saver)


def on(thread_id: str, **more: str) -> RunnableConfig:
    """The configuration that names a thread."""
    return {"configurable": {"thread_id": thread_id, **more}}


def journey(graph: Graph, thread_id: str = "trip") -> Iterator[Any]:
    """Everything that can be done with a thread, one after the other; what each comes to."""
    thread = on(thread_id)
    yield _run(graph, {"messages": [HumanMessage("Where to?", id="1")]}, thread)
    yield picture(graph, thread_id)
    yield _run(graph, Command(resume="yes"), thread)
    yield [shown(graph.get_state(thread, subgraphs=True), [])]
    yield _run(graph, Command(resume="Visa"), thread)
    yield picture(graph, thread_id)
    yield graph.update_state(thread, {"visited": ["by hand"]}, as_node="home")["configurable"].keys()
    # Back to where the cities were still to be visited, and on from there.
    before = next(found for found in graph.get_state_history(thread) if found.next == ("visit",) * 3)
    yield _run(graph, None, before.config)
    yield picture(graph, thread_id)
    changed = graph.update_state(before.config, {"spent": 100}, as_node="plan")
    yield _run(graph, None, changed)
    yield _run(graph, Command(resume="no"), thread)
    yield picture(graph, thread_id)
    yield picture(graph, thread_id, limit=2)
    yield picture(graph, thread_id, before=before.config)
    yield picture(graph, thread_id, filter={"source": "update"})


def _run(graph: Graph, given: Any, config: RunnableConfig) -> dict[str, Any]:
    came: dict[str, Any] = graph.invoke(given, config)
    return came | {"__interrupt__": [waiting.value for waiting in came.get("__interrupt__", ())]}


def picture(graph: Graph, thread_id: str, **asked: Any) -> list[dict[str, Any]]:
    """A thread's history, the newest first, without what is another in each run."""
    everything = sorted(
        found.config["configurable"]["checkpoint_id"] for found in graph.get_state_history(on(thread_id))
    )
    return [shown(found, everything) for found in graph.get_state_history(on(thread_id), **asked)]


def shown(found: StateSnapshot, ids: list[str]) -> dict[str, Any]:
    """A point of a thread. Checkpoints are named by their place among ``ids``."""
    return {
        "values": found.values,
        "next": found.next,
        "source": (found.metadata or {}).get("source"),
        "step": (found.metadata or {}).get("step"),
        "place": _place(found.config, ids),
        "parent": _place(found.parent_config, ids),
        "tasks": [
            (
                task.name,
                task.error,
                [waiting.value for waiting in task.interrupts],
                task.result,
                shown(task.state, []) if isinstance(task.state, StateSnapshot) else bool(task.state),
            )
            for task in found.tasks
        ],
    }


def _place(config: RunnableConfig | None, ids: list[str]) -> int | None:
    checkpoint_id = config["configurable"]["checkpoint_id"] if config else None
    return ids.index(checkpoint_id) if checkpoint_id in ids else None
