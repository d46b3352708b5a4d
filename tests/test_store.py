"""From a URL to a store; and what a SQL store makes of texts, ids and times that no database would keep as they are."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.errors import InvalidInput, StoreOutdated, StoreUnreachable
from perdure.stores import open_store
from perdure.stores.base import CachedResult, Receipt
from perdure.stores.memory import MemoryStore
from perdure.stores.open import open_existing
from perdure.stores.sql_store import SqlStore
from tests.places import Place, PostgresPlace, SqlitePlace, opened
from tests.postgres import Fresh
from tests.statements import at_each_end
from tests.threads import History, checkpoint_id, effect


@pytest.fixture
async def store(place: Place) -> AsyncIterator[SqlStore]:
    """A store with its schema, in a place of its own."""
    store = await opened(place)
    yield store
    await store.close()


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url", ["", "store.db", "sqlite://", "sqlite://host/store.db", "sqlite:///file?mode=ro", "mysql:///x", "sqlite:///"]
)
def test_an_url_that_names_no_store_is_refused(url: str) -> None:
    """The error says how to write one."""
    with pytest.raises(InvalidInput, match="sqlite:///FILE"):
        open_store(url)


@pytest.mark.parametrize("url", ["postgresql://u:secret@host:port/db", "postgres://u:secret@host/db?pool_size=many"])
def test_a_bad_postgres_url_is_refused(url: str) -> None:
    """And the password in it is not shown."""
    with pytest.raises(InvalidInput, match="names no database") as refused:
        open_store(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("kind", ["postgres", "postgresql"])
def test_a_password_is_not_shown(kind: str) -> None:
    """Nor is anything else that the query may hold; and nothing is asked of the server until the first use."""
    store = open_store(f"{kind}://ann:secret@db.example:5433/perdure?pool_size=3&sslpassword=secret")
    assert store.url == "postgresql://ann:***@db.example:5433/perdure"


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("postgresql://host/db", "psycopg", "perdure[postgres]"), ("redis://host/0", "redis", "perdure[redis]")],
)
def test_a_missing_driver_is_named(url: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    ours = ("perdure.stores.redis", "perdure.stores.postgres")
    for loaded in [name for name in sys.modules if name.startswith(ours)]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInput) as refused:
        open_store(url)
    assert extra in refused.value.hint


async def test_memory_is_shared_by_name() -> None:
    """Two stores of one name are one, and no other."""
    store = open_store("memory://here")
    assert isinstance(store, MemoryStore)
    assert store is open_store("memory://here") is not open_store("memory://there")


async def test_a_store_without_schema_says_so(place: Place) -> None:
    """What is missing is listed; migrating makes it, once."""
    store = open_store(place.url)
    with pytest.raises(StoreOutdated, match="perdure db migrate"):
        await store.threads()
    missing = await store.missing_migrations()
    assert missing == await store.migrate() != []
    assert await store.missing_migrations() == await store.migrate() == []
    assert await store.threads() == []
    await store.close()


async def test_a_sqlite_file_is_made_with_its_folder(tmp_path: Path) -> None:
    """But not by who only wants to look: an empty store would look as if every thread were lost."""
    url = f"sqlite:///{tmp_path / 'new' / 'store.db'}"
    with pytest.raises(StoreUnreachable, match="There is no store"):
        open_existing(url)
    store = open_store(url)
    await store.migrate()
    await store.close()
    await open_existing(url).close()


@pytest.mark.parametrize("url", ["sqlite:///{}", "postgresql://host/db?host={}&patience=0.1"])
async def test_a_store_out_of_reach_says_so(url: str, tmp_path: Path) -> None:
    """A folder is no database, and no server listens there: worth trying again, since somebody may mend it."""
    store = open_store(url.format(tmp_path))
    with pytest.raises(StoreUnreachable, match="doesn't answer") as refused:
        await store.threads()
    assert refused.value.retry
    await store.close()


async def test_both_databases_have_the_same_tables(tmp_path: Path, postgres_url: Fresh) -> None:
    """All migrations, run on an empty SQLite file and on an empty PostgreSQL database, make the same schema."""
    places: list[Place] = [SqlitePlace(tmp_path / "store.db"), PostgresPlace(postgres_url)]
    schemas = []
    for place in places:
        await (await opened(place)).close()
        tables = [*place.tables(), "checkpoint_rows"]
        schemas.append({table: place.columns(table) for table in tables})
    assert schemas[0] == schemas[1]
    assert len(schemas[0]) == 13


# ── what is kept ─────────────────────────────────────────────────────────────────────────────────────────────────

AWKWARD = ["a\0b", "\0", '"quoted"', '"', "\\u0000", "é\u2028\U0001f600", ""]


@pytest.mark.parametrize("text", AWKWARD)
async def test_any_text_is_kept(text: str, store: SqlStore) -> None:
    """NUL, which PostgreSQL has in no text; and what looks like the form in which that is kept."""
    history = History(store)
    value = {text or "key": [text, {"deep": text}]}
    for _ in range(60):  # also in a snapshot
        await history.commit(
            {"text": {"op": "set", "value": ["x" * 300, text, value]}}, metadata={"text": text, "more": value},
            facts={"reason": text}, nodes=(text,),
        )  # fmt: skip
    head = history.positions[-1]
    assert await Checkpointer(store).load(history.thread_id, head.ref.id) == head
    assert len(await store.snapshots(history.thread_id)) > 0
    found = await store.find({"text": text, "more": value}, thread_id=history.thread_id, limit=1)
    assert [(c.id, c.facts, c.nodes) for c in found] == [(head.ref.id, {"reason": text}, (text,))]

    said: dict[str, Any] = {"summary": text, "compensation": text, "tool": text}
    await store.claim(effect(history.thread_id, text or "k", **said), head=head.ref.id)
    await store.fail(history.thread_id, text or "k", text)
    await store.claim(effect(history.thread_id, text or "k", **said), head=head.ref.id)
    await store.settle(history.thread_id, text or "k", "in_doubt", error=text, by=text)
    (row,) = await store.effects(history.thread_id)
    kept = (row.entry.key, row.entry.summary, row.entry.compensation, row.entry.error, row.entry.settled_by)
    assert kept == (text or "k", text, text, text, text)
    await store.put_receipt(history.thread_id, Receipt(key=f"r{text}", result=b"\0"))
    assert await store.receipts_under(history.thread_id, "r") == {f"r{text}": b"\0"}
    assert (await verify(store)).problem is None


async def test_an_error_that_is_no_text_is_kept(store: SqlStore) -> None:
    """What a tool says when it fails may hold halves of characters, which no database takes."""
    history = History(store)
    head = (await history.commit({})).ref.id
    await store.claim(effect(history.thread_id), head=head)
    await store.fail(history.thread_id, "k", "no such file: '\udcff\0'")
    known = await store.effect(history.thread_id, "k")
    assert known is not None and known.entry.error == "no such file: '\udcff\0'"


async def test_a_name_that_cannot_be_kept_is_refused(place: Place, store: SqlStore) -> None:
    """Where a database can't take a thread's id, that is the caller's mistake, and not an outage."""
    if place.kind == "postgresql":
        with pytest.raises(InvalidInput, match="can't take that"):
            await store.thread("a\0b")
    else:
        assert await store.thread("a\0b") is None


