"""Checkpoints and differences as people are shown them."""

import json
from typing import Any

from perdure.budget import Usage
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.delta import Values
from perdure.effects import Effect
from perdure.patch import Edit, Operation, diff, edits
from perdure.starters.talk import body, talks
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


class Change(Value):
    """An edit as a person reads it: a message is what it says, anything else JSON.

    ``path`` begins with the channel; an index counts in the list as the changes before have left it.
    """

    op: str  # add | remove | replace
    path: tuple[str, ...]
    old: str = ""
    new: str = ""


class Difference(Value):
    """How the state at one place differs from that at another.

    ``patch`` is a JSON Patch (RFC 6902) from the first to the second. ``changes`` are for people: messages are compared
    by what they say, so that two conversations with other ids are the same.
    """

    before: Place
    after: Place
    patch: list[Operation]
    changes: tuple[Change, ...]


def difference(before: Place, one: Values, after: Place, other: Values) -> Difference:
    """The difference between the states at two places."""
    spoken = talks(one, other)
    texts, others = _told(one, spoken), _told(other, spoken)
    changes = tuple(_change(edit, spoken) for edit in edits(texts, diff(texts, others)))
    return Difference(before=before, after=after, patch=diff(one, other), changes=changes)


def _told(state: Values, spoken: set[str]) -> Values:
    """The state with its conversations as texts, one a message."""
    texts = {name: [f"{m['role']}: {body(m)}" for m in state.get(name) or ()] for name in sorted(spoken)}
    return texts | {name: value for name, value in state.items() if name not in spoken}


def _change(edit: Edit, spoken: set[str]) -> Change:
    def text(value: Json) -> str:
        return value if edit.path[0] in spoken else json.dumps(value, ensure_ascii=False)

    old, new = "" if edit.op == "add" else text(edit.old), "" if edit.op == "remove" else text(edit.new)
    return Change(op=edit.op, path=edit.path, old=old, new=new)


def entry(checkpoint: Checkpoint, effects: list[Effect], *, left: bool, delta: dict[str, Any]) -> HistoryEntry:
    """A checkpoint as an entry of a history, with its delta as it may be shown."""
    return HistoryEntry.model_validate({**checkpoint.__dict__, "effects": tuple(effects), "left": left, "delta": delta})
