"""A channel: one key of the state. Its type, its reducer, its default, and what of it may be kept."""

import math
import typing
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from copy import deepcopy
from dataclasses import is_dataclass
from itertools import count
from typing import Any

import typing_extensions
from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

from perdure.canonical import Json, canonical
from perdure.delta import Operation, apply, diff
from perdure.errors import DefinitionError, InvalidInput
from perdure.message import Message, Remove
from perdure.security.sealing import Shape, looks_sealed
from perdure.states.reducers import (
    MISSING,
    OVERWRITE,
    Reducer,
    merge,
    messages,
    overwrite,
    overwrites,
    overwriting,
    removes,
    replacing,
    setting,
)
from perdure.talk import as_talk

_SECRETS = (Secret, SecretStr, SecretBytes)


class Ephemeral:
    """``Annotated[T, Ephemeral]``: what is written to the channel is dropped where the activity ends.

    It is neither stored nor sent anywhere, so everybody reads the default.
    """


class Sensitive:
    """``Annotated[T, REDUCER, Sensitive]``: the channel is sealed (encrypted) wherever it is kept, and shown to nobody.

    Workers need keys for it, in PERDURE_KEYS.
    """


class Channel:
    """One key of the state."""

    def __init__(self, owner: str, name: str, annotation: Any, default: Any) -> None:
        """Raises DefinitionError: a type that isn't JSON, marks that contradict, a default that doesn't fit."""
        self.name = name
        self.place = f"{owner}.{name}"
        self.type_name = _type_name(_plain(annotation))
        metadata = getattr(annotation, "__metadata__", ())
        self.ephemeral = is_marked(metadata, Ephemeral)
        self.sensitive = is_marked(metadata, Sensitive)
        self.reducer = _reducer_of(self.place, annotation)
        self._check(annotation)
        try:
            self.adapter: TypeAdapter[Any] = TypeAdapter(annotation)
            self.adapter.json_schema(mode="serialization")
        except PydanticUserError as error:
            raise DefinitionError(f"{self.place}: {self.type_name} can't be stored as JSON.") from error
        try:
            self.default: Json = self.identified(self.validate(default), step="default", old=None)
        except InvalidInput as error:
            raise DefinitionError(f"{self.place} has a default that doesn't fit: {error.message}") from error
        if self.reducer.lists and not isinstance(self.default, list | None):
            raise DefinitionError(f"{self.place}: {self.reducer} is for lists, and the default is {default!r}.")

    @property
    def is_conversation(self) -> bool:
        """Whether it is a list of messages that are told apart by their ids."""
        return self.reducer is messages

    @property
    def shape(self) -> Shape:
        """How far it is sealed where it is sensitive: operations on what is sealed must still find their place."""
        if self.reducer in (overwrite, merge):
            return "leaves" if self.reducer is merge else "whole"
        return "messages" if self.is_conversation else "items"

    def _check(self, annotation: Any) -> None:
        if _is_marked_inside(_plain(annotation)):
            raise DefinitionError(
                f"{self.place}: reducer, Sensitive and Ephemeral must be outermost.",
                hint="They hold for a whole channel: write Annotated[TYPE | None, REDUCER].",
            )
        if self.ephemeral and (self.sensitive or self.reducer is not overwrite):
            raise DefinitionError(
                f"{self.place}: what is Ephemeral is neither merged nor stored: it has no reducer and isn't Sensitive."
            )
        if self.is_conversation and not _is_list_of_messages(_plain(annotation)):
            raise DefinitionError(f"{self.place}: messages is for lists of Message, not for {self.type_name}.")

    # ── updates ──────────────────────────────────────────────────────────────────────────────────────────────────

    def validate(self, update: Any) -> Json:
        """The update as JSON. Raises InvalidInput with the channel, the value's type and the reason."""
        try:
            valid = self.adapter.validate_python(update)
            value = self.adapter.dump_python(valid, mode="json", exclude_defaults=self.is_conversation)
            canonical(value)
            reason = "a number in it is not finite" if not _finite(valid) else _reserved(value)
            if not reason:
                return value
            cause: Exception | None = None
        except ValidationError as error:
            cause, reason = error, "; ".join(map(self._reason, error.errors()))
        except (ValueError, InvalidInput) as error:  # it can't be written as JSON, says pydantic, or canonical()
            cause, reason = error, type(error).__name__ if self.sensitive else str(error).rstrip(".")
        raise InvalidInput(
            f"Channel {self.place} takes {self.type_name}, not this {type(update).__name__}: {reason}."
        ) from (None if self.sensitive else cause)

    def _reason(self, error: Any) -> str:
        """Of a sensitive channel only the kind of error: its words and its place may quote what nobody is to see."""
        if self.sensitive:
            return str(error["type"])
        return f"{'.'.join(map(str, error['loc'])) or 'value'}: {error['msg']}"

    def record(self, update: Any) -> Json:
        """A valid update as JSON that merges like it. Raises InvalidInput."""
        if overwrites(update):
            return {OVERWRITE: self.validate(overwriting(update))}
        if not self.is_conversation or not isinstance(update, list | tuple):
            return self.validate(update)
        removals = [Remove.model_validate(item).model_dump() for item in update if removes(item)]
        return [*removals, *self.validate([item for item in update if not removes(item)])]

    def reduce(self, old: Json, update: Any, *, step: int) -> Operation | None:
        """The operation that merges an update into the old JSON value (or MISSING); None where nothing changes.

        Raises InvalidInput where the update doesn't fit, or can't be merged.
        """
        if overwrites(update):
            return replacing(old, self.identified(self.record(update)[OVERWRITE], step=step, old=None))
        value = self.record(update)
        # A default that says something is what the first update merges into, and is written down with it.
        if old is MISSING and self.default not in (None, [], {}):
            operation = self._merge(self.default, value, step)
            return setting(apply({"c": self.default}, {"c": operation})["c"] if operation else self.default)
        return self._merge(old, value, step)

    def _merge(self, old: Json, value: Json, step: int) -> Operation | None:
        try:
            if self.reducer.reduce is not None:
                return self.reducer.reduce(old, self.identified(value, step=step, old=old))
            return self._combine(old, value)
        except InvalidInput:
            raise
        except Exception as error:  # the reducer may be its author's code, or meet a type that it can't merge
            said = type(error).__name__ if self.sensitive else f"{type(error).__name__}: {error}"
            raise InvalidInput(
                f"Channel {self.place}: {self.reducer} can't merge this {type(value).__name__}: {said}."
            ) from (None if self.sensitive else error)

    def _combine(self, old: Json, value: Json) -> Operation | None:
        assert self.reducer.combine is not None, "a reducer has one of both"
        before = self.default if old is MISSING else old
        # The reducer gets a copy: what it changes in place must not change the state that others see.
        given = self.adapter.validate_python(deepcopy(before))
        return diff(before, self.validate(self.reducer.combine(given, self.adapter.validate_python(value))))

    def identified(self, put: Json, *, step: int | str, old: Json) -> Json:
        """Messages with an id for each new one: ``STEP.NUMBER``, the same in every attempt; each id once."""
        if not self.is_conversation or not put:
            return put
        known = as_talk([] if old is MISSING else old or []).places
        taken = {message["id"] for message in put if message.get("id")}
        free = (name for number in count() if (name := f"{step}.{number}") not in known and name not in taken)
        out = [{**message, "id": message.get("id") or next(free)} for message in put if not removes(message)]
        return [*filter(removes, put), *{message["id"]: message for message in out}.values()]


