"""How two states differ: as a JSON Patch (RFC 6902) for programs, and edit by edit for people."""

from collections.abc import Iterable, Iterator

from jsonpatch import JsonPatch
from jsonpointer import JsonPointer

from perdure.canonical import Json
from perdure.values import Value

Operation = dict[str, Json]


class Edit(Value):
    """One operation, readable by itself: what was at a place, and what is there now.

    ``path`` are the keys and indices from the root; an index counts in the list as the edits before have left it.
    """

    op: str  # add | remove | replace
    path: tuple[str, ...]
    old: Json = None
    new: Json = None


def diff(before: Json, after: Json) -> list[Operation]:
    """The patch that turns one JSON value into another: additions, removals and replacements, no moves.

    Lists are compared by their items: what is added to one, or taken out of it, costs as many operations.
    """
    return list(JsonPatch.from_diff(before, after, optimization=False))


def applied(before: Json, patch: Iterable[Operation]) -> Json:
    """The value after the patch; the given one stays as it is."""
    return JsonPatch(patch).apply(before)


def edits(before: Json, patch: Iterable[Operation]) -> Iterator[Edit]:
    """The operations of a patch of ours, each with the value that it takes away or replaces."""
    value = before
    for operation in patch:
        place = JsonPointer(operation["path"])
        old = None if operation["op"] == "add" else place.resolve(value)
        yield Edit(op=operation["op"], path=tuple(place.parts), old=old, new=operation.get("value"))
        value = JsonPatch([operation]).apply(value, in_place=value is not before)