async def test_any_checkpoint_id_is_kept(store: SqlStore) -> None:
    """Ids are UUIDs; what is brought from elsewhere may have others."""
    history = History(store)
    ids = ["c1", "x" * 11, checkpoint_id().upper(), checkpoint_id(), "é" * 40, "a\0"]
    for name in ids:
        await history.commit({}, checkpoint_id=name)
    assert [c.id for c in await store.path(history.thread_id, ids[-1], limit=9)] == ids[::-1]
    assert [c.parent_id async for c in store.walk(history.thread_id)] == [None, *ids[:-1]]


async def test_expired_results_make_room(store: SqlStore) -> None:
    """What nobody will ask for again doesn't stay for ever."""
    await store.put_result(CachedResult(scope="s", key="for ever", value=b"1"))
    for number in range(20):
        old = CachedResult(scope="s", key=str(number), value=b"1", expires_at="2020-01-01T00:00:00+00:00")
        await store.put_result(old)
        assert await store.result("s", str(number)) is None
    assert (await store.sizes())["rows"]["results"] == 2
    assert await store.result("s", "for ever") is not None


# ── what a power cut can take ────────────────────────────────────────────────────────────────────────────────────


async def test_sqlite_waits_for_the_disk_where_it_matters(tmp_path: Path) -> None:
    """The claim of an irreversible effect is on disk when it returns; other commits wait for the next checkpoint."""
    store = await opened(SqlitePlace(tmp_path / "store.db"))
    assert isinstance(store, SqlStore)
    history = History(store)
    head = (await history.commit({})).ref.id
    with at_each_end("PRAGMA synchronous") as waited:
        await store.claim(effect(history.thread_id, "a"), head=head)
        await store.claim(effect(history.thread_id, "b", "irreversible"), head=head)
        await store.claim(effect(history.thread_id, "c"), head=head)
        await history.commit({})
    normal, full = 1, 2
    assert waited == [normal, full, normal, normal]
    (caution,) = await store.cautions()
    assert "synchronous=normal" in caution
    await store.close()
