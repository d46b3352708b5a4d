"""State: channels, and the reducers that merge a node's update into them."""

import math
import operator
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import suppress
from copy import deepcopy
from dataclasses import is_dataclass
from functools import cache
from itertools import count
from typing import Annotated, Any, ClassVar

import typing_extensions
from pydantic import BaseModel, ConfigDict, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from perdure.canonical import Json, canonical
from perdure.delta import Delta, Operation, Values, apply, diff, merged, same
from perdure.errors import DefinitionError, InvalidInput
from perdure.message import Message, Remove

_SECRETS = (Secret, SecretStr, SecretBytes)
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


def _set(value: Json) -> Operation:
    return {"op": "set", "value": value}


def _or_none(old: Json, new: Json) -> Operation | None:
    return None if old is not MISSING and same(old, new) else _set(new)


def _union(old: Json, new: Json) -> Operation | None:
    known = set() if old is MISSING else {canonical(item) for item in old or ()}
    items = {canonical(item): item for item in new or ()}
    fresh = [item for name, item in items.items() if name not in known]
    return {"op": "append", "items": fresh} if fresh else None


def _merge(old: Json, new: Json) -> Operation | None:
    return None if old is not MISSING and same(merged(old, new), old) else {"op": "merge", "value": new}


def _messages(old: Json, new: Json) -> Operation | None:
    known = set() if old is MISSING else {message["id"] for message in old or ()}
    drop = [item["remove"] for item in new if _removes(item) and item["remove"] in known]
    put = [item for item in new if not _removes(item)]
    return ({"op": "messages", "put": put} | ({"drop": drop} if drop else {})) if put or drop else None


def _removes(item: Any) -> bool:
    """Whether an item of an update is a ``Remove``, also as JSON."""
    return isinstance(item, Remove) or (isinstance(item, dict) and item.keys() == {"remove"})


def _first(combine: Combine) -> Combine:
    """Where there is no old value yet, the new one is it."""
    return lambda old, new: new if old is None else combine(old, new)


overwrite = Reducer("overwrite", _or_none, shares=False)
append = Reducer("append", lambda old, new: {"op": "append", "items": new} if new else None, lists=True)
merge = Reducer("merge", _merge)
add = Reducer("add", combine=_first(operator.add))
union = Reducer("union", _union, lists=True)
maximum = Reducer("maximum", combine=_first(max))
minimum = Reducer("minimum", combine=_first(min))
messages = Reducer("messages", _messages, lists=True)
_BY_ID = messages  # inside State the name `messages` is the channel


class State(BaseModel):
    """The base of a thread's state. Each field is a channel; its reducer stands in ``Annotated``.

    A field without a reducer is overwritten. Every field needs a default, since a thread starts with a message
    and not with a state.
    """

    # A type that pydantic doesn't know is refused when the channels are made, where its place is known.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    version: ClassVar[int] = 1

    messages: Annotated[list[Message], _BY_ID] = []


