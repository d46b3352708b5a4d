"""Drawings of graphs: as a Mermaid flowchart, and in characters for a terminal.

In characters each node is a box, one below the other; rails on the right lead from an outcome to the nodes that follow
it. That way every loop and every branch can be drawn, however many there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from perdure.contracts import END, START, NodeSpec
from perdure.graphs.compiled import CompiledGraph


@dataclass(frozen=True)
class Way:
    """What may follow one outcome of a node; ``chosen``: a router, or the node itself, chooses among the targets."""

    source: str
    label: str
    targets: tuple[str, ...]
    chosen: bool = False


def ways(graph: CompiledGraph) -> list[Way]:
    """All that leads from one node to the next. The ordinary outcome needs no words where there is no other."""
    chosen = graph.chosen_by(START)
    found = [Way(START, "", chosen or graph.start, chosen=bool(chosen))]
    for name, spec in graph.specs.items():
        alone = len(spec.routes) + bool(spec.chooses) == 1
        if spec.chooses:
            usual = "answer" if spec.kind == "model" else "chosen" if "done" in spec.routes else "done"
            found.append(Way(name, "" if alone else usual, spec.chooses, chosen=True))
        found += [Way(name, "" if alone else on.replace("_", " "), to) for on, to in spec.routes.items()]
    return found


def _about(spec: NodeSpec) -> str:
    """What kind of node it is."""
    what = f"{spec.kind} {spec.model}" if spec.model else spec.kind
    return f"{what}, waits for {', '.join(spec.joins)}" if spec.joins else what


# ── Mermaid ──────────────────────────────────────────────────────────────────────────────────────────────────────

_SHAPES = {"function": ("[", "]"), "model": ("{{", "}}"), "tools": ("[[", "]]"), "human": ("[/", "/]")}


def mermaid(graph: CompiledGraph) -> str:
    """The graph as a Mermaid flowchart. Nodes are numbered: their names could be words of Mermaid's own."""
    numbers = {name: f"n{number}" for number, name in enumerate(graph.specs, 1)} | {START: "n0", END: "done"}
    lines = ["flowchart TD", '    n0(["start"])', *_inside(graph, numbers, "", "    "), '    done(["end"])']
    for way in ways(graph):
        arrow = "-.->" if way.chosen else "-->"
        label = f'|"{way.label}"| ' if way.label else ""
        lines += [f"    {numbers[way.source]} {arrow} {label}{numbers[target]}" for target in way.targets]
    return "\n".join(lines)


def _inside(graph: CompiledGraph, numbers: dict[str, str], prefix: str, indent: str) -> Iterator[str]:
    """The nodes of a graph, and those of its subgraphs in frames of their own."""
    framed: set[str] = set()
    for name, spec in graph.specs.items():
        if not name.startswith(prefix):
            continue
        frame, inside, _ = name[len(prefix) :].partition("/")
        if not inside:
            opens, closes = _SHAPES[spec.kind]
            yield f'{indent}{numbers[name]}{opens}"{_quoted(frame)}<br/><small>{_quoted(_about(spec))}</small>"{closes}'
        elif frame not in framed:
            framed.add(frame)
            yield f'{indent}subgraph {numbers[name]}s ["{frame}"]'
            yield from _inside(graph, numbers, f"{prefix}{frame}/", f"{indent}    ")
            yield f"{indent}end"


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


# ── characters ───────────────────────────────────────────────────────────────────────────────────────────────────

_UP, _DOWN, _LEFT, _RIGHT = 1, 2, 4, 8
_LINES = {
    _UP | _DOWN: "│", _LEFT | _RIGHT: "─", _UP | _LEFT: "╯", _DOWN | _LEFT: "╮", _UP | _DOWN | _LEFT: "┤",
    _UP | _LEFT | _RIGHT: "┴", _DOWN | _LEFT | _RIGHT: "┬", _UP | _DOWN | _LEFT | _RIGHT: "┼", _LEFT: "─",
}  # fmt: skip


