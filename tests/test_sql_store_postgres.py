"""PostgreSQL as a server that others use, restart and cut off: nothing is done twice, nothing that was done is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from unittest.mock import patch

import psycopg
import pytest

from perdure.budget import Usage
from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.effects import EffectClass
from perdure.errors import Refused, StoreUnreachable
from perdure.stores import open_store
from perdure.stores.base import CachedResult, Receipt
from perdure.stores.postgres import PostgresTransaction
from perdure.stores.sql_store import SqlStore
from tests.places import PostgresPlace, opened, run
from tests.postgres import Fresh, server
from tests.statements import at_each_end, before_each, exchanges
from tests.threads import History, effect, name, noise

RECEIPT = Receipt(key="k", result=b"1")


@pytest.fixture
def place(postgres_url: Fresh) -> PostgresPlace:
    """An empty database."""
    return PostgresPlace(postgres_url)


@pytest.fixture
async def store(place: PostgresPlace) -> AsyncIterator[SqlStore]:
    """A store with its schema."""
    store = await opened(place)
    yield store
    await store.close()


# ── a server that goes away ──────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def cut_before(place: PostgresPlace, statement: int) -> Iterator[list[str]]:
    """The server drops the connection before the statement of this number, once. What was sent meanwhile."""
    sent: list[str] = []

    def count(sql: str) -> None:
        if len(sent) == statement:
            drop(place)
        sent.append(sql)

    with before_each(count):
        yield sent


def drop(place: PostgresPlace) -> None:
    """Drop all connections to the database but ours."""
    ours = "pid <> pg_backend_pid() AND datname = current_database()"
    run(place, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {ours}")


async def test_a_commit_survives_a_lost_connection(store: SqlStore, place: PostgresPlace) -> None:
    """Dropped before whichever of its statements, also the last, a commit is made all the same, and once."""
    history = History(store)
    await history.commit({"text": {"op": "set", "value": noise(9_000)}})
    for statement in range(100):
        assert history.head is not None
        await store.claim(effect(history.thread_id, f"e{statement}"), head=history.head.ref.id)
        with cut_before(place, statement) as sent:
            await history.commit(
                {"n": {"op": "append", "items": [statement]}}, metadata={"number": statement},
                result=CachedResult(scope="s", key=str(statement), usage=Usage(calls=1)),
                receipt=Receipt(key=f"e{statement}", result=b"1"), clears=("part",),
            )  # fmt: skip
        assert await Checkpointer(store).load(history.thread_id, history.head.ref.id) == history.head
        assert len(await store.find({"number": statement})) == 1
        if len(sent) <= statement:
            break
        assert sent.count("COMMIT") >= 1 and len(sent) > statement + 1
    assert statement >= 7, "fewer statements than a whole commit has"
    assert len([c async for c in store.walk(history.thread_id)]) == statement + 2
    assert {row.entry.status for row in await store.effects(history.thread_id)} == {"done"}


async def test_a_transaction_takes_few_messages(store: SqlStore) -> None:
    """What doesn't depend on an answer is sent together: a server may be far away."""
    history = History(store)
    head = await history.commit({})
    change = history.change({"n": {"op": "set", "value": 1}}, metadata={"a": 1, "b": 2})
    cached = CachedResult(scope="s", key="k", thread_id=history.thread_id, checkpoint_id=change.checkpoint_id)
    calls: dict[str, tuple[int, Callable[[], Awaitable[object]]]] = {
        "commit": (2, lambda: Checkpointer(store).commit(head, change, result=cached, clears=("part",))),
        "a look": (1, lambda: store.result("s", "k")),
        "first attempt": (2, lambda: store.claim(effect(history.thread_id), head=change.checkpoint_id)),
        "receipt": (2, lambda: store.put_receipt(history.thread_id, RECEIPT, head=change.checkpoint_id)),
    }
    for what, (count, call) in calls.items():
        with exchanges() as seen:
            await call()
        assert len(seen) == count, what


