"""Every mistake in a graph that can be seen before anything runs, found with the graph's name and the place.

Long: one claim a mistake.
"""

import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal, NewType

import pytest
from pydantic import BaseModel, SecretStr
from typing_extensions import TypeAliasType

from perdure import (
    END,
    START,
    Agent,
    App,
    Cache,
    Graph,
    Message,
    NodeContext,
    Retry,
    State,
    append,
    messages,
    tool,
)
from perdure.errors import AgentNotFound, DefinitionError, NodeGone
from perdure.graphs.fitting import fits, item_types, literals

anything: Any = "not what it should be"


class Ticket(State):
    """What the graphs of these tests work on."""

    kind: str = ""
    notes: Annotated[list[str], append] = []
    side: Annotated[list[Message], messages] = []
    size: float | None = None


class Other(State):
    """Another state."""


class Handle:
    """Something that lives in one process."""


class Vault(BaseModel):
    """A model with a secret in it."""

    key: SecretStr


@tool
def look(what: str) -> str: ...  # type: ignore[empty-body]


@tool
def point(what: str) -> str: ...  # type: ignore[empty-body]


@tool(name="look")
def look_again(what: str) -> str: ...  # type: ignore[empty-body]


@tool(hidden=True)
def undo() -> None: ...


def nothing(state: Ticket) -> None: ...
def pick(state: Ticket) -> Literal["a", "end"]: ...  # type: ignore[empty-body]


def empty() -> Graph:
    return Graph("triage", state=Ticket)


def fine(*more: str) -> Graph:
    """A graph with which nothing is wrong: START, a, END; and nodes that nothing leads to yet."""
    made = empty()
    for name in ("a", *more):
        made.node(name, nothing)
    made.edge(START, "a")
    made.edge("a", END)
    return made


def thinking(**options: Any) -> Graph:
    """A model at the start, whose answer is the end."""
    made = empty()
    made.model("think", model="m", **options)
    made.edge(START, "think")
    made.edge("think", END)
    return made


# ── one thing at a time ──────────────────────────────────────────────────────────────────────────────────────────


