"""Drawings of graphs: what is drawn is read back, and is the graph."""

import re

from hypothesis import given
from hypothesis import strategies as st

from perdure import END, START, Agent, Graph, tool
from perdure.graphs.compiled import CompiledGraph
from perdure.graphs.drawing import mermaid, terminal, ways
from tests.properties import thorough


@tool
def look(what: str) -> str: ...  # type: ignore[empty-body]


def drawn(*edges: tuple[str, str], routers: dict[str, list[str]] | None = None) -> CompiledGraph:
    """The graph of these edges and routers."""
    made = Graph("triage")
    names = dict.fromkeys(name for edge in edges for name in edge) | dict.fromkeys(routers or {})
    for name in names:
        if name not in (START, END):
            made.node(name, lambda state: None)
    for source, target in edges:
        made.edge(source, target)
    for source, targets in (routers or {}).items():
        made.router(source, lambda state: END, targets)
    return made.compiled


@st.composite
def graphs(draw: st.DrawFn) -> CompiledGraph:
    """A graph with branches, loops, routers and error routes; each node leads to the next, the last one to the end."""
    names = [f"n{number}" for number in range(draw(st.integers(1, 7)))]
    somewhere = st.lists(st.sampled_from([*names, END]), max_size=3)
    made = Graph("triage")
    for name in names:
        made.node(name, lambda state: None)
    made.edge(START, names[0])
    for name, follower in zip(names, [*names[1:], END], strict=True):
        others = draw(somewhere)
        if draw(st.booleans()):
            made.router(name, lambda state: END, [follower, *others])
        else:
            for target in (follower, *others):
                made.edge(name, target)
        for target in draw(somewhere) if draw(st.booleans()) else ():
            made.edge(name, target, on="error")
    return made.compiled


def expected(graph: CompiledGraph) -> set[tuple[str, str, str, bool]]:
    """What leads where: source, label, target, and whether it is chosen."""
    return {(way.source, way.label, target, way.chosen) for way in ways(graph) for target in way.targets}


# ── characters ───────────────────────────────────────────────────────────────────────────────────────────────────

UP, DOWN = -1, 1
TURNS = {"╮": (DOWN,), "╯": (UP,), "┤": (UP, DOWN)}  # a line from the left, at its rail
PASSES = {DOWN: "│┤┼", UP: "│┤┼"}  # a rail goes on in the row it comes to
JOINS = {DOWN: "╯┤┴┼", UP: "╮┤┬┼"}  # a rail sends a line to the left


class Picture:
    """A drawing as a person follows it: to the right from a box, along the rail, to the left where an arrow is."""

    def __init__(self, text: str) -> None:
        self.rows = text.splitlines()
        self.edge = self.rows[0].index("╮") + 1
        self.names: dict[int, str] = {}
        name = ""
        for number, row in enumerate(self.rows):
            if row.startswith("│ ") and self.rows[number - 1].startswith("╭"):
                name = row[2 : self.edge - 1].strip()
            self.names[number] = name

    def at(self, row: int, column: int) -> str:
        return self.rows[row][column] if 0 <= row < len(self.rows) and column < len(self.rows[row]) else " "

    def ways(self) -> set[tuple[str, str, str, bool]]:
        """What leads where."""
        found = set()
        for row in range(len(self.rows)):
            if (first := self.at(row, self.edge)) in ("─", "┄"):
                text = self.rows[row][2 : self.edge - 1].strip()
                label = text.removeprefix("- ") if text.startswith("- ") else ""
                column = self.edge
                while self.at(row, column) in (first, "│"):
                    column += 1
                for target in self._along(row, column, TURNS[self.at(row, column)]):
                    found.add((self.names[row], label, self.names[target], first == "┄"))
        return found

    def _along(self, row: int, column: int, directions: tuple[int, ...]) -> set[int]:
        """The rows that a rail leads to."""
        found = set()
        for direction in directions:
            at = row + direction
            while True:
                sign = self.at(at, column)
                assert sign in PASSES[direction] + JOINS[direction], (at, column, sign)
                if sign in JOINS[direction]:
                    found.add(self._left(at, column))
                if sign not in PASSES[direction]:
                    break
                at += direction
        return found

    def _left(self, row: int, column: int) -> int:
        """The row of the arrow that a line to the left leads to: this one."""
        assert self.at(row, self.edge) == "◀"
        assert set(self.rows[row][self.edge + 1 : column]) <= set("─│╮╯┤┴┬┼")
        return row


