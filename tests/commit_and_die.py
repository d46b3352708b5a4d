"""Commits that die: ``python -m tests.commit_and_die TEMPLATE`` kills itself before each SQL statement of a commit.

For each statement (and for the commit of the transaction) a copy of the template, named ``dead-N.db``, gets a process
of its own that does the commit and kills itself just before. The last copy, ``dead-N.db`` with the highest N, is the
one whose commit went through. The change is the same in every process.
"""

import asyncio
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event

from perdure.budget import Usage
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.stores.base import CachedResult, Receipt
from perdure.stores.sql_store import SqlStore

THREAD = "t"
CHECKPOINT = "01a1fc1a-4c92-7f4b-bca9-349edcf4bb99"
KEY = "the-effect"
PART = "the-part"


async def commit(path: Path, statements: int | None = None) -> Position:
    """The commit, with everything that a step may carry; killed before the statement of this number."""
    store = SqlStore.sqlite(path)
    checkpointer = Checkpointer(store)
    thread = await store.thread(THREAD)
    assert thread is not None
    head = await checkpointer.load(THREAD, thread.head_id)
    if statements is not None:
        _die_before(store, statements)
    change = Change(
        thread_id=THREAD, checkpoint_id=CHECKPOINT, source="step", nodes=("tools",), turn=1,
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
        event.listen(store._engine.sync_engine, moment, count)


def main(template: Path) -> None:
    """One process for each statement, until one survives."""
    for number in range(100):
        path = template.with_name(f"dead-{number}.db")
        shutil.copy(template, path)
        child = os.fork()
        if not child:
            asyncio.run(commit(path, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
