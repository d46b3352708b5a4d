"""What changed between two states that somebody else's reducers made: the smallest delta that says it."""

from collections.abc import Mapping

from perdure.canonical import Json, canonical
from perdure.delta import Delta, Operation, Values, apply, diff, same


def delta_between(old: Mapping[str, Json], new: Mapping[str, Json]) -> Delta:
    """The delta that turns the old values into the new ones. What is the same object in both is not looked into."""
    delta: Delta = {name: {"op": "unset"} for name in old if name not in new}
    for name, value in new.items():
        if name not in old:
            delta[name] = {"op": "set", "value": value}
        elif value is not old[name] and (operation := operation_between(old[name], value)):
            delta[name] = operation
    return delta


def operation_between(old: Json, new: Json) -> Operation | None:
    """The smallest operation that turns one value into the other. None where they are the same."""
    operation = diff(old, new)
    if operation is None or operation["op"] == "append":
        return operation
    other = _merge(old, new) or _messages(old, new)
    if other is None or len(canonical(other)) >= len(canonical(operation)) or not _leads(old, other, new):
        return operation
    return other


def _leads(old: Json, operation: Operation, new: Json) -> bool:
    values: Values = apply({"it": old}, {"it": operation})
    return same(values["it"], new)


def _merge(old: Json, new: Json) -> Operation | None:
    if not isinstance(old, dict) or not isinstance(new, dict) or not old.keys() <= new.keys():
        return None
    return {"op": "merge", "value": _changed(old, new)}


def _changed(old: dict[str, Json], new: dict[str, Json]) -> dict[str, Json]:
    """The entries that are new or not the same; within an object only those of its entries."""
    out: dict[str, Json] = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if inside := _changed(before, value):
                out[key] = inside
        elif key not in old or not same(before, value):
            out[key] = value
    return out


def _messages(old: Json, new: Json) -> Operation | None:
    """As messages: what changed in its place and what was added at the end, by their ids."""
    before, after = _by_id(old), _by_id(new)
    if before is None or after is None:
        return None
    put = [item for name, item in after.items() if name not in before or not same(before[name], item)]
    drop = [name for name in before if name not in after]
    return {"op": "messages", "put": put} | ({"drop": drop} if drop else {})


def _by_id(items: Json) -> dict[str, Json] | None:
    """Objects by their ids; None unless each has one of its own."""
    if not isinstance(items, list):
        return None
    named = {item["id"]: item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}
    return named if len(named) == len(items) else None
