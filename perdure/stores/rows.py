"""Between rows of a SQL database and the store's values."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from perdure.approvals import stamp
from perdure.budget import Usage
from perdure.canonical import canonical, digest
from perdure.checkpoint import Checkpoint
from perdure.effects import Effect
from perdure.errors import IntegrityError
from perdure.stores.base import CachedResult, EffectRow, Line, Receipt, Snapshot, Step, ThreadRow

Row = Mapping[str, Any]

_COMPRESS_FROM = 256  # bytes; below that zlib saves next to nothing
_RAW, _ZLIB = b"r", b"z"
_FOREIGN = b"text:"  # before an id that is no UUID; such a one is never 16 bytes long
_SEALED = (
    "checkpoint_id", "parent_id", "step", "source", "nodes", "turn", "schema_version", "metadata", "delta", "size",
    "digest", "base_id", "since_base", "state_size", "created_at",
)  # fmt: skip


def now() -> str:
    """The time of a write: ISO 8601, UTC, microseconds, so that completions sort."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def packed(data: bytes) -> bytes:
    """Bytes as they are stored: a mark for the encoding, then the data."""
    squeezed = zlib.compress(data, 6) if len(data) >= _COMPRESS_FROM else data
    return _ZLIB + squeezed if len(squeezed) < len(data) else _RAW + data


def unpacked(stored: bytes) -> bytes:
    """The inverse of ``packed``."""
    return zlib.decompress(stored[1:]) if stored[:1] == _ZLIB else stored[1:]


def stored_id(text: str) -> bytes:
    """A checkpoint's id as it is stored: 16 bytes for a UUID. Any other id (of a foreign store) is kept as text."""
    try:
        uuid = UUID(text)
    except ValueError:
        uuid = None
    if uuid and str(uuid) == text:
        return uuid.bytes
    foreign = _FOREIGN + text.encode()
    return foreign + b"\0" if len(foreign) == 16 else foreign


def read_id(stored: bytes) -> str:
    """The inverse of ``stored_id``."""
    return str(UUID(bytes=stored)) if len(stored) == 16 else stored.removeprefix(_FOREIGN).rstrip(b"\0").decode()


@contextmanager
def _reading(table: str, thread_id: str, row: str) -> Iterator[None]:
    """Whoever meets a row that can't be decoded learns which one it is."""
    try:
        yield
    except (ValueError, TypeError, zlib.error) as error:
        raise IntegrityError(
            f"Thread {thread_id}: the row {row} of {table} can't be read: {error}.",
            hint="Run `perdure db verify`.", table=table, row=row,
        ) from error  # fmt: skip


def thread(row: Row) -> ThreadRow:
    """A thread from its row."""
    fields = {name: row[name] for name in ThreadRow.model_fields}
    return ThreadRow.model_validate(fields | {"head_id": read_id(row["head_id"])})


def checkpoint(thread_id: str, row: Row) -> Checkpoint:
    """A checkpoint from its row. Raises IntegrityError if any of its columns is not what was written."""
    name = _name(row["checkpoint_id"])
    with _reading("checkpoints", thread_id, name):
        if row["seal"] != _seal(thread_id, row):
            raise IntegrityError(
                f"Thread {thread_id}: checkpoint {name} is not what was written.",
                hint="Run `perdure db verify`.", table="checkpoints", row=name,
            )  # fmt: skip
        return Checkpoint(
            thread_id=thread_id,
            id=name,
            parent_id=read_id(row["parent_id"]) if row["parent_id"] is not None else None,
            step=row["step"],
            source=row["source"],
            nodes=tuple(json.loads(row["nodes"])) if row["nodes"] else (),
            turn=row["turn"],
            schema_version=row["schema_version"],
            metadata=json.loads(row["metadata"]),
            delta=json.loads(unpacked(row["delta"])),
            created_at=stamp(datetime.fromtimestamp(row["created_at"] / 1000, UTC)),
            size=row["size"],
            digest=row["digest"].hex(),
        )


def _name(stored: Any) -> str:
    """An id for people, also where it can't be one."""
    try:
        return read_id(stored)
    except (AttributeError, TypeError, ValueError):
        return str(stored)


def _seal(thread_id: str, row: Row) -> bytes:
    """Sixteen bytes over all columns of a checkpoint: a change in one of them shows when the row is read."""
    columns = [row[name] for name in _SEALED]
    plain = [["x", value.hex()] if isinstance(value, bytes) else value for value in columns]
    return bytes.fromhex(digest(thread_id, canonical(plain)))[:16]


