"""A ledger entry as byte strings, for stores that keep no columns: the entry, its arguments, and its receipt.

The entry is JSON behind a seal over all three: whatever byte of them is changed, the entry can't be read any more. So
an entry that is the same is the same in all of them, and a store may change one by comparing it.
"""

import json
import zlib
from typing import NamedTuple

from perdure.canonical import canonical, digest
from perdure.effects import Effect
from perdure.errors import IntegrityError
from perdure.stores.base import EffectRow
from perdure.stores.packing import packed, unpacked

_SEAL = 16  # bytes
_DIGEST = 64  # hexadecimal digits


class Sealed(NamedTuple):
    """A ledger entry as it is stored."""

    entry: bytes
    arguments: bytes
    receipt: bytes | None


class Opened(NamedTuple):
    """A ledger entry, and the mark of whoever changed it last."""

    row: EffectRow
    mark: str


def written(row: EffectRow, mark: str) -> Sealed:
    """A new entry to store."""
    arguments = row.arguments_digest.encode().ljust(_DIGEST) + packed(row.arguments)
    return _sealed(row, mark, arguments, packed(row.receipt) if row.receipt is not None else None)


def changed(before: Sealed, row: EffectRow, mark: str) -> Sealed:
    """An entry that has become this one. Its arguments stay, and the receipt that it has, as they are stored."""
    receipt = before.receipt
    if row.receipt is not None and (receipt is None or unpacked(receipt) != row.receipt):
        receipt = packed(row.receipt)
    return _sealed(row, mark, before.arguments, receipt)


def opened(thread_id: str, key: str, stored: Sealed) -> Opened:
    """An entry from the store. Raises IntegrityError if it is not what was written."""
    entry, arguments, receipt = stored
    if entry[:_SEAL] != _seal(thread_id, key, entry[_SEAL:], arguments, receipt):
        raise _unreadable(thread_id, key, "it is not what was written")
    try:
        plain = json.loads(entry[_SEAL:])
        row = EffectRow(
            thread_id=thread_id, entry=Effect(**plain["entry"]), arguments=unpacked(arguments[_DIGEST:]),
            arguments_digest=arguments[:_DIGEST].decode().rstrip(),
            receipt=unpacked(receipt) if receipt is not None else None,
        )  # fmt: skip
        return Opened(row, plain["mark"])
    except (ValueError, TypeError, KeyError, zlib.error) as error:
        raise _unreadable(thread_id, key, str(error)) from error


def _sealed(row: EffectRow, mark: str, arguments: bytes, receipt: bytes | None) -> Sealed:
    content = canonical({"entry": row.entry.model_dump(), "mark": mark})
    return Sealed(_seal(row.thread_id, row.entry.key, content, arguments, receipt) + content, arguments, receipt)


def _seal(thread_id: str, key: str, entry: bytes, arguments: bytes | None, receipt: bytes | None) -> bytes:
    parts = [b"" if part is None else b"." + part for part in (arguments, receipt)]
    return bytes.fromhex(digest(thread_id, key, entry, *parts))[:_SEAL]


def _unreadable(thread_id: str, key: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"Thread {thread_id}: the effect {key} can't be read: {why}.",
        hint="Run `perdure db verify`.", table="effects", row=key,
    )  # fmt: skip
