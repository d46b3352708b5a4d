"""Sealed values: what stands in the place of a sensitive value wherever a state is kept or sent.

A sealed value is ``{"$sealed": "KEYID:BASE64"}``. Deltas must still apply without keys, so as much of the structure
stays in the clear as operations need to find their place: the items of a list are sealed one by one, of an object that
is merged the keys stay, and a message keeps its id, its role and the call it answers beside it.

Opening and redacting go by what is there, not by what is declared: a channel may be declared otherwise by now.
"""

from collections.abc import Callable, Mapping
from itertools import repeat
from operator import contains
from typing import TYPE_CHECKING, Any, Literal

from perdure.canonical import Json
from perdure.delta import Operation
from perdure.errors import IntegrityError, KeyMissing
from perdure.talk import Talk

if TYPE_CHECKING:
    from perdure.security.keyring import Keyring  # workflows reach this module, and have no use for cryptography

SEALED = "$sealed"
REDACTED = "[sensitive]"
_CLEAR = ("id", "role", "tool_call_id")  # of a message
Shape = Literal["whole", "items", "leaves", "messages"]
Seal = Callable[[Json], dict[str, str]]


class Sealer:
    """Seals the values of one step.

    The same values in the same order come out the same, so that two attempts of one commit agree; ``salt`` keeps equal
    values of different steps apart.
    """

    def __init__(self, keyring: "Keyring | None", salt: str) -> None:
        self._keyring = keyring
        self._salt = salt
        self._count = 0

    def seal(self, value: Json) -> dict[str, str]:
        """The value, sealed whole. Raises KeyMissing where there are no keys."""
        if self._keyring is None:
            raise KeyMissing("The state has Sensitive channels, and there is no key to seal them with.", hint=_HINT)
        self._count += 1
        return {SEALED: self._keyring.seal(value, salt=f"{self._salt}/{self._count}")}

    def value(self, value: Json, shape: Shape) -> Json:
        """A value of a channel, or an update of it, sealed as far as its shape tells. Raises KeyMissing."""
        if shape == "leaves" and isinstance(value, dict):
            return {key: self.value(item, shape) for key, item in value.items()}
        if shape == "messages" and isinstance(value, list):
            return [self._message(item) for item in value]
        if shape == "items" and isinstance(value, list):
            return [self.seal(item) for item in value]
        return self.seal(value)

    def operation(self, operation: Operation, shape: Shape) -> Operation:
        """An operation with the values in it sealed. Raises KeyMissing."""
        kinds = {"value": shape, "items": "items", "put": "messages"}
        return {name: self.value(part, kinds[name]) if name in kinds else part for name, part in operation.items()}

    def _message(self, message: Mapping[str, Json]) -> dict[str, Json]:
        if "role" not in message:  # a Remove says nothing
            return dict(message)
        return {name: message[name] for name in _CLEAR if name in message} | self.seal(message)


_HINT = "Set PERDURE_KEYS; `perdure db keys new` makes a key."


def unseal(value: Json, keyring: "Keyring | None") -> Json:
    """A value, or a mapping of values by channel, with what is sealed in it opened; what isn't sealed is shared.

    Sealed values stand where ``Sealer`` puts them: never deeper than as an item of a list.
    Raises KeyMissing, or IntegrityError where one was changed.
    """
    if isinstance(value, dict):
        if SEALED in value:
            return _open(value[SEALED], keyring)
        return {key: unseal(item, keyring) for key, item in value.items()}
    if isinstance(value, Talk) and not any(map(contains, value, repeat(SEALED))):
        return value
    if isinstance(value, list):
        return [_open(i[SEALED], keyring) if isinstance(i, dict) and SEALED in i else i for i in value]
    return value


def _open(token: Any, keyring: "Keyring | None") -> Json:
    if not isinstance(token, str):
        raise IntegrityError(f"This {type(token).__name__} is no sealed value.")
    if keyring is None:
        name = token.partition(":")[0]
        raise KeyMissing(f"A value is sealed with key {name!r:.40}, and there are no keys.", hint=_HINT)
    return keyring.open(token)


def redact(value: Json) -> Json:
    """Any JSON (a state, a delta, a record) with ``[sensitive]`` in the place of what is sealed; needs no keys."""
    if isinstance(value, dict):
        if SEALED not in value:
            return {key: redact(item) for key, item in value.items()}
        clear = {name: item for name, item in value.items() if name != SEALED}
        return {**clear, "content": REDACTED} if clear else REDACTED
    return [redact(item) for item in value] if isinstance(value, list) else value


def looks_sealed(value: Json) -> bool:
    """Whether there is anything in a JSON value that would be taken for sealed."""
    if isinstance(value, dict):
        return SEALED in value or any(map(looks_sealed, value.values()))
    return isinstance(value, list) and any(map(looks_sealed, value))


def is_sealed(value: Json, shape: Shape) -> bool:
    """Whether a stored value of this shape leaves nothing in the clear; a channel may become sensitive later."""
    if isinstance(value, dict) and SEALED in value:
        return True
    if shape == "leaves":
        return isinstance(value, dict) and all(is_sealed(item, shape) for item in value.values())
    return shape != "whole" and isinstance(value, list) and all(isinstance(i, dict) and SEALED in i for i in value)


def finds_its_place(operation: Operation, stored: Json) -> bool:
    """Whether an operation does to a stored value what it would do to the value that is sealed in it.

    Not where the value was sealed in another shape than operations count on now, nor where an object meets a sealed
    leaf: a sealed value is an object too. Then the channel has to be set anew.
    """
    if operation["op"] == "merge":
        return _merges(stored, operation["value"])
    if operation["op"] == "append":
        return stored is None or isinstance(stored, list)
    if operation["op"] == "messages":
        return stored is None or isinstance(stored, Talk) or (
            isinstance(stored, list) and all(isinstance(m, dict) and "id" in m for m in stored)
        )  # fmt: skip
    return True


def _merges(stored: Json, value: Json) -> bool:
    if not isinstance(stored, dict) or not isinstance(value, dict):
        return True
    if SEALED in stored or SEALED in value:
        return SEALED in stored and SEALED in value
    return all(_merges(stored[key], item) for key, item in value.items() if key in stored)
