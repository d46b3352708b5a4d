"""Between rows of a SQL database and the store's values."""

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from perdure.budget import Usage
from perdure.canonical import canonical
from perdure.checkpoint import Checkpoint
from perdure.effects import Effect
from perdure.errors import IntegrityError
from perdure.stores.base import CachedResult, EffectRow, Line, Receipt, Snapshot, Step

Row = Mapping[str, Any]

_COMPRESS_FROM = 256  # bytes; below that zlib saves next to nothing
_RAW, _ZLIB = b"r", b"z"


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


@contextmanager
def _reading(table: str, row: Row, name: str) -> Iterator[None]:
    """Whoever meets a row that can't be decoded learns which one it is."""
    try:
        yield
    except (ValueError, TypeError, zlib.error) as error:
        raise IntegrityError(
            f"Thread {row['thread_id']}: the row {row[name]} of {table} can't be read: {error}.",
            hint="Run `perdure db verify`.", table=table, row=str(row[name]),
        ) from error  # fmt: skip


def checkpoint(row: Row) -> Checkpoint:
    """A checkpoint from its row."""
    with _reading("checkpoints", row, "checkpoint_id"):
        return Checkpoint(
            thread_id=row["thread_id"],
            id=row["checkpoint_id"],
            parent_id=row["parent_id"],
            step=row["step"],
            source=row["source"],
            nodes=tuple(row["nodes"].split(",")) if row["nodes"] else (),
            turn=row["turn"],
            schema_version=row["schema_version"],
            metadata=json.loads(row["metadata"]),
            delta=json.loads(unpacked(row["delta"])),
            created_at=row["created_at"],
            size=row["size"],
            digest=row["digest"].hex(),
        )


def step_values(step: Step) -> dict[str, Any]:
    """The columns of a checkpoint (and of its thread) from a step."""
    c = step.checkpoint
    return {
        "thread_id": c.thread_id, "checkpoint_id": c.id, "parent_id": c.parent_id, "step": c.step, "source": c.source,
        "nodes": ",".join(c.nodes), "turn": c.turn, "schema_version": c.schema_version,
        "metadata": canonical(c.metadata).decode(), "delta": packed(canonical(c.delta)), "size": c.size,
        "digest": bytes.fromhex(c.digest), "base_id": step.base_id, "since_base": step.since_base,
        "state_size": step.state_size, "created_at": c.created_at, "agent": step.agent, "tenant": step.tenant,
    }  # fmt: skip


def line(found: Sequence[Row], snapshot_row: Row | None) -> Line:
    """A line from its rows, oldest first."""
    last = found[-1]
    return Line(
        snapshot=snapshot(snapshot_row) if snapshot_row else None,
        checkpoints=tuple(checkpoint(row) for row in found),
        base_id=last["base_id"],
        since_base=last["since_base"],
        state_size=last["state_size"],
    )


def snapshot(row: Row) -> Snapshot:
    """A snapshot from its row."""
    with _reading("snapshots", row, "checkpoint_id"):
        return Snapshot(checkpoint_id=row["checkpoint_id"], state=unpacked(row["state"]), digest=row["digest"].hex())


def snapshot_values(value: Snapshot) -> dict[str, Any]:
    """The columns of a snapshot, but for the thread's."""
    return {"checkpoint_id": value.checkpoint_id, "state": packed(value.state), "digest": bytes.fromhex(value.digest)}


def result(row: Row) -> CachedResult:
    """A cached result from its row."""
    return CachedResult(**{**row, "usage": Usage.model_validate_json(row["usage"])})


def result_values(value: CachedResult) -> dict[str, Any]:
    """The columns of a cached result."""
    return {**value.model_dump(exclude={"usage"}), "usage": value.usage.model_dump_json(exclude_defaults=True)}


def receipt_values(thread_id: str, receipt: Receipt) -> dict[str, Any]:
    """The columns that a receipt fills in the ledger."""
    return {"thread_id": thread_id, "key": receipt.key, "receipt": packed(receipt.result)}


_ENTRY = tuple(name for name in Effect.model_fields if name != "index")


def effect(row: Row) -> EffectRow:
    """A ledger entry from its row."""
    with _reading("effects", row, "key"):
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
