"""Graphs as they are written: what they compile to, what their functions are given, and what these may return.

Long: one claim a way to write a graph.
"""

import re
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel

from perdure import (
    END,
    START,
    Agent,
    App,
    Ask,
    Budget,
    Cache,
    Command,
    Graph,
    Message,
    NodeContext,
    NodeFailure,
    Retry,
    Send,
    State,
    append,
    maximum,
    messages,
    tool,
)
from perdure.checkpoint import Task
from perdure.contracts import Limits, NodeSpec
from perdure.errors import DefinitionError, InvalidInput
from perdure.graphs.drawing import terminal
from perdure.graphs.nodes import FunctionNode, HumanNode
from perdure.state import Overwrite

anything: Any = "not what it should be"


class Ticket(State):
    """What the graphs of these tests work on."""

    kind: str = ""
    notes: Annotated[list[str], append] = []
    side: Annotated[list[Message], messages] = []
    worst: Annotated[int, maximum] = 0
    tags: Annotated[list[str] | None, append] = None


class Smaller(State):
    """Some channels of a ticket."""

    kind: str = ""
    notes: Annotated[list[str], append] = []


class Item(BaseModel):
    """What is sent to a node."""

    sku: str
    count: int = 1


@tool
def look(what: str) -> str: ...  # type: ignore[empty-body]


@tool
def point(what: str) -> str: ...  # type: ignore[empty-body]


@tool(hidden=True)
def undo() -> None: ...


def nothing(state: Ticket) -> None: ...
def takes_item(arg: Item) -> None: ...
def mends(failure: NodeFailure) -> None: ...


def graph(*names: str, state: type[State] = Ticket) -> Graph:
    """A graph of functions that do nothing, each leading to the next, the last one to the end."""
    made = Graph("triage", state=state)
    for name in names:
        made.node(name, lambda state: None)
    for source, target in zip((START, *names), (*names, END), strict=True):
        if (source, target) != (START, END):
            made.edge(source, target)
    return made


def specs(made: Graph) -> dict[str, NodeSpec]:
    """The nodes as the workflow knows them."""
    app = App(agents=[made])
    return app.graph(made.name).definition(app.tools, Limits()).spec.nodes


def routes(made: Graph) -> dict[str, dict[str, tuple[str, ...]]]:
    """Where the outcomes of each node lead."""
    return {name: spec.routes for name, spec in specs(made).items()}


def context(arg: Any = None) -> NodeContext:
    """What a node is told."""
    return NodeContext(thread_id="t", turn=1, step=2, idempotency_key="k", attempt=1, node="n", arg=arg)


def function(made: Graph, name: str) -> FunctionNode:
    """A node that is a function."""
    node = made.compiled.node(name)
    assert isinstance(node, FunctionNode)
    return node


# ── what a graph compiles to ─────────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_node_as_the_workflow_knows_it() -> None:
    """Routes by outcome, how each is run, and what belongs to its kind."""
    made = Graph("triage", state=Ticket, budget=Budget(steps=7), on_busy="reject", idle="2h")
    made.node("sort", nothing, retry=Retry(attempts=5, backoff="2s"), timeout="30s", deadline="3m")
    made.model("think", model="m1", tools=[look, undo], channel="side", timeout="9s", deadline="8m", cache="off")
    made.tools("act", tools=[look], channel="side")
    made.human("check", "Right?", answer=bool, into=lambda state, answer: {"kind": str(answer)}, expires="2h")
    made.node("mend", mends)
    made.edge(START, "sort")
    made.edge("sort", "think")
    made.edge("sort", "mend", on="error")
    made.edge("think", "check")
    made.edge("think", "act", on="tool_calls")
    made.edge("act", "think")
    made.edge("check", END)
    made.edge("check", "think", on="expired")
    made.edge("mend", END)
    app = App(agents=[made])
    definition = app.graph("triage").definition(app.tools, Limits(heartbeat=3))
    spec = definition.spec
    assert (spec.name, spec.start, spec.starts, spec.on_busy) == ("triage", ("sort",), (), "reject")
    assert (spec.budget.steps, spec.limits.idle, spec.limits.heartbeat) == (7, 7200.0, 3)
    assert sorted(spec.tools) == ["look", "undo"] == sorted(app.tools)
    sort, think, act, check = (spec.nodes[name] for name in ("sort", "think", "act", "check"))
    assert sort.routes == {"done": ("think",), "error": ("mend",)}
    assert (sort.kind, sort.attempts, sort.backoff, sort.timeout, sort.deadline) == ("function", 5, 2.0, 30.0, 180.0)
    assert think.routes == {"answer": ("check",), "tool_calls": ("act",)}
    assert (think.model, think.channel, think.timeout, think.deadline) == ("m1", "side", 9.0, 480.0)
    assert (act.kind, act.channel, act.routes) == ("tools", "side", {"done": ("think",)})
    assert check.routes == {"done": (END,), "expired": ("think",)}
    assert (check.question, check.asks, check.deadline) == ("Right?", False, 7200.0)
    assert check.answer_schema == {"type": "boolean"}
    model = definition.models["think"]
    assert (model.channel, model.cache, [shown["function"]["name"] for shown in model.tools]) == (
        "side",
        "off",
        ["look"],
    )
    assert [made.compiled.node(name).tools for name in ("think", "act", "sort")] == [("look",), ("look",), ()]


