"""Between rows of a SQL database and the store's values."""

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

from perdure.approvals import stamp
from perdure.audit import AuditEntry, AuditRow
from perdure.budget import Usage
from perdure.canonical import Json, canonical, digest
from perdure.checkpoint import Checkpoint, Frontier, Layer, header
from perdure.errors import IntegrityError
from perdure.stores.base import CachedResult, Line, Receipt, Snapshot, Step, ThreadRow
from perdure.stores.packing import packed, unpacked

_FOREIGN, _FOREIGN_16 = b"text:", b"text16:"  # before an id that is no UUID; the second where 16 bytes would come of it
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AWKWARD = re.compile('^"|[\0\ud800-\udfff]')
_USAGE = ("calls", "cached", "prompt", "completion", "saved")  # in this order in a column
_SHORT = 16  # bytes of a digest: enough that nobody finds two inputs with the same ones
_SEALED = (
    "checkpoint_id", "parent_thread_id", "parent_id", "step", "based", "cut", "source", "nodes", "turn",
    "schema_version", "next", "metadata", "facts", "size", "state_size", "created_at", "digest", "delta",
)  # fmt: skip


class Row(Protocol):
    """A row as each database gives it: values by the names of columns."""

    def keys(self) -> Iterable[str]:
        """The names."""

    def __getitem__(self, column: str, /) -> Any:
        """The value."""


def now() -> str:
    """The time of a write: ISO 8601, UTC, microseconds, so that completions sort."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def milliseconds(moment: str) -> int:
    """An ISO 8601 time as milliseconds since 1970."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


# ── parts of rows ────────────────────────────────────────────────────────────────────────────────────────────────────


def stored_id(text: str) -> bytes:
    """A checkpoint's id as it is stored: 16 bytes for a UUID. Any other id (of a foreign store) is kept as text."""
    if _UUID.fullmatch(text):
        return bytes.fromhex(text.replace("-", ""))
    foreign = _FOREIGN + text.encode()
    return _FOREIGN_16 + text.encode() if len(foreign) == 16 else foreign


def read_id(stored: bytes) -> str:
    """The inverse of ``stored_id``."""
    if len(stored) == 16:
        name = stored.hex()
        return f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"
    return stored.removeprefix(_FOREIGN_16 if stored.startswith(_FOREIGN_16) else _FOREIGN).decode()


def maybe_id(text: str | None) -> bytes | None:
    return stored_id(text) if text else None


def maybe_read(stored: bytes | None) -> str:
    return read_id(stored) if stored is not None else ""


def stored_text(text: str) -> str:
    """Any text as a database takes it: PostgreSQL has no NUL in texts, and no database has lone surrogates.

    Text with one of them is kept as a JSON string, and so is text that could be taken for one.
    """
    return json.dumps(text) if _AWKWARD.search(text) else text


def read_text(stored: str) -> str:
    """The inverse of ``stored_text``."""
    return str(json.loads(stored)) if stored.startswith('"') else stored


def short(*parts: bytes | str) -> bytes:
    return bytes.fromhex(digest(*parts))[:_SHORT]


def request(scope: str, key: str) -> bytes:
    """What a cached result is found by."""
    return short(scope, key)


def labels(metadata: Mapping[str, Json]) -> list[bytes]:
    """What a checkpoint with this metadata is found by, one for each entry."""
    return [short(name, canonical(value)) for name, value in metadata.items()]


def _text(value: Json) -> str:
    """JSON in a column; nothing where there is nothing to say."""
    return canonical(value).decode() if value else ""


def _stored_next(next: Frontier) -> str:
    """A frontier in a column: most are nothing but the nodes of their tasks, and those are a list."""
    return _text(next.nodes if next.is_plain else next.model_dump(mode="json", exclude_defaults=True))


def _next(stored: str) -> str:
    """The canonical JSON, without defaults, of the frontier in a column."""
    return _next_nodes(stored) if stored.startswith("[") else stored or "{}"


@lru_cache  # most frontiers are the same few
def _next_nodes(stored: str) -> str:
    return canonical({"tasks": [{"node": node} for node in json.loads(stored)]}).decode()


_UNREADABLE = (ValueError, TypeError, zlib.error)


@contextmanager
def reading(table: str, thread_id: str, row: str) -> Iterator[None]:
    """Whoever meets a row that can't be decoded learns which one it is."""
    try:
        yield
    except _UNREADABLE as error:
        raise unreadable(table, thread_id, row, str(error)) from error


def unreadable(table: str, thread_id: str, row: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"Thread {thread_id}: the row {row} of {table} can't be read: {why}.",
        hint="Run `perdure db verify`.", table=table, row=row,
    )  # fmt: skip


