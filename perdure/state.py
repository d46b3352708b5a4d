"""State: channels, and the reducers that merge a node's update into them."""

import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic_core import to_jsonable_python

from perdure.canonical import Json
from perdure.delta import Delta, Operation, Values, apply, diff, merged
from perdure.errors import DefinitionError, InvalidInput
from perdure.message import Message

MISSING: Any = types.SimpleNamespace()  # a channel that has no value yet; None is a value
Reduce = Callable[[Json, Json], Operation | None]


class Reducer:
    """How an update merges into a channel. Call: ``(old, update) -> operation``, or None where nothing changes."""

    def __init__(self, name: str, reduce: Reduce, *, shares: bool = True) -> None:
        """``shares``: whether several nodes may write the channel in one step."""
        self.name = name
        self.reduce = reduce
        self.shares = shares

    def __repr__(self) -> str:
        return self.name


OVERWRITE = "$overwrite"  # an Overwrite as JSON: {"$overwrite": value}


class Overwrite:
    """An update that replaces the channel's value instead of going through its reducer."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def json(self) -> Json:
        """As it is recorded between a call and the commit of its step."""
        return {OVERWRITE: to_jsonable_python(self.value)}


def recorded(update: Any) -> Json:
    """An update as JSON, for the record of its call."""
    return update.json() if isinstance(update, Overwrite) else to_jsonable_python(update)


def _set(value: Json) -> Operation:
    return {"op": "set", "value": value}


def _or_none(old: Json, new: Json) -> Operation | None:
    return None if old is not MISSING and old == new and type(old) is type(new) else _set(new)


def _union(old: Json, new: Json) -> Operation | None:
    items: list[Json] = []
    for item in new:
        if item not in items and (old is MISSING or item not in old):
            items.append(item)
    return {"op": "append", "items": items} if items else None


def _messages(old: Json, new: Json) -> Operation | None:
    return {"op": "messages", "put": new} if new else None


overwrite = Reducer("overwrite", _or_none, shares=False)
append = Reducer("append", lambda old, new: {"op": "append", "items": new} if new else None)
merge = Reducer(
    "merge", lambda old, new: {"op": "merge", "value": new} if old is MISSING or merged(old, new) != old else None
)
add = Reducer("add", lambda old, new: _set(new if old is MISSING else old + new))
union = Reducer("union", _union)
maximum = Reducer("maximum", lambda old, new: _or_none(old, new if old is MISSING else max(old, new)))
minimum = Reducer("minimum", lambda old, new: _or_none(old, new if old is MISSING else min(old, new)))
messages = Reducer("messages", _messages)
_BY_ID = messages  # inside State the name `messages` is the channel


class State(BaseModel):
    """The base of a thread's state. Each field is a channel; its reducer stands in ``Annotated``.

    A field without a reducer is overwritten. Every field needs a default, since a thread starts with a message
    and not with a state.
    """

    model_config = ConfigDict(extra="forbid")
    version: ClassVar[int] = 1

    messages: Annotated[list[Message], _BY_ID] = []


class Channel:
    """One key of the state: its type, its reducer, its default as JSON."""

    def __init__(self, owner: str, name: str, annotation: Any, default: Any) -> None:
        self.name = name
        self.place = f"{owner}.{name}"
        self.type_name = getattr(annotation, "__name__", None) or str(annotation)
        self.reducer, self._custom = _reducer_of(self.place, annotation)
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.default: Json = self.adapter.dump_python(default, mode="json")
        except (PydanticSchemaGenerationError, PydanticUserError) as error:
            raise DefinitionError(f"{self.place}: {annotation!r} can't be stored as JSON.") from error

    def validate(self, update: Any) -> Json:
        """The update as JSON. Raises InvalidInput with the channel, the value's type and the reason."""
        try:
            return self.adapter.dump_python(
                self.adapter.validate_python(update), mode="json", exclude_defaults=self.name == "messages"
            )
        except ValidationError as error:
            reason = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'value'}: {e['msg']}" for e in error.errors())
            raise InvalidInput(
                f"Channel {self.place} takes {self.type_name}, not this {type(update).__name__}: {reason}."
            ) from error

    def reduce(self, old: Json, update: Any) -> Operation | None:
        """The operation that merges a validated update into the old JSON value (or MISSING)."""
        if isinstance(update, dict) and update.keys() == {OVERWRITE}:
            update = Overwrite(update[OVERWRITE])
        if isinstance(update, Overwrite):
            return _set(self.validate(update.value))
        value = self.validate(update)
        if self._custom is None:
            return self.reducer.reduce(self._base(old), value)
        return self._run_custom(self._base(old), value)

    def _base(self, old: Json) -> Json:
        # A default that says something is the value the first update merges into.
        return self.default if old is MISSING and self.default not in (None, [], {}) else old

    def _run_custom(self, old: Json, value: Json) -> Operation:
        assert self._custom is not None
        before = self.adapter.validate_python(self.default if old is MISSING else old)
        result = self.validate(self._custom(before, self.adapter.validate_python(value)))
        return _set(result) if old is MISSING else diff(old, result)


