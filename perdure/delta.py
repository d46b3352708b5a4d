"""A delta: what one step changed, as data that applies without running anyone's code.

A delta maps channels to operations, already reduced::

    {"title":    {"op": "set", "value": "Laptops"},
     "notes":    {"op": "append", "items": ["asked finance"]},
     "profile":  {"op": "merge", "value": {"address": {"city": "Bern"}}},
     "messages": {"op": "messages", "put": [{...}], "drop": ["m3"]},
     "old":      {"op": "unset"}}

``unset`` takes a channel away that a newer version of the state no longer has.

Reducers (``perdure.state``) make operations; only this module applies them. So a checkpoint is read back
without the code that wrote it, also when that code has changed since.
"""

from collections.abc import Iterable

from perdure.canonical import Json, canonical
from perdure.talk import Talk, as_talk

Operation = dict[str, Json]
Delta = dict[str, Operation]
Values = dict[str, Json]


def apply(values: Values, delta: Delta) -> Values:
    """The values after the delta. The given values stay as they are; unchanged channels are shared, not copied."""
    out = dict(values)
    for channel, operation in delta.items():
        _put_in(out, channel, operation)
    return out


def _put_in(values: Values, channel: str, operation: Operation) -> None:
    """Apply one operation; only the dictionary itself is changed."""
    if operation["op"] == "unset":
        values.pop(channel, None)
    else:
        values[channel] = _APPLY[operation["op"]](values.get(channel), operation)


def fold(values: Values, deltas: Iterable[Delta]) -> Values:
    """What ``apply`` makes of one delta after the other, in linear time: a list is copied once, not for each delta."""
    out = dict(values)
    own: set[str] = set()  # channels whose list is our copy
    for delta in deltas:
        for channel, operation in delta.items():
            grown = out[channel] if channel in own else None
            if isinstance(grown, Talk) and operation["op"] == "messages" and "drop" not in operation:
                grown.put(operation.get("put", ()))
            elif type(grown) is list and operation["op"] == "append":
                grown.extend(operation["items"])
            else:
                _put_in(out, channel, operation)
                (own.add if operation["op"] in _GROWS else own.discard)(channel)
    return out


def latest_message(delta: Delta, channel: str = "messages") -> Json:
    """The last message that a delta puts into a conversation."""
    operation = delta[channel]
    return (operation["value"] if operation["op"] == "set" else operation["put"])[-1]


def growth(before: Values, delta: Delta, after: Values) -> int:
    """How many bytes longer the canonical values are after the delta; costs what the delta changes, not the whole."""
    total = _commas(len(after)) - _commas(len(before))
    for channel, operation in delta.items():
        if operation["op"] == "unset":
            total -= len(canonical({channel: before[channel]})) - 2 if channel in before else 0
        elif channel in before:
            total += _growth(before[channel], operation, after[channel])
        else:
            total += len(canonical({channel: after[channel]})) - 2
    return total


def _growth(old: Json, operation: Operation, new: Json) -> int:
    if operation["op"] == "merge":
        return _merge_growth(old, operation["value"])
    if operation["op"] not in _GROWS or not isinstance(old, list):
        return len(canonical(new)) - len(canonical(old))
    added: list[Json] = operation["items"] if operation["op"] == "append" else operation.get("put", [])
    if len(new) == len(old) + len(added):
        return sum(len(canonical(item)) for item in added) + _commas(len(new)) - _commas(len(old))
    return _list_growth(old, new)


def _merge_growth(old: Json, value: Json) -> int:
    if not isinstance(old, dict) or not isinstance(value, dict):
        return len(canonical(value)) - len(canonical(old))
    fresh = {key: item for key, item in value.items() if key not in old}
    total = sum(_merge_growth(old[key], item) for key, item in value.items() if key in old)
    return total + len(canonical(fresh)) - 2 - _commas(len(fresh)) + _commas(len(old) + len(fresh)) - _commas(len(old))


def _list_growth(old: list[Json], new: list[Json]) -> int:
    """Both lists share most of their items; only those that they don't share are measured."""
    stayed = {id(item) for item in old} & {id(item) for item in new}
    gone = sum(len(canonical(item)) for item in old if id(item) not in stayed)
    came = sum(len(canonical(item)) for item in new if id(item) not in stayed)
    return came - gone + _commas(len(new)) - _commas(len(old))


def _commas(items: int) -> int:
    return max(items - 1, 0)


def same(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON. ``1``, ``1.0`` and ``true`` are equal in Python."""
    return bool(one == other) and canonical(one) == canonical(other)


def diff(old: Json, new: Json) -> Operation | None:
    """The smallest operation that turns old into new: an append where new only adds to a list, else a set.

    None where they are the same.
    """
    if same(old, new):
        return None
    if isinstance(old, list) and isinstance(new, list) and len(new) > len(old) and same(new[: len(old)], old):
        return {"op": "append", "items": new[len(old) :]}
    return {"op": "set", "value": new}


def merged(old: Json, new: Json) -> Json:
    """Deep merge by key: objects merge, everything else (null too) replaces."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return new
    return {**old, **{key: merged(old.get(key), value) for key, value in new.items()}}


def _append(old: Json, operation: Operation) -> Json:
    return [*(old or []), *operation["items"]]


def _messages(old: Json, operation: Operation) -> Json:
    """First those that are dropped go, then each put one takes the place of its id, or the last place."""
    talk = as_talk(old or [])
    drop = set(operation.get("drop", ()))
    left = Talk(message for message in talk if message["id"] not in drop) if drop else talk.but()
    left.put(operation.get("put", ()))
    return left


_GROWS = frozenset({"append", "messages"})  # operations that mostly add to a list
_APPLY = {
    "set": lambda old, operation: operation["value"],
    "append": _append,
    "merge": lambda old, operation: merged(old, operation["value"]),
    "messages": _messages,
}