def takes_many(*args: int) -> None: ...
def takes_named(**kwargs: int) -> None: ...
def takes_positional(state: Ticket, /) -> None: ...
def takes_other(state: Other) -> None: ...
def takes_dict(state: dict[str, Any]) -> None: ...
def takes_two_states(state: Ticket, before: Ticket) -> None: ...
def takes_two_contexts(a: NodeContext, b: NodeContext) -> None: ...
def takes_two_args(state: Ticket, one: int, two: int) -> None: ...
def takes_secret(state: Ticket, arg: SecretStr) -> None: ...
def takes_nested_secret(state: Ticket, arg: list[Vault]) -> None: ...
def takes_handle(state: Ticket, arg: Handle) -> None: ...
def takes_unknown(state: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821
def yields(state: Ticket) -> Iterator[int]:
    yield 1


async def yields_later(state: Ticket) -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (takes_many, "'args' must be an ordinary named one"), (takes_named, "'kwargs' must be"),
        (takes_positional, "'state' must be"), (takes_other, "'state' takes Other, and the state is Ticket"),
        (takes_dict, "'state' takes dict, and the state is Ticket"),
        (takes_two_states, "'state' and 'before' both take the state"),
        (takes_two_contexts, "'a' and 'b' both take the context"), (takes_two_args, "and 'two' both take the arg"),
        (takes_secret, "'arg' is a secret type"), (takes_nested_secret, "'arg' is a secret type"),
        (takes_handle, "'arg' can't be read from JSON: .*Handle"), (takes_unknown, "can't be resolved: .*Nowhere"),
        (yields, "yields, and must return"), (yields_later, "yields, and must return"), (3, "3 is no function"),
        (Handle, "is no function"), (functools.partial(nothing), "is no function"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_called_is_refused(function: Any, why: str) -> None:
    """The error names graph and node, and what is wrong with the signature, where it is declared."""
    with pytest.raises(DefinitionError, match=f"Graph triage: node n: .*{why}"):
        empty().node("n", function)
    with pytest.raises(DefinitionError, match=f"Graph triage: node n: .*{why}"):
        empty().node("n", timeout="1s")(function)


@pytest.mark.parametrize("name", ["", "two words", "-x", "x" * 65, "a/b", "start", "end", "ä", anything.encode()])
def test_a_node_needs_a_name(name: str) -> None:
    """Names go into activity types; '/' is for subgraphs, START and END are taken."""
    with pytest.raises(DefinitionError, match=r"Graph triage: .*is no name for a node.*'/'"):
        empty().node(name, nothing)


def routed(function: Any, targets: Any = None) -> Callable[[Graph], Any]:
    return lambda made: made.router("a", function, targets)


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda made: made.node("a", nothing), "node a: there are two nodes of this name"),
        (lambda made: made.subgraph("a", fine()), "node a: there are two nodes of this name"),
        (lambda made: made.subgraph("n", anything), "node n: 'not what it should be' is no graph and no agent"),
        (lambda made: made.node("n", nothing, timeout="soon"), "node n: 'soon' is no duration"),
        (lambda made: made.node("n", nothing, deadline=0), "node n: .*longer than nothing"),
        (lambda made: made.node("n", nothing, goto="a"), "node n: `goto` is a list of names, not 'a'"),
        (lambda made: made.node("n", nothing, goto=[1]), "node n: `goto` is a list of names"),
        (lambda made: made.model("n", model=""), "node n: model: .*at least 1 character"),
        (lambda made: made.model("n", model="m", tools=[nothing]), "node n: .* is no tool.*Decorate"),
        (lambda made: made.model("n", model="m", tools=[look, look_again]), "node n: it lists tool 'look' twice"),
        (lambda made: made.model("n", model="m", channel="chat"), "node n: Ticket has no channel 'chat'"),
        (lambda made: made.model("n", model="m", channel="notes"), r"node n: Ticket\.notes is no conversation"),
        (lambda made: made.model("n", model="m", parameters={"tools": []}), "node n: `parameters` can't set tools"),
        (lambda made: made.model("n", model="m", parameters={"x": object()}), "node n: `parameters` is no JSON"),
        (lambda made: made.model("n", model="m", cache="all"), "node n: cache: .*'lineage', 'global' or 'off'"),
        (lambda made: made.model("n", model="m", context_tokens=0), "node n: context_tokens: "),
        (lambda made: made.model("n", model="m", timeout="x"), "node n: 'x' is no duration"),
        (lambda made: made.tools("n", tools=[]), "node n: it has no tools to run"),
        (lambda made: made.tools("n", tools=[undo]), "node n: it has no tools to run"),
        (lambda made: made.tools("n", tools=[look], channel="kind"), r"node n: Ticket\.kind is no conversation"),
        (lambda made: made.human("n", "", into="kind"), "node n: it asks nothing"),
        (lambda made: made.human("n", None, into="kind"), "node n: it asks nothing"),
        (lambda made: made.human("n", "x" * 17_000, into="kind"), "node n: .*more than 16384 bytes"),
        (lambda made: made.human("n", lambda: "x", into="kind"), r"node n: .* must take \(state\)"),
        (lambda made: made.human("n", takes_other, into="kind"), "node n: .*'state' takes Other"),
        (lambda made: made.human("n", "x", into="colour"), "no channel 'colour'.*Channels: messages"),
        (lambda made: made.human("n", "x", into="kind", answer=bool), r"answer doesn't fit Ticket\.kind.* str"),
        (lambda made: made.human("n", "x", into="notes", answer=int), r"its answer doesn't fit Ticket\.notes"),
        (lambda made: made.human("n", "x", into="side", answer=int), r"its answer doesn't fit Ticket\.side"),
        (lambda made: made.human("n", "x", into="kind", answer=SecretStr), "node n: its answer is a secret type"),
        (lambda made: made.human("n", "x", into="kind", answer=Handle), "node n: its answer can't be read from JSON"),
        (lambda made: made.human("n", "x", into=lambda state: {}), r"node n: .* must take \(state, answer\)"),
        (lambda made: made.human("n", "x", into="kind", expires="never"), "node n: 'never' is no duration"),
        (lambda made: made.edge(["a"], "n"), "node n: a join is an edge from two nodes or more"),
        (lambda made: made.edge(["a", "a"], "n"), "node n: a join is an edge from two nodes or more"),
        (lambda made: made.edge(["a", "b"], "n", on="error"), "node n: a join is an edge .*without `on`"),
        (lambda made: made.edge(["a", 1], "n"), "node n: `sources` is a list of names"),
        (routed(pick, "end"), "node a: `targets` is a list of names, not 'end'"), (routed(pick, []), "no targets"),
        (routed(nothing), "node a: its router nothing has no targets.*Literal"),
        (routed(lambda: "a", ["a"]), r"node a: .*must take \(state\)"), (routed(3, ["a"]), "3 is no function"),
        (routed(takes_other, ["a"]), "node a: .*'state' takes Other"),
        (lambda made: [made.router("b", pick), made.router("b", pick)], "node b: it has two routers"),
    ],
)  # fmt: skip
def test_what_is_added_is_checked_at_once(build: Callable[[Graph], Any], why: str) -> None:
    """The error comes from the line that is wrong, with the names of graph and node; nothing was added."""
    made = fine("b")
    before = dict(made.nodes), list(made.edges), list(made.joins)
    with pytest.raises(DefinitionError, match=f"Graph triage: .*{why}"):
        build(made)
    assert (made.nodes, made.edges, made.joins) == before


