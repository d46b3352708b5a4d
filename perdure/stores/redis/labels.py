"""The labels of a checkpoint: one for each entry of its metadata. See ``perdure.stores.redis.search``."""

from collections.abc import Iterable

from perdure.checkpoint import Checkpoint
from perdure.stores import records
from perdure.stores.redis.keys import Keys, labelled, listed, read_labelled
from perdure.stores.redis.server import Command


def own(checkpoint: Checkpoint) -> list[str]:
    """As the checkpoint's own thread keeps them."""
    at = records.moment(checkpoint.created_at)
    return [labelled(records.label(name, value), at, checkpoint.id) for name, value in checkpoint.metadata.items()]


def announcing(keys: Keys, checkpoint: Checkpoint) -> list[Command]:
    """The commands that make them known to searches over all threads."""
    return listing(keys, checkpoint.thread_id, own(checkpoint))


def listing(keys: Keys, thread_id: str, members: Iterable[str], command: str = "ZADD") -> list[Command]:
    """The commands that list a thread's labels among those of all threads, or (``ZREM``) take them out."""
    commands: list[Command] = []
    for label, at, checkpoint_id in map(read_labelled, members):
        score = (0,) if command == "ZADD" else ()
        commands.append((command, keys.label(label), *score, listed(at, checkpoint_id, thread_id)))
    return commands
