"""Commits that die: ``python -m tests.commit_and_die URL…`` kills itself before each SQL statement of a commit.

Each URL is a copy of one store. The first gets a process that does the commit and kills itself before its first
statement, the next one before the second, and so on (the end of the transaction counts as one), until a process
survives. How many were killed is printed. The change is the same in every process.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from perdure.budget import Usage
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.stores.base import CachedResult, Receipt
from perdure.stores.open import open_store
from perdure.stores.sql_store import SqlStore

THREAD = "t"
CHECKPOINT = "01a1fc1a-4c92-7f4b-bca9-349edcf4bb99"
KEY = "the-effect"
PART = "the-part"
LABELS = {"good": True}


async def commit(url: str, statements: int | None = None) -> Position:
    """The commit, with everything that a step may carry; killed before the statement of this number."""
    store = open_store(url)
    assert isinstance(store, SqlStore)
    checkpointer = Checkpointer(store)
    thread = await store.thread(THREAD)
    assert thread is not None
    head = await checkpointer.load(THREAD, thread.head_id)
    if statements is not None:
        _die_before(store, statements)
    change = Change(
        thread_id=THREAD, checkpoint_id=CHECKPOINT, source="step", nodes=("tools",), turn=1, metadata=LABELS,
        delta={"text": {"op": "set", "value": "short"}},
    )  # fmt: skip
    result = CachedResult(scope="s", key="k", thread_id=THREAD, checkpoint_id=CHECKPOINT, usage=Usage(calls=1))
    receipt = Receipt(key=KEY, result=b'{"done":true}')
    position = await checkpointer.commit(head, change, result=result, receipt=receipt, clears=(PART,))
    await store.close()
    return position


def _die_before(store: SqlStore, statements: int) -> None:
    left = statements

    def count(*_: Any) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    for moment in ("before_cursor_execute", "commit"):
        event.listen(store.database.engine.sync_engine, moment, count)


def main(urls: list[str]) -> None:
    """One process for each statement, until one survives."""
    for number, url in enumerate(urls):
        child = os.fork()
        if not child:
            asyncio.run(commit(url, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.stdout.write(f"{number}\n")
            sys.exit(os.WEXITSTATUS(status))
    sys.exit("More statements than copies.")


if __name__ == "__main__":
    main(sys.argv[1:])
