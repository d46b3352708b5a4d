"""PostgreSQL as a server that others use, restart and cut off: nothing is done twice, nothing that was done is lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
import pytest
from sqlalchemy import event

from perdure.budget import Usage
from perdure.checkpointer import Checkpointer
from perdure.effects import EffectClass
from perdure.errors import ConcurrentModification, Refused, StoreUnreachable
from perdure.stores import Store, open_store
from perdure.stores.base import CachedResult, Receipt
from perdure.stores.sql_store import SqlStore
from perdure.verify import verify
from tests.places import PostgresPlace, opened, run
from tests.postgres import Fresh, server
from tests.threads import History, effect, name, noise


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
def cut_before(store: SqlStore, place: PostgresPlace, statement: int) -> Iterator[list[str]]:
    """The server drops the connection before the statement of this number, once. What was sent meanwhile."""
    sent: list[str] = []

    def count(connection: Any, cursor: Any, sql: str, *_: Any) -> None:
        if len(sent) == statement:
            drop(place)
        sent.append(sql)

    def end(_: Any) -> None:
        count(None, None, "COMMIT")

    engine = store.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", end)
    yield sent
    event.remove(engine, "before_cursor_execute", count)
    event.remove(engine, "commit", end)


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
        with cut_before(store, place, statement) as sent:
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
    assert statement >= 8, "fewer statements than a whole commit has"
    assert len([c async for c in store.walk(history.thread_id)]) == statement + 2
    assert {row.entry.status for row in await store.effects(history.thread_id)} == {"done"}


def lose_the_end(store: SqlStore, *, committed: bool) -> None:
    """The connection is lost while the next transaction ends, before or after the server has made it good."""
    dialect: Any = store.database.engine.sync_engine.dialect
    whole: Callable[[Any], None] = dialect.do_commit

    def half(connection: Any) -> None:
        dialect.do_commit = whole
        if committed:
            whole(connection)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    dialect.do_commit = half


@pytest.mark.parametrize("committed", [True, False])
@pytest.mark.parametrize("kind", ["idempotent", "irreversible"])
async def test_the_first_attempt_stays_the_first(kind: EffectClass, committed: bool, store: SqlStore) -> None:
    """A claim of which nobody knows whether it was recorded: it is found, or recorded now, and answers as the first.

    Were it taken for a second attempt, an irreversible effect that was never tried would be in doubt.
    """
    history = History(store)
    head = (await history.commit({})).ref.id
    row = effect(history.thread_id, kind=kind)
    lose_the_end(store, committed=committed)
    assert await store.claim(row, head=head) is None
    known = await store.effect(history.thread_id, "k")
    assert known is not None and (known.entry.status, known.entry.attempts) == ("attempted", 1)

    lose_the_end(store, committed=committed)
    before = await store.claim(row, head=head)
    after = await store.effect(history.thread_id, "k")
    assert before == known
    assert after is not None and after.entry.attempts == (2 if kind == "idempotent" else 1)


@pytest.mark.parametrize("committed", [True, False])
async def test_an_unclear_commit_is_made_once(committed: bool, store: SqlStore) -> None:
    """A commit is recognised, so it may be repeated; a copy of a thread isn't: who asked is told that nobody knows."""
    history = History(store)
    await history.commit({})
    lose_the_end(store, committed=committed)
    await history.commit({"n": {"op": "set", "value": 1}})
    assert history.head is not None
    assert [c.step for c in await store.path(history.thread_id, history.head.ref.id, limit=9)] == [1, 0]

    target = name()
    lose_the_end(store, committed=committed)
    with pytest.raises(StoreUnreachable, match="closed the connection"):
        await store.copy_thread(history.thread_id, target)
    assert (await store.thread(target) is not None) == committed


@asynccontextmanager
async def writing(store: Store, history: History) -> AsyncIterator[None]:
    """Meanwhile the thread is written to, all the time."""
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            await history.commit({"n": {"op": "append", "items": [len(history.positions)]}})

    task = asyncio.create_task(write())
    yield
    done.set()
    await task


@pytest.mark.parametrize("signal", ["INT", "QUIT"])
async def test_writers_outlive_a_restart(signal: str) -> None:
    """The server is stopped (or crashes) and comes back while a thread is written to: all commits are there, once.

    Where it stays away for longer than the patience of a store, that says so.
    """
    with server(fsync="on") as own:
        store, hasty = open_store(own.url), open_store(f"{own.url}&patience=0.2")
        await store.migrate()
        history = History(store)
        await history.commit({})
        assert await hasty.thread(history.thread_id) == await store.thread(history.thread_id)
        async with writing(store, history):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(own.stop, signal)
            before = len(history.positions)
            with pytest.raises(StoreUnreachable, match="doesn't answer"):
                await hasty.thread(history.thread_id)
            await asyncio.to_thread(own.start, fsync="on")
            while len(history.positions) < before + 10:
                await asyncio.sleep(0.05)
        assert [c.id async for c in store.walk(history.thread_id)] == [p.ref.id for p in history.positions]
        assert (await verify(store)).problem is None
        await store.close()
        await hasty.close()


async def test_a_pool_is_as_large_as_the_url_says(place: PostgresPlace) -> None:
    """Forty readers at once share two connections; who waits too long for one is told."""
    store = await opened(PostgresPlace(postgres_url_of(place), f"{place.url}&pool_size=2&max_overflow=0"))
    await asyncio.gather(*(store.threads() for _ in range(40)))
    ((count,),) = run(place, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'perdure' "
                             "AND datname = current_database()")
    assert count == 2
    await store.close()