def test_an_agent_is_a_graph_of_its_model_and_its_tools() -> None:
    """The names are the same for every agent; without a tool that is shown there is no node that runs any."""
    assert routes(Agent(name="clerk", model="m", tools=[look, undo]).graph()) == {
        "model": {"answer": (END,), "tool_calls": ("tools",)},
        "tools": {"done": ("model",)},
    }
    assert routes(Agent(name="clerk", model="m", tools=[undo]).graph()) == {"model": {"answer": (END,)}}
    assert Agent(name="clerk", model="m", tools=[undo]).graph().compiled.tools == (undo,)


def test_a_graph_is_named_by_its_content() -> None:
    """A prompt, an edge, a limit: whatever a turn is interpreted from is in the digest; the same again has the same."""

    def digest(change: Callable[[Graph], Any] = lambda made: None, prompt: str = "Think.") -> str:
        made = graph("a")
        made.model("b", model="m", instructions=prompt)
        made.edge("a", "b")
        made.edge("b", END)
        change(made)
        return made.compiled.definition({}, Limits()).spec.digest

    assert digest() == digest()
    assert len({digest(), digest(prompt="Think twice."), digest(lambda made: made.edge("b", "a"))}) == 3


def test_deadlines_leave_room_for_every_attempt() -> None:
    """By default a node has an hour, and more where its attempts and the waits between them may take longer."""
    made = Graph("triage", state=Ticket)
    made.node("quick", nothing)
    made.node("slow", nothing, timeout="1h", retry=Retry(attempts=3, backoff="10s"))
    for source, target in ((START, "quick"), ("quick", "slow"), ("slow", END)):
        made.edge(source, target)
    assert specs(made)["quick"].deadline == 3600
    assert specs(made)["slow"].deadline == 3 * 3600 + 10 + 20 + 40


# ── joins and routers ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_join_knows_its_sources() -> None:
    """Each source leads to it, and it waits for all; a router that may lead there counts as a source too."""
    made = graph("a")
    for name in ("b", "c", "d"):
        made.node(name, nothing)
    made.edge("a", "b")
    made.edge("a", "c")
    made.edge(["b", "c"], "d")
    made.router("c", lambda state: "d", ["d", "a"])
    made.edge("d", END)
    found = specs(made)
    assert (found["b"].routes, found["c"].routes, found["c"].chooses) == ({"done": ("d",)}, {}, ("d", "a"))
    assert (found["d"].joins, found["b"].joins) == (("b", "c"), ())


def by_kind(state: Ticket) -> Literal["a", "end"] | list[Send]:
    """Chooses among what its annotation names."""
    return [Send("a", {"sku": "x"})] if state.kind == "many" else "end" if state.kind else "a"


