"""The branches of a thread as a tree: where rewinds have left a line, and where others were forked from it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from perdure.checkpoint import Checkpoint, Source
from perdure.values import Value

_PLAIN: frozenset[Source] = frozenset({"input", "step"})  # what a thread does all the time


class Stretch(Value):
    """Checkpoints in a row with nothing to tell in between, all of one source (``input`` and ``step`` count as one).

    ``first`` and ``last`` are the ids of its ends. ``left`` are branches that rewinds have left here: each begins with
    a child of ``last``. ``forks`` are the threads that were forked from ``last``.
    """

    source: Source  # of the first
    first: str
    last: str
    first_step: int
    last_step: int
    first_turn: int
    last_turn: int
    is_head: bool = False
    forks: tuple[str, ...] = ()
    left: tuple[tuple["Stretch", ...], ...] = ()


class Tree(Value):
    """A thread's branches from its roots: one, unless old checkpoints were removed. The head's line comes last.

    ``origin_thread`` and ``origin_id`` tell where the thread itself was forked from.
    """

    thread_id: str
    origin_thread: str = ""
    origin_id: str = ""
    branches: tuple[tuple[Stretch, ...], ...]


@dataclass
class _Node:
    id: str
    parent_id: str | None
    step: int
    turn: int
    source: Source
    children: list[str] = field(default_factory=list)


class Branches:
    """Collects a thread's checkpoints and draws its branches; of each it keeps only its place."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}

    def add(self, c: Checkpoint) -> None:
        """Take one in. In any order."""
        self._nodes[c.id] = _Node(id=c.id, parent_id=c.parent_id, step=c.step, turn=c.turn, source=c.source)

    def grow(self, head: str, forks: Mapping[str, Collection[str]]) -> tuple[tuple[Stretch, ...], ...]:
        """The branches from their roots, the head's last. ``forks`` are the threads by where they were forked."""
        roots: list[str] = []
        for node in self._nodes.values():
            parent = self._nodes.get(node.parent_id or "")
            (parent.children if parent else roots).append(node.id)
        line = self._line(head)
        return tuple(self._branch(root, line, forks, head) for root in _head_last(roots, line))

    def _line(self, head: str) -> set[str]:
        found: set[str] = set()
        node = self._nodes.get(head)
        while node is not None:
            found.add(node.id)
            node = self._nodes.get(node.parent_id or "")
        return found

    def _branch(
        self, start: str, line: set[str], forks: Mapping[str, Collection[str]], head: str
    ) -> tuple[Stretch, ...]:
        """One branch to its end: it goes on with the head's line, or else with the newest."""
        stretches: list[Stretch] = []
        run = [self._nodes[start]]
        while True:
            *left, on = _head_last(run[-1].children, line) or [""]
            more = self._nodes.get(on)
            if more and not left and run[-1].id not in forks and _is_like(run[-1], more):
                run.append(more)
                continue
            sides = tuple(self._branch(child, line, forks, head) for child in left)
            stretches.append(_stretch(run, head, forks.get(run[-1].id, ()), sides))
            if more is None:
                return tuple(stretches)
            run = [more]


def _head_last(ids: Iterable[str], line: set[str]) -> list[str]:
    return sorted(ids, key=lambda id: (id in line, id))  # ids sort by time


def _is_like(one: _Node, other: _Node) -> bool:
    return one.source == other.source or {one.source, other.source} <= _PLAIN


def _stretch(
    run: list[_Node], head: str, forks: Iterable[str], left: tuple[tuple[Stretch, ...], ...]
) -> Stretch:  # fmt: skip
    first, last = run[0], run[-1]
    return Stretch(
        source=first.source, first=first.id, last=last.id, first_step=first.step, last_step=last.step,
        first_turn=first.turn, last_turn=last.turn, is_head=last.id == head, forks=tuple(sorted(forks)), left=left,
    )  # fmt: skip
