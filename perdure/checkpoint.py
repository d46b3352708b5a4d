"""A checkpoint: an immutable point of a thread, linked to its parent by digest."""

from random import Random
from typing import Literal
from uuid import UUID

from perdure.canonical import Json, canonical, digest
from perdure.delta import Delta
from perdure.values import Value

Source = Literal["input", "step", "update", "fork", "rewind", "compensation", "import"]


class Task(Value):
    """A node that is to run in the next step; ``arg`` is what a ``Send`` gave it, or the error that led here."""

    node: str
    arg: Json = None


class Frontier(Value):
    """What follows a checkpoint: the tasks of the next step, and which sources of each waiting join have finished.

    Empty where the turn has ended.
    """

    tasks: tuple[Task, ...] = ()
    arrived: dict[str, tuple[str, ...]] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of the tasks, in their order."""
        return tuple(task.node for task in self.tasks)


class Ref(Value):
    """What names a checkpoint for the next step: enough to load it and to tell whether it is the right one."""

    id: str
    step: int
    digest: str


class Checkpoint(Value):
    """One stored point. ``delta`` is what changed since the parent; ``size`` is its canonical length in bytes.

    ``parent_thread`` is set on the first checkpoint of a fork: its parent belongs to another thread. ``metadata`` is
    the user's own and can be searched; ``facts`` are the engine's (usage, id of the message, who and why). ``cut``: its
    ancestors were removed on purpose, and its snapshot stands in their place.
    """

    thread_id: str
    id: str
    parent_id: str | None = None
    parent_thread: str = ""
    step: int
    source: Source
    nodes: tuple[str, ...] = ()
    turn: int = 0
    schema_version: int = 1
    next: Frontier = Frontier()
    metadata: dict[str, Json] = {}
    facts: dict[str, Json] = {}
    cut: bool = False
    delta: Delta
    created_at: str
    size: int
    digest: str

    @property
    def ref(self) -> Ref:
        """The reference that a later step carries."""
        return Ref(id=self.id, step=self.step, digest=self.digest)

    def agrees(self, other: "Checkpoint") -> bool:
        """Whether both are the same in all that the digest covers, their parents included."""
        beside = {"cut", "metadata", "facts", "created_at"}
        mine, theirs = (c.model_dump(mode="json", exclude=beside) for c in (self, other))
        return canonical(mine) == canonical(theirs)


def new_id(milliseconds: int, random: Random) -> str:
    """A version 7 UUID (RFC 9562 §5.7), so ids sort by time; deterministic, given a workflow's clock and random."""
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | random.getrandbits(12) << 64
    return str(UUID(int=value | 0b10 << 62 | random.getrandbits(62)))


def id_after(head: str, random: Random) -> str:
    """An id right after that of the head. It depends on no clock: whoever lives through a moment again makes the same."""
    return new_id((UUID(head).int >> 80) + 1, random)


def chain(
    parent_digest: str,
    *,
    id: str,
    step: int,
    source: str,
    nodes: tuple[str, ...],
    turn: int,
    schema_version: int,
    next: Frontier,
    delta: Delta,
) -> str:
    """The digest of a checkpoint: over its parent's digest, its own header and its canonical delta.

    The header is inside, so that a changed id, step, source, version or frontier is found like a changed delta. The
    thread is not: a fork shares its prefix. Nor are time, metadata and facts: two attempts of one commit must agree.
    """
    header = {
        "id": id, "step": step, "source": source, "nodes": list(nodes), "turn": turn, "schema": schema_version,
        "next": next.model_dump(mode="json"),
    }  # fmt: skip
    return digest(parent_digest, canonical(header), canonical(delta))