async def test_a_router_chooses_among_its_targets() -> None:
    """A name, a Send with JSON, a list of both, from a function that may be async; targets may come from a Literal."""
    made = Graph("triage", state=Ticket)
    made.node("a", takes_item)
    made.node("b", nothing)
    made.router(START, by_kind)

    @made.router("a", targets=["a", "b", END])
    async def again(state: Ticket) -> list[str | Send]:
        return ["b", Send("a", Item(sku="y")), END]

    made.edge("b", END)
    compiled = made.compiled
    assert (compiled.start, compiled.definition({}, Limits()).spec.starts) == ((), ("a", END))
    assert compiled.specs["a"].chooses == ("a", "b", END)
    assert await compiled.choose(START, Ticket(kind="x")) == (Task(node=END),)
    assert await compiled.choose(START, Ticket(kind="many")) == (Task(node="a", arg={"sku": "x"}),)
    assert await compiled.choose("a", Ticket()) == (
        Task(node="b"), Task(node="a", arg={"sku": "y", "count": 1}), Task(node=END),
    )  # fmt: skip
    assert await compiled.choose("b", Ticket()) is None


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ("c", "Graph triage: the router of a chose 'c'. Its targets: b, end"), (None, "chose None"), (3, "chose 3"),
        ([], "chose nothing"), ([["b"]], r"chose \['b'\]"), (Send("c"), "chose 'c'"),
        (Send("b", {"x": 1}), "sends something to b, which takes no argument"),
        (["b", "start"], "chose 'start'"),
    ],
)  # fmt: skip
async def test_a_choice_that_is_no_target_is_refused(chosen: Any, why: str) -> None:
    """The error names the router, what it chose, and what it may choose."""
    made = graph("b")
    made.node("a", nothing)
    made.edge("b", "a")
    made.router("a", lambda state: chosen, ["b", END])
    with pytest.raises(InvalidInput, match=why):
        await made.compiled.choose("a", Ticket())


async def test_a_router_that_fails_is_named() -> None:
    """Nothing tries it again where it runs, so what it raises is told as it is."""

    async def fails(state: Ticket) -> str:
        raise KeyError(state.kind)

    made = graph()
    made.node("a", nothing)
    made.router(START, fails, ["a"])
    made.edge("a", END)
    with pytest.raises(InvalidInput, match="Graph triage: the router of start failed: KeyError: 'x'"):
        await made.compiled.choose(START, Ticket(kind="x"))


async def test_what_is_sent_must_be_json() -> None:
    """It stands in a checkpoint."""
    made = Graph("triage", state=Ticket)
    made.node("a", takes_item)
    made.router(START, lambda state: Send("a", object()), ["a"])
    made.edge("a", END)
    with pytest.raises(InvalidInput, match="router of start sends to a what can't be written as JSON"):
        await made.compiled.choose(START, Ticket())


# ── functions: what they are given ───────────────────────────────────────────────────────────────────────────────


def state_only(state: Ticket) -> None: ...
def base_state(state: State) -> None: ...
def untyped(s) -> None: ...  # type: ignore[no-untyped-def]
def state_and_context(s: Ticket, ctx: NodeContext) -> None: ...
def context_and_item(ctx: NodeContext, item: Item) -> None: ...
def everything(arg: Item, *, state: Ticket, told: NodeContext) -> None: ...
def optional(state: Ticket, arg: Item | None = None) -> None: ...
def nullable(arg: Item | None) -> None: ...
def loose(state, arg) -> None: ...  # type: ignore[no-untyped-def]
def neither() -> None: ...
def later(state: "Ticket", item: "Item") -> None: ...


STATE = Ticket(kind="x")
X = {"sku": "x"}
FAILURE = {"node": "a", "type": "ValueError", "message": "no"}


@pytest.mark.parametrize(
    ("takes", "arg", "expected"),
    [
        (state_only, None, {"state": STATE}), (base_state, None, {"state": STATE}), (untyped, None, {"s": STATE}),
        (state_and_context, None, {"s": STATE, "ctx": context()}),
        (context_and_item, X, {"ctx": context(X), "item": Item(sku="x")}),
        (everything, X, {"arg": Item(sku="x"), "state": STATE, "told": context(X)}),
        (optional, X, {"state": STATE, "arg": Item(sku="x")}), (optional, None, {"state": STATE}),
        (nullable, None, {"arg": None}), (loose, [1], {"state": STATE, "arg": [1]}), (neither, None, {}),
        (later, X, {"state": STATE, "item": Item(sku="x")}), (mends, FAILURE, {"failure": NodeFailure(**FAILURE)}),
    ],
)  # fmt: skip
def test_a_function_is_given_what_it_declares(takes: Callable[..., Any], arg: Any, expected: dict[str, Any]) -> None:
    """State, context and argument in any order and under any name, the argument as its own type."""
    bound = mapped(takes).bind(STATE, context(arg))
    assert bound == expected
    takes(**bound)