@thorough
@given(graphs())
def test_a_drawing_in_characters_is_the_graph(graph: CompiledGraph) -> None:
    """Followed by its lines, every branch and every loop leads where it leads, and nowhere else."""
    assert Picture(terminal(graph)).ways() == expected(graph)


def test_an_agent_in_characters() -> None:
    """Boxes from the start to the end; a loop goes back up."""
    graph = Agent(name="clerk", model="gpt", tools=[look]).graph().compiled
    assert (
        terminal(graph)
        == """\
╭────────────────╮
│ start          │─╮
╰────────────────╯ │
╭────────────────╮ │
│ model          │◀┴─╮
│   model gpt    │   │
│   - answer     │───│─╮
│   - tool calls │─╮ │ │
╰────────────────╯ │ │ │
╭────────────────╮ │ │ │
│ tools          │◀╯ │ │
│   tools        │───╯ │
╰────────────────╯     │
╭────────────────╮     │
│ end            │◀────╯
╰────────────────╯"""
    )


def test_what_may_be_chosen_is_dotted() -> None:
    """A plain line leads to all of its targets, a dotted one to what is chosen; a join says what it waits for."""
    text = terminal(drawn(("a", END), ("b", END), routers={START: ["a", "b"]}))
    assert text.splitlines()[1].endswith("│┄╮")
    made = Graph("triage")
    for name in ("a", "b", "c"):
        made.node(name, lambda state: None)
    for source, target in ((START, "a"), (START, "b"), (["a", "b"], "c"), ("c", END)):
        made.edge(source, target)
    assert "function, waits for a, b" in terminal(made.compiled)


# ── Mermaid ──────────────────────────────────────────────────────────────────────────────────────────────────────

ARROW = re.compile(r'    (\w+) (-->|-\.->) (?:\|"([^"]*)"\| )?(\w+)')
NODE = re.compile(r' +(\w+)[\[({/]+"([\w-]+)[^"]*"[\])}/]+')


def read(text: str) -> tuple[dict[str, str], set[tuple[str, str, str, bool]]]:
    """Names by number, and what leads where."""
    names = {match[1]: match[2] for match in map(NODE.fullmatch, text.splitlines()) if match}
    arrows = filter(None, map(ARROW.fullmatch, text.splitlines()))
    return names, {(names[a[1]], a[3] or "", names[a[4]], a[2] == "-.->") for a in arrows}


@thorough
@given(graphs())
def test_a_flowchart_is_the_graph(graph: CompiledGraph) -> None:
    """Every node once, every arrow."""
    names, arrows = read(mermaid(graph))
    assert sorted(names.values()) == sorted([START, END, *graph.specs])
    assert arrows == expected(graph)


def test_a_flowchart_takes_any_name() -> None:
    """Names that are words of Mermaid's own, and models with quotes in their names; subgraphs have frames."""
    inner = Agent(name="clerk", model='a "b" <c>', tools=[look])
    made = Graph("triage")
    made.node("subgraph", lambda state: None)
    made.subgraph("class", inner)
    made.edge(START, "subgraph")
    made.edge("subgraph", "class")
    made.edge("class", END)
    assert (
        mermaid(made.compiled)
        == """\
flowchart TD
    n0(["start"])
    n1["subgraph<br/><small>function</small>"]
    subgraph n2s ["class"]
        n2{{"model<br/><small>model a &quot;b&quot; &lt;c></small>"}}
        n3[["tools<br/><small>tools</small>"]]
    end
    done(["end"])
    n0 --> n1
    n1 --> n2
    n2 --> |"answer"| done
    n2 --> |"tool calls"| n3
    n3 --> n2"""
    )
