"""Between rows of a SQL database and the ledger: its entries, and who holds which one-time token."""

from typing import Any, NamedTuple

from perdure.effects import Effect
from perdure.stores import rows
from perdure.stores.base import EffectRow
from perdure.stores.packing import packed, unpacked
from perdure.stores.rows import Row, reading, seal, stored_text, unreadable

_TEXTS = ("tool", "summary", "compensation", "reconcile", "saga", "source", "gate", "error", "settled_by")  # any text
_PLAIN = frozenset(Effect.model_fields) - {"index", "key", "checkpoint_id", *_TEXTS}
_SEALED = (
    "key", "position", "checkpoint_id", "arguments_digest", "claim", "arguments", "receipt", *_TEXTS, *sorted(_PLAIN)
)  # fmt: skip
_TOKEN = ("lineage", "token", "key")
_MOVING = ("status", "attempts", "error", "settled_by", "saga", "finished_at", "undone_at")


def effect(row: Row) -> EffectRow:
    """A ledger entry from its row. Raises IntegrityError if any of its columns is not what was written."""
    thread_id, key = row["thread_id"], row["key"].decode(errors="replace")
    with reading("effects", thread_id, key):
        if row["seal"] != seal(_SEALED, thread_id, row):
            raise unreadable("effects", thread_id, key, "it is not what was written")
        texts: dict[str, Any] = {name: rows.read_text(row[name]) for name in _TEXTS}
        entry = Effect(
            key=key, index=row["position"], checkpoint_id=rows.maybe_read(row["checkpoint_id"]),
            **texts, **{name: row[name] for name in _PLAIN},
        )  # fmt: skip
        return EffectRow(
            thread_id=thread_id,
            entry=entry,
            arguments=unpacked(row["arguments"]),
            arguments_digest=row["arguments_digest"],
            receipt=unpacked(row["receipt"]) if row["receipt"] is not None else None,
        )


def effect_values(row: EffectRow, claim: bytes) -> dict[str, Any]:
    """The columns of a new ledger entry; ``claim`` is the mark of who begins its attempt."""
    entry = row.entry
    values: dict[str, Any] = {
        "thread_id": row.thread_id, "key": entry.key.encode(), "position": entry.index,
        "checkpoint_id": rows.maybe_id(entry.checkpoint_id), "claim": claim, "arguments": packed(row.arguments),
        "arguments_digest": row.arguments_digest, "receipt": _maybe_packed(row.receipt),
        **{name: getattr(entry, name) for name in _PLAIN},
        **{name: stored_text(getattr(entry, name)) for name in _TEXTS},
    }  # fmt: skip
    return values | {"seal": seal(_SEALED, row.thread_id, values)}


def effect_after(found: Row, row: EffectRow, claim: bytes) -> dict[str, Any]:
    """The columns of an entry when it has become this one. What doesn't change is sealed as it is stored."""
    moving = {name: getattr(row.entry, name) for name in _MOVING}
    texts = {name: stored_text(moving[name]) for name in _TEXTS if name in moving}
    values = {**found, **moving, **texts, "claim": claim, "receipt": _maybe_packed(row.receipt)}
    return values | {"seal": seal(_SEALED, row.thread_id, values)}


def _maybe_packed(receipt: bytes | None) -> bytes | None:
    return packed(receipt) if receipt is not None else None


class Holder(NamedTuple):
    """The call that has used a token."""

    thread_id: str
    key: str


def holder(row: Row) -> Holder:
    """Who has used a token, from its row. Raises IntegrityError if any of its columns is not what was written."""
    thread_id, token = row["thread_id"], row["token"].decode(errors="replace")
    if row["seal"] != seal(_TOKEN, thread_id, row):
        raise unreadable("tokens", thread_id, token, "it is not what was written")
    return Holder(thread_id, row["key"].decode())


def token_values(lineage: str, token: str, holder: Holder) -> dict[str, Any]:
    """The columns of a token that a call uses."""
    values: dict[str, Any] = {
        "lineage": lineage, "token": token.encode(), "thread_id": holder.thread_id, "key": holder.key.encode()
    }  # fmt: skip
    return values | {"seal": seal(_TOKEN, holder.thread_id, values)}