def mapped(takes: Callable[..., Any], **options: Any) -> FunctionNode:
    """A node that a router sends to."""
    made = Graph("triage", state=Ticket)
    made.node("n", takes, **options)
    made.router(START, lambda state: "n", ["n"])
    made.edge("n", END)
    return function(made, "n")


@pytest.mark.parametrize(("arg", "why"), [(None, "NoneType"), ({"sku": 1}, "sku: "), ("x", "this str as `item`")])
def test_an_argument_of_another_type_is_refused(arg: Any, why: str) -> None:
    """The error names the node and its parameter."""
    with pytest.raises(InvalidInput, match=f"Graph triage: node n can't take .*{why}"):
        mapped(later).bind(STATE, context(arg))


def test_functions_may_be_async_or_not() -> None:
    """The engine awaits the ones and runs the others in a thread; a decorated function is still itself."""
    made = Graph("triage", state=Ticket)

    @made.node("one")
    async def one(state: Ticket) -> None: ...

    @made.node("two", timeout="5s")
    def two(state: Ticket) -> int:
        return 2

    made.edge(START, "one")
    made.edge("one", "two")
    made.edge("two", END)
    assert (function(made, "one").is_async, function(made, "two").is_async, two(STATE)) == (True, False, 2)
    assert function(made, "one").function is one


# ── functions: what they return ──────────────────────────────────────────────────────────────────────────────────


def test_what_a_function_returns() -> None:
    """Updates by channel, nothing, or a Command that also says where to go on."""
    made = graph("b")
    made.node("a", nothing, goto=["b", "n", END])
    made.node("n", takes_item)
    made.edge("b", "a")
    made.edge("a", END)
    made.edge("n", END)
    node = function(made, "a")
    assert made.compiled.specs["a"].routes == {"done": (END,)}
    assert made.compiled.specs["a"].chooses == ("b", "n", END)
    for value, updates in [
        (None, {}), ({}, {}), ({"kind": "x", "notes": ["y"]}, {"kind": "x", "notes": ["y"]}), (Command(), {}),
        (Command(update={"kind": "x"}), {"kind": "x"}),
    ]:  # fmt: skip
        returned = node.returned(value)
        assert (returned.updates, returned.goto) == (updates, None)
    replaced = Overwrite(["z"])
    assert node.returned({"notes": replaced}).updates == {"notes": replaced}
    assert node.returned(Command(goto="b")).goto == (Task(node="b"),)
    gone = node.returned(Command(update={"kind": "x"}, goto=[Send("n", {"sku": "x"}), END]))
    assert (gone.updates, gone.goto) == ({"kind": "x"}, (Task(node="n", arg={"sku": "x"}), Task(node=END)))


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (3, "returned this int"), ("x", "returned this str"), ([("kind", "x")], "returned this list"),
        (Ticket(), "returned this Ticket.*a dict of updates"), (Command(update=anything), "returned this str"),
        ({"colour": 1}, r"node a writes to Ticket\.colour, which doesn't exist.*Channels: messages, kind"),
        ({1: 2}, r"Ticket\.1"), (Command(goto="c"), "node a chose 'c'. Its targets: b"),
        (Command(goto=[]), "chose nothing"), (Command(goto=END), "chose 'end'"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(value: Any, why: str) -> None:
    """The error names the node, what it returned and what it may return."""
    made = graph("b")
    made.node("a", nothing, goto=["b"])
    made.edge("b", "a")
    made.edge("a", END)
    with pytest.raises(InvalidInput, match=f"Graph triage: .*{why}"):
        function(made, "a").returned(value)


def test_a_node_without_an_edge_must_say_where_to_go_on() -> None:
    """Else the turn would end there without a word."""
    made = graph()
    made.node("a", nothing, goto=["a", END])
    made.edge(START, "a")
    assert function(made, "a").returned(Command(goto=END)).goto == (Task(node=END),)
    with pytest.raises(InvalidInput, match="node a didn't say where to go on"):
        function(made, "a").returned({"kind": "x"})


# ── people ───────────────────────────────────────────────────────────────────────────────────────────────────────


class Verdict(BaseModel):
    """An answer."""

    good: bool
    grade: Literal["a", "b"] = "a"


class Colour(Enum):
    """An answer."""

    RED = "red"


def asking(question: Any = "Right?", **options: Any) -> HumanNode:
    """A graph that asks."""
    made = Graph("triage", state=Ticket)
    made.human("ask", question, **options)
    made.edge(START, "ask")
    made.edge("ask", END)
    node = made.compiled.node("ask")
    assert isinstance(node, HumanNode)
    return node


async def test_a_question_may_be_made_from_the_state() -> None:
    """A text, or an Ask with details, from a function that may be async; the type of the answer is a JSON schema."""

    async def about(state: Ticket) -> Ask:
        return Ask(f"Is {state.kind} right?", details={"item": Item(sku=state.kind)})

    node = asking(about, answer=bool, into=lambda state, answer: None)
    assert (node.spec().asks, node.spec().question) == (True, "")
    asked = await node.ask(STATE)
    assert (asked.text, asked.details) == ("Is x right?", {"item": {"sku": "x", "count": 1}})
    assert asked.answer_schema == {"type": "boolean"}
    assert (await asking(lambda state: "So?", into="kind").ask(STATE)).text == "So?"
    assert (await asking("So?", into="kind").ask(STATE)).text == "So?"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (3, "asks 3"),
        (None, "asks None"),
        ("  ", "asks '  '"),
        (Ask(""), "asks Ask"),
        (Ask("x", object()), "with details"),
    ],
)
async def test_a_question_that_is_none_is_refused(made: Any, why: str) -> None:
    """The error names the node."""
    with pytest.raises(InvalidInput, match=f"Graph triage: node ask .*{why}"):
        await asking(lambda state: made, into="kind").ask(STATE)


