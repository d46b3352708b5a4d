"""A checkpoint: an immutable point of a thread, linked to its parent by digest."""

from random import Random
from typing import Literal
from uuid import UUID

from perdure.canonical import Json, canonical, digest
from perdure.delta import Delta
from perdure.values import Value

Source = Literal["input", "step", "update", "fork", "rewind", "compensation", "import"]


class Ref(Value):
    """What names a checkpoint for the next step: enough to load it and to tell whether it is the right one."""

    id: str
    step: int
    digest: str


class Checkpoint(Value):
    """One stored point. ``delta`` is what changed since the parent; ``size`` is its canonical length in bytes."""

    thread_id: str
    id: str
    parent_id: str | None = None
    step: int
    source: Source
    nodes: tuple[str, ...] = ()
    turn: int = 0
    schema_version: int = 1
    metadata: dict[str, Json] = {}
    delta: Delta
    created_at: str
    size: int
    digest: str

    @property
    def ref(self) -> Ref:
        """The reference that a later step carries."""
        return Ref(id=self.id, step=self.step, digest=self.digest)


def new_id(milliseconds: int, random: Random) -> str:
    """A version 7 UUID (RFC 9562 §5.7), so ids sort by time; deterministic, given a workflow's clock and random."""
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | random.getrandbits(12) << 64
    return str(UUID(int=value | 0b10 << 62 | random.getrandbits(62)))


def chain(
    parent_digest: str,
    *,
    id: str,
    step: int,
    source: str,
    nodes: tuple[str, ...],
    turn: int,
    schema_version: int,
    delta: Delta,
) -> str:
    """The digest of a checkpoint: over its parent's digest, its own header and its canonical delta.

    The header is inside, so that a changed id, step, source or version is found like a changed delta. The thread
    id is not: a fork shares its prefix. Nor are time and metadata: two attempts of one commit must agree.
    """
    header = {"id": id, "step": step, "source": source, "nodes": list(nodes), "turn": turn, "schema": schema_version}
    return digest(parent_digest, canonical(header), canonical(delta))
