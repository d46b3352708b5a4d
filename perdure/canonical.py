"""The one byte form of a JSON value: what is hashed, measured and stored."""

import hashlib
import json
from typing import Any

from perdure.errors import InvalidInput

Json = Any  # None | bool | int | float | str | list[Json] | dict[str, Json]


def canonical(value: Json) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces.

    Raises InvalidInput for what JSON can't hold: NaN and infinities (PostgreSQL's jsonb refuses them too), and
    text with lone surrogates.
    """
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The value can't be written as JSON: {error}.") from error


def digest(*parts: bytes | str) -> str:
    """SHA-256 over length-prefixed parts, as 64 hex digits; the prefixes keep ('ab','c') and ('a','bc') apart."""
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.hexdigest()
