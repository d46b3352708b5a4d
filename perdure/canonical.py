"""The one byte form of a JSON value: what is hashed, measured and stored."""

import hashlib
import json
from typing import Any

from perdure.errors import InvalidInput

# Made once: this runs several times a step, and making one takes as long as writing a message.
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)

Json = Any  # None | bool | int | float | str | list[Json] | dict[str, Json]


def canonical(value: Json) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Raises InvalidInput for what JSON can't hold: NaN and infinities (PostgreSQL's jsonb refuses them too), and
    text with lone surrogates.
    """
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The value can't be written as JSON: {error}.") from error


def digest(*parts: bytes | str) -> str:
    """SHA-256 over length-prefixed parts, as 64 hex digits; the prefixes keep ('ab','c') and ('a','bc') apart."""
    framed: list[bytes] = []
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        framed += (len(data).to_bytes(8, "big"), data)
    return hashlib.sha256(b"".join(framed)).hexdigest()