class Channel:
    """One key of the state: its type, its reducer, its default as JSON."""

    def __init__(self, owner: str, name: str, annotation: Any, default: Any) -> None:
        """Raises DefinitionError: a type that isn't JSON, or a default that doesn't fit the type or the reducer."""
        self.name = name
        self.place = f"{owner}.{name}"
        self.type_name = _type_name(_plain(annotation))
        self.reducer = _reducer_of(self.place, annotation)
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.adapter.json_schema(mode="serialization")
        except PydanticUserError as error:
            raise DefinitionError(f"{self.place}: {self.type_name} can't be stored as JSON.") from error
        try:
            self.default: Json = self._identified(self.validate(default), step="default", old=None)
        except InvalidInput as error:
            raise DefinitionError(f"{self.place} has a default that doesn't fit: {error.message}") from error
        if self.reducer.lists and not isinstance(self.default, list | None):
            raise DefinitionError(f"{self.place}: {self.reducer} is for lists, and the default is {default!r}.")

    def validate(self, update: Any) -> Json:
        """The update as JSON. Raises InvalidInput with the channel, the value's type and the reason."""
        try:
            valid = self.adapter.validate_python(update)
            value = self.adapter.dump_python(valid, mode="json", exclude_defaults=self.name == "messages")
            canonical(value)
            if _finite(valid):
                return value
            reason = "a number in it is not finite"
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
        except (ValueError, InvalidInput) as error:  # it can't be written as JSON, says pydantic, or canonical()
            reason = str(error).rstrip(".")
        raise InvalidInput(f"Channel {self.place} takes {self.type_name}, not this {type(update).__name__}: {reason}.")

    def record(self, update: Any) -> Json:
        """A valid update as JSON that merges like it. Raises InvalidInput."""
        if not overwrites(update):
            if self.reducer is not _BY_ID or not isinstance(update, list | tuple):
                return self.validate(update)
            removals = [Remove.model_validate(item).model_dump() for item in update if _removes(item)]
            return [*removals, *self.validate([item for item in update if not _removes(item)])]
        return {OVERWRITE: self.validate(update.value if isinstance(update, Overwrite) else update[OVERWRITE])}

    def reduce(self, old: Json, update: Any, *, step: int) -> Operation | None:
        """The operation that merges an update into the old JSON value (or MISSING); None where nothing changes.

        Raises InvalidInput where the update doesn't fit, or can't be merged.
        """
        if overwrites(update):
            return _or_none(old, self._identified(self.record(update)[OVERWRITE], step=step, old=None))
        value = self.record(update)
        # A default that says something is what the first update merges into, and is written down with it.
        if old is MISSING and self.default not in (None, [], {}):
            operation = self._merge(self.default, value, step)
            return _set(apply({"c": self.default}, {"c": operation})["c"] if operation else self.default)
        return self._merge(old, value, step)

    def _merge(self, old: Json, value: Json, step: int) -> Operation | None:
        try:
            if self.reducer.reduce is not None:
                return self.reducer.reduce(old, self._identified(value, step=step, old=old))
            return self._combine(old, value)
        except InvalidInput:
            raise
        except Exception as error:  # the reducer may be its author's code, or meet a type that it can't merge
            raise InvalidInput(
                f"Channel {self.place}: {self.reducer} can't merge this {type(value).__name__}: "
                f"{type(error).__name__}: {error}."
            ) from error

    def _combine(self, old: Json, value: Json) -> Operation | None:
        assert self.reducer.combine is not None, "a reducer has one of both"
        before = self.default if old is MISSING else old
        # The reducer gets a copy: what it changes in place must not change the state that others see.
        given = self.adapter.validate_python(deepcopy(before))
        return diff(before, self.validate(self.reducer.combine(given, self.adapter.validate_python(value))))

    def _identified(self, put: Json, *, step: int | str, old: Json) -> Json:
        """Messages with an id for each new one: ``STEP.NUMBER``, the same in every attempt; each id once."""
        if self.reducer is not _BY_ID or not put:
            return put
        taken = {message["id"] for message in ([] if old is MISSING else old or [])}
        taken |= {message["id"] for message in put if message.get("id")}
        free = (name for number in count() if (name := f"{step}.{number}") not in taken)
        out = [{**message, "id": message.get("id") or next(free)} for message in put if not _removes(message)]
        return [*filter(_removes, put), *{message["id"]: message for message in out}.values()]


def _plain(annotation: Any) -> Any:
    """A type without what is annotated to it."""
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _type_name(plain: Any) -> str:
    return plain.__name__ if isinstance(plain, type) and not typing.get_args(plain) else str(plain)


def _reducer_of(place: str, annotation: Any) -> Reducer:
    if _holds_reducer(_plain(annotation)):
        raise DefinitionError(f"{place}: its reducer must be outermost.", hint="Write Annotated[TYPE | None, REDUCER].")
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Reducer):
            return extra
        if callable(extra) and not isinstance(extra, type):
            return Reducer(getattr(extra, "__name__", repr(extra)), combine=extra)
    return overwrite


def _holds_reducer(annotation: Any) -> bool:
    inside = (*getattr(annotation, "__metadata__", ()), *typing.get_args(annotation))
    return any(isinstance(part, Reducer) or _holds_reducer(part) for part in inside)


def holds_secret(annotation: Any) -> bool:
    """Whether a type has one of pydantic's secret types anywhere in it; they are written as asterisks."""
    return any(isinstance(part, type) and issubclass(part, _SECRETS) for part in _parts(annotation, set()))


def _parts(annotation: Any, seen: set[Any]) -> Iterator[Any]:
    """A type and the types that it is made of; each class once, since it may be made of itself."""
    if isinstance(annotation, type | typing_extensions.TypeAliasType):
        if annotation in seen:
            return
        seen.add(annotation)
    yield annotation
    inside = [typing.get_origin(annotation), *typing.get_args(annotation)]
    inside += [getattr(annotation, name, None) for name in ("__supertype__", "__value__")]  # NewType, type X = ...
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inside += [field.annotation for field in annotation.model_fields.values()]
    elif isinstance(annotation, type) and "__annotations__" in vars(annotation):  # dataclass, TypedDict, NamedTuple
        with suppress(NameError):
            inside += typing.get_type_hints(annotation).values()
    for part in inside:
        if part is not None:
            yield from _parts(part, seen)


