"""What follows a step: routes, choices, joins, and that a node is run once however many ways lead to it."""

from hypothesis import given
from hypothesis import strategies as st

from perdure.checkpoint import Frontier, Task
from perdure.contracts import END, AgentSpec, Ended, NodeSpec
from perdure.graphs.frontier import first, following

NAMES = ("a", "b", "c", "d")


def spec(**nodes: NodeSpec) -> AgentSpec:
    """A graph of these nodes."""
    return AgentSpec(name="g", digest="", start=("a",), nodes=nodes)


def node(*targets: str, joins: tuple[str, ...] = (), error: str = "") -> NodeSpec:
    """A function that leads there."""
    routes = {"done": targets} | ({"error": (error,)} if error else {})
    return NodeSpec(kind="function", routes=routes, joins=joins)


def done(*names: str) -> tuple[Ended, ...]:
    """These have ended well."""
    return tuple(Ended(node=name, outcome="done") for name in names)


def test_a_turn_begins_where_the_start_leads_or_where_its_router_says() -> None:
    graph = spec(a=node(END), b=node(END))
    assert first(graph).nodes == ("a",)
    assert first(graph, (Task(node="b", arg=1), Task(node="b", arg=1))).tasks == (Task(node="b", arg=1),) * 2
    assert first(graph, (Task(node=END),)) == Frontier()


def test_two_ways_to_one_node_run_it_once_but_each_send_is_a_task_of_its_own() -> None:
    graph = spec(a=node("c"), b=node("c"), c=node(END))
    assert following(graph, Frontier(), done("a", "b"), {}).nodes == ("c",)
    sent = {0: (Task(node="c", arg=1), Task(node="c", arg=1)), 1: (Task(node="c"),)}
    assert following(graph, Frontier(), done("a", "b"), sent).nodes == ("c", "c", "c")


def test_a_join_waits_for_all_its_sources_and_then_for_all_of_them_again() -> None:
    graph = spec(a=node("c", "d"), b=node("c"), c=node("a", joins=("a", "b")), d=node("b"))
    frontier = following(graph, Frontier(), done("a"), {})
    assert (frontier.nodes, frontier.arrived) == (("d",), {"c": ("a",)})
    frontier = following(graph, frontier, done("d"), {})
    assert (frontier.nodes, frontier.arrived) == (("b",), {"c": ("a",)})
    frontier = following(graph, frontier, done("b"), {})
    assert (frontier.nodes, frontier.arrived) == (("c",), {})
    frontier = following(graph, following(graph, frontier, done("c"), {}), done("a"), {})
    assert frontier.nodes == ("d",)


def test_an_error_leads_to_its_route_with_what_went_wrong() -> None:
    graph = spec(a=node(END, error="b"), b=node(END))
    ended = (Ended(node="a", outcome="error", error="no", error_type="ToolError"),)
    [task] = following(graph, Frontier(), ended, {}).tasks
    assert task == Task(node="b", arg={"node": "a", "type": "ToolError", "message": "no"})


def test_a_turn_ends_though_a_join_still_waits() -> None:
    graph = spec(a=node("c"), b=node("c"), c=node(END, joins=("a", "b")))
    assert following(graph, Frontier(), done("a"), {}) == Frontier()


@st.composite
def graphs(draw: st.DrawFn) -> AgentSpec:
    """Any graph of four nodes, with any joins."""
    targets = st.lists(st.sampled_from([*NAMES, END]), max_size=3, unique=True).map(tuple)
    joins = st.lists(st.sampled_from(NAMES), max_size=3, unique=True).map(tuple)
    return spec(**{name: node(*draw(targets), joins=draw(joins)) for name in NAMES})


@given(graphs(), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True), st.randoms())
def test_what_follows_does_not_depend_on_the_order_in_which_tasks_are_told(
    graph: AgentSpec, ended: list[str], random: object
) -> None:
    told = following(graph, Frontier(), done(*ended), {})
    other = following(graph, Frontier(), done(*reversed(ended)), {})
    assert sorted(told.nodes) == sorted(other.nodes)
    assert told.arrived == other.arrived


@given(graphs(), st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True), max_size=6))
def test_a_join_never_runs_before_each_of_its_sources_has_ended_since_it_ran_last(
    graph: AgentSpec, steps: list[list[str]]
) -> None:
    since: dict[str, set[str]] = {name: set() for name in NAMES}
    frontier = Frontier()
    for ended in steps:
        frontier = following(graph, frontier, done(*ended), {})
        for name in NAMES:
            wanted = graph.nodes[name].joins
            since[name] |= {end for end in ended if end in wanted and name in graph.nodes[end].routes["done"]}
            by_join = bool(wanted) and not any(
                name in graph.nodes[end].routes["done"] and end not in wanted for end in ended
            )
            if by_join and name in frontier.nodes:
                assert since[name] == set(wanted)
            if wanted and since[name] == set(wanted):
                since[name] = set()
        if not frontier.tasks:
            return