@contextmanager
def lost_end(place: PostgresPlace, *, committed: bool) -> Iterator[None]:
    """The connection is lost while the next transaction ends, before or after the server has made it good."""
    whole = PostgresTransaction.commit

    async def half(tx: PostgresTransaction) -> None:
        PostgresTransaction.commit = whole  # type: ignore[method-assign]
        if committed:
            await whole(tx)
        drop(place)
        if committed:
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        await whole(tx)

    with patch.object(PostgresTransaction, "commit", half):
        yield


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("kind", ["idempotent", "irreversible"])
async def test_the_first_attempt_stays_the_first(
    kind: EffectClass, committed: bool, store: SqlStore, place: PostgresPlace
) -> None:
    """A claim of which nobody knows whether it was recorded: it is found, or recorded now, and answers as the first.

    Were it taken for a second attempt, an irreversible effect that was never tried would be in doubt.
    """
    history = History(store)
    head = (await history.commit({})).ref.id
    row = effect(history.thread_id, kind=kind)
    with lost_end(place, committed=committed):
        assert await store.claim(row, head=head) is None
    known = await store.effect(history.thread_id, "k")
    assert known is not None and (known.entry.status, known.entry.attempts) == ("attempted", 1)

    with lost_end(place, committed=committed):
        before = await store.claim(row, head=head)
    after = await store.effect(history.thread_id, "k")
    assert before == known
    assert after is not None and after.entry.attempts == (2 if kind == "idempotent" else 1)


@pytest.mark.parametrize("committed", [True, False])
async def test_an_unclear_commit_is_made_once(committed: bool, store: SqlStore, place: PostgresPlace) -> None:
    """A commit is recognised, so it may be repeated; a copy of a thread isn't: who asked is told that nobody knows."""
    history = History(store)
    await history.commit({})
    with lost_end(place, committed=committed):
        await history.commit({"n": {"op": "set", "value": 1}})
    assert history.head is not None
    assert [c.step for c in await store.path(history.thread_id, history.head.ref.id, limit=9)] == [1, 0]

    target = name()
    with lost_end(place, committed=committed), pytest.raises(StoreUnreachable, match="doesn't answer"):
        await store.copy_thread(history.thread_id, target)
    assert (await store.thread(target) is not None) == committed


@asynccontextmanager
async def writing(history: History) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """Meanwhile the thread is written to, all the time. What is yielded waits for so many more commits."""
    done, made = False, asyncio.Semaphore(0)

    async def write() -> None:
        while not done:
            await history.commit({"n": {"op": "append", "items": [len(history.positions)]}})
            made.release()

    async def wait(commits: int) -> None:
        for _ in range(commits):
            await made.acquire()

    task = asyncio.create_task(write())
    try:
        yield wait
    finally:
        done = True
        await task


@pytest.mark.parametrize("signal", ["INT", "QUIT"])
async def test_writers_outlive_a_restart(signal: str) -> None:
    """The server is stopped (or crashes) and comes back while a thread is written to: all commits are there, once.

    Where it stays away for longer than the patience of a store, that says so.
    """
    with server(fsync="on") as own:
        store, hasty = open_store(own.url), open_store(with_options(own.url, "patience=0.2"))
        await store.migrate()
        history = History(store)
        await history.commit({})
        assert await hasty.thread(history.thread_id) == await store.thread(history.thread_id)
        async with writing(history) as commits:
            await commits(10)
            await asyncio.to_thread(own.stop, signal)
            before = len(history.positions)
            with pytest.raises(StoreUnreachable, match="doesn't answer"):
                await hasty.thread(history.thread_id)
            await asyncio.to_thread(own.start, fsync="on")
            await commits(before + 10)  # more than were made until then
        assert [c.id async for c in store.walk(history.thread_id)] == [p.ref.id for p in history.positions]
        assert (await verify(store)).problem is None
        await store.close()
        await hasty.close()


def with_options(url: str, options: str) -> str:
    """The URL with more in its query."""
    return f"{url}{'&' if '?' in url else '?'}{options}"


async def test_a_pool_is_as_large_as_the_url_says(store: SqlStore, place: PostgresPlace) -> None:
    """Forty readers at once share two connections; who would have to wait too long for one is told."""
    small = open_store(with_options(place.url, "pool_size=2&max_overflow=0&pool_timeout=0.2"))
    assert isinstance(small, SqlStore)
    await asyncio.gather(*(small.threads() for _ in range(40)))
    ours = "application_name = 'perdure' AND datname = current_database()"
    ((count,),) = run(place, f"SELECT count(*) FROM pg_stat_activity WHERE {ours}")
    assert count == 2 + 1  # and the one of the store that made the schema
    slow = [asyncio.create_task(small.database.read(lambda tx: tx.plain("SELECT pg_sleep(1)"))) for _ in range(2)]
    await asyncio.sleep(0)  # they have begun
    with pytest.raises(StoreUnreachable, match="all of 2 connections are in use"):
        await small.threads()
    await asyncio.gather(*slow)
    await small.close()


