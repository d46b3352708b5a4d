"""Checkpoints and differences as people are shown them."""

from typing import Any

from perdure.budget import Usage
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.effects import Effect
from perdure.patch import Edit, Operation, diff, edits
from perdure.values import Value


class HistoryEntry(Checkpoint):
    """A checkpoint with the effects of the calls that were made on it; ``left``: a rewind has left its branch."""

    effects: tuple[Effect, ...] = ()
    left: bool = False

    @property
    def usage(self) -> Usage:
        """What its model calls used."""
        return Usage.model_validate(self.facts.get("usage") or {})


class Place(Value):
    """A checkpoint of a thread."""

    thread_id: str
    checkpoint_id: str
    step: int


class Difference(Value):
    """How the state at one place differs from that at another.

    ``patch`` is a JSON Patch (RFC 6902) from the first to the second; ``edits`` are its operations with what was there.
    """

    before: Place
    after: Place
    patch: list[Operation]
    edits: tuple[Edit, ...]


def difference(before: Place, one: dict[str, Json], after: Place, other: dict[str, Json]) -> Difference:
    """The difference between the states at two places."""
    patch = diff(one, other)
    return Difference(before=before, after=after, patch=patch, edits=tuple(edits(one, patch)))


def entry(checkpoint: Checkpoint, effects: list[Effect], *, left: bool, delta: dict[str, Any]) -> HistoryEntry:
    """A checkpoint as an entry of a history, with its delta as it may be shown."""
    return HistoryEntry.model_validate({**checkpoint.__dict__, "effects": tuple(effects), "left": left, "delta": delta})