def _name(stored: Any) -> str:
    """An id for people, also where it can't be one."""
    try:
        return read_id(stored)
    except (AttributeError, TypeError, ValueError):
        return str(stored)


# ── threads and checkpoints ──────────────────────────────────────────────────────────────────────────────────────────


def thread(row: Row) -> ThreadRow:
    """A thread from its row."""
    with reading("threads", row["thread_id"], row["thread_id"]):
        fields = {name: row[name] for name in ThreadRow.model_fields}
        fields |= {"head_id": read_id(row["head_id"]), "origin_id": maybe_read(row["origin_id"])}
        return ThreadRow.model_validate(fields | {"audit_digest": (row["audit_digest"] or b"").hex()})


def checkpoint(row: Row) -> Checkpoint:
    """A checkpoint from its row. Raises IntegrityError if any of its columns is not what was written."""
    thread_id, name = row["thread_id"], _name(row["checkpoint_id"])
    with reading("checkpoints", thread_id, name):
        if row["seal"] != seal(_SEALED, thread_id, row):
            raise unreadable("checkpoints", thread_id, name, "it is not what was written")
        return Checkpoint(
            thread_id=thread_id,
            id=name,
            parent_id=maybe_read(row["parent_id"]) or None,
            parent_thread=row["parent_thread_id"] or "",
            step=row["step"],
            source=row["source"],
            nodes=tuple(json.loads(row["nodes"])) if row["nodes"] else (),
            turn=row["turn"],
            schema_version=row["schema_version"],
            next=Frontier.model_validate_json(_next(row["next"])),
            metadata=json.loads(row["metadata"]) if row["metadata"] else {},
            facts=json.loads(row["facts"]) if row["facts"] else {},
            cut=row["cut"],
            delta=json.loads(unpacked(row["delta"])),
            created_at=stamp(datetime.fromtimestamp(row["created_at"] / 1000, UTC)),
            size=row["size"],
            digest=row["digest"].hex(),
        )


def seal(names: Iterable[str], thread_id: str, row: Row) -> bytes:
    """Over these columns of a row: a change in one of them, or in its type, shows when the row is read."""
    values = [row[name] for name in names]
    blobs = [value for value in values if type(value) is bytes]
    return short(thread_id, ascii([(len(v),) if type(v) is bytes else v for v in values]), b"".join(blobs))


def checkpoint_values(step: Step) -> dict[str, Any]:
    """The columns of a checkpoint from a step. Raises InvalidInput for what JSON can't hold."""
    c = step.checkpoint
    values: dict[str, Any] = {
        "checkpoint_id": stored_id(c.id), "parent_thread_id": c.parent_thread or None,
        "parent_id": maybe_id(c.parent_id), "step": c.step, "based": int(step.base_id == c.id), "cut": int(c.cut),
        "source": c.source, "nodes": _text(c.nodes), "turn": c.turn, "schema_version": c.schema_version,
        "next": _stored_next(c.next), "metadata": _text(c.metadata),
        "facts": _text(c.facts), "delta": packed(canonical(c.delta)), "size": c.size,
        "digest": bytes.fromhex(c.digest), "state_size": step.state_size, "created_at": milliseconds(c.created_at),
    }  # fmt: skip
    return values | {"thread_id": c.thread_id, "seal": seal(_SEALED, c.thread_id, values)}


def thread_values(step: Step) -> dict[str, Any]:
    """The columns of a thread whose head becomes the step's checkpoint."""
    c = step.checkpoint
    return {
        "thread_id": c.thread_id, "agent": step.agent, "tenant": step.tenant, "lineage": step.lineage or c.thread_id,
        "branch": step.branch, "turn": c.turn, "checkpoint_id": stored_id(c.id), "schema_version": c.schema_version,
        "origin_thread": c.parent_thread, "origin_id": maybe_id(c.parent_id) if c.parent_thread else None,
        "committed_at": c.created_at, "extends": maybe_id(step.extends), "dry_run": int(step.dry_run),
    }  # fmt: skip


def in_copy(row: Row, thread_id: str) -> dict[str, Any]:
    """The columns of the same checkpoint in a copy of its thread. Raises IntegrityError as ``checkpoint``."""
    checkpoint(row)
    return dict(row) | {"thread_id": thread_id, "seal": seal(_SEALED, thread_id, row)}


