"""LangGraph: a graph of a model and a tool node, with a checkpoint after each of them.

https://docs.langchain.com/oss/python/langgraph/quickstart ("Use the Graph API"): ``StateGraph`` with ``messages`` under
``add_messages``, a node that asks the model, one that runs the tools, a conditional edge. Durability is ``sync``
(".../langgraph/durable-execution"): a checkpoint is in the database before the next node begins. Savers are made by
``from_conn_string``, as their READMEs show, and keep their own settings.

Options: ``saver``, "sqlite" or "postgres", is where checkpoints go: to a file in the folder, or to the place's store.
``delta``: messages under a ``DeltaChannel`` (beta; ".../langgraph/pregel#deltachannel"), with the reducer for messages
that LangGraph itself gives as the example, and the default frequency of snapshots.
"""

import json
from contextlib import AsyncExitStack
from typing import Annotated, Any, TypedDict
from uuid import uuid4

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import _messages_delta_reducer, add_messages

from benchmarks import workload
from benchmarks.peer import asked, timed, versions, wanted
from benchmarks.sizes import store_bytes
from benchmarks.subject import Place, serve


class State(TypedDict):
    """Messages kept whole in each checkpoint."""

    messages: Annotated[list[AnyMessage], add_messages]


class DeltaState(TypedDict):
    """Messages of which a checkpoint keeps what is new."""

    messages: Annotated[list[AnyMessage], DeltaChannel(_messages_delta_reducer)]


async def model(state: State) -> dict[str, list[AIMessage]]:
    """The model: answers at once."""
    messages = state["messages"]
    step = len(messages) // 2
    if step == wanted(str(messages[0].content)):
        return {"messages": [AIMessage(workload.ANSWER)]}
    call = {"name": workload.TOOL, "args": json.loads(workload.arguments(step)), "id": workload.call_id(step)}
    return {"messages": [AIMessage("", tool_calls=[call])]}


async def look(state: State) -> dict[str, list[ToolMessage]]:
    """The tools: for each call its result."""
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    return {
        "messages": [
            ToolMessage(workload.result(call["args"]["step"]), tool_call_id=call["id"]) for call in last.tool_calls
        ]
    }


def calls(state: dict[str, list[AnyMessage]]) -> bool:  # named State, it would be one more schema of the graph
    """Whether the model calls any tools; else it has answered."""
    last = state["messages"][-1]
    assert isinstance(last, AIMessage)
    return bool(last.tool_calls)


class LangGraph:
    """The graph as a subject."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject."""
        saver = await self._saver(place)
        schema: type[Any] = DeltaState if place.options.get("delta") else State
        graph = StateGraph(schema)
        graph.add_node("model", model, input_schema=schema)
        graph.add_node("look", look, input_schema=schema)
        graph.add_edge(START, "model")
        graph.add_conditional_edges("model", calls, {True: "look", False: END})
        graph.add_edge("look", "model")
        self._graph = graph.compile(checkpointer=saver)
        return versions("langgraph", "langgraph-checkpoint", f"langgraph-checkpoint-{place.options['saver']}")

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``loop``."""
        return await {"loop": self._loop}[verb](**given)

    async def stop(self) -> None:
        """See Subject."""
        await self._stack.aclose()

    async def _saver(self, place: Place) -> BaseCheckpointSaver[str]:
        if place.options["saver"] == "postgres":
            self._store = place.store
            opened = AsyncPostgresSaver.from_conn_string(place.store)
            saver = await self._stack.enter_async_context(opened)
            await saver.setup()
            return saver
        file = place.folder / "langgraph.db"
        self._store = f"sqlite:///{file}"
        return await self._stack.enter_async_context(AsyncSqliteSaver.from_conn_string(str(file)))

    async def _loop(self, steps: int, agents: int = 1) -> dict[str, Any]:
        before = store_bytes(self._store)
        told = await timed([self._run(steps) for _ in range(agents)])
        seconds = told["seconds"]
        kept = store_bytes(self._store) - before
        return told | {"span_seconds": seconds, "step_seconds": seconds / steps, "store_bytes": kept}

    async def _run(self, steps: int) -> str:
        limit = 2 * steps + 2  # nodes run; LangGraph ends a graph that would run more
        config = RunnableConfig(configurable={"thread_id": uuid4().hex}, recursion_limit=limit)
        message = HumanMessage(asked(steps))
        state = await self._graph.ainvoke({"messages": [message]}, config, durability="sync")
        return str(state["messages"][-1].content)


if __name__ == "__main__":
    serve(LangGraph())
