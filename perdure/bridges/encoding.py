"""Values of LangGraph's channels as JSON, and back.

What JSON holds as it is stands there as it is: text, numbers, lists, objects with text for keys. Anything else goes
through the serializer that the saver was given. Where that is LangGraph's own, the MessagePack that it makes is spelt
out, so that a person can read it, a list of messages stays a list, and whatever stays the same is the same bytes::

    {"$model": "langchain_core.messages.human:HumanMessage", "content": "Hello", "id": "…", …}    a pydantic model
    {"$object": "shop:Item", "price": 5}                                     made with these keyword arguments
    {"$ext": [0, ["builtins", "set", [1, 2]]]}                               another extension of LangGraph's
    {"$map": [[1, "one"]]}    {"$bytes": "…"}    {"$float": "nan"}           what JSON has no form for
    {"$typed": ["msgpack+aes", "…"]}                                         what another serializer made
    {"a": 1, "b": 2, "$order": [1, 0]}                                       the order of keys, if they aren't sorted

Only ``decode`` makes objects again, and only through the serializer: what it is allowed to load is its own affair.
"""

from base64 import b64decode, b64encode
from functools import lru_cache
from math import isfinite
from typing import Any, NamedTuple

import ormsgpack
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import (
    EXT_CONSTRUCTOR_KW_ARGS,
    EXT_PYDANTIC_V2,
    JsonPlusSerializer,
)

from perdure.canonical import Json
from perdure.errors import IntegrityError

_OPTION = ormsgpack.OPT_NON_STR_KEYS
_MODEL_METHOD = "model_validate_json"  # what LangGraph writes behind the fields of every model
_SMALL = 4096  # bytes; what is larger isn't remembered
_SCALARS = (type(None), bool, int, float, str)


class Extension(NamedTuple):
    """An extension value of MessagePack: an object, as LangGraph's serializer wrote it."""

    code: int
    data: bytes


class Opaque(NamedTuple):
    """What a serializer wrote that we don't have: encrypted, for one."""

    kind: str
    data: bytes


def unpacked(data: bytes) -> Any:
    """MessagePack as plain values and ``Extension``: no object is made, no module imported."""
    return ormsgpack.unpackb(data, ext_hook=Extension, option=_OPTION)


class Unopened:
    """A serializer that makes no objects: what it reads can be encoded, without the code that it belongs to."""

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, content = data
        if kind == "msgpack":
            return unpacked(content)
        if kind in ("null", "bytes", "bytearray", "json"):  # JSON of old: LangGraph makes only objects of its own of it
            return JsonPlusSerializer().loads_typed(data)
        return Opaque(kind, content)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "msgpack", ormsgpack.packb(obj, default=_ext, option=_OPTION)


class Codec:
    """Encodes and decodes with one serializer. Raises what the serializer raises."""

    def __init__(self, serde: SerializerProtocol) -> None:
        self._serde = serde
        # Another serializer may encrypt: then nothing may be spelt out.
        self._spells = type(serde) is JsonPlusSerializer
        self._plain = serde if self._spells else JsonPlusSerializer()

    def encode(self, value: Any, known: Json = None) -> Json:
        """The value as JSON, which shares nothing with it. ``known`` is what stands in its place already.

        A serializer that encrypts never gives the same bytes twice: there, what is known is kept where it is the same.
        """
        if self._spells:
            return self._spelt(value)
        if type(value) is list:
            places = known if isinstance(known, list) else []
            rest = [None] * (len(value) - len(places))
            return [self._sealed(item, place) for item, place in zip(value, [*places, *rest], strict=False)]
        return self._sealed(value, known)

    def decode(self, stored: Json) -> Any:
        """The value again; it shares nothing with what is stored. Raises IntegrityError where that can't be read."""
        if isinstance(stored, list):
            return [self.decode(item) for item in stored]
        if not isinstance(stored, dict):
            return stored
        mark = next((key for key in stored if key.startswith("$")), None)
        if mark in (None, "$order"):
            return {key: self.decode(stored[key]) for key in _keys(stored)}
        if mark == "$map":
            return {_key(key): self.decode(item) for key, item in stored[mark]}
        if mark == "$typed":
            kind, data = stored[mark]
            return self._serde.loads_typed((kind, b64decode(data)))
        if mark in ("$bytes", "$float"):
            return _tree(stored)
        return self._serde.loads_typed(("msgpack", ormsgpack.packb(_tree(stored), option=_OPTION)))

    # ── spelt out ────────────────────────────────────────────────────────────────────────────────────────────────

    def _spelt(self, value: Any) -> Json:
        kind = type(value)
        if kind is str:
            return value if _is_text(value) else self._foreign(value)
        if kind in _SCALARS:
            return value if kind is not float or isfinite(value) else {"$float": str(value)}
        if kind is list:
            return [self._spelt(item) for item in value]
        if kind is dict and all(_is_key(key) for key in value):
            return self._object(value)
        if kind is bytes:
            return {"$bytes": b64encode(value).decode()}
        if kind is Extension:
            return _spelt_small(value) if len(value.data) < _SMALL else _spelt_out(value)
        return _typed(*value) if kind is Opaque else self._foreign(value)

    def _object(self, value: dict[Any, Any]) -> Json:
        if any(type(key) is not str or key.startswith("$") for key in value):
            return {"$map": [[_stored_key(key), self._spelt(item)] for key, item in value.items()]}
        spelt = {key: self._spelt(item) for key, item in value.items()}
        inorder = sorted(spelt)
        if list(spelt) != inorder:
            places = {key: place for place, key in enumerate(inorder)}
            spelt["$order"] = [places[key] for key in value]
        return spelt

    def _foreign(self, value: Any) -> Json:
        kind, data = self._serde.dumps_typed(value)
        return self._spelt(unpacked(data)) if kind == "msgpack" else _typed(kind, data)

    # ── sealed ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _sealed(self, value: Any, known: Json) -> Json:
        if known is not None and self._is_same(value, known):
            return known
        return _typed(*self._serde.dumps_typed(value))

    def _is_same(self, value: Any, known: Json) -> bool:
        """Compared as bytes: ``1``, ``1.0`` and ``True`` are equal in Python."""
        try:
            return self._plain.dumps_typed(value) == self._plain.dumps_typed(self.decode(known))
        except TypeError:  # an object that only the other serializer knows
            return False


