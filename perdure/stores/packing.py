"""Bytes as they are stored: compressed where that pays."""

import zlib

_FROM = 64  # bytes; below that there is next to nothing to save
_RAW, _PACKED = b"r", b"z"

# What compression takes for granted, the likeliest last: what checkpoints of conversations say over and over, as
# canonical JSON. With it the delta of a step is a fifth smaller. It belongs to the format: bytes that were written with
# one dictionary can't be read with another, which zlib notices.
_WORDS = (
    b'{"text":{"op":"set","value":null}}{"op":"append","items":[{"op":"merge","value":{"op":"add","value":1}}]}'
    b'{"messages":{"op":"messages","put":[{"content":"","id":"0.0","role":"user"}]}}'
    b'{"content":"","id":"1.0","name":"","note":"error","role":"assistant","tool_call_id":"call_","tool_calls":[]}'
    b'{"arguments":"{\\"query\\": \\"\\", \\"name\\": \\"\\"}","id":"call_","name":""},{"arguments":"{}","id":"call_'
    b'{"messages":{"op":"messages","put":[{"content":"{\\"","id":"2.0","role":"tool","tool_call_id":"call_"},{"content":"'
    b'{"messages":{"op":"messages","put":[{"id":"1.0","role":"assistant","tool_calls":[{"arguments":"{\\"'
    b'\\"}","id":"call_","name":""}]}]}}'
    b'{"messages":{"op":"messages","put":[{"content":"","id":"10.0","role":"tool","tool_call_id":"call_"}]}}'
)


def packed(data: bytes) -> bytes:
    """Bytes as they are stored: a mark for the encoding, then the data."""
    if len(data) >= _FROM:
        packing = zlib.compressobj(zdict=_WORDS)
        squeezed = packing.compress(data) + packing.flush()
        if len(squeezed) < len(data):
            return _PACKED + squeezed
    return _RAW + data


def unpacked(stored: bytes) -> bytes:
    """The inverse of ``packed``. Raises zlib.error where the bytes are not what was written."""
    if stored[:1] != _PACKED:
        return stored[1:]
    unpacking = zlib.decompressobj(zdict=_WORDS)
    data = unpacking.decompress(stored[1:])
    if not unpacking.eof or unpacking.unused_data:
        raise zlib.error("it doesn't end where it should")
    return data
