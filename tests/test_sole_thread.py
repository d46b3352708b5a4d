"""The thread in which a SQLite store works: one piece of work at a time, whole or not at all, and never in the way."""

import asyncio
import gc
import sqlite3
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from perdure.stores.database import Transaction
from perdure.stores.sole_thread import MISSED, SoleThread
from perdure.stores.sql_store import SqlStore
from tests.threads import History

# A process that uses a store and ends in the middle of it.
ENDS = """
import asyncio, sys
from perdure.stores import open_store

async def main():
    store = open_store(sys.argv[1])
    await store.migrate()
    asyncio.create_task(store.database.write(lambda tx: tx.plain("SELECT 1")))
    await asyncio.sleep(0)

asyncio.run(main())
"""


def sole(log: list[str]) -> SoleThread[list[str]]:
    """A thread that has a list, in which it writes down when it is opened and closed."""

    def opens() -> list[str]:
        log.append("opened")
        return log

    return SoleThread("of a test", opens, lambda _: log.append("closed"))


async def test_work_is_done_in_order_in_one_thread_that_is_not_ours() -> None:
    """Also for many who ask at once; what it has is opened once, for the first, and closed when all is done."""
    log: list[str] = []
    thread, where = sole(log), set()

    def work(number: int, _: list[str]) -> int:
        where.add(threading.current_thread())
        log.append(str(number))
        return number

    assert log == []
    asked = [asyncio.create_task(thread.do(partial(work, number))) for number in range(100)]
    assert await asyncio.gather(*asked) == list(range(100))
    await thread.close()
    assert log == ["opened", *map(str, range(100)), "closed"]
    assert len(where) == 1 and threading.main_thread() not in where
    assert not where.pop().is_alive()

    assert await thread.do(partial(work, 100)) == 100  # it begins anew
    await thread.close()
    assert log[102:] == ["opened", "100", "closed"]


async def test_errors_are_told_to_who_asked() -> None:
    """Errors of the work, and those of opening, which is tried again for the next."""
    tries: list[int] = []

    def opens() -> int:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return 7

    thread: SoleThread[int] = SoleThread("of a test", opens, lambda _: None)
    with pytest.raises(OSError, match="not yet"):
        await thread.do(lambda mine: mine)
    with pytest.raises(ZeroDivisionError):
        await thread.do(lambda mine: mine // 0)
    assert await thread.do(lambda mine: mine) == 7
    await thread.close()


async def test_who_is_cancelled_has_it_done_whole_or_not_begun() -> None:
    """What has begun goes on to its end, what has not begun never will; who asks next comes after that."""
    log: list[str] = []
    thread = sole(log)
    began, go_on = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        log.append("begins")
        began.set()
        go_on.wait()
        log.append("ends")

    under_way = asyncio.create_task(thread.do(slow))
    waiting = asyncio.create_task(thread.do(lambda mine: mine.append("never")))
    await asyncio.to_thread(began.wait)
    for task in (under_way, waiting):
        task.cancel()
    assert all(isinstance(told, asyncio.CancelledError) for told in await _outcomes(under_way, waiting))
    go_on.set()
    await thread.do(lambda mine: mine.append("next"))
    assert log == ["opened", "begins", "ends", "next"]
    await thread.close()


async def test_what_is_quick_is_done_at_once_or_not_at_all() -> None:
    """By whoever asks, once the thread has what it takes, and never while it is used."""
    log: list[str] = []
    thread, where = sole(log), list[threading.Thread]()

    def quick(mine: list[str]) -> int:
        where.append(threading.current_thread())
        mine.append("quick")
        return 7

    assert thread.at_once(quick) is MISSED  # nothing is opened yet
    await thread.do(lambda mine: mine.append("first"))
    assert thread.at_once(quick) == 7
    with pytest.raises(ZeroDivisionError):
        thread.at_once(lambda _: 1 // 0)
    began, go_on = threading.Event(), threading.Event()

    def slow(mine: list[str]) -> None:
        began.set()
        go_on.wait()
        mine.append("slow")

    under_way = asyncio.create_task(thread.do(slow))
    await asyncio.to_thread(began.wait)
    assert thread.at_once(quick) is MISSED
    go_on.set()
    await under_way
    thread.later(lambda mine: mine.append("later"))
    thread.later(lambda _: 1 // 0)  # nobody hears of it
    await thread.close()
    assert log == ["opened", "first", "quick", "slow", "later", "closed"]
    assert where == [threading.current_thread()]
    assert thread.at_once(quick) is MISSED


async def test_the_lock_of_another_process_holds_up_only_who_needs_it(tmp_path: Path) -> None:
    """While somebody else writes, a commit waits for its turn and the loop goes on: others read, and time passes."""
    store = SqlStore.sqlite(tmp_path / "store.db")
    await store.migrate()
    history = History(store)
    await history.commit({})
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    committing = asyncio.create_task(history.commit({"title": {"op": "set", "value": "mine"}}))
    thread = SqlStore.sqlite(tmp_path / "store.db")
    assert await thread.thread(history.thread_id) is not None
    await asyncio.sleep(0.2)
    assert not committing.done()
    other.execute("COMMIT")
    await committing
    other.close()
    assert history.head is not None and history.head.values["title"] == "mine"
    for each in (store, thread):
        await each.close()


async def test_the_log_of_quick_commits_stays_short(tmp_path: Path) -> None:
    """Nobody's commit waits for the disk, and yet what was committed is moved into the file again and again."""
    store = SqlStore.sqlite(tmp_path / "store.db")
    await store.migrate()
    history = History(store)
    await history.commit({})
    for _ in range(600):
        await history.loop(200, 500)
    assert (tmp_path / "store.db-wal").stat().st_size < 12 * 2**20, "all of it would be 28 MB"
    assert (tmp_path / "store.db").stat().st_size > 600 * 700
    await store.close()


async def _outcomes(*tasks: "asyncio.Task[Any]") -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_thread_that_nobody_can_ask_ends() -> None:
    """A store that is dropped without being closed leaves no thread behind."""
    log: list[str] = []
    thread = sole(log)
    process = await thread.do(lambda _: threading.current_thread())
    del thread
    gc.collect()
    await asyncio.to_thread(process.join, 10)
    assert not process.is_alive()
    assert log == ["opened", "closed"]


def test_no_process_waits_for_a_store_that_is_left_open(tmp_path: Path) -> None:
    """It ends when its own work is done, with nothing to say."""
    ran = subprocess.run(
        [sys.executable, "-c", ENDS, f"sqlite:///{tmp_path / 'store.db'}"], capture_output=True, text=True, timeout=60
    )
    assert (ran.returncode, ran.stderr) == (0, "")


async def test_work_in_a_transaction_waits_for_nothing_else(tmp_path: Path) -> None:
    """It would hold up everybody; it fails, nothing of it stays, and the store goes on."""
    store = SqlStore.sqlite(tmp_path / "store.db")
    await store.migrate()
    history = History(store)
    await history.commit({})

    async def work(tx: Transaction) -> None:
        await tx.run("close_thread", thread_id=history.thread_id)
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="waits for nothing but the transaction"):
        await store.database.write(work)
    thread = await store.thread(history.thread_id)
    assert thread is not None and not thread.closed
    await history.commit({})
    await store.close()