def step_values(step: Step) -> dict[str, Any]:
    """The columns of a checkpoint (and of its thread) from a step."""
    c = step.checkpoint
    values: dict[str, Any] = {
        "checkpoint_id": stored_id(c.id), "parent_id": stored_id(c.parent_id) if c.parent_id is not None else None,
        "step": c.step, "source": c.source, "nodes": canonical(c.nodes).decode() if c.nodes else "", "turn": c.turn,
        "schema_version": c.schema_version, "metadata": canonical(c.metadata).decode(),
        "delta": packed(canonical(c.delta)), "size": c.size, "digest": bytes.fromhex(c.digest),
        "base_id": stored_id(step.base_id) if step.base_id is not None else None, "since_base": step.since_base,
        "state_size": step.state_size, "created_at": _milliseconds(c.created_at),
    }  # fmt: skip
    more = {
        "thread_id": c.thread_id, "seal": _seal(c.thread_id, values), "created_ms": values["created_at"],
        "created_at": c.created_at, "agent": step.agent, "tenant": step.tenant,
    }  # fmt: skip
    return values | more


def _milliseconds(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def line(thread_id: str, found: Sequence[Row], snapshot_row: Row | None) -> Line:
    """A line from its rows, oldest first."""
    checkpoints = tuple(checkpoint(thread_id, row) for row in found)
    last = found[-1]
    return Line(
        snapshot=snapshot(thread_id, snapshot_row) if snapshot_row else None,
        checkpoints=checkpoints,
        base_id=read_id(last["base_id"]) if last["base_id"] is not None else None,
        since_base=last["since_base"],
        state_size=last["state_size"],
    )


def snapshot(thread_id: str, row: Row) -> Snapshot:
    """A snapshot from its row."""
    name = _name(row["checkpoint_id"])
    with _reading("snapshots", thread_id, name):
        return Snapshot(checkpoint_id=name, state=unpacked(row["state"]), digest=row["digest"].hex())


def snapshot_values(value: Snapshot) -> dict[str, Any]:
    """The columns of a snapshot, but for the thread's."""
    return {
        "checkpoint_id": stored_id(value.checkpoint_id), "state": packed(value.state),
        "digest": bytes.fromhex(value.digest),
    }  # fmt: skip


def result(scope: str, key: str, row: Row) -> CachedResult:
    """A cached result from its row."""
    return CachedResult(
        scope=scope, key=key, thread_id=row["thread_id"], checkpoint_id=read_id(row["checkpoint_id"]),
        usage=Usage.model_validate_json(row["usage"]),
    )  # fmt: skip


def request(scope: str, key: str) -> bytes:
    """What a cached result is found by."""
    return bytes.fromhex(digest(scope, key))


def result_values(value: CachedResult) -> dict[str, Any]:
    """The columns of a cached result."""
    return {
        "request": request(value.scope, value.key), "thread_id": value.thread_id,
        "checkpoint_id": stored_id(value.checkpoint_id), "usage": value.usage.model_dump_json(exclude_defaults=True),
    }  # fmt: skip


def receipt_values(thread_id: str, receipt: Receipt) -> dict[str, Any]:
    """The columns that a receipt fills in the ledger."""
    return {"thread_id": thread_id, "key": receipt.key, "receipt": packed(receipt.result)}


_ENTRY = tuple(name for name in Effect.model_fields if name != "index")


def effect(row: Row) -> EffectRow:
    """A ledger entry from its row."""
    with _reading("effects", row["thread_id"], row["key"]):
        return EffectRow(
            thread_id=row["thread_id"],
            entry=Effect(index=row["position"], **{name: row[name] for name in _ENTRY}),
            arguments=unpacked(row["arguments"]),
            arguments_digest=row["arguments_digest"],
            receipt=unpacked(row["receipt"]) if row["receipt"] is not None else None,
        )


def effect_values(row: EffectRow) -> dict[str, Any]:
    """The columns of a new ledger entry."""
    entry = row.entry
    return {
        "thread_id": row.thread_id, "key": entry.key, "turn": entry.turn, "step": entry.step, "position": entry.index,
        "tool": entry.tool, "effect": entry.effect, "summary": entry.summary, "compensation": entry.compensation,
        "arguments": packed(row.arguments), "arguments_digest": row.arguments_digest,
    }  # fmt: skip
