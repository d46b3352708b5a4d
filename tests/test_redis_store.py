"""The store on Redis: the same as in memory, one winner of many, few round trips, and whatever is changed is found."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.errors import (
    CheckpointNotFound,
    ConcurrentModification,
    Conflict,
    IntegrityError,
    InvalidInput,
    StoreOutdated,
    StoreUnreachable,
)
from perdure.stores.redis import checkpoints as redis_checkpoints
from perdure.stores.redis import threads as redis_threads
from perdure.stores.redis.server import Server as Connection
from perdure.stores.redis_store import RedisStore
from tests.deeds import payment, same_deeds
from tests.threads import History, noise
from tests.valkey import Server


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisStore]:
    """An empty store with its schema."""
    store = RedisStore.from_url(valkey_url)
    yield store
    await store.close()


# ── the same as in memory ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_it_does_what_the_store_in_memory_does(seed: int, store: RedisStore) -> None:
    """Hundreds of deeds of every kind, refused ones among them: the same answers, errors and rows, and all verifies."""
    await same_deeds(store, seed, 300)


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_of_many_commits_wins(valkey_url: str) -> None:
    """Twelve commits on one head through four stores: one is the head then, the others are told both versions."""
    stores = [RedisStore.from_url(valkey_url) for _ in range(4)]
    history = History(stores[0])
    root = await history.commit({})
    changes = [history.change({"winner": {"op": "set", "value": number}}) for number in range(12)]
    done = await asyncio.gather(
        *(Checkpointer(stores[i % 4]).commit(root, change) for i, change in enumerate(changes)), return_exceptions=True
    )
    [won] = [position for position in done if not isinstance(position, BaseException)]
    lost = [error for error in done if isinstance(error, ConcurrentModification)]
    assert [(error.expected, error.actual) for error in lost] == [(root.ref.id, won.ref.id)] * 11
    for store in stores:
        await store.close()


async def test_one_of_many_claims_is_the_first(valkey_url: str) -> None:
    """Twelve attempts of one irreversible call through four stores: eleven learn that they are not the first."""
    stores = [RedisStore.from_url(valkey_url) for _ in range(4)]
    history = History(stores[0])
    head = (await history.commit({})).ref.id
    claims = [stores[n % 4].claim(payment(history), head=head) for n in range(12)]
    assert sum(before is None for before in await asyncio.gather(*claims)) == 1
    for store in stores:
        await store.close()


async def test_no_fork_loses_its_parent(valkey_url: str) -> None:
    """While forks begin and threads are deleted all at once, what is there always goes back to its root."""
    stores = [RedisStore.from_url(valkey_url) for _ in range(4)]
    histories = [History(store) for store in stores]
    for _ in range(8):
        for history in histories:
            history.positions.clear()
            await history.commit({}, checkpoint_id=f"{history.thread_id}-{random.getrandbits(64):x}")
        forks = [History(stores[n % 4]) for n in range(12)]
        deeds: list[Awaitable[Any]] = [
            fork.checkpointer.commit(histories[n % 4].head, fork.change({})) for n, fork in enumerate(forks)
        ]
        deeds += [store.delete_thread(history.thread_id) for store, history in zip(stores, histories, strict=True)]
        random.shuffle(deeds)
        done = await asyncio.gather(*deeds, return_exceptions=True)
        assert {type(one) for one in done if isinstance(one, BaseException)} <= {Conflict, CheckpointNotFound}
        assert (await verify(stores[0])).problem is None
        for fork in forks:
            await stores[0].delete_thread(fork.thread_id)
        for history in histories:
            await stores[0].delete_thread(history.thread_id)
        assert await stores[0].threads() == []
    for store in stores:
        await store.close()


async def test_a_fork_that_died_doesnt_hold_its_parent_for_ever(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For two minutes nobody knows whether it will still come; after one minute it can't any more."""
    history, fork = History(store), History(store)
    await history.commit({})
    run = RedisStore._run

    async def dies(self: RedisStore, name: str, *more: Any) -> Any:
        if name == "commit":
            raise KeyboardInterrupt
        return await run(self, name, *more)

    monkeypatch.setattr(RedisStore, "_run", dies)
    with pytest.raises(KeyboardInterrupt):
        await fork.checkpointer.commit(history.head, fork.change({}))
    monkeypatch.setattr(RedisStore, "_run", run)
    assert await store.forks(history.thread_id) == []
    with pytest.raises(Conflict, match=fork.thread_id):
        await store.delete_thread(history.thread_id)
    monkeypatch.setattr(redis_threads, "_GIVEN_UP", -1)
    await store.delete_thread(history.thread_id)
    assert await store.threads() == []