def when_cut(row: Row, state_size: int) -> dict[str, Any]:
    """The columns of the same checkpoint when its ancestors are gone. Raises IntegrityError as ``checkpoint``."""
    checkpoint(row)
    changed = dict(row) | {"based": 1, "cut": 1, "state_size": state_size}
    return changed | {"seal": seal(_SEALED, row["thread_id"], changed)}


def line(found: Sequence[Row], end: Row) -> Line:
    """A line from its rows, oldest first, which have what layers need; ``end`` is what else the last one has."""
    layers, first = tuple(map(layer, found)), found[0]
    ends = bool(first["based"] or first["cut"])
    base = None
    if ends and first["state"] is not None:
        base = snapshot(first["thread_id"], {**first, "digest": first["state_digest"]})
    deltas = layers[1:] if ends else layers
    return Line(
        snapshot=base, layers=layers, last=checkpoint({**end, "delta": found[-1]["delta"]}),
        base_id=layers[0].id if ends else None,
        since_base=sum(len(above.delta) for above in deltas) + (len(base.state) if base else 0),
        state_size=end["state_size"],
    )  # fmt: skip


def layer(row: Row) -> Layer:
    """A checkpoint as a layer of a state, from its row. Its digest tells whether it is what was written: the seal,
    which covers the other columns too, is left alone. Raises IntegrityError where the row can't be read."""
    stored = row["checkpoint_id"]
    try:
        name, step = read_id(stored), row["step"]
        written = header(
            id=name, step=step, source=row["source"], nodes=row["nodes"] or "[]", turn=row["turn"],
            schema_version=row["schema_version"], next=_next(row["next"]),
        )  # fmt: skip
        return Layer(name, step, written, unpacked(row["delta"]), row["digest"].hex())
    except _UNREADABLE as error:
        raise unreadable("checkpoints", row["thread_id"], _name(stored), str(error)) from error


def snapshot(thread_id: str, row: Row) -> Snapshot:
    """A snapshot from its row."""
    name = _name(row["checkpoint_id"])
    with reading("snapshots", thread_id, name):
        return Snapshot(checkpoint_id=name, state=unpacked(row["state"]), digest=row["digest"].hex())


def snapshot_values(thread_id: str, value: Snapshot) -> dict[str, Any]:
    """The columns of a snapshot."""
    return {
        "thread_id": thread_id, "checkpoint_id": stored_id(value.checkpoint_id), "state": packed(value.state),
        "digest": bytes.fromhex(value.digest),
    }  # fmt: skip


# ── results, receipts ────────────────────────────────────────────────────────────────────────────────────────────────


def result(scope: str, key: str, row: Row) -> CachedResult:
    """A cached result from its row."""
    with reading("results", row["thread_id"], key):
        return CachedResult(
            scope=scope, key=key, thread_id=row["thread_id"], checkpoint_id=maybe_read(row["checkpoint_id"]),
            usage=Usage(**dict(zip(_USAGE, json.loads(row["usage"]), strict=True))), expires_at=row["expires_at"],
            value=unpacked(row["value"]) if row["value"] is not None else None,
        )  # fmt: skip


def result_values(value: CachedResult) -> dict[str, Any]:
    """The columns of a cached result."""
    return {
        "request": request(value.scope, value.key), "thread_id": value.thread_id,
        "checkpoint_id": maybe_id(value.checkpoint_id), "usage": _text([getattr(value.usage, name) for name in _USAGE]),
        "expires_at": value.expires_at, "expires_ms": milliseconds(value.expires_at) if value.expires_at else None,
        "value": packed(value.value) if value.value is not None else None,
    }  # fmt: skip


def receipt_values(thread_id: str, receipt: Receipt) -> dict[str, Any]:
    """The columns of a receipt."""
    return {"thread_id": thread_id, "key": receipt.key.encode(), "receipt": packed(receipt.result)}


# ── audit ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def audit_line(row: Row) -> AuditRow:
    """A line of the audit from its row; whether it is the one that was written, its digest tells."""
    with reading("audit", row["thread_id"], str(row["number"])):
        entry = AuditEntry(
            id=row["id"].decode(), at=row["at"], kind=row["kind"], body=json.loads(unpacked(row["body"]))
        )
        return AuditRow(
            thread_id=row["thread_id"], number=row["number"], entry=entry, digest=row["digest"].hex()
        )  # fmt: skip


def audit_values(line: AuditRow) -> dict[str, Any]:
    """The columns of a line of the audit."""
    entry = line.entry
    return {
        "thread_id": line.thread_id, "number": line.number, "id": entry.id.encode(), "at": entry.at,
        "kind": entry.kind, "body": packed(canonical(entry.body)), "digest": bytes.fromhex(line.digest),
    }  # fmt: skip
