"""A checkpoint as two byte strings, for stores that keep no columns: its link and its body.

The link is what a walk from child to parent reads: a small JSON object. The body is the rest, compressed, behind a
seal over both. So whatever byte of either is changed, the checkpoint can't be read any more.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any, NamedTuple

from perdure.canonical import Json, canonical, digest
from perdure.checkpoint import Checkpoint, layer_of
from perdure.errors import IntegrityError
from perdure.stores import refusals
from perdure.stores.base import CachedResult, Line, Snapshot, Step
from perdure.stores.packing import packed, unpacked
from perdure.values import Value

_SEAL = 16  # bytes
_BODY = ("source", "nodes", "turn", "schema_version", "metadata", "facts", "delta", "created_at", "size")


class Link(Value):
    """What leads from a checkpoint to its parent. An empty id stands for none."""

    step: int
    digest: str
    parent_id: str = ""
    parent_thread: str = ""
    base_id: str = ""
    cut: bool = False


class Record(NamedTuple):
    """A checkpoint as it is stored."""

    link: bytes
    body: bytes


class Entry(Value):
    """A checkpoint with what the store knows besides: see ``perdure.stores.base.Step``."""

    checkpoint: Checkpoint
    base_id: str | None = None
    since_base: int
    state_size: int

    @staticmethod
    def of(step: Step) -> "Entry":
        """What a step brings."""
        return Entry(
            checkpoint=step.checkpoint, base_id=step.base_id, since_base=step.since_base, state_size=step.state_size
        )

    def cut(self, state: Snapshot) -> "Entry":
        """The same checkpoint when its ancestors are gone and its whole state stands in their place."""
        size = len(state.state)
        checkpoint = self.checkpoint.model_copy(update={"cut": True})
        return Entry(checkpoint=checkpoint, base_id=checkpoint.id, since_base=size, state_size=size)

    def of_thread(self, thread_id: str) -> "Entry":
        """The same checkpoint in a copy of its thread."""
        return self.model_copy(update={"checkpoint": self.checkpoint.model_copy(update={"thread_id": thread_id})})


def record(entry: Entry) -> Record:
    """A checkpoint to store. Raises InvalidInput for what JSON can't hold."""
    c = entry.checkpoint
    link = Link(
        step=c.step, digest=c.digest, parent_id=c.parent_id or "", parent_thread=c.parent_thread,
        base_id=entry.base_id or "", cut=c.cut,
    )  # fmt: skip
    plain: dict[str, Json] = {name: getattr(c, name) for name in _BODY}
    plain |= {
        "next": c.next.model_dump(mode="json"), "since_base": entry.since_base, "state_size": entry.state_size,
    }  # fmt: skip
    written = canonical(link.model_dump(mode="json", exclude_defaults=True))
    content = packed(canonical(plain))
    return Record(written, _seal(c.thread_id, c.id, written, content) + content)