def _finite(value: Any) -> bool:
    """Whether no float in the value is NaN or infinite; pydantic would write such a one as null here and there."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, BaseModel) or (is_dataclass(value) and not isinstance(value, type)):
        value = vars(value)
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple | Set):
        return True
    return all(map(_finite, value))


@cache
def channels(state: type[State]) -> Mapping[str, Channel]:
    """The channels of a state class. Raises DefinitionError that names the field."""
    out: dict[str, Channel] = {}
    try:
        hints = typing.get_type_hints(state, include_extras=True)
    except NameError as error:
        raise DefinitionError(f"{state.__name__}: an annotation can't be resolved: {error}.") from error
    for name, field in state.model_fields.items():
        place = f"{state.__name__}.{name}"
        if holds_secret(hints[name]):
            raise DefinitionError(
                f"{place} holds a secret type; it would be stored as asterisks.",
                hint="Keep secrets in the environment of the worker, not in the state.",
            )
        if field.is_required():
            raise DefinitionError(f"{place} has no default.", hint="Give every field of a State a default.")
        out[name] = Channel(state.__name__, name, hints[name], field.get_default(call_default_factory=True))
    conversation = out["messages"]
    if conversation.reducer is not _BY_ID or conversation.default != []:
        raise DefinitionError(
            f"{conversation.place} must keep the reducer `messages` and begin empty.",
            hint="In the body of a class that assigns `messages`, that name is the default: import the reducer as "
            "another name. What an agent says first belongs in its instructions.",
        )
    return out


def reduce_updates(state: type[State], values: Values, updates: Mapping[str, Mapping[str, Any]], *, step: int) -> Delta:
    """One delta from the updates of a step's writers, merged in the given order.

    Args:
        values: the state before the step.
        updates: writer's name -> channel -> update.
        step: number of the step; new messages get their ids from it, the same ones in every attempt.

    Raises InvalidInput for an unknown channel, a value that doesn't fit, or two writers that overwrite one channel
    (it names both).
    """
    known = channels(state)
    delta: Delta = {}
    current = dict(values)
    writers: dict[tuple[str, bool], str] = {}
    for writer, update in updates.items():
        for name, value in update.items():
            channel = known.get(name)
            if channel is None:
                raise InvalidInput(
                    f"{writer} writes to {state.__name__}.{name}, which doesn't exist.",
                    hint=f"Channels: {', '.join(known)}.",
                )
            replaces = not channel.reducer.shares or overwrites(value)
            if replaces and (name, True) in writers:
                raise InvalidInput(
                    f"{writers[name, True]} and {writer} both overwrite {channel.place} in one step.",
                    hint="Let one of them write it, or give the channel a reducer.",
                )
            writers[name, replaces] = writer
            operation = channel.reduce(current.get(name, MISSING), value, step=step)
            if operation is not None:
                current = apply(current, {name: operation})
                delta[name] = _joined(delta.get(name), operation, current[name])
    return delta


def recorded(state: type[State], updates: Mapping[str, Any]) -> dict[str, Json]:
    """Updates of known channels as JSON, for the record of the call that made them. Raises InvalidInput."""
    return {name: channels(state)[name].record(update) for name, update in updates.items()}


def overwrites(update: Any) -> bool:
    """Whether an update is an ``Overwrite``, also as it was recorded."""
    return isinstance(update, Overwrite) or (isinstance(update, dict) and update.keys() == {OVERWRITE})


def _joined(first: Operation | None, second: Operation, result: Json) -> Operation:
    """Two operations on one channel as one; ``result`` is what both together make of the channel."""
    if first is None:
        return second
    kinds = (first["op"], second["op"])
    if kinds == ("append", "append"):
        return {"op": "append", "items": [*first["items"], *second["items"]]}
    if kinds == ("messages", "messages"):
        dropped = second.get("drop", [])
        put = [*(message for message in first["put"] if message["id"] not in dropped), *second["put"]]
        drop = [*first.get("drop", []), *dropped]
        return {"op": "messages", "put": put} | ({"drop": drop} if drop else {})
    if kinds == ("merge", "merge") and _nests(first["value"], second["value"]):
        return {"op": "merge", "value": merged(first["value"], second["value"])}
    return _set(result)


def _nests(first: Json, second: Json) -> bool:
    """Whether merging both at once is merging one after the other: not where an object follows a plain value."""
    if not isinstance(second, dict):
        return True
    return isinstance(first, dict) and all(_nests(first[key], second[key]) for key in first.keys() & second.keys())


def materialise(state: type[State], values: Values) -> State:
    """The state as the user's own type. Raises InvalidInput where stored values don't fit the class any more."""
    try:
        return state.model_validate(deepcopy(values))  # whoever gets it may change it; ours is shared
    except ValidationError as error:
        raise InvalidInput(f"The stored state doesn't fit {state.__name__}: {error}") from error


def conversations(state: type[State]) -> tuple[str, ...]:
    """The channels that are conversations."""
    return tuple(name for name, channel in channels(state).items() if channel.reducer is _BY_ID)
