"""State: channels, and the merge of what nodes write into them."""

import typing
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from perdure.canonical import Json
from perdure.delta import Delta, Operation, Values, apply, merged
from perdure.errors import DefinitionError, InvalidInput
from perdure.message import Message
from perdure.security.sealing import REDACTED
from perdure.states.channel import Channel, Ephemeral, Sensitive, holds_secret, is_marked
from perdure.states.reducers import (
    MISSING,
    Overwrite,
    Reducer,
    add,
    append,
    maximum,
    merge,
    messages,
    minimum,
    overwrite,
    overwrites,
    setting,
    union,
)
from perdure.states.versions import upcast, upcasters

__all__ = [
    "Channel", "Ephemeral", "Overwrite", "Reducer", "Sensitive", "State", "add", "append", "channels", "check_updates",
    "conversations", "holds_secret", "materialise", "maximum", "merge", "messages", "minimum", "needs_keys",
    "overwrite", "recorded", "reduce_updates", "union", "upcast",
]  # fmt: skip

_BY_ID = messages  # inside State the name `messages` is the channel


class State(BaseModel):
    """The base of a thread's state. Each field is a channel; its reducer stands in ``Annotated``.

    A field without a reducer is overwritten. Every field needs a default, since a thread starts with a message
    and not with a state. ``version`` counts the shapes that the state has had, and ``upcast`` functions lead from one
    to the next; checkpoints older than ``oldest`` are refused.
    """

    # A type that pydantic doesn't know is refused when the channels are made, where its place is known.
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    version: ClassVar[int] = 1
    oldest: ClassVar[int] = 1

    messages: Annotated[list[Message], _BY_ID] = []

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """What is printed and logged of a state: nothing that is sensitive."""
        for name, value in super().__repr_args__():
            field = type(self).model_fields.get(name or "")
            yield name, REDACTED if field and is_marked(field.metadata, Sensitive) else value


@cache
def channels(state: type[State]) -> Mapping[str, Channel]:
    """The channels of a state class. Raises DefinitionError that names the field, or the version."""
    upcasters(state)
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
    if not conversation.is_conversation or conversation.default != []:
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

    Raises InvalidInput for an unknown or an Ephemeral channel, a value that doesn't fit, or two writers that overwrite
    one channel (it names both).
    """
    delta: Delta = {}
    current = dict(values)
    writers: dict[tuple[str, bool], str] = {}
    for writer, update in updates.items():
        for name, value in update.items():
            channel = _kept(state, writer, name)
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
    """Updates as JSON, for the record of the call that made them; nothing of what is Ephemeral.

    Raises InvalidInput for an unknown channel, or a value that doesn't fit.
    """
    records = {name: _channel(state, "The call", name).record(update) for name, update in updates.items()}
    return {name: record for name, record in records.items() if not channels(state)[name].ephemeral}


def check_updates(state: type[State], updates: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise InvalidInput for an update that ``reduce_updates`` would refuse for its own sake."""
    for writer, update in updates.items():
        for name, value in update.items():
            _kept(state, writer, name).record(value)


def _kept(state: type[State], writer: str, name: str) -> Channel:
    channel = _channel(state, writer, name)
    if channel.ephemeral:
        raise InvalidInput(f"{writer} writes to {channel.place}, which is Ephemeral: nothing is kept in it.")
    return channel


def _channel(state: type[State], writer: str, name: str) -> Channel:
    known = channels(state)
    if name not in known:
        raise InvalidInput(
            f"{writer} writes to {state.__name__}.{name}, which doesn't exist.", hint=f"Channels: {', '.join(known)}."
        )
    return known[name]


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
    return setting(result)


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
        discreet = needs_keys(state)  # then not a word that may quote a value
        reasons = (
            f"{e['loc'][0] if e['loc'] else 'value'}: {e['type'] if discreet else e['msg']}" for e in error.errors()
        )
        raise InvalidInput(
            f"The stored state doesn't fit {state.__name__}: {'; '.join(dict.fromkeys(reasons))}.",
            hint="A state whose shape changes needs a new `version`, and an upcaster.",
        ) from (None if discreet else error)


def conversations(state: type[State]) -> tuple[str, ...]:
    """The channels that are conversations."""
    return tuple(name for name, channel in channels(state).items() if channel.is_conversation)


def needs_keys(state: type[State]) -> bool:
    """Whether it has Sensitive channels, so that its threads can't do without PERDURE_KEYS."""
    return any(channel.sensitive for channel in channels(state).values())