@pytest.mark.parametrize(
    ("into", "answer", "value", "updates"),
    [
        ("kind", str, "y", {"kind": "y"}), ("kind", Literal["y", "n"], "y", {"kind": "y"}),
        ("worst", int, 3, {"worst": 3}), ("notes", str, "y", {"notes": ["y"]}),
        ("notes", list[str], ["y", "z"], {"notes": ["y", "z"]}), ("tags", str, "y", {"tags": ["y"]}),
        ("tags", list[str], ["y"], {"tags": ["y"]}),
        ("messages", str, "y", {"messages": [Message(role="user", content="y")]}),
        ("side", Literal["y"], "y", {"side": [Message(role="user", content="y")]}),
        (lambda state, answer: {"kind": f"{state.kind} {answer.good} {answer.grade}"}, Verdict, {"good": True},
         {"kind": "x True a"}),
        (lambda state, answer: {"kind": answer.name}, Colour, "red", {"kind": "RED"}),
        (lambda state, answer: None, bool, False, {}),
    ],
)  # fmt: skip
def test_what_an_answer_writes(into: Any, answer: Any, value: Any, updates: dict[str, Any]) -> None:
    """A channel takes it, a list one more item, a conversation a message; or a function makes updates of it."""
    assert asking(into=into, answer=answer).updates(STATE, value) == updates


@pytest.mark.parametrize(
    ("answer", "value"),
    [(bool, "yes"), (bool, 1), (bool, None), (int, "3"), (str, 3), (Verdict, {"good": "true"}), (Verdict, {}),
     (Verdict, {"good": True, "grade": "c"}), (Colour, "blue")],
)  # fmt: skip
def test_an_answer_of_another_type_is_refused(answer: Any, value: Any) -> None:
    """What the schema doesn't allow is no answer, however it may be meant."""
    node = asking(into=lambda state, answer: {"kind": "x"}, answer=answer)
    with pytest.raises(InvalidInput, match="Graph triage: node ask can't take this answer: "):
        node.updates(STATE, value)


@pytest.mark.parametrize(("made", "why"), [(3, "this int"), ({"colour": 1}, r"Ticket\.colour, which doesn't exist")])
def test_what_is_made_of_an_answer_must_be_updates(made: Any, why: str) -> None:
    """Like what any other function returns; and where it fails, the answer is refused."""
    with pytest.raises(InvalidInput, match=r"node ask: what makes updates of its answer failed: ZeroDivisionError"):
        asking(into=lambda state, answer: {"kind": 1 / 0}).updates(STATE, "x")
    with pytest.raises(InvalidInput, match=f"Graph triage: node ask .*{why}"):
        asking(into=lambda state, answer: made).updates(STATE, "x")


# ── cache policies ───────────────────────────────────────────────────────────────────────────────────────────────


