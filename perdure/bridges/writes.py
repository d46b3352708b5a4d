"""Pending writes: what the tasks of a step wrote before the step's checkpoint was made.

They are receipts, whose keys begin with the checkpoint's id: they are copied and removed with it. One call of
``put_writes`` is one receipt, and nothing is ever changed in place; reading them decides what counts.
"""

import json
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from langgraph.checkpoint.base import writes_sort_key

from perdure.canonical import Json, canonical
from perdure.stores.base import Receipt, Store


class Write(NamedTuple):
    """What a task wrote to a channel, as it is stored. ``place`` is where it stands among those of the task.

    A special channel (error, interrupt, resume) has a place of its own, below zero: there, the latest write counts. In
    every other place the first one counts: a task that runs again doesn't take back what it wrote.
    """

    task: str
    path: str
    place: int
    channel: str
    value: Json


async def put_writes(store: Store, name: str, checkpoint_id: str, writes: Sequence[Write]) -> int:
    """Keep the writes of one task; how many are new. Those that are there already are left as they are."""
    if not writes:
        return 0
    task = writes[0].task
    there = await read_writes(store, name, checkpoint_id, task)
    known = {canonical(list(write)) for write in there}  # as bytes: 1 and True are equal in Python
    new = [write for write in _counting([*there, *writes]) if canonical(list(write)) not in known]
    if not new:
        return 0
    result = {"path": new[0].path, "writes": [[write.place, write.channel, write.value] for write in new]}
    # Keys sort by time; the last digits keep apart what is written in the same moment.
    key = f"{checkpoint_id}/{task}/{time.time_ns():016x}{secrets.token_hex(2)}"
    await store.put_receipt(name, Receipt(key=key, result=canonical(result)))
    return len(new)


async def read_writes(store: Store, name: str, checkpoint_id: str, task: str = "") -> list[Write]:
    """The writes that count, of all tasks or of one, in the order in which a step applies them."""
    prefix = f"{checkpoint_id}/{task}/" if task else f"{checkpoint_id}/"
    found: list[Write] = []
    for key, result in (await store.receipts_under(name, prefix)).items():
        of_task = key.removeprefix(f"{checkpoint_id}/").rpartition("/")[0]
        stored = json.loads(result)
        found += [Write(of_task, stored["path"], *write) for write in stored["writes"]]
    return sorted(_counting(found), key=lambda write: writes_sort_key(write.path, write.task, write.place))


def _counting(writes: Iterable[Write]) -> list[Write]:
    """Those that count of these, which are in the order of their time."""
    counting: dict[tuple[str, int], Write] = {}
    for write in writes:
        if write.place < 0 or (write.task, write.place) not in counting:
            counting[write.task, write.place] = write
    return list(counting.values())
