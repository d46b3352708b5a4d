"""The one byte form of a JSON value: what is hashed, measured and stored."""

import hashlib
import json.encoder
from collections.abc import Callable, Iterable
from typing import Any

from perdure.errors import InvalidInput

Json = Any  # None | bool | int | float | str | list[Json] | dict[str, Json]


def canonical(value: Json) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Raises InvalidInput for what JSON can't hold: NaN and infinities (PostgreSQL's jsonb refuses them too), values that
    contain themselves, and text with lone surrogates.
    """
    try:
        return "".join(_parts(value, 0)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"The value can't be written as JSON: {error}.") from error


def digest(*parts: bytes | str) -> str:
    """SHA-256 over length-prefixed parts, as 64 hex digits; the prefixes keep ('ab','c') and ('a','bc') apart."""
    framed: list[bytes] = []
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        framed += (len(data).to_bytes(8, "big"), data)
    return hashlib.sha256(b"".join(framed)).hexdigest()


def _encoder() -> Callable[[Json, int], Iterable[str]]:
    """What makes the parts of the text of a value.

    Made once: this runs fifty times a step, and ``JSONEncoder.encode`` makes one each time, which takes as long as
    writing a message. It looks for no circles; they end in a RecursionError.
    """
    encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the accelerator
        return lambda value, _: encoder.iterencode(value)
    write = json.encoder.encode_basestring
    made: Callable[[Json, int], Iterable[str]] = make(None, encoder.default, write, None, ":", ",", True, False, False)
    return made


_parts = _encoder()