def _reserved(value: Json) -> str:
    return "the key '$sealed' is Perdure's own" if looks_sealed(value) else ""


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


# ── what an annotation says ──────────────────────────────────────────────────────────────────────────────────────


def holds_secret(annotation: Any) -> bool:
    """Whether a type has one of pydantic's secret types anywhere in it; they are written as asterisks."""
    return any(isinstance(part, type) and issubclass(part, _SECRETS) for part in _parts(annotation, set()))


def _plain(annotation: Any) -> Any:
    """A type without what is annotated to it."""
    return typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _type_name(plain: Any) -> str:
    return plain.__name__ if isinstance(plain, type) and not typing.get_args(plain) else str(plain)


def _reducer_of(place: str, annotation: Any) -> Reducer:
    found = [reducer for extra in getattr(annotation, "__metadata__", ()) if (reducer := _as_reducer(extra))]
    if len(found) > 1:
        raise DefinitionError(f"{place} has two reducers: {found[0]} and {found[1]}.")
    return found[0] if found else overwrite


def _as_reducer(extra: Any) -> Reducer | None:
    if isinstance(extra, Reducer):
        return extra
    if callable(extra) and not isinstance(extra, type):
        return Reducer(getattr(extra, "__name__", repr(extra)), combine=extra)
    return None


def is_marked(metadata: Iterable[Any], mark: type) -> bool:
    """Whether a mark (Ephemeral, Sensitive) is among what is annotated to a type."""
    return any(_is_mark(extra, mark) for extra in metadata)


def _is_mark(part: Any, mark: type) -> bool:
    return part is mark or isinstance(part, mark)


def _is_marked_inside(annotation: Any) -> bool:
    return any(
        isinstance(part, Reducer) or _is_mark(part, Ephemeral) or _is_mark(part, Sensitive)
        for part in _parts(annotation, set())
    )


def _is_list_of_messages(plain: Any) -> bool:
    (item,) = typing.get_args(plain) if typing.get_origin(plain) is list else (None,)
    item = _plain(item)
    return isinstance(item, type) and issubclass(item, Message)


def _parts(annotation: Any, seen: set[Any]) -> Iterator[Any]:
    """A type, the types that it is made of and what is annotated to them; each class once: it may be made of itself."""
    if isinstance(annotation, type | typing_extensions.TypeAliasType):
        if annotation in seen:
            return
        seen.add(annotation)
    yield annotation
    inside = [typing.get_origin(annotation), *typing.get_args(annotation), *_fields(annotation)]
    inside += [getattr(annotation, name, None) for name in ("__supertype__", "__value__")]  # NewType, type X = ...
    for part in inside:
        if part is not None:
            yield from _parts(part, seen)


def _fields(annotation: Any) -> list[Any]:
    """The types of a class's fields: of a model, a dataclass, a TypedDict, a NamedTuple."""
    if not isinstance(annotation, type):
        return []
    fields: list[Any] = []
    if issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            fields += [field.annotation, *field.metadata]
    elif "__annotations__" in vars(annotation):
        with suppress(NameError):
            fields += typing.get_type_hints(annotation, include_extras=True).values()
    return fields
