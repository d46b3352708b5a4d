"""Reducers: how an update merges into a channel."""

import operator
import types
from collections.abc import Callable
from typing import Any

from perdure.canonical import Json, canonical
from perdure.delta import Operation, merged, same
from perdure.message import Remove
from perdure.talk import as_talk

MISSING: Any = types.SimpleNamespace()  # a channel that has no value yet; None is a value
Reduce = Callable[[Json, Json], Operation | None]
Combine = Callable[[Any, Any], Any]


class Reducer:
    """How an update merges into a channel.

    Either ``reduce``, on JSON: ``(old, update) -> operation``, or None where nothing changes. Or ``combine``, on the
    channel's own type: ``(old, update) -> new``. ``shares``: whether several nodes may write the channel in one step.
    ``lists``: it only makes sense for a list.
    """

    def __init__(
        self, name: str, reduce: Reduce | None = None, *, combine: Combine | None = None, shares: bool = True,
        lists: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.reduce = reduce
        self.combine = combine
        self.shares = shares
        self.lists = lists

    def __repr__(self) -> str:
        return self.name


OVERWRITE = "$overwrite"  # an Overwrite as it is recorded between a call and the commit of its step: {OVERWRITE: value}


class Overwrite:
    """An update that replaces the channel's value instead of going through its reducer."""

    def __init__(self, value: Any) -> None:
        self.value = value


def overwrites(update: Any) -> bool:
    """Whether an update is an ``Overwrite``, also as it was recorded."""
    return isinstance(update, Overwrite) or (isinstance(update, dict) and update.keys() == {OVERWRITE})


def overwriting(update: Any) -> Any:
    """The value of an update that ``overwrites``."""
    return update.value if isinstance(update, Overwrite) else update[OVERWRITE]


def removes(item: Any) -> bool:
    """Whether an item of an update is a ``Remove``, also as JSON."""
    return isinstance(item, Remove) or (isinstance(item, dict) and item.keys() == {"remove"})


def setting(value: Json) -> Operation:
    """The operation that sets a channel."""
    return {"op": "set", "value": value}


def replacing(old: Json, new: Json) -> Operation | None:
    """The operation that puts a value in the place of another; None where they are the same."""
    return None if old is not MISSING and same(old, new) else setting(new)


def _union(old: Json, new: Json) -> Operation | None:
    known = set() if old is MISSING else {canonical(item) for item in old or ()}
    items = {canonical(item): item for item in new or ()}
    fresh = [item for name, item in items.items() if name not in known]
    return {"op": "append", "items": fresh} if fresh else None


def _merge(old: Json, new: Json) -> Operation | None:
    return None if old is not MISSING and same(merged(old, new), old) else {"op": "merge", "value": new}


def _messages(old: Json, new: Json) -> Operation | None:
    known = as_talk([] if old is MISSING else old or []).places
    drop = [item["remove"] for item in new if removes(item) and item["remove"] in known]
    put = [item for item in new if not removes(item)]
    return ({"op": "messages", "put": put} | ({"drop": drop} if drop else {})) if put or drop else None


def _first(combine: Combine) -> Combine:
    """Where there is no old value yet, the new one is it."""
    return lambda old, new: new if old is None else combine(old, new)


overwrite = Reducer("overwrite", replacing, shares=False)
append = Reducer("append", lambda old, new: {"op": "append", "items": new} if new else None, lists=True)
merge = Reducer("merge", _merge)
add = Reducer("add", combine=_first(operator.add))
union = Reducer("union", _union, lists=True)
maximum = Reducer("maximum", combine=_first(max))
minimum = Reducer("minimum", combine=_first(min))
messages = Reducer("messages", _messages, lists=True)
