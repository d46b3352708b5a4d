"""Under which keys a store on Redis keeps what.

A thread's own keys share a hash tag, so on a cluster they lie on one node and a script changes them in one go. What
crosses threads has keys of its own; it is written before what makes it true, and checked against that when it is read.
"""

import json
import re

from perdure.canonical import canonical
from perdure.errors import InvalidInput

_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_PLACE = 16  # digits of a step, and of a time in milliseconds, so that they sort as text

# In the order of `lua/common.lua`.
_PARTS = (
    "thread", "checkpoints", "links", "steps", "snapshots", "labels", "receipts", "receipt-keys", "effects",
    "arguments", "done", "turns", "audit", "audit-ids", "requests", "forks", "counts",
)  # fmt: skip
# What a copy of a thread takes along, in the order of `lua/adopt.lua`.
COPIED = ("checkpoints", "links", "steps", "snapshots", "labels", "receipts", "receipt-keys")
ID_FROM = _PLACE + 2  # where the id begins in a place, as Lua counts
LABEL_ID_FROM = 64 + 1 + _PLACE + 2  # and in a label


class Keys:
    """The keys of one store. Raises InvalidInput for a prefix that isn't a word."""

    def __init__(self, prefix: str) -> None:
        if not _PREFIX.fullmatch(prefix):
            raise InvalidInput(f"{prefix!r} can't be the prefix of a store's keys.", hint="Use letters and digits.")
        self.prefix = prefix
        self.schema = f"{prefix}:schema"
        self.threads = f"{prefix}:threads"
        self.open = f"{prefix}:open"

    def thread(self, thread_id: str) -> list[str]:
        """All keys of a thread."""
        return [self.part(thread_id, name) for name in _PARTS]

    def part(self, thread_id: str, name: str) -> str:
        """One of them."""
        return f"{{{self.prefix}:{thread_id}}}:{name}"

    def label(self, label: str) -> str:
        """The checkpoints of all threads that have an entry in their metadata."""
        return f"{self.prefix}:label:{label}"

    def result(self, request: str) -> str:
        """A cached result."""
        return f"{self.prefix}:result:{request}"

    def tokens(self, lineage: str) -> str:
        """Who has used the one-time tokens of a lineage."""
        return f"{self.prefix}:tokens:{lineage}"

    def blob(self, digest: str) -> str:
        """A blob."""
        return f"{self.prefix}:blob:{digest}"

    def kind(self, key: bytes) -> str:
        """What a key holds, by the name of its part; empty where it isn't one of this store's."""
        text = key.decode(errors="replace")
        if text.startswith(f"{{{self.prefix}:"):
            return text.rpartition("}:")[2]
        return text.split(":")[1] if text.startswith(f"{self.prefix}:") else ""


def place(step: int, checkpoint_id: str) -> str:
    """Where a checkpoint comes among all of its thread."""
    return f"{step:0{_PLACE}}:{checkpoint_id}"


def id_in(place: bytes) -> str:
    """The checkpoint's id in its place."""
    return place[ID_FROM - 1 :].decode()


def labelled(label: str, milliseconds: int, checkpoint_id: str) -> str:
    """Where a checkpoint comes among all of its thread that have an entry in their metadata."""
    return f"{label}:{_time(milliseconds)}:{checkpoint_id}"


def read_labelled(member: str) -> tuple[str, int, str]:
    """The inverse of ``labelled``."""
    label, milliseconds, checkpoint_id = member.split(":", 2)
    return label, int(milliseconds), checkpoint_id


def listed(milliseconds: int, checkpoint_id: str, thread_id: str) -> str:
    """Where a checkpoint comes among those of all threads that have it."""
    return f"{_time(milliseconds)}:{pair(checkpoint_id, thread_id)}"


def read_listed(member: bytes) -> tuple[int, str, str]:
    """The inverse of ``listed``."""
    milliseconds, _, rest = member.partition(b":")
    return int(milliseconds), *read_pair(rest)


def _time(milliseconds: int) -> str:
    return f"{max(milliseconds, 0):0{_PLACE}}"


def turn_place(turn: int, step: int, index: int, key: str) -> str:
    """Where an effect comes in its thread's ledger."""
    return f"{turn:0{_PLACE}}:{step:0{_PLACE}}:{index:0{_PLACE}}:{key}"


def turn_bound(turn: int) -> str:
    """What comes before all effects of a turn, and after those of the turns before."""
    return f"{turn:0{_PLACE}}:"


KEY_FROM = 3 * (_PLACE + 1) + 1  # where the key begins in the place of an effect, as Lua counts


def read_pair(stored: bytes | str) -> tuple[str, str]:
    """The inverse of ``pair``."""
    thread_id, name = json.loads(stored)
    return thread_id, name


def pair(thread_id: str, name: str) -> str:
    """A checkpoint or an effect of some thread as one string."""
    return canonical([thread_id, name]).decode()


def note(fork: str, checkpoint_id: str, token: str) -> str:
    """A fork as its parent notes it: which thread begins at which checkpoint, and who says so."""
    return canonical([fork, checkpoint_id, token]).decode()


def read_note(stored: str) -> tuple[str, str]:
    """The thread and the checkpoint of a note."""
    fork, checkpoint_id, _ = json.loads(stored)
    return fork, checkpoint_id
