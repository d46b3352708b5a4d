"""Writers that die: ``python -m tests.commit_and_die DEED URL…`` kills itself before each SQL statement of a deed.

Each URL is a copy of one store. The first gets a process that does the deed and kills itself before its first
statement, the next one before the second, and so on (the end of the transaction counts as one), until a process
survives. How many were killed is printed. What is done is the same in every process.
"""

import asyncio
import os
import signal
import sys
from contextlib import AbstractContextManager, nullcontext

from perdure.audit import AuditEntry
from perdure.budget import Usage
from perdure.checkpointer import Change, Checkpointer
from perdure.stores.base import CachedResult, Receipt
from perdure.stores.open import open_store
from perdure.stores.sql_store import SqlStore
from tests.statements import before_each
from tests.threads import effect

THREAD = "t"
CHECKPOINT = "01a1fc1a-4c92-7f4b-bca9-349edcf4bb99"
KEY = "the-effect"
PART = "the-part"
LABELS = {"good": True}
TOKENS = ("a", "b")
LINE = AuditEntry(id="first", at="2024-05-06T07:08:09.000+00:00", kind="decision.counted", body={"by": "ann"})


async def commit(store: SqlStore) -> None:
    """A commit with everything that a step may carry."""
    checkpointer = Checkpointer(store)
    head = await checkpointer.load(THREAD, await _head(store))
    change = Change(
        thread_id=THREAD, checkpoint_id=CHECKPOINT, source="step", nodes=("tools",), turn=1, metadata=LABELS,
        delta={"text": {"op": "set", "value": "short"}},
    )  # fmt: skip
    result = CachedResult(scope="s", key="k", thread_id=THREAD, checkpoint_id=CHECKPOINT, usage=Usage(calls=1))
    receipt = Receipt(key=KEY, result=b'{"done":true}')
    await checkpointer.commit(head, change, result=result, receipt=receipt, clears=(PART,))


async def audit(store: SqlStore) -> None:
    """Three lines of the audit, of which one is there."""
    await store.append_audit(THREAD, [LINE, *(LINE.model_copy(update={"id": f"line-{n}"}) for n in range(2))])


async def claim(store: SqlStore) -> None:
    """A call that needs two one-time tokens, one of which a call has used that failed."""
    call = effect(THREAD, "another-call").model_copy(update={"tokens": TOKENS})
    await store.claim(call, head=await _head(store))


DEEDS = {deed.__name__: deed for deed in (commit, audit, claim)}


async def do(deed: str, url: str, statements: int | None = None) -> None:
    """Do it; killed before the statement of this number."""
    store = open_store(url)
    assert isinstance(store, SqlStore)
    await store.missing_migrations()  # opens the connection
    with nullcontext() if statements is None else _dying_before(statements):
        await DEEDS[deed](store)
    await store.close()


async def _head(store: SqlStore) -> str:
    thread = await store.thread(THREAD)
    assert thread is not None
    return thread.head_id


def _dying_before(statements: int) -> AbstractContextManager[None]:
    left = statements

    def count(_: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return before_each(count)


def main(deed: str, *urls: str) -> None:
    """One process for each statement, until one survives."""
    for number, url in enumerate(urls):
        child = os.fork()
        if not child:
            asyncio.run(do(deed, url, number))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.stdout.write(f"{number}\n")
            sys.exit(os.WEXITSTATUS(status))
    sys.exit("More statements than copies.")


if __name__ == "__main__":
    main(*sys.argv[1:])