async def says_later(state: Ticket, answer: str) -> dict[str, Any]: ...  # type: ignore[empty-body]


def test_what_an_answer_writes_is_made_at_once() -> None:
    """Work that takes time is for the node that follows."""
    with pytest.raises(DefinitionError, match=r"Graph triage: node n: .* must not be async"):
        empty().human("n", "x", into=says_later)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"state": dict}, "Graph triage: <class 'dict'> is no State"), ({"budget": 3}, "Graph triage: 3 is no Budget"),
        ({"on_busy": "panic"}, "on_busy: 'panic' is none of"), ({"idle": "x"}, "Graph triage: 'x' is no dur"),
        ({"name": "a b"}, "'a b' is no graph name"), ({"name": ""}, "'' is no graph name"),
    ],
)  # fmt: skip
def test_a_wrong_graph_says_which(options: dict[str, Any], why: str) -> None:
    """Settings are checked like those of an agent."""
    with pytest.raises(DefinitionError, match=why):
        Graph(**{"name": "triage", **options})


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: Retry(attempts=-1), "can't be less than 0"), (lambda: Retry(backoff="x"), "'x' is no duration"),
        (lambda: Cache(ttl="x"), "'x' is no duration"), (lambda: Cache(scope=anything), "no scope of a node's cache"),
        (lambda: Cache(key=anything), "is no function"), (lambda: Cache(key=pick), r"must take \(state, arg\)"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_wrong_policy_is_refused(build: Callable[[], Any], why: str) -> None:
    """Where it is written down."""
    with pytest.raises(DefinitionError, match=why):
        build()


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────


def edges(made: Graph, *pairs: tuple[Any, str]) -> Graph:
    for source, target in pairs:
        made.edge(source, target)
    return made


def chosen(made: Graph, source: str, targets: list[str] | None = None) -> Graph:
    made.router(source, pick, targets)
    return made


def on(made: Graph, source: str, target: str, outcome: str) -> Graph:
    made.edge(source, target, on=outcome)
    return made


def with_tools(runs: Any, *pairs: tuple[Any, str], channel: str = "messages", **options: Any) -> Graph:
    made = thinking(**options)
    made.tools("act", tools=runs, channel=channel)
    return edges(made, *pairs)


def needing(made: Graph) -> Graph:
    made.node("n", lambda arg: None)

    @made.node("needs")
    def needs(item: int, state: Ticket) -> None: ...

    return edges(made, ("a", "needs"), ("a", "n"), ("n", END), ("needs", END))


def selfish() -> Graph:
    made = fine()
    made.subgraph("sub", made)
    return edges(made, ("a", "sub"))


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: edges(fine(), ("a", "x")), "a leads to 'x', and there is no such node.*Nodes: a"),
        (lambda: edges(fine(), ("x", "a")), "something leads away from 'x', and there is no such node"),
        (lambda: edges(fine("b"), (["a", "x"], "b")), "leads away from 'x'"),
        (lambda: chosen(fine("b"), "b", ["x"]), "b leads to 'x'"), (lambda: chosen(fine(), "x"), "leads away from 'x'"),
        (lambda: edges(fine(), (END, "a")), "nothing leads away from END, or to START"),
        (lambda: edges(fine(), ("a", START)), "nothing leads away from END, or to START"),
        (lambda: on(fine(), "a", END, "expired"), "node a has no outcome 'expired'.*Outcomes: done, error"),
        (lambda: on(thinking(), "think", END, "done"), "node think has no outcome 'done'.*answer, tool_calls, error"),
        (lambda: edges(empty(), (START, END)), "START leads to END"),
        (empty, " has no edge from START"),
        (lambda: chosen(fine(), START), "START has a router and an edge"),
        (lambda: chosen(fine(), "a"), "node a has a router and an edge"),
        (lambda: edges(chosen(fine("b"), "b"), ("a", "b"), ("b", END)), "node b has a router and an edge"),
        (lambda: edges(fine("b"), ("b", END)), "nothing leads to node b"),
        (lambda: edges(fine("b"), ("a", "b")), r'node b leads nowhere.*edge\("b", END\)'),
        (lambda: edges(fine("b", "c"), ("a", "b"), ("b", "c"), ("c", "b")), "no way leads from node b to END"),
        (lambda: on(edges(fine("b"), ("a", "b"), ("b", "b")), "b", END, "error"), "no way leads from node b to END"),
        (lambda: on(empty_with("a", (START, "a")), "a", END, "error"), "node a leads nowhere"),
        (lambda: edges(fine("b", "c", "d"), ("a", "b"), ("a", "c"), (["b", "c"], "d"), (["a", "b"], "d"), ("d", END)),
         "node d is two joins"),
        (lambda: edges(fine("b"), ("a", "b"), (["a", "b"], END)), "a join is a node that waits for other nodes"),
        (lambda: edges(fine("b"), ("a", "b"), (["a", "b"], "b"), ("b", END)), "a join is a node that waits for other"),
        (lambda: edges(fine("b"), ([START, "a"], "b"), ("b", END)), "a join is a node that waits for other nodes"),
        (lambda: edges(chosen(fine("b", "c"), "b"), ("a", "b"), (["a", "b"], "c"), ("c", END)),
         "node c waits for b, whose router never leads there"),
        (lambda: needing(fine()), "node needs needs 'item', and the edge from a gives none.*Send"),
        (lambda: thinking(tools=[look]), "node think has tools, and its tool_calls lead nowhere"),
        (lambda: on(thinking(), "think", END, "tool_calls"), "node think has no tools to call"),
        (lambda: on(thinking(tools=[look]), "think", END, "tool_calls"), "node think may call 'look', and no node"),
        (lambda: on(with_tools([point], ("act", "think"), tools=[look]), "think", "act", "tool_calls"),
         "node think may call 'look', and no node that its tool_calls lead to runs that on the channel messages"),
        (lambda: on(with_tools([look], ("act", "think"), tools=[look], channel="side"), "think", "act", "tool_calls"),
         "node think may call 'look', .*on the channel messages"),
        (lambda: with_tools([look], ("think", "act"), ("act", END)),
         "node act runs calls, and no model on the channel messages leads its tool_calls there"),
        (selfish, "sub is a graph inside of itself"),
    ],
)  # fmt: skip
def test_a_graph_that_is_not_sound_is_refused(build: Callable[[], Graph], why: str) -> None:
    """When an app takes it: what is missing, and where."""
    with pytest.raises(DefinitionError, match=f"Graph triage.*{why}"):
        App(agents=[build()])