def _reducer_of(place: str, annotation: Any) -> tuple[Reducer, Callable[[Any, Any], Any] | None]:
    for extra in getattr(annotation, "__metadata__", ()):
        if isinstance(extra, Reducer):
            return extra, None
        if isinstance(extra, types.FunctionType | types.BuiltinFunctionType):
            return Reducer(extra.__name__, lambda old, new: None), extra
    return overwrite, None


def holds_secret(annotation: Any) -> bool:
    """Whether a type has SecretStr or SecretBytes anywhere in it."""
    if isinstance(annotation, type):
        if issubclass(annotation, SecretStr | SecretBytes):
            return True
        if issubclass(annotation, BaseModel):
            return any(holds_secret(field.annotation) for field in annotation.model_fields.values())
    return any(holds_secret(part) for part in typing.get_args(annotation))


@cache
def channels(state: type[State]) -> Mapping[str, Channel]:
    """The channels of a state class. Raises DefinitionError that names the field."""
    out: dict[str, Channel] = {}
    hints = typing.get_type_hints(state, include_extras=True)
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
    return out


def reduce_updates(state: type[State], values: Values, updates: Mapping[str, Mapping[str, Any]], *, step: int) -> Delta:
    """One delta from the updates of a step's writers, merged in the given order.

    Args:
        values: the state before the step.
        updates: writer's name -> channel -> update.
        step: number of the step; new messages get their ids from it, the same ones in every attempt.

    Raises InvalidInput for an unknown channel, a value that doesn't fit, or two writers of a channel that is
    overwritten (it names both).
    """
    known = channels(state)
    delta: Delta = {}
    current = dict(values)
    writers: dict[str, str] = {}
    for writer, update in updates.items():
        for name, value in update.items():
            channel = known.get(name)
            if channel is None:
                raise InvalidInput(
                    f"{writer} writes to {state.__name__}.{name}, which doesn't exist.",
                    hint=f"Channels: {', '.join(known)}.",
                )
            if name in writers and not channel.reducer.shares:
                raise InvalidInput(
                    f"{writers[name]} and {writer} both write {channel.place} in one step, and it has no reducer."
                )
            writers[name] = writer
            operation = _with_ids(channel.reduce(current.get(name, MISSING), value), delta.get(name), step)
            if operation is not None:
                delta[name] = _joined(delta.get(name), operation)
                current = apply(current, {name: operation})
    return delta


def _with_ids(operation: Operation | None, earlier: Operation | None, step: int) -> Operation | None:
    """An operation on messages with an id for each new one: ``STEP.POSITION``."""
    if operation is None or operation["op"] != "messages":
        return operation
    start = len(earlier["put"]) if earlier and "put" in earlier else 0
    return {
        **operation,
        "put": [{**m, "id": m.get("id") or f"{step}.{i}"} for i, m in enumerate(operation["put"], start)],
    }


def _joined(first: Operation | None, second: Operation) -> Operation:
    """Two operations on one channel as one."""
    if first is None or second["op"] == "set":
        return second
    if first["op"] == "set":
        return _set(apply({"c": first["value"]}, {"c": second})["c"])
    if first["op"] == "append":
        return {"op": "append", "items": [*first["items"], *second["items"]]}
    if first["op"] == "messages":
        return {"op": "messages", "put": [*first["put"], *second["put"]]}
    return {"op": "merge", "value": merged(first["value"], second["value"])}


def materialise(state: type[State], values: Values) -> State:
    """The state as the user's own type. Raises InvalidInput where stored values don't fit the class any more."""
    try:
        return state.model_validate(values)
    except ValidationError as error:
        raise InvalidInput(f"The stored state doesn't fit {state.__name__}: {error}") from error