# ── schema ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_workers_that_start_at_once_migrate_once(place: PostgresPlace) -> None:
    """Of six that find an empty database one makes the schema, the others wait for it."""
    stores = [open_store(place.url) for _ in range(6)]
    done = await asyncio.gather(*(store.migrate() for store in stores))
    assert sorted(map(len, done)) == [0, 0, 0, 0, 0, len(done[0]) or max(map(len, done))]
    for store in stores:
        assert await store.missing_migrations() == []
        await store.close()


GROWING = {"checkpoints", "snapshots", "labels", "results", "receipts", "effects"}


async def test_what_grows_is_spread_over_partitions(place: PostgresPlace) -> None:
    """By thread, evenly; everything works as on one table; and the number that was chosen stays."""
    store = await opened(place, partitions=4)
    histories = [History(store) for _ in range(40)]
    for history in histories:
        for number in range(5):
            await history.commit({"text": {"op": "set", "value": noise(3_000)}}, metadata={"number": number})
        assert history.head is not None
        await store.claim(effect(history.thread_id), head=history.head.ref.id)
        await store.put_receipt(history.thread_id, Receipt(key="k", result=b"1"))
        await store.put_result(CachedResult(scope=history.thread_id, key="k", thread_id=history.thread_id))
    for table in GROWING:
        counts = [run(place, f"SELECT count(*) FROM {table}_{number}")[0][0] for number in range(4)]
        assert all(counts) and sum(counts) == (await store.sizes())["rows"][table]
    for number in range(4):  # a thread is in one partition
        elsewhere = f"SELECT thread FROM checkpoints EXCEPT SELECT thread FROM checkpoints_{number}"
        assert len(run(place, elsewhere)) < 40
        ((kind,),) = run(
            place, "SELECT attstorage FROM pg_attribute WHERE attname = 'delta' AND attrelid = ?::regclass",
            f"checkpoints_{number}",
        )  # fmt: skip
        assert kind == "e"
    assert len(await store.find({"number": 3}, limit=99)) == 40
    assert (await verify(store)).problem is None

    assert await store.migrate() == await store.migrate(partitions=4) == []
    with pytest.raises(Refused, match="has 4 partitions"):
        await store.migrate(partitions=8)
    await store.close()


async def test_one_table_stays_one_table(store: SqlStore) -> None:
    """Partitions that are asked for too late are refused, not forgotten."""
    with pytest.raises(Refused, match="has no partitions"):
        await store.migrate(partitions=4)


# ── what a crash can lose ────────────────────────────────────────────────────────────────────────────────────────


def careless(place: PostgresPlace) -> None:
    """Whoever connects from now on doesn't wait for the disk."""
    ((database,),) = run(place, "SELECT current_database()")
    run(place, f"ALTER DATABASE {database} SET synchronous_commit = off")


async def test_only_claims_that_must_not_be_lost_wait_for_the_disk(place: PostgresPlace) -> None:
    """Where the database is set up not to wait, an irreversible effect is claimed as if it were not."""
    careless(place)
    store = await opened(place)
    history = History(store)
    head = (await history.commit({})).ref.id
    with at_each_end("SHOW synchronous_commit") as waited:
        await store.claim(effect(history.thread_id, "a"), head=head)
        await store.claim(effect(history.thread_id, "b", "irreversible"), head=head)
        await history.commit({})
    assert waited == ["off", "on", "off"]
    await store.close()


async def test_cautions_name_what_is_switched_off() -> None:
    """A server as it is delivered has none; each setting that can lose something is named with what it loses."""
    with server(fsync="on", full_page_writes="on") as own:
        store = open_store(own.url)
        assert await store.cautions() == []
        await store.close()
        own.stop()
        own.start(fsync="off", full_page_writes="off", synchronous_commit="off")
        store = open_store(own.url)
        told = await store.cautions()
        assert [caution.partition(":")[0] for caution in told] == [
            f"PostgreSQL runs with {name}=off" for name in ("fsync", "full_page_writes", "synchronous_commit")
        ]
        await store.close()