def empty_with(name: str, *pairs: tuple[Any, str]) -> Graph:
    made = empty()
    made.node(name, nothing)
    return edges(made, *pairs)


def test_a_mistake_inside_of_a_subgraph_says_where() -> None:
    """With the name of the whole, and the way to the place."""
    inner = Graph("inner", state=Ticket)
    inner.node("x", nothing)
    inner.edge(START, "x")
    with pytest.raises(DefinitionError, match=r"Graph triage: sub: node x leads nowhere"):
        made = fine()
        made.subgraph("sub", inner)
        App(agents=[edges(made, ("a", "sub"), ("sub", END))])
    inner.edge("x", "y")
    with pytest.raises(DefinitionError, match=r"Graph triage: sub: x leads to 'y', and there is no such node"):
        App(agents=[made])
    with pytest.raises(DefinitionError, match=r"Graph inner: x leads to 'y'"):
        App(agents=[inner])


def test_a_router_and_goto_are_two_that_choose() -> None:
    """One of them can."""
    made = empty()
    made.node("a", nothing, goto=[END])
    made.edge(START, "a")
    with pytest.raises(DefinitionError, match="Graph triage: node a has a router and `goto`"):
        App(agents=[chosen(made, "a")])


def test_calls_may_wait_for_a_person() -> None:
    """Between a model and the node that runs its calls there may be others, but no other model of that conversation."""
    made = with_tools([look], ("act", "think"), tools=[look])
    made.human("allow", "May it?", answer=bool, into=lambda state, answer: {})
    made.edge("think", "allow", on="tool_calls")
    made.edge("allow", "act")
    App(agents=[made])
    other = with_tools([look], ("act", "think"), tools=[look])
    other.model("again", model="m")
    other.edge("think", "again", on="tool_calls")
    with pytest.raises(DefinitionError, match="node think may call 'look', and no node"):
        App(agents=[edges(other, ("again", "act"))])


