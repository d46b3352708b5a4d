"""`perdure db verify` on the audit and the ledger: who decided what, and what was done, can't change unnoticed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perdure.audit import AuditEntry, AuditHead, AuditRow, chained
from perdure.care.verify import verify
from perdure.effects import EffectStatus
from perdure.errors import IntegrityError
from perdure.stores import Store
from perdure.stores.base import Receipt, Step
from perdure.stores.memory import MemoryStore
from perdure.stores.redis.keys import pair, turn_place
from perdure.stores.redis_store import RedisStore
from tests.places import Place, opened, run
from tests.tampering import hands
from tests.test_verify import FIRST, SECOND, claim, problem_of, write
from tests.threads import History

LINES = 9
BY = "ann's"


def entries(count: int, word: str = "") -> list[AuditEntry]:
    """Decisions, each under an id of its own."""
    at = "2024-05-06T07:08:09.000+00:00"
    return [AuditEntry(id=f"{word}{n}", at=at, kind="decision.counted", body={"by": BY, "n": n}) for n in range(count)]


async def furnish(store: Store) -> None:
    """Two threads with an audit, and with an effect of every kind of outcome each."""
    for thread in (FIRST, SECOND):
        await write(store, thread, steps=3)
        await store.append_audit(thread, entries(LINES))
        row = await store.thread(thread)
        assert row is not None
        head = await History(store, thread).checkpointer.load(thread, row.head_id)
        for status, ways in OUTCOMES.items():
            await claim(store, thread, head, status)
            for told in ways:
                await store.settle(thread, status, told, error="why", by=BY)
        await store.finish(thread, Receipt(key="attempted", result=b'{"id":1}'))
        await store.join_saga(thread, "done", "trip")


OUTCOMES: dict[EffectStatus, tuple[EffectStatus, ...]] = {
    "attempted": (), "failed": ("failed",), "in_doubt": ("in_doubt",), "done": ("in_doubt", "done"),
    "undone": ("in_doubt", "done", "undone"), "needs_attention": ("in_doubt", "done", "needs_attention"),
}  # fmt: skip


@pytest.fixture
async def store(any_store: Store) -> Store:
    """Of each kind."""
    await furnish(any_store)
    return any_store


async def test_what_was_written_verifies(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, also where they are read in several pages, and the effects that are open."""
    for page in (2, 1_000):
        monkeypatch.setattr("perdure.care.verify._PAGE", page)
        report = await verify(store)
        assert (report.audit, report.effects, report.problem) == (2 * LINES, 2 * (len(OUTCOMES) + 1), None)


