"""Two branches side by side: what each has done since they had a common past.

A branch is a line of checkpoints, whatever threads it goes through. Two forks of one thread, a thread and what was
forked from a fork of it, or two checkpoints of one thread: all are compared alike.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.budget import Usage
from perdure.checkpoint import Checkpoint
from perdure.effects import Effect
from perdure.starters.entries import Difference, Place
from perdure.travel import line
from perdure.values import Value

if TYPE_CHECKING:
    from perdure.stores.base import EffectRow, Store


class Side(Value):
    """One of two branches, from the common past to its end. ``effects`` are of the calls that led there, oldest first;
    their status tells what became of each."""

    place: Place
    dry_run: bool = False
    steps: int = 0
    usage: Usage = Usage()
    effects: tuple[Effect, ...] = ()


class SameCall(Value):
    """A call that both have made, or simulated: the same tool with the same arguments. The keys of its effects."""

    one: str
    other: str


class Comparison(Value):
    """Two branches. ``common`` is the last checkpoint that both go back to; None where they share nothing.

    ``difference`` leads from the state of the one to that of the other.
    """

    common: Place | None
    one: Side
    other: Side
    same: tuple[SameCall, ...] = ()
    difference: Difference


@dataclass
class _Branch:
    """What is found on the way back from the end of a branch. Of checkpoints nothing is kept but where calls were made.

    ``made`` are (thread, checkpoint): calls that the branch has gone on from.
    """

    end: Checkpoint
    steps: int = 0
    usage: Usage = field(default_factory=Usage)
    made: set[tuple[str, str]] = field(default_factory=set)

    def passes(self, checkpoint: Checkpoint) -> None:
        """One more that is the branch's own. A rewind doesn't follow from calls made on its parent."""
        self.steps += 1
        self.usage = self.usage.plus(Usage.model_validate(checkpoint.facts.get("usage") or {}))
        if checkpoint.source != "rewind" and checkpoint.parent_id is not None:
            self.made.add((checkpoint.thread_id, checkpoint.parent_id))


async def compare(store: "Store", one: Checkpoint, other: Checkpoint, difference: Difference) -> Comparison:
    """Compare the branches that end at two checkpoints; ``difference`` is that of their states."""
    ours, theirs = _Branch(one), _Branch(other)
    common = await _meet(store, ours, theirs)
    mine, its = await _rows(store, ours), await _rows(store, theirs)
    return Comparison(
        common=Place(thread_id=common.thread_id, checkpoint_id=common.id, step=common.step) if common else None,
        one=await _side(store, ours, mine, difference.before), other=await _side(store, theirs, its, difference.after),
        same=tuple(_same(mine, its)), difference=difference,
    )  # fmt: skip


async def _meet(store: "Store", one: _Branch, other: _Branch) -> Checkpoint | None:
    """Go back on both lines to where they meet; the higher step goes first, so that neither misses the other."""
    async with (
        aclosing(line(store, one.end.thread_id, one.end.id)) as ours,
        aclosing(line(store, other.end.thread_id, other.end.id)) as theirs,
    ):
        mine, its = await _next(ours), await _next(theirs)
        while mine is not None or its is not None:
            if mine is not None and its is not None and mine.ref == its.ref:
                return mine
            ahead = mine.step - its.step if mine is not None and its is not None else 0
            if mine is not None and ahead >= 0:
                one.passes(mine)
                mine = await _next(ours)
            if its is not None and ahead <= 0:
                other.passes(its)
                its = await _next(theirs)
    return None


async def _next(checkpoints: AsyncIterator[Checkpoint]) -> Checkpoint | None:
    return await anext(checkpoints, None)


async def _rows(store: "Store", branch: _Branch) -> list["EffectRow"]:
    """The ledger of a branch. What is made on a thread's head belongs to whoever stands there."""
    end, made = branch.end, branch.made
    thread = await store.thread(end.thread_id)
    if thread is not None and thread.head_id == end.id:
        made = made | {(end.thread_id, end.id)}
    found = [row for name in sorted({thread for thread, _ in made}) for row in await store.effects(name)]
    met = [row for row in found if (row.thread_id, row.entry.checkpoint_id) in made]
    return sorted(met, key=lambda row: (row.entry.step, row.entry.index, row.entry.key))


async def _side(store: "Store", branch: _Branch, rows: list["EffectRow"], place: Place) -> Side:
    thread = await store.thread(branch.end.thread_id)
    return Side(
        place=place, dry_run=bool(thread and thread.dry_run), steps=branch.steps, usage=branch.usage,
        effects=tuple(row.entry for row in rows),
    )  # fmt: skip


def _same(ours: Iterable["EffectRow"], theirs: Iterable["EffectRow"]) -> Iterator[SameCall]:
    """Each call with the first of the other branch that is the same and has none yet."""
    left = list(theirs)
    for row in ours:
        call = (row.entry.tool, row.arguments_digest)
        if fitting := next((r for r in left if (r.entry.tool, r.arguments_digest) == call), None):
            left.remove(fitting)
            yield SameCall(one=row.entry.key, other=fitting.entry.key)