def test_a_graph_in_use_is_finished() -> None:
    """What an app runs doesn't change under it, nor do the graphs inside; a refused one can still be mended."""
    inner, made = fine(), empty()
    made.subgraph("sub", inner)
    made.edge(START, "sub")
    with pytest.raises(DefinitionError, match="Graph triage: node sub leads nowhere"):
        App(agents=[made])
    made.edge("sub", END)
    App(agents=[made])
    changes: list[Callable[[Graph], Any]] = [
        lambda it: it.node("n", nothing), lambda it: it.edge("a", "n"), lambda it: it.edge(["a", "b"], "n"),
        lambda it: it.router("n", pick),
    ]  # fmt: skip
    for each, change in itertools.product((made, inner), changes):
        with pytest.raises(DefinitionError, match=r"Graph triage.* is in use already"):
            change(each)


def test_names_in_an_app() -> None:
    """Agents and graphs share their names; a node that isn't there any more is told from one that is."""
    with pytest.raises(DefinitionError, match="Two agents are named 'triage'"):
        App(agents=[fine(), Agent(name="triage", model="m")])
    with pytest.raises(DefinitionError, match=r"Two tools are named 'look': .*\.look and .*\.look_again"):
        App(agents=[Agent(name="x", model="m", tools=[look]), Agent(name="y", model="m", tools=[look_again])])
    app = App(agents=[fine(), Agent(name="clerk", model="m")])
    with pytest.raises(AgentNotFound, match=r"no agent 'nobody'.*Agents: triage, clerk"):
        app.graph("nobody")
    with pytest.raises(NodeGone, match=r"Graph triage has no node 'b'.*Nodes: a"):
        app.graph("triage").node("b")


# ── types that fit ───────────────────────────────────────────────────────────────────────────────────────────────

Name = NewType("Name", str)
Size = TypeAliasType("Size", int | float)


@pytest.mark.parametrize(
    ("given", "wanted", "fit"),
    [
        (str, str, True), (str, Any, True), (str, int, False), (bool, int, True), (int, bool, False),
        (int, float, True), (float, int, False), (str, str | None, True), (str | None, str, False),
        (str | None, None | str | int, True), (Literal["a"], str, True), (Literal["a", 1], str, False),
        (Literal["a"], Literal["a", "b"], True), (Literal["a", "c"], Literal["a", "b"], False),
        (str, Literal["a"], False), (Annotated[str, "x"], str, True), (str, Annotated[str | None, append], True),
        (Name, str, True), (str, Name, True), (int, Size, True), (Size, float, True), (list[str], list[str], True),
        (list[str], list, True), (list[str], list[int], False), (list, list[str], False), (Vault, BaseModel, True),
        (BaseModel, Vault, False), (dict[str, int], str, False),
    ],
)  # fmt: skip
def test_which_types_fit_which(given: Any, wanted: Any, fit: bool) -> None:
    """Whatever one allows the other allows; in doubt it doesn't fit."""
    assert fits(given, wanted) is fit


def test_what_types_are_made_of() -> None:
    """The items of lists, and the texts of literals wherever they stand."""
    assert item_types(Annotated[list[str] | None, append]) == (str,)
    assert (item_types(list[int | None]), item_types(dict[str, int]), item_types(list)) == ((int | None,), (), ())
    assert literals(list[Literal["b", "a"]] | Literal["a", 3] | None) == ("b", "a")
    assert literals(str) == literals(None) == ()
