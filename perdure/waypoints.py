"""Waypoints: earlier states of a thread, far apart, that are kept beside its latest one.

Who goes back (a fork, a rewind) reads only the stretch from the nearest of them. They share their items with the latest
state, so each costs little more than pointers to them; and as all of them lie behind the same snapshot, all together
hold no more than a load of the thread reads.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from perdure.talk import Talk

if TYPE_CHECKING:
    from perdure.checkpointer import Position

_SPACING = 32  # steps between the first ones; doubled whenever there are too many
_MOST = 16


class Waypoints:
    """Those of one thread."""

    def __init__(self) -> None:
        self.spacing = _SPACING
        self._base_id: str | None = None
        self._kept: dict[str, Position] = {}

    def get(self, checkpoint_id: str | None) -> "Position | None":
        """The state at this checkpoint, if it is one that was kept."""
        return self._kept.get(checkpoint_id or "")

    def passed(self, position: "Position") -> None:
        """A checkpoint was committed; keep its state if it is time for one."""
        step = position.ref.step
        if position.base_id != self._base_id:
            self._base_id, self.spacing, self._kept = position.base_id, _SPACING, {}
        if step == 0 or step % self.spacing:
            return
        # What was as far or farther on was left behind by a rewind.
        self._kept = {id: kept for id, kept in self._kept.items() if kept.ref.step < step}
        self._kept[position.ref.id] = _at_rest(position)
        if len(self._kept) > _MOST:
            self.spacing *= 2
            self._kept = {id: kept for id, kept in self._kept.items() if kept.ref.step % self.spacing == 0}


def _at_rest(position: "Position") -> "Position":
    """The same, taking as little room as it can."""
    values = {name: value.at_rest() if isinstance(value, Talk) else value for name, value in position.values.items()}
    return replace(position, values=values)