def _typed(kind: str, data: bytes) -> Json:
    return {"$typed": [kind, b64encode(data).decode()]}


def _is_text(value: str) -> bool:
    """Whether it is text as Unicode has it: without lone surrogates."""
    try:
        return value.isascii() or bool(value.encode())
    except UnicodeEncodeError:
        return False


def _is_key(key: Any) -> bool:
    kind = type(key)
    if kind is tuple:
        return all(_is_key(part) for part in key)
    return kind is bytes or (kind in _SCALARS and (kind is not float or isfinite(key)))


def _are_names(fields: dict[Any, Any]) -> bool:
    return all(type(key) is str and not key.startswith("$") for key in fields)


def _keys(stored: dict[str, Json]) -> list[str]:
    inorder = sorted(key for key in stored if key != "$order")
    return [inorder[place] for place in stored["$order"]] if "$order" in stored else inorder


def _stored_key(key: Any) -> Json:
    if type(key) is tuple:
        return {"$tuple": [_stored_key(part) for part in key]}
    return {"$bytes": b64encode(key).decode()} if type(key) is bytes else key


def _key(stored: Json) -> Any:
    if isinstance(stored, dict) and "$tuple" in stored:
        return tuple(_key(part) for part in stored["$tuple"])
    return b64decode(stored["$bytes"]) if isinstance(stored, dict) else stored


# ── from MessagePack ─────────────────────────────────────────────────────────────────────────────────────────────────

_PLAIN = Codec(JsonPlusSerializer())


def _spelt_out(value: Extension) -> Json:
    """An extension as JSON from which exactly the same bytes can be made again."""
    packed, spelt = ormsgpack.packb(_ext(value)), _fields(value)
    return spelt if ormsgpack.packb(_tree(spelt), option=_OPTION) == packed else _typed("msgpack", packed)


# The messages of a conversation come by again with every step.
_spelt_small = lru_cache(maxsize=4096)(_spelt_out)


def _fields(value: Extension) -> Json:
    try:
        content = unpacked(value.data)
    except ValueError:
        return None
    match value.code, content:
        case (code, [str() as module, str() as name, dict() as fields, method]) if (
            code == EXT_PYDANTIC_V2 and method == _MODEL_METHOD and _are_names(fields)
        ):
            return {"$model": f"{module}:{name}"} | {key: _PLAIN.encode(item) for key, item in fields.items()}
        case (code, [str() as module, str() as name, dict() as fields]) if (
            code == EXT_CONSTRUCTOR_KW_ARGS and _are_names(fields)
        ):
            return {"$object": f"{module}:{name}"} | {key: _PLAIN.encode(item) for key, item in fields.items()}
    return {"$ext": [value.code, _PLAIN.encode(content)]}


# ── back to MessagePack ──────────────────────────────────────────────────────────────────────────────────────────────


def _tree(stored: Json) -> Any:
    """What ``unpacked`` gave, from its JSON."""
    if isinstance(stored, list):
        return [_tree(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    mark = next((key for key in stored if key.startswith("$")), None)
    content: Any = stored[mark] if mark else None
    match mark:
        case None | "$order":
            return {key: _tree(stored[key]) for key in _keys(stored)}
        case "$map":
            return {_key(key): _tree(item) for key, item in content}
        case "$bytes":
            return b64decode(content)
        case "$float":
            return float(content)
        case "$model" | "$object":
            return _made_of(mark, content, {key: _tree(item) for key, item in stored.items() if key != mark})
        case "$ext":
            return ormsgpack.Ext(content[0], ormsgpack.packb(_tree(content[1]), option=_OPTION))
        case "$typed":
            return _ext(ormsgpack.unpackb(b64decode(content[1]), ext_hook=Extension, option=_OPTION))
    raise IntegrityError(f"A stored value is marked {mark}, which this version doesn't know.")


def _made_of(mark: str, name: str, fields: dict[str, Any]) -> ormsgpack.Ext:
    module, _, qualified = name.partition(":")
    if mark == "$object":
        return ormsgpack.Ext(EXT_CONSTRUCTOR_KW_ARGS, ormsgpack.packb([module, qualified, fields], option=_OPTION))
    packed = ormsgpack.packb([module, qualified, fields, _MODEL_METHOD], option=_OPTION)
    return ormsgpack.Ext(EXT_PYDANTIC_V2, packed)


def _ext(value: Extension) -> ormsgpack.Ext:
    return ormsgpack.Ext(value.code, value.data)