def test_what_counts_as_the_same_request() -> None:
    """By default all of state and argument, by a key what it says; never two functions or two nodes."""

    def request(cache: Cache, state: Ticket = STATE, arg: Any = None, name: str = "n", of: Any = loose) -> Any:
        policy = mapped(of, cache=cache).cache
        assert policy is not None
        return policy.request(name, state, arg)

    whole = request(Cache())
    assert whole == request(Cache(ttl="1m"))
    others = [
        request(Cache(), Ticket(kind="y")), request(Cache(), arg=1), request(Cache(), name="m"),
        request(Cache(), of=untyped),
    ]  # fmt: skip
    assert whole not in others
    by_kind = Cache(key=lambda state, arg: [state.kind, arg], scope="global")
    assert request(by_kind) == request(by_kind, Ticket(kind="x", notes=["y"])) != request(by_kind, arg=1)
    assert (by_kind.scope, by_kind.ttl, Cache(ttl="10m").ttl) == ("global", 0, 600)
    with pytest.raises(InvalidInput, match="The cache of n makes a key of what can't be written as JSON"):
        request(Cache(key=lambda state, arg: object()))


# ── subgraphs ────────────────────────────────────────────────────────────────────────────────────────────────────


def research() -> Graph:
    """A graph that becomes a node."""
    inner = Graph("inner", state=Smaller)
    inner.node("find", lambda state: None)
    inner.node("read", lambda state: None)
    inner.edge(START, "find")
    inner.edge("find", "read")
    inner.edge("read", END)
    return inner


def test_a_subgraph_costs_no_step_of_its_own() -> None:
    """What leads to it leads to its beginning, and its end leads to where it leads; so it is with an agent."""
    made = graph("a")
    made.node("b", research())
    made.node("helper", Agent(name="x", model="m", tools=[look]))
    made.node("c", nothing)
    made.edge("a", "b")
    made.edge("a", "helper")
    made.edge("b", "c")
    made.edge("helper", "c")
    made.edge("c", END)
    assert routes(made) == {
        "a": {"done": (END, "b/find", "helper/model")},
        "b/find": {"done": ("b/read",)},
        "b/read": {"done": ("c",)},
        "helper/model": {"answer": ("c",), "tool_calls": ("helper/tools",)},
        "helper/tools": {"done": ("helper/model",)},
        "c": {"done": (END,)},
    }
    assert made.compiled.tools == (look,)
    assert made.compiled.definition({"look": look}, Limits()).models.keys() == {"helper/model"}


def test_subgraphs_lie_within_subgraphs() -> None:
    """One that begins and ends with another; one and the same graph may be several nodes."""
    middle = Graph("middle", state=Smaller)
    middle.subgraph("deep", research())
    middle.edge(START, "deep")
    middle.edge("deep", END)
    made = Graph("triage", state=Ticket)
    made.subgraph("one", middle)
    made.subgraph("two", middle)
    made.edge(START, "one")
    made.edge("one", "two")
    made.edge("two", "one")
    made.edge("two", END)
    found = routes(made)
    assert made.compiled.start == ("one/deep/find",)
    assert found["one/deep/read"] == {"done": ("two/deep/find",)}
    assert found["two/deep/read"] == {"done": ("one/deep/find", END)}


async def test_routers_and_joins_around_a_subgraph() -> None:
    """Where a router or a join stands at its beginning or its end, an empty node stands for it there."""
    inner = Graph("inner", state=Smaller)
    inner.node("x", lambda state: None)
    inner.node("y", lambda state: None, goto=[END])
    inner.router(START, lambda state: [state.kind, type(state).__name__ == "Smaller" and "y"], ["x", "y"])
    inner.edge("x", END)
    made = graph()
    made.node("a", nothing)
    made.subgraph("sub", inner)
    made.subgraph("plain", research())
    made.edge(START, "a")
    made.edge(START, "plain")
    made.edge(["a", "plain"], "sub")
    made.router("sub", lambda state: Send("a") if state.kind else END, ["a", END])
    found = specs(made)
    assert {name: spec.joins for name, spec in found.items() if spec.joins} == {"sub/start": ("a", "plain/end")}
    assert found["a"].routes == found["plain/end"].routes == {"done": ("sub/start",)}
    assert found["plain/read"].routes == {"done": ("plain/end",)}
    assert (found["sub/start"].routes, found["sub/start"].chooses) == ({}, ("sub/x", "sub/y"))
    assert found["sub/x"].routes == {"done": ("sub/end",)}
    assert found["sub/end"].chooses == ("a", END)
    assert await made.compiled.choose("sub/start", Ticket(kind="x")) == (Task(node="sub/x"), Task(node="sub/y"))
    assert await made.compiled.choose("sub/end", Ticket(kind="x")) == (Task(node="a"),)
    assert function(made, "sub/y").returned(Command(goto=END)).goto == (Task(node="sub/end"),)
    empty = function(made, "sub/start")
    assert empty.returned(empty.function(**empty.bind(STATE, context()))).updates == {}


