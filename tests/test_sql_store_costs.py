"""What a SQL store costs: bytes in proportion to what is kept, statements that don't grow with the thread."""

import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from perdure.audit import AuditEntry
from perdure.canonical import canonical
from perdure.checkpointer import Checkpointer
from perdure.stores.base import EffectRow, Receipt
from perdure.stores.queries import listed, query
from perdure.stores.sql_store import SqlStore
from tests.places import Place, SqlitePlace, opened, run
from tests.statements import statements
from tests.threads import History, effect, noise

STEPS = 1_000
CALL, RESULT = 200, 500  # bytes of a tool's call and of its result, neither of which compresses


@pytest.fixture
async def store(place: Place) -> AsyncIterator[SqlStore]:
    """A store with its schema, in a place of its own."""
    store = await opened(place)
    yield store
    await store.close()


def stored(value: Any) -> int:
    """The bytes of a value in a row."""
    return len(value) if isinstance(value, bytes | str) else 8


def stored_bytes(place: Place) -> int:
    """The bytes of all values in all rows of all tables."""
    found = [row for table in place.tables() for row in run(place, f"SELECT * FROM {table}")]
    return sum(stored(value) for row in found for value in row)


async def read_by_load(store: SqlStore, history: History) -> int:
    """The bytes of all that the database hands over for a cold load of the head."""
    assert history.head is not None
    named = {"thread_id": history.thread_id, "checkpoint_id": bytes.fromhex(history.head.ref.id.replace("-", ""))}
    end, line = await store.database.read(lambda tx: tx.together(("end_of_line", named), ("line", named)))
    found = [*end.rows, *line.rows]
    return sum(stored(value) for row in found for value in dict(row).values() if value is not None)


async def test_a_thousand_steps_are_at_most_three_times_their_payload(store: SqlStore, place: Place) -> None:
    """Two messages a step: two checkpoints, and a cached answer. The payload is the calls and the results alone.

    The 200th step costs what the 20th did; the last state is read with at most three times its own bytes, by one
    trip to the database; and a page of twenty checkpoints takes one statement after twenty steps and after a thousand.
    """
    history = History(store)
    await history.commit({})
    kept: dict[int, int] = {}
    pages: dict[int, list[str]] = {}
    for step in range(STEPS):
        if step in (10, 30, 190, 210):
            kept[step] = stored_bytes(place)
        if step in (20, STEPS - 1):
            assert history.head is not None
            with statements() as pages[step]:
                page = await store.path(history.thread_id, history.head.ref.id, limit=20)
            assert [c.step for c in page] == list(range(2 * step, 2 * step - 20, -1))
        await history.loop(CALL, RESULT)
    assert place.bytes() <= {"sqlite": 2.2, "postgresql": 2.9}[place.kind] * (CALL + RESULT) * STEPS
    early, late = kept[30] - kept[10], kept[210] - kept[190]
    assert abs(late / early - 1) < 0.1
    assert pages[20] == pages[STEPS - 1] and len(pages[20]) == 1

    assert history.head is not None
    with statements() as sent:
        assert await Checkpointer(store).load(history.thread_id, history.head.ref.id) == history.head
    assert len(sent) == 2, "the line, and what else its end has: asked for together"
    assert await read_by_load(store, history) <= 3 * len(canonical(history.head.values))


async def test_an_overwritten_state_is_read_at_most_three_times(store: SqlStore) -> None:
    """Also where the deltas outweigh the state by far."""
    history = History(store)
    for _ in range(300):
        await history.commit({"text": {"op": "set", "value": noise(6_000)}})
    assert history.head is not None
    assert await read_by_load(store, history) <= 3 * len(canonical(history.head.values)) + 4096


@pytest.mark.parametrize("result", [1_300, 3_000, 9_000])
async def test_large_results_cost_no_more(result: int, store: SqlStore, place: Place) -> None:
    """A row as large as a page, or larger, doesn't take another page for itself."""
    history = History(store)
    await history.commit({})
    empty = place.bytes()
    for _ in range(200):
        await history.loop(CALL, result)
    assert place.bytes() - empty <= 2 * (CALL + result) * 200


async def test_blobs_are_kept_once(store: SqlStore, place: Place) -> None:
    """Bytes are found under their digest, large ones too; the same bytes again take no room."""
    blob = canonical({"a": noise(100_000)})
    digest = await store.put_blob("result", blob)
    before = run(place, "SELECT count(*) FROM blobs"), place.bytes()
    assert await store.put_blob("result", blob) == digest
    assert await store.blob(digest) == blob
    assert await store.blob("0" * 64) is None
    assert (run(place, "SELECT count(*) FROM blobs"), place.bytes()) == before


async def test_a_call_costs_a_few_statements(store: SqlStore) -> None:
    """However long the ledger is: an entry is read and written, where the head matters it is read too."""
    history = History(store)
    head = (await history.commit({})).ref.id
    thread = history.thread_id
    lines = [AuditEntry(id=str(n), at="2024-05-06T07:08:09.000+00:00", kind="request.opened") for n in range(9)]
    calls: dict[str, tuple[int, Callable[[], Awaitable[object]]]] = {
        "first attempt": (2, lambda: store.claim(effect(thread), head=head)),
        "next attempt": (4, lambda: store.claim(effect(thread), head=head)),
        "receipt": (4, lambda: store.put_receipt(thread, Receipt(key="k", result=b"1"), head=head)),
        "settlement": (2, lambda: store.settle(thread, "k", "undone")),
        "simulated": (2, lambda: store.record_simulated(effect(thread, "other"), head=head)),
        "with tokens": (4, lambda: store.claim(_with_tokens(effect(thread, "third")), head=head)),
        "audit": (3 + len(lines), lambda: store.append_audit(thread, lines)),
    }
    for name, (count, call) in calls.items():
        with statements() as sent:
            await call()
        assert len([one for one in sent if not one.startswith(("BEGIN", "COMMIT", "PRAGMA"))]) == count, (name, sent)


def _with_tokens(row: EffectRow) -> EffectRow:
    return row.model_copy(update={"tokens": ("a", "b")})


SEARCHES = (
    "thread", "forks", "checkpoint", "first_checkpoint", "links", "end_of_line", "line", "path", "ancestor", "walk",
    "snapshots", "find", "find_in_thread", "newest_in_thread", "result", "delete_expired", "receipts",
    "receipts_under", "effect", "effects", "effects_of_turn", "effect_to_change", "change_effect", "open_effects",
    "token_to_change", "move_token", "audit", "lines_known", "blob", "move_head", "delete_thread",
    "delete_checkpoints",
)  # fmt: skip
GROWING = "threads|numbers|checkpoints|parent|own|other|snapshots|labels|results|receipts|effects|tokens|audit|blobs"


@pytest.mark.parametrize("name", SEARCHES)
async def test_no_query_reads_a_whole_table(name: str, tmp_path: Path) -> None:
    """Whatever is looked for is found by an index: SQLite's plan scans nothing but what a query makes itself."""
    place = SqlitePlace(tmp_path / "store.db")
    await (await opened(place)).close()
    with closing(sqlite3.connect(place.path)) as connection:
        for sql, _ in query(name, "sqlite"):
            values = dict.fromkeys(re.findall(r":(\w+)", listed(sql, 1)), 1)
            plan = connection.execute(f"EXPLAIN QUERY PLAN {listed(sql, 1)}", values).fetchall()
            steps = [detail for *_, detail in plan]
            assert steps
            assert [step for step in steps if re.match(f"SCAN ({GROWING})\\b", step)] == []