async def test_a_fork_that_comes_too_late_is_refused(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be tried again, since it changed nothing; then its parent is looked at again."""
    history, fork = History(store), History(store)
    await history.commit({})
    with monkeypatch.context() as patch:
        patch.setattr(redis_checkpoints, "PATIENCE", -1)
        with pytest.raises(StoreUnreachable, match="took longer"):
            await fork.checkpointer.commit(history.head, fork.change({}))
    assert await store.thread(fork.thread_id) is None
    await store.delete_thread(history.thread_id)


# ── what it costs ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many times the server was asked since the last call."""
    asked = 0

    def counted(method: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            asked += 1
            return await method(*args, **kwargs)

        return call

    for name in ("_send", "ask"):
        monkeypatch.setattr(Connection, name, counted(getattr(Connection, name)))

    def since() -> int:
        nonlocal asked
        asked, before = 0, asked
        return before

    return since


async def test_round_trips_dont_depend_on_the_length(store: RedisStore, round_trips: Callable[[], int]) -> None:
    """At a thousand steps as at twenty: one for a commit, a page of a path, a state, and an ancestor however far."""
    history = History(store)
    for step in range(1_000):
        head = await history.commit({"list": {"op": "append", "items": [step]}})
        if step not in (25, 999):
            continue
        await store.path(history.thread_id, head.ref.id, limit=1)  # a script's first call hands it over, as a trip more
        await store.ancestor(history.thread_id, head.ref.id, 3)
        await store.line(history.thread_id, head.ref.id)
        round_trips()
        assert len(await store.path(history.thread_id, head.ref.id, limit=20)) == 20
        assert round_trips() == 1
        found = await store.ancestor(history.thread_id, head.ref.id, 3)
        assert found is not None and found.id == history.positions[3].ref.id and round_trips() == 1
        await history.commit({})
        assert round_trips() == 1
        await store.line(history.thread_id, history.positions[-1].ref.id)
        assert round_trips() <= 3  # in pages of five hundred


async def test_a_fork_costs_one_more(store: RedisStore, round_trips: Callable[[], int]) -> None:
    """Each thread on the way is asked once."""
    history, fork = History(store), History(store)
    for _ in range(30):
        await history.commit({"list": {"op": "append", "items": [1]}})
    at = await fork.checkpointer.commit(history.head, fork.change({}))
    round_trips()
    assert len(await store.path(fork.thread_id, at.ref.id, limit=20)) == 20
    assert round_trips() == 2
    assert (await Checkpointer(store).load(fork.thread_id, at.ref.id)).values == at.values
    assert round_trips() == 2


# ── a value that is changed ──────────────────────────────────────────────────────────────────────────────────────


async def _tampered(store: RedisStore, history: History, tamper: Callable[[], Any]) -> tuple[str, str] | None:
    """What the verification names after something was changed behind the store's back."""
    dump = {key: await store._server.ask("DUMP", key) for key in await store._server.keys("*")}
    tamper()
    try:
        problem = (await verify(store, history.thread_id)).problem
        named = (problem.table, problem.row) if problem else None
    except IntegrityError as error:
        named = error.table, error.row
    for key in await store._server.keys("*"):
        await store._server.ask("DEL", key)
    for key, value in dump.items():
        await store._server.ask("RESTORE", key, 0, value)
    return named


async def test_whatever_is_changed_is_found(store: RedisStore, valkey: Server) -> None:
    """Each part of a checkpoint, changed, gone or in another's place; and the verification names where it is."""
    history = History(store, "t")
    for _ in range(30):
        await history.commit({"text": {"op": "set", "value": noise(700)}}, metadata={"note": 1})
    await store.claim(payment(history), head=history.positions[-1].ref.id)
    ids = [at.ref.id for at in history.positions]
    [snapshot, *_] = [found.checkpoint_id for found in await store.snapshots("t")]
    middle, other, key = ids[-3], ids[-2], store._keys.part

    def put(part: str, field: str, change: Callable[[bytes], bytes]) -> Callable[[], Any]:
        name = key("t", part)
        return lambda: valkey.ask("HSET", name, field, change(valkey.ask("HGET", name, field)))

    def flip(at: int) -> Callable[[bytes], bytes]:
        return lambda stored: (
            stored[: at % len(stored)] + bytes([stored[at % len(stored)] ^ 1]) + stored[at % len(stored) + 1 :]
        )

    places = valkey.ask("ZRANGE", key("t", "steps"), 0, -1)
    cases: list[tuple[Callable[[], Any], tuple[str, str]]] = [
        *((put("checkpoints", middle, flip(at)), ("checkpoints", middle)) for at in range(0, 400, 41)),
        *((put("links", middle, flip(at)), ("checkpoints", middle)) for at in range(0, 150, 13)),
        *((put("snapshots", snapshot, flip(at)), ("snapshots", snapshot)) for at in (0, 40, 300)),
        *(
            (lambda p=p: valkey.ask("HDEL", key("t", p), middle), ("checkpoints", middle))
            for p in ("links", "checkpoints")
        ),
        (lambda: valkey.ask("ZREM", key("t", "steps"), places[-3]), ("checkpoints", middle)),
        (lambda: valkey.ask("HDEL", key("t", "snapshots"), snapshot), ("snapshots", snapshot)),
        (
            put("checkpoints", middle, lambda _: valkey.ask("HGET", key("t", "checkpoints"), other)),
            ("checkpoints", middle),
        ),
        (lambda: valkey.ask("ZREMRANGEBYRANK", key("t", "labels"), 5, 5), ("labels", ids[5])),
        (lambda: valkey.ask("HSET", key("t", "thread"), "head_id", middle), ("threads", "t")),
        (lambda: valkey.ask("HSET", key("t", "thread"), "turn", "x"), ("threads", "t")),
        (lambda: valkey.ask("HDEL", key("t", "thread"), "head_id"), ("threads", "t")),
        (put("effects", "k", flip(0)), ("effects", "k")),
        (put("arguments", "k", flip(5)), ("effects", "k")),
        (put("arguments", "k", flip(65)), ("effects", "k")),
    ]
    assert (await verify(store)).problem is None
    for number, (tamper, named) in enumerate(cases):
        assert await _tampered(store, history, tamper) == named, number
    assert (await verify(store)).problem is None


# ── opening ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/?prefix=a}b", "redis://localhost/?prefix=", "redis://localhost/?wait=many",
        "redis://localhost/?cluster=yes&wait=1", "redis://localhost/?max_conections=9", "redis://localhost:port/",
        "http://localhost/",
    ],
)  # fmt: skip
def test_an_url_that_says_something_strange_is_refused(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(InvalidInput):
        RedisStore.from_url(url)


async def test_stores_share_a_server_under_their_prefixes(valkey: Server, valkey_url: str) -> None:
    """One neither sees nor counts what is the other's, even where a prefix begins like the other one."""
    one, other = RedisStore.from_url(f"{valkey_url}?prefix=a"), RedisStore.from_url(valkey_url, "a.b")
    await one.migrate()
    with pytest.raises(StoreOutdated):
        await other.threads()
    await other.migrate()
    await History(one, "t").commit({}, metadata={"n": 1})
    assert (await other.threads(), await other.find({"n": 1}), await other.sizes()) == (
        [], [], {"rows": dict.fromkeys((await other.sizes())["rows"], 0), "bytes": (await other.sizes())["bytes"]},
    )  # fmt: skip
    assert (await one.sizes())["rows"]["checkpoints"] == 1
    for store in (one, other):
        await store.close()


async def test_a_schema_from_the_future_is_refused(store: RedisStore, valkey_url: str) -> None:
    """Older code doesn't touch what newer code has migrated."""
    await store._server.ask("HSET", store._keys.schema, "9999_later", "now")
    other = RedisStore.from_url(valkey_url)
    for asked in (other.threads(), other.migrate(), other.missing_migrations(), History(other).commit({})):
        with pytest.raises(StoreOutdated, match="9999_later"):
            await asked
    await other.close()


# ── what is open in all threads ──────────────────────────────────────────────────────────────────────────────────


async def _doubtful(store: RedisStore) -> History:
    """A thread with a call of which nobody knows how it ended."""
    history = History(store)
    head = (await history.commit({})).ref.id
    await store.claim(payment(history), head=head)
    await store.settle(history.thread_id, "k", "in_doubt")
    return history


async def test_what_is_no_longer_open_leaves_the_list(store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once nobody can be about to open it: until then its name stays, and isn't believed."""
    history = await _doubtful(store)
    assert [row.entry.key for row in await store.open_effects()] == ["k"]
    await store.settle(history.thread_id, "k", "done")
    assert await store.open_effects() == []
    assert await store._ask("HLEN", store._keys.open) == 1
    monkeypatch.setattr("perdure.stores.redis.ledger.GIVEN_UP", -1)
    assert await store.open_effects() == []
    assert await store._ask("HLEN", store._keys.open) == 0
    await store.settle(history.thread_id, "k", "needs_attention")
    assert len(await store.open_effects()) == 1


async def test_who_is_too_slow_to_open_an_effect_changes_nothing(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name may have left the list meanwhile."""
    history = await _doubtful(store)
    await store.settle(history.thread_id, "k", "done")
    before = await store.effects(history.thread_id)
    monkeypatch.setattr("perdure.stores.redis.entries.PATIENCE", -1)
    with pytest.raises(StoreUnreachable):
        await store.settle(history.thread_id, "k", "needs_attention")
    assert await store.effects(history.thread_id) == before