@dataclass(frozen=True)
class Rail:
    """A vertical line from the row of an outcome to the rows of its targets."""

    source: int
    targets: frozenset[int]
    chosen: bool

    @property
    def rows(self) -> range:
        """The rows that it passes."""
        ends = {self.source, *self.targets}
        return range(min(ends), max(ends) + 1)

    def meets(self, row: int) -> bool:
        """Whether it begins or ends in this row."""
        return row == self.source or row in self.targets


def terminal(graph: CompiledGraph) -> str:
    """The graph in characters. A dotted line leads to what may be chosen, a plain one to all of its targets."""
    width = max(len(text) for box in _boxes(graph) for text, _ in box.lines)
    rows: list[str] = []
    enters: dict[str, int] = {}
    leaves: dict[Way, int] = {}
    for box in _boxes(graph):
        rows.append(f"╭{'─' * (width + 2)}╮")
        enters[box.name] = len(rows)
        for text, way in box.lines:
            if way:
                leaves[way] = len(rows)
            rows.append(f"│ {text:{width}} │")
        rows.append(f"╰{'─' * (width + 2)}╯")
    rails = [Rail(row, frozenset(enters[target] for target in way.targets), way.chosen) for way, row in leaves.items()]
    columns = _columns(rails)
    return "\n".join((row + _beside(number, columns)).rstrip() for number, row in enumerate(rows))


@dataclass(frozen=True)
class Box:
    """A node: its lines, each with the way that leaves there."""

    name: str
    lines: tuple[tuple[str, Way | None], ...]


def _boxes(graph: CompiledGraph) -> list[Box]:
    """From the start down to the end."""
    leaving: dict[str, list[Way]] = {}
    for way in ways(graph):
        leaving.setdefault(way.source, []).append(way)
    boxes = []
    for name in _order(leaving):
        plain = next((way for way in leaving.get(name, ()) if not way.label), None)
        lines: list[tuple[str, Way | None]] = [(name, plain if name == START else None)]
        if spec := graph.specs.get(name):
            lines.append((f"  {_about(spec)}", plain))
        lines += [(f"  - {way.label}", way) for way in leaving.get(name, ()) if way.label]
        boxes.append(Box(name, tuple(lines)))
    return boxes


def _order(leaving: dict[str, list[Way]]) -> list[str]:
    """Each node below those that lead to it, as far as loops allow; the end is last."""
    done: list[str] = []
    seen = {START, END}

    def visit(name: str) -> None:
        for way in leaving.get(name, ()):  # what comes back, or mends, stands next to it
            for target in reversed(way.targets):
                if target not in seen:
                    seen.add(target)
                    visit(target)
        done.append(name)

    visit(START)
    return [*reversed(done), END]


def _columns(rails: list[Rail]) -> list[list[Rail]]:
    """The rails side by side, short ones near the boxes; in one column no two pass the same row."""
    columns: list[list[Rail]] = []
    for rail in sorted(rails, key=lambda rail: (len(rail.rows), rail.source)):
        for column in columns:
            if all(rail.rows.stop <= other.rows.start or other.rows.stop <= rail.rows.start for other in column):
                column.append(rail)
                break
        else:
            columns.append([rail])
    return columns


def _beside(row: int, columns: list[list[Rail]]) -> str:
    """What stands to the right of the boxes in a row: in each column the rail that passes, joined to its box or not."""
    passing = [next((rail for rail in column if row in rail.rows), None) for column in columns]
    joined = [number for number, rail in enumerate(passing) if rail and rail.meets(row)]
    last = joined[-1] if joined else -1
    leaving = next((rail for rail in passing if rail and rail.source == row), None)
    across = "┄" if leaving and leaving.chosen else "─"
    text = across if leaving else "◀" if joined else " "
    for number, rail in enumerate(passing):
        beyond = across if number < last else " "
        if rail is None:
            text += beyond
        elif number not in joined:
            text += "│"  # what goes across passes behind it
        else:
            up, down, right = row > rail.rows[0], row < rail.rows[-1], number < last
            text += _LINES[_LEFT | _UP * up | _DOWN * down | _RIGHT * right]
        text += beyond
    return text