def test_functions_of_a_subgraph_see_its_own_state() -> None:
    """Its class, its channels, also in routers, questions, answers and keys; it can't write to others."""
    seen: list[Any] = []
    inner = Graph("inner", state=Smaller)
    inner.node("x", lambda state: seen.append(state), cache=Cache(key=lambda state, arg: type(state).__name__))
    inner.human("ask", "So?", into=lambda state, answer: seen.append(state))
    inner.edge(START, "x")
    inner.edge("x", "ask")
    inner.edge("ask", END)
    made = graph()
    made.subgraph("sub", inner)
    made.edge(START, "sub")
    made.edge("sub", END)
    state = Ticket(kind="k", notes=["n"], worst=3)
    x, ask = function(made, "sub/x"), made.compiled.node("sub/ask")
    x.function(**x.bind(state, context()))
    assert isinstance(ask, HumanNode)
    ask.updates(state, "y")
    assert seen == [Smaller(kind="k", notes=["n"])] * 2
    assert x.cache is not None and x.cache.request("sub/x", state, None)["key"] == "Smaller"
    with pytest.raises(InvalidInput, match=r"Graph triage: node sub/x writes to Smaller\.worst"):
        x.returned({"worst": 1})


def test_an_error_inside_takes_the_route_of_the_subgraph() -> None:
    """Unless it has one of its own; the nearest counts."""
    middle = Graph("middle", state=Smaller)
    middle.subgraph("deep", research())
    middle.node("own", lambda state: None)
    middle.node("mend", mends)
    middle.edge(START, "own")
    middle.edge("own", "deep")
    middle.edge("own", "mend", on="error")
    middle.edge("deep", END)
    middle.edge("mend", END)
    made = graph()
    made.subgraph("sub", middle)
    made.node("rescue", mends)
    made.edge(START, "sub")
    made.edge("sub", END)
    made.edge("sub", "rescue", on="error")
    made.edge("rescue", END)
    found = routes(made)
    assert {name: route.get("error") for name, route in found.items()} == {
        "sub/deep/find": ("rescue",), "sub/deep/read": ("rescue",), "sub/own": ("sub/mend",), "sub/mend": ("rescue",),
        "rescue": None,
    }  # fmt: skip


class OtherType(State):
    """The same name, another type."""

    kind: int = 0


class OtherReducer(State):
    """The same name and type, another reducer."""

    notes: list[str] = []


class Unknown(State):
    """A channel of its own."""

    colour: str = ""


@pytest.mark.parametrize(
    ("state", "channel"), [(OtherType, "kind"), (OtherReducer, "notes"), (Unknown, "colour"), (Ticket, "")]
)
def test_channels_of_a_subgraph_are_those_of_the_graph(state: type[State], channel: str) -> None:
    """With the same type and reducer; the error names the first that isn't. A state that is the same fits."""
    made = graph("a")
    if not channel:
        made.subgraph("sub", graph("x", state=state))
        return
    with pytest.raises(DefinitionError, match=rf"Graph triage: node sub: {state.__name__}\.{channel} is no channel"):
        made.subgraph("sub", graph("x", state=state))


# ── the page about graphs ────────────────────────────────────────────────────────────────────────────────────────


def test_the_page_about_graphs_is_true() -> None:
    """Its code runs, every graph in it is sound, and the drawing is that of the first one."""
    page = (Path(__file__).resolve().parent.parent / "docs" / "graphs.md").read_text("utf-8")
    shown: dict[str, Any] = {"__name__": "shown"}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        exec(block, shown)
    made = [thing for thing in shown.values() if isinstance(thing, Graph)]
    assert [each.compiled.name for each in made] == ["triage", "refund", "chat", "review", "squares", "fragile"]
    [drawing] = re.findall(r"^```text\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert drawing == terminal(shown["triage"].compiled) + "\n"
