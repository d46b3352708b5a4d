"""A checkpoint: an immutable point of a thread, linked to its parent by digest."""

from json.encoder import encode_basestring
from random import Random
from typing import Literal, NamedTuple
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
    def is_plain(self) -> bool:
        """Whether there is nothing in it but the nodes of its tasks."""
        return not self.arrived and all(task.arg is None for task in self.tasks)

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


class Layer(NamedTuple):
    """A checkpoint as a layer of a state: what its digest covers beside its parent's digest, as canonical bytes."""

    id: str
    step: int
    header: bytes
    delta: bytes
    digest: str

    def is_on(self, parent_digest: str) -> bool:
        """Whether its digest is that of this very layer on a parent of this digest (empty: on none)."""
        return self.digest == digest(parent_digest, self.header, self.delta)


def layer_of(c: Checkpoint) -> Layer:
    """A checkpoint as a layer."""
    written = header(
        id=c.id, step=c.step, source=c.source, nodes=plain(c.nodes), turn=c.turn, schema_version=c.schema_version,
        next=plain(c.next.model_dump(mode="json", exclude_defaults=True)),
    )  # fmt: skip
    return Layer(id=c.id, step=c.step, header=written, delta=canonical(c.delta), digest=c.digest)


def new_id(milliseconds: int, random: Random) -> str:
    """A version 7 UUID (RFC 9562 §5.7), so ids sort by time; deterministic, given a workflow's clock and random."""
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | random.getrandbits(12) << 64
    return str(UUID(int=value | 0b10 << 62 | random.getrandbits(62)))


def id_after(head: str, random: Random) -> str:
    """An id right after the head's. It depends on no clock: whoever lives through a moment again makes the same."""
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
    written = header(
        id=id, step=step, source=source, nodes=plain(nodes), turn=turn, schema_version=schema_version,
        next=plain(next.model_dump(mode="json", exclude_defaults=True)),
    )  # fmt: skip
    return digest(parent_digest, written, canonical(delta))


def header(*, id: str, step: int, source: str, nodes: str, turn: int, schema_version: int, next: str) -> bytes:
    """The canonical header of a checkpoint, whose ``nodes`` and ``next`` (without defaults) are canonical JSON already.

    Put together by hand: whoever loads a long thread needs thousands of them, and has most of their parts as text.
    """
    return (
        f'{{"id":{encode_basestring(id)},"next":{next},"nodes":{nodes},"schema":{schema_version},'
        f'"source":{encode_basestring(source)},"step":{step},"turn":{turn}}}'
    ).encode()


def plain(value: Json) -> str:
    """Canonical JSON as text."""
    return canonical(value).decode()