@pytest.mark.parametrize("method", ["effects", "audit", "thread"])
async def test_a_line_that_is_added_meanwhile_is_no_false_alarm(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Before the audit is read, after it, or in between."""
    original, written = getattr(store, method), 0

    async def meanwhile(*args: Any, **more: Any) -> object:
        nonlocal written
        if written < 3:
            written += 1
            await store.append_audit(SECOND, entries(1, f"meanwhile-{written}-"))
            found = await original(*args, **more)
            await store.append_audit(SECOND, entries(1, f"later-{written}-"))
            return found
        return await original(*args, **more)

    monkeypatch.setattr(store, method, meanwhile)
    report = await verify(store, SECOND)
    assert report.problem is None
    assert LINES < report.audit <= LINES + 2 * written


# ── the audit ────────────────────────────────────────────────────────────────────────────────────────────────────


def _changed_lines(line: AuditRow) -> Iterator[AuditRow]:
    """The line with each of its parts changed."""
    entry, other = line.entry, "0" if line.digest[0] != "0" else "1"
    changes: list[dict[str, Any]] = [
        {"id": "x"}, {"at": "2024-05-06T07:08:09.001+00:00"}, {"kind": "decision.refused"}, {"body": {}}
    ]  # fmt: skip
    for change in changes:
        yield line.model_copy(update={"entry": entry.model_copy(update=change)})
    yield line.model_copy(update={"digest": other + line.digest[1:]})
    yield line.model_copy(update={"number": line.number + 100})


def _tampered(lines: list[AuditRow], other: list[AuditRow]) -> Iterator[tuple[int, list[AuditRow]]]:
    """Whatever can be done to lines; with each the number of the first one that is wrong then."""
    for at in (0, LINES // 2, LINES - 1):
        before, line, after = lines[:at], lines[at], lines[at + 1 :]
        for forged in _changed_lines(line):
            yield line.number, [*before, forged, *after]
        yield line.number, [*before, *after]
        yield line.number, [*before, other[at], *after]
        [new] = chained(SECOND, lines[at - 1].head if at else AuditHead(), entries(1, "new"))
        moved_on = [later.model_copy(update={"number": later.number + 1}) for later in lines[at:]]
        yield line.number + 1, [*before, new, *moved_on]
    yield 2, [lines[0], _renumbered(lines[2], 2), _renumbered(lines[1], 3), *lines[3:]]
    yield LINES + 1, [*lines, *chained(SECOND, lines[-1].head, entries(1, "new"))]
    yield 1, []
    yield 3, lines[:2]
    yield LINES, chained(SECOND, AuditHead(), [*(line.entry for line in lines[:-1]), *entries(1, "new")])


def _renumbered(line: AuditRow, number: int) -> AuditRow:
    return line.model_copy(update={"number": number})


async def test_no_line_changes_unnoticed(store: Store) -> None:
    """Changed in any part, removed, inserted, brought from another thread, in another order: the first one is named."""
    hand, lines, other = hands(store, SECOND), await store.audit(SECOND), await store.audit(FIRST)
    for number, forged in _tampered(lines, other):
        assert forged != lines
        await hand.put_lines(forged)
        problem = await problem_of(store)
        assert (problem.table, problem.thread_id, problem.row) == ("audit", SECOND, str(number)), forged
        assert (await verify(store, FIRST)).problem is None
    await hand.put_lines(lines)
    assert (await verify(store)).problem is None


async def test_where_it_ends_doesnt_change_unnoticed(store: Store) -> None:
    """So its last lines can't be cut off together with what the thread says of them, unless the row is forged too."""
    hand, lines = hands(store, SECOND), await store.audit(SECOND)
    ends = (AuditHead(), lines[3].head, lines[-1].head.model_copy(update={"digest": "0" * 64}))
    for number, end in zip((1, 5, LINES), ends, strict=True):
        await hand.move_audit_end(end)
        problem = await problem_of(store)
        assert (problem.table, problem.thread_id, problem.row) == ("audit", SECOND, str(number))


async def test_an_audit_outlives_the_row_of_its_thread(store: Store) -> None:
    """A thread that gets a row again goes on with the lines that are there."""
    before, row = await store.audit(SECOND), await store.thread(SECOND)
    line = await store.line(SECOND, row.head_id if row else "")
    assert line is not None
    step = Step(checkpoint=line.last, base_id=line.base_id, since_base=line.since_base, state_size=line.state_size)
    await hands(store, SECOND).drop_thread()
    await store.restore(step, head=True)
    assert await store.audit(SECOND) == before
    end = await store.append_audit(SECOND, entries(1, "later"))
    assert (end.number, (await verify(store, SECOND)).problem) == (LINES + 1, None)


# ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────────


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if value is None:
        return b"rnull"
    if isinstance(value, int):
        return value + 1
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"x"
    return "done" if value == "in_doubt" else value + "x"


async def test_no_column_of_the_ledger_changes_unnoticed(place: Place) -> None:
    """Not of an effect of any outcome: whoever reads it, and whoever verifies, is told which row it is."""
    store = await opened(place)
    await furnish(store)
    columns = place.columns("effects")
    assert len(columns) >= 26
    for key in [*OUTCOMES, f"key-of-{SECOND}"]:
        for column in columns:
            if column not in ("thread_id", "key"):
                await _check_column(store, place, key, column)
    await store.close()


async def _check_column(store: Store, place: Place, key: str, column: str) -> None:
    where = "WHERE thread_id = ? AND key = ?"
    ((value,),) = run(place, f"SELECT {column} FROM effects {where}", SECOND, key.encode())
    run(place, f"UPDATE effects SET {column} = ? {where}", changed(value), SECOND, key.encode())
    problem = await problem_of(store, SECOND)
    assert (problem.table, problem.thread_id, problem.row) == ("effects", SECOND, key), column
    for read in (store.effect(SECOND, key), store.effects(SECOND), store.settle(SECOND, key, "undone")):
        with pytest.raises(IntegrityError) as refused:
            await read
        assert (refused.value.table, refused.value.row) == ("effects", key)
    run(place, f"UPDATE effects SET {column} = ? {where}", value, SECOND, key.encode())
    assert (await verify(store, SECOND)).problem is None


async def test_an_effect_of_another_is_no_effect_of_mine(place: Place) -> None:
    """Moved to another thread, or to another key, a row is found there."""
    store = await opened(place)
    await furnish(store)
    own = f"key-of-{SECOND}".encode()
    run(place, "UPDATE effects SET key = ? WHERE thread_id = ? AND key = ?", b"other", SECOND, b"done")
    run(place, "UPDATE effects SET thread_id = ? WHERE thread_id = ? AND key = ?", FIRST, SECOND, own)
    for thread, key in ((FIRST, own.decode()), (SECOND, "other")):
        problem = await problem_of(store, thread)
        assert (problem.table, problem.thread_id, problem.row) == ("effects", thread, key)
    await store.close()


async def test_no_part_of_an_entry_in_memory_changes_unnoticed() -> None:
    """It is kept in three parts."""
    store = MemoryStore()
    await furnish(store)
    kept = store._threads[SECOND].effects
    for key, part in [(key, part) for key in list(kept) for part in ("entry", "arguments", "receipt")]:
        before = kept[key]
        kept[key] = before._replace(**{part: changed(getattr(before, part))})
        problem = await problem_of(store)
        assert (problem.table, problem.thread_id, problem.row) == ("effects", SECOND, key)
        kept[key] = before
    assert (await verify(store)).problem is None


async def test_no_part_of_an_entry_in_redis_changes_unnoticed(redis_url: Callable[[], str]) -> None:
    """It is kept under three keys, listed under two more, and none of them loses it or changes it unnoticed."""
    store = RedisStore.from_url(redis_url())
    await store.migrate()
    await furnish(store)
    for key, part in [
        (key, part) for key in ("done", "attempted", "in_doubt") for part in ("effects", "arguments", "done")
    ]:
        where = store._keys.part(SECOND, part)
        value = await store._ask("HGET", where, key)
        damages: list[tuple[Any, ...]] = [("HSET", where, key, changed(value))]
        undone: tuple[Any, ...] = ("HDEL", where, key)
        if value is not None:
            damages, undone = [*damages, undone], ("HSET", where, key, value)
        for damage in damages:
            await store._ask(*damage)
            await _check_named(store, key)
        await store._ask(*undone)
    assert (await verify(store)).problem is None
    await store.close()


async def test_no_list_of_effects_in_redis_changes_unnoticed(redis_url: Callable[[], str]) -> None:
    """Neither the order of a thread's ledger nor the open effects of all threads."""
    store = RedisStore.from_url(redis_url())
    await store.migrate()
    await furnish(store)
    turns, key = store._keys.part(SECOND, "turns"), "in_doubt"
    place = turn_place(1, 2, 0, key)
    await store._ask("ZREM", turns, place)
    await _check_named(store, key)
    await store._ask("ZADD", turns, 0, turn_place(1, 3, 0, key))
    await _check_named(store, key)
    await store._ask("ZADD", turns, 0, place)
    await _check_named(store, key)
    await store._ask("ZREM", turns, turn_place(1, 3, 0, key))
    assert (await verify(store)).problem is None
    await store._ask("HDEL", store._keys.open, pair(SECOND, key))
    await _check_named(store, key)
    await store.close()


async def test_no_id_of_a_line_in_redis_changes_unnoticed(redis_url: Callable[[], str]) -> None:
    """By its id a line that is said again is recognised: who could change that could keep a line from being added."""
    store = RedisStore.from_url(redis_url())
    await store.migrate()
    await furnish(store)
    ids = store._keys.part(SECOND, "audit-ids")
    for damage, undone, number in (
        (("HDEL", ids, "4"), ("HSET", ids, "4", 5), 5),
        (("HSET", ids, "4", 6), ("HSET", ids, "4", 5), 5),
        (("HSET", ids, "swallowed", 3), ("HDEL", ids, "swallowed"), LINES + 1),
    ):
        await store._ask(*damage)
        problem = await problem_of(store)
        assert (problem.table, problem.thread_id, problem.row) == ("audit", SECOND, str(number))
        await store._ask(*undone)
    assert (await verify(store)).problem is None
    await store.close()


async def _check_named(store: Store, key: str) -> None:
    problem = await problem_of(store)
    assert (problem.table, problem.thread_id, problem.row) == ("effects", SECOND, key)