def entry(thread_id: str, checkpoint_id: str, stored: tuple[bytes | None, bytes | None]) -> Entry:
    """A checkpoint from the store. Raises IntegrityError if it is not what was written."""
    link, body = stored
    if link is None or body is None:
        raise _unreadable(thread_id, checkpoint_id, "a part of it is missing")
    content = body[_SEAL:]
    if body[:_SEAL] != _seal(thread_id, checkpoint_id, link, content):
        raise _unreadable(thread_id, checkpoint_id, "it is not what was written")
    try:
        way, plain = Link.model_validate_json(link), json.loads(unpacked(content))
        sizes = {name: plain.pop(name) for name in ("since_base", "state_size")}
        checkpoint = Checkpoint(
            thread_id=thread_id, id=checkpoint_id, parent_id=way.parent_id or None, parent_thread=way.parent_thread,
            step=way.step, cut=way.cut, digest=way.digest, **plain,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        raise _unreadable(thread_id, checkpoint_id, str(error)) from error
    return Entry(checkpoint=checkpoint, base_id=way.base_id or None, **sizes)


def link(thread_id: str, checkpoint_id: str, stored: bytes) -> Link:
    """The link of a checkpoint alone; it is not known to be what was written. Raises IntegrityError."""
    try:
        return Link.model_validate_json(stored)
    except ValueError as error:
        raise _unreadable(thread_id, checkpoint_id, "its link can't be read") from error


def is_whole(stored: tuple[bytes | None, bytes | None], checkpoint: Checkpoint) -> bool:
    """Whether this is the checkpoint, as it was written, in all that its digest covers."""
    try:
        return entry(checkpoint.thread_id, checkpoint.id, stored).checkpoint.agrees(checkpoint)
    except IntegrityError:
        return False


def line(entries: Sequence[Entry], snapshot: Snapshot | None) -> Line:
    """A line from its entries, oldest first."""
    first, last = entries[0], entries[-1]
    base, since = last.base_id, last.since_base
    if first.checkpoint.cut and base != first.checkpoint.id:
        # The base was removed since the last entry was written, and the state at the cut stands in its place.
        base = first.checkpoint.id
        since = len(snapshot.state if snapshot else b"") + sum(e.checkpoint.size for e in entries[1:])
    return Line(
        snapshot=snapshot, layers=tuple(layer_of(e.checkpoint) for e in entries), last=last.checkpoint, base_id=base,
        since_base=since, state_size=last.state_size,
    )  # fmt: skip


def landmarks(way: Sequence[Checkpoint], *, in_turn: bool) -> list[Checkpoint]:
    """Those on a way back that are no plain steps; with ``in_turn`` up to where the turn of the first one began."""
    own = takewhile(lambda c: c.turn == way[0].turn, way) if in_turn else way
    return [c for c in own if c.source != "step"]


def check_removal(
    thread_id: str, links: Mapping[str, Link], gone: Collection[str], roots: Iterable[Snapshot], head: str
) -> None:
    """Whether a thread is whole without these checkpoints.

    Raises CheckpointNotFound where the head or a root would not be there, Conflict where something that stays goes
    back to what goes.
    """
    rooted = {root.checkpoint_id for root in roots}
    for name in [head, *rooted]:
        if name not in links or name in gone:
            raise refusals.no_checkpoint(thread_id, name)
    for name, way in sorted(links.items(), key=lambda item: (item[1].step, item[0])):
        if name not in gone and name not in rooted and not way.parent_thread and way.parent_id in gone:
            raise refusals.still_needed(thread_id, way.parent_id, name)


def is_fresh(result: CachedResult) -> bool:
    """Whether a cached result has not expired."""
    return not result.expires_at or datetime.fromisoformat(result.expires_at) > datetime.now(UTC)


def label(name: str, value: Json) -> str:
    """What an entry of somebody's metadata is found by."""
    return digest(name, canonical(value))


def has(checkpoint: Checkpoint, metadata: Mapping[str, Json]) -> bool:
    """Whether all of these entries are in the checkpoint's metadata."""
    mine: dict[str, Any] = checkpoint.metadata
    return all(name in mine and canonical(mine[name]) == canonical(value) for name, value in metadata.items())


def moment(created_at: str) -> int:
    """Milliseconds since 1970."""
    return round(datetime.fromisoformat(created_at).timestamp() * 1000)


def age(checkpoint: Checkpoint) -> tuple[int, str, str]:
    """What checkpoints are sorted by: time, and where that is the same the id, since ids sort by time too."""
    return moment(checkpoint.created_at), checkpoint.id, checkpoint.thread_id


def belongs(key: str, checkpoint_id: str) -> bool:
    """Whether a receipt is one of this checkpoint: its key is the checkpoint's id, or begins with it as a word."""
    return key.startswith(checkpoint_id) and not key[len(checkpoint_id) : len(checkpoint_id) + 1].isalnum()


def _seal(thread_id: str, checkpoint_id: str, link: bytes, content: bytes) -> bytes:
    return bytes.fromhex(digest(thread_id, checkpoint_id, link, content))[:_SEAL]


def _unreadable(thread_id: str, checkpoint_id: str, why: str) -> IntegrityError:
    return IntegrityError(
        f"Thread {thread_id}: checkpoint {checkpoint_id} can't be read: {why}.",
        hint="Run `perdure db verify`.", table="checkpoints", row=checkpoint_id,
    )  # fmt: skip
