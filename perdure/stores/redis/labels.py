"""The labels of a checkpoint: one for each entry of its metadata. See ``perdure.stores.redis.search``."""

from perdure.checkpoint import Checkpoint
from perdure.stores import records
from perdure.stores.redis.keys import Keys, labelled, pair, read_label
from perdure.stores.redis.server import Command


def own(checkpoint: Checkpoint) -> list[str]:
    """As the checkpoint's own thread keeps them."""
    at = records.moment(checkpoint.created_at)
    return [labelled(records.label(name, value), at, checkpoint.id) for name, value in checkpoint.metadata.items()]


def announcing(keys: Keys, checkpoint: Checkpoint) -> list[Command]:
    """The commands that make them known to searches over all threads."""
    at, place = records.moment(checkpoint.created_at), pair(checkpoint.id, checkpoint.thread_id)
    labels = [records.label(name, value) for name, value in checkpoint.metadata.items()]
    return [("ZADD", keys.label(label), at, place) for label in labels]


def withdrawing(keys: Keys, thread_id: str, members: list[bytes]) -> list[Command]:
    """The commands that undo that, for labels as the thread kept them."""
    found = [read_label(member) for member in members]
    return [("ZREM", keys.label(label), pair(checkpoint_id, thread_id)) for label, checkpoint_id in found]
