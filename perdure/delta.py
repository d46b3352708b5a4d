"""A delta: what one step changed, as data that applies without running anyone's code.

A delta maps channels to operations, already reduced::

    {"title":    {"op": "set", "value": "Laptops"},
     "notes":    {"op": "append", "items": ["asked finance"]},
     "profile":  {"op": "merge", "value": {"address": {"city": "Bern"}}},
     "messages": {"op": "messages", "put": [{...}], "drop": ["m3"]}}

Reducers (``perdure.state``) make operations; only this module applies them. So a checkpoint is read back
without the code that wrote it, also when that code has changed since.
"""

from perdure.canonical import Json, canonical

Operation = dict[str, Json]
Delta = dict[str, Operation]
Values = dict[str, Json]


def apply(values: Values, delta: Delta) -> Values:
    """The values after the delta. The given values stay as they are; unchanged channels are shared, not copied."""
    out = dict(values)
    for channel, operation in delta.items():
        out[channel] = _APPLY[operation["op"]](out.get(channel), operation)
    return out


def growth(values: Values, delta: Delta) -> int:
    """About how many bytes the delta adds to the values; costs no more than the delta and what it replaces."""
    total = 0
    for channel, operation in delta.items():
        total += len(canonical(operation))
        if operation["op"] == "set" and channel in values:
            total -= len(canonical(values[channel]))
    return total


def diff(old: Json, new: Json) -> Operation:
    """The smallest operation that turns old into new: an append where new only adds to a list, else a set."""
    if isinstance(old, list) and isinstance(new, list) and len(new) > len(old) and new[: len(old)] == old:
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
    drop = set(operation.get("drop", ()))
    put = {message["id"]: message for message in operation.get("put", ())}
    replaced = {message["id"] for message in old or [] if message["id"] in put} if old else set()
    if not drop and not replaced:
        return [*(old or []), *put.values()]
    kept = [put.get(message["id"], message) for message in old or [] if message["id"] not in drop]
    return [*kept, *(message for key, message in put.items() if key not in replaced)]


_APPLY = {
    "set": lambda old, operation: operation["value"],
    "append": _append,
    "merge": lambda old, operation: merged(old, operation["value"]),
    "messages": _messages,
}
