"""The store on Redis: whole after every kind of death, one winner, few round trips, and honest about its server."""

import asyncio
import random
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.care.verify import verify
from perdure.checkpointer import Checkpointer
from perdure.effects import Effect, arguments_digest
from perdure.errors import (
    CheckpointNotFound,
    ConcurrentModification,
    Conflict,
    IntegrityError,
    InvalidInput,
    PerdureError,
    StoreOutdated,
    StoreUnreachable,
)
from perdure.stores.base import EffectRow
from perdure.stores.memory import MemoryStore
from perdure.stores.redis import server as redis_server
from perdure.stores.redis import threads as redis_threads
from perdure.stores.redis.server import Server as Connection
from perdure.stores.redis_store import RedisStore
from tests import redis_deaths
from tests.deeds import Deeds
from tests.proxy import Proxy
from tests.threads import History, noise
from tests.twins import Twins, picture, plain
from tests.valkey import Server, free_port, server

ROOT = Path(__file__).parents[1]
LASTING = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture(scope="module")
def valkey() -> Iterator[Server]:
    """A server of our own, which tests may reconfigure."""
    with server() as own:
        yield own


@pytest.fixture
async def url(valkey: Server) -> str:
    """An empty server with a schema in it."""
    valkey.ask("FLUSHALL")
    store = RedisStore.from_url(valkey.url)
    await store.migrate()
    await store.close()
    return valkey.url


@pytest.fixture
async def store(url: str) -> AsyncIterator[RedisStore]:
    """An empty store with its schema."""
    store = RedisStore.from_url(url)
    yield store
    await store.close()


def payment(history: History, key: str = "k", effect: Any = "irreversible") -> EffectRow:
    """An effect on the thread's head."""
    assert history.head is not None
    at = history.head.ref
    entry = Effect(key=key, tool="pay", effect=effect, turn=1, step=at.step, index=0, checkpoint_id=at.id)
    seen = arguments_digest("pay", b"{}")
    return EffectRow(thread_id=history.thread_id, entry=entry, arguments=b"{}", arguments_digest=seen)


# ── the same as in memory ────────────────────────────────────────────────────────────────────────────────────────


async def _same(store: RedisStore, seed: int, deeds: int) -> None:
    memory = MemoryStore()
    twins: Any = Twins(memory, store)
    work = Deeds(twins, seed)
    await work.do(deeds)
    assert work.refused > deeds / 10
    assert len(await picture(twins)) > 3
    one, other = await verify(memory), await verify(store)
    assert one.problem is other.problem is None
    assert one.model_copy(update={"store": other.store}) == other
    assert (await memory.sizes())["rows"] == (await store.sizes())["rows"]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_it_does_what_the_store_in_memory_does(seed: int, store: RedisStore) -> None:
    """Hundreds of deeds of every kind, refused ones among them: the same answers, errors and rows, and all verifies."""
    await _same(store, seed, 300)


async def test_it_works_on_a_cluster() -> None:
    """The same on two servers that share the slots: no command names keys of two slots."""
    ports = free_port(), free_port(), free_port(), free_port()
    with _node(*ports[:2]) as one, _node(*ports[2:]) as other:
        one.ask("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        other.ask("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        one.ask("CLUSTER", "MEET", "127.0.0.1", ports[2], ports[3])
        await _until(lambda: all(b"cluster_state:ok" in _raw(node.ask("CLUSTER", "INFO")) for node in (one, other)))
        store = RedisStore.from_url(f"redis://127.0.0.1:{ports[0]}/?cluster=yes")
        await store.migrate()
        await _same(store, 4, 120)
        assert min(int(node.ask("DBSIZE")) for node in (one, other)) > 10
        assert "takes over" in " ".join(await store.cautions())
        await store.close()


def _node(port: int, bus: int) -> Any:
    return server(port=str(port), bind="127.0.0.1", cluster_enabled="yes", cluster_port=str(bus))


async def _until(holds: Callable[[], bool]) -> None:
    for _ in range(400):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


def _raw(answer: Any) -> bytes:
    if isinstance(answer, dict):
        return "\n".join(f"{name}:{value}" for name, value in answer.items()).encode()
    return answer if isinstance(answer, bytes) else str(answer).encode()


# ── a process that is killed ─────────────────────────────────────────────────────────────────────────────────────


async def _everything(store: RedisStore) -> Any:
    """Everything that can be read, but for the time."""
    names = [redis_deaths.ROOT, redis_deaths.MIDDLE, redis_deaths.NEXT, redis_deaths.FIRST]
    seen = plain(await picture(store))
    seen["results"] = plain([await store.result("s", name) for name in names])
    seen["found"] = plain(await store.find({"all": True}))
    assert (await verify(store)).problem is None
    return _timeless(seen)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in ("created_at", "updated_at")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(("deed", "commands"), [("commit", 4), ("fork", 6), ("remove", 4), ("delete", 4), ("copy", 8)])
async def test_who_is_killed_leaves_the_old_or_the_new(deed: str, commands: int, valkey: Server, url: str) -> None:
    """Killed before any of its commands, a commit has happened or it has not; done again, it has. Never a mixture.

    So it is with all that takes more than one command: forks, removals, copies.
    """
    run = [sys.executable, "-m", "tests.redis_deaths", url, deed]
    done = await asyncio.to_thread(subprocess.run, run, cwd=ROOT, timeout=120)
    assert done.returncode == 0
    count = sum(b"schema" in key for key in valkey.ask("KEYS", f"{deed}-*:schema"))
    stores = [RedisStore.from_url(f"{url}?prefix={deed}-{number}") for number in range(count)]
    seen = [await _everything(store) for store in stores]
    old, new = seen[0], seen[-1]
    happened = [state == new for state in seen]
    assert old != new and {old == state or new == state for state in seen} == {True}
    assert happened == sorted(happened) and count > commands
    for store, has_happened in zip(stores, happened, strict=True):
        if not has_happened:
            await redis_deaths.DEEDS[deed](store)
            assert await _everything(store) == new
        await store.close()


async def test_a_server_that_is_killed_loses_nothing_it_confirmed() -> None:
    """Where it writes its log before it answers. Meanwhile nobody notices more than a delay, and scripts come back."""
    with server(**LASTING) as own:
        store = RedisStore.from_url(own.url)
        await store.migrate()
        history, done = History(store), asyncio.Event()

        async def write() -> None:
            while not done.is_set():
                head = await history.commit({"list": {"op": "append", "items": [len(history.positions)]}})
                key = f"k{len(history.positions)}"
                assert await store.claim(payment(history, key), head=head.ref.id) is None

        writing = asyncio.create_task(write())
        for _ in range(4):
            await asyncio.sleep(random.uniform(0.1, 0.4))
            own.kill()
            await asyncio.to_thread(own.start, **LASTING)
        done.set()
        await writing
        own.kill()
        await asyncio.to_thread(own.start, **LASTING)
        assert [c.id async for c in store.walk(history.thread_id)] == [at.ref.id for at in history.positions]
        assert len(history.positions) > 20
        effects = await store.effects(history.thread_id)
        assert [row.entry.attempts for row in effects] == [1] * len(history.positions)
        assert (await verify(store)).problem is None
        await store.close()


async def test_a_server_that_keeps_nothing_says_so_and_loses_it() -> None:
    """What the caution says comes true."""
    with server() as own:
        store = RedisStore.from_url(own.url)
        await store.migrate()
        await History(store).commit({})
        assert await store.cautions() == [
            "The server writes nothing to disk (appendonly is no, no save): a restart loses everything."
        ]
        own.kill()
        await asyncio.to_thread(own.start)
        other = RedisStore.from_url(own.url)
        with pytest.raises(StoreOutdated, match="perdure db migrate"):
            await other.threads()
        await store.close()
        await other.close()


async def test_a_server_that_stays_away_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some patience; worth trying again."""
    monkeypatch.setattr(redis_server, "_RETRIES", 2)
    with server() as own:
        store = RedisStore.from_url(own.url)
        await store.migrate()
        own.kill()
        for asked in (store.threads(), History(store).commit({}), store.cautions(), store.sizes()):
            with pytest.raises(StoreUnreachable, match="doesn't answer") as refused:
                await asked
            assert refused.value.retry
        await store.close()


# ── an answer that is lost ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def proxy(valkey: Server, url: str) -> AsyncIterator[Proxy]:
    """In front of the server."""
    with tempfile.TemporaryDirectory(prefix="perdure-px-") as folder:
        async with Proxy(valkey.socket, Path(folder) / "s") as proxy:
            yield proxy


async def _warm(store: RedisStore, *scripts: str) -> None:
    """Have the server know scripts, so that what is lost is the answer of the script and not a NOSCRIPT."""
    for script in scripts:
        await store._server.ask("SCRIPT", "LOAD", redis_server._script(script).source)


async def test_a_claim_whose_answer_is_lost_is_still_the_first(proxy: Proxy) -> None:
    """It is sent again, and recognised: it neither counts as a second attempt nor hides one."""
    store = RedisStore.from_url(f"unix://{proxy.socket}")
    await _warm(store, "claim")
    history = History(store)
    head = (await history.commit({})).ref.id
    row = payment(history, effect="idempotent")
    for attempts in (1, 2, 3):
        proxy.lose(redis_server._script("claim").sha)
        before = await store.claim(row, head=head)
        assert (before.entry.attempts if before else 0) == attempts - 1
        after = await store.effect(history.thread_id, "k")
        assert after is not None and after.entry.attempts == attempts
    assert proxy.lost == 3
    await store.close()


async def test_a_commit_whose_answer_is_lost_is_recognised(proxy: Proxy) -> None:
    """Also that of a fork: its parent knows of it once, and is free when the fork is gone."""
    store = RedisStore.from_url(f"unix://{proxy.socket}")
    await _warm(store, "commit", "note")
    history, fork = History(store), History(store)
    for _ in range(2):
        proxy.lose(redis_server._script("commit").sha)
        await history.commit({"list": {"op": "append", "items": [1]}})
    for script in ("note", "commit"):
        proxy.lose(redis_server._script(script).sha)
        await fork.checkpointer.commit(history.head, fork.change({}))
        assert [row.thread_id for row in await store.forks(history.thread_id)] == [fork.thread_id]
        with pytest.raises(Conflict, match=fork.thread_id):
            await store.delete_thread(history.thread_id)
        await store.delete_thread(fork.thread_id)
    assert proxy.lost == 4
    assert (await verify(store)).problem is None
    await store.delete_thread(history.thread_id)
    assert await store.threads() == []
    await store.close()


async def test_a_copy_whose_answer_is_lost_is_there(proxy: Proxy) -> None:
    """It isn't taken for somebody else's."""
    store = RedisStore.from_url(f"unix://{proxy.socket}")
    await _warm(store, "adopt")
    history = History(store)
    await history.commit({})
    proxy.lose(redis_server._script("adopt").sha)
    await store.copy_thread(history.thread_id, "copy")
    assert proxy.lost == 1
    assert (await verify(store)).problem is None and len(await store.threads()) == 2
    await store.close()


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_one_of_many_commits_wins(url: str) -> None:
    """Twelve commits on one head through four stores: one is the head then, the others are told both versions."""
    stores = [RedisStore.from_url(url) for _ in range(4)]
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


async def test_one_of_many_claims_is_the_first(url: str) -> None:
    """Twelve attempts of one irreversible call through four stores: eleven learn that they are not the first."""
    stores = [RedisStore.from_url(url) for _ in range(4)]
    history = History(stores[0])
    head = (await history.commit({})).ref.id
    claims = [stores[n % 4].claim(payment(history), head=head) for n in range(12)]
    assert sum(before is None for before in await asyncio.gather(*claims)) == 1
    for store in stores:
        await store.close()


async def test_no_fork_loses_its_parent(url: str) -> None:
    """While forks begin and threads are deleted all at once, what is there always goes back to its root."""
    stores = [RedisStore.from_url(url) for _ in range(4)]
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
        patch.setattr("perdure.stores.redis.checkpoints.PATIENCE", -1)
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


# ── what the server may lose ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def configured(valkey: Server) -> Iterator[Callable[..., None]]:
    """Sets settings of the server, for one test."""
    before: dict[str, str] = {}

    def configure(**settings: str) -> None:
        for name, value in settings.items():
            setting = name.replace("_", "-")
            [*_, was] = valkey.ask("CONFIG", "GET", setting).items()
            before.setdefault(setting, was[1])
            valkey.ask("CONFIG", "SET", setting, value)

    yield configure
    for name, value in before.items():
        valkey.ask("CONFIG", "SET", name, value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"appendonly": "yes", "appendfsync": "always"}, []),
        ({"appendonly": "yes", "appendfsync": "everysec"}, ["appendfsync is everysec"]),
        ({"appendonly": "yes", "appendfsync": "no"}, ["appendfsync is no"]),
        ({"appendonly": "no", "save": "60 1"}, ["snapshots only"]),
        ({"appendonly": "no", "save": ""}, ["nothing to disk"]),
        (LASTING | {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, ["drops parts of threads"]),
        (LASTING | {"maxmemory": "100mb", "maxmemory_policy": "volatile-lru"}, ["drops cached results"]),
        (LASTING | {"maxmemory": "100mb", "maxmemory_policy": "noeviction"}, []),
        (LASTING | {"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, []),
    ],
)
async def test_a_configuration_says_what_it_may_lose(
    settings: dict[str, str], said: list[str], store: RedisStore, configured: Callable[..., None]
) -> None:
    """A sentence for each thing; nothing where a commit is safe once it returns."""
    configured(**settings)
    cautions = await store.cautions()
    assert len(cautions) == len(said)
    assert all(part in caution for part, caution in zip(said, cautions, strict=True))


async def test_what_a_server_keeps_to_itself_is_said_too(valkey: Server, url: str) -> None:
    """A user who may not read settings; the password is nobody's business."""
    valkey.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-config")
    store = RedisStore.from_url(valkey.url.replace("unix://", "unix://app:secret@"))
    assert [caution.startswith("The server doesn't tell its settings") for caution in await store.cautions()] == [True]
    assert store.url == valkey.url.replace("unix://", "unix://app:***@")
    stranger = RedisStore.from_url(valkey.url.replace("unix://", "unix://app:sesame@"))
    with pytest.raises(StoreUnreachable) as refused:
        await stranger.threads()
    assert "sesame" not in str(refused.value)
    await store.close()
    await stranger.close()


async def test_a_write_can_wait_for_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """``wait=1``: a commit that no replica has confirmed is no commit yet. Done again when one has, it is.

    And the cautions tell that replicas follow later.
    """
    monkeypatch.setattr(redis_server, "_SECONDS", 0.4)
    port = free_port()
    with server(**LASTING, port=str(port), bind="127.0.0.1", repl_diskless_sync_delay="0") as primary:
        store = RedisStore.from_url(f"{primary.url}?wait=1")
        with pytest.raises(StoreUnreachable, match="0 of 1 replicas"):
            await store.migrate()
        with server() as replica:
            replica.ask("REPLICAOF", "127.0.0.1", port)
            await _until(lambda: b"master_link_status:up" in _raw(replica.ask("INFO", "replication")))
            assert await store.missing_migrations() == await store.migrate() == []
            [caution] = await store.cautions()
            assert "takes over" in caution and "min-replicas-to-write is 0" in caution
            history = History(store)
            change = history.change({})
            await history.checkpointer.commit(None, change)
        other = RedisStore.from_url(f"{primary.url}?wait=1")
        for again in (store, store, other):  # it is there already, and still not confirmed
            with pytest.raises(StoreUnreachable, match="0 of 1 replicas"):
                await Checkpointer(again).commit(None, change)
        assert len(await other.threads()) == 1  # reading waits for nobody
        await store.close()
        await other.close()


async def test_a_replica_that_takes_over_is_waited_for() -> None:
    """Until it does, nothing can be written; whoever writes notices a delay."""
    port = free_port()
    with server(port=str(port), bind="127.0.0.1", repl_diskless_sync_delay="0"), server() as replica:
        replica.ask("REPLICAOF", "127.0.0.1", port)
        store = RedisStore.from_url(replica.url)
        assert (await store.cautions())[-1] == "The server is a replica: nothing can be written here."
        writing = asyncio.create_task(store.migrate())
        await asyncio.sleep(0.3)
        assert not writing.done()
        replica.ask("REPLICAOF", "NO", "ONE")
        assert await writing == ["0001_spine"]
        await store.close()


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


async def test_stores_share_a_server_under_their_prefixes(valkey: Server, url: str) -> None:
    """One neither sees nor counts what is the other's, even where a prefix begins like the other one."""
    one, other = RedisStore.from_url(f"{url}?prefix=a"), RedisStore.from_url(url, "a.b")
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


async def test_a_schema_from_the_future_is_refused(store: RedisStore, url: str) -> None:
    """Older code doesn't touch what newer code has migrated."""
    await store._server.ask("HSET", store._keys.schema, "9999_later", "now")
    other = RedisStore.from_url(url)
    for asked in (other.threads(), other.migrate(), other.missing_migrations(), History(other).commit({})):
        with pytest.raises(StoreOutdated, match="9999_later"):
            await asked
    await other.close()


async def test_every_error_is_one_of_ours(store: RedisStore, valkey: Server, configured: Callable[..., None]) -> None:
    """A server without memory left, and keys that hold something else."""
    history = History(store)
    await history.commit({})
    valkey.ask("SET", store._keys.part("other", "thread"), "no hash")
    with pytest.raises(PerdureError):
        await store.thread("other")
    configured(maxmemory="1")
    with pytest.raises(StoreUnreachable, match="maxmemory"):
        await history.commit({})
    configured(maxmemory="0")
    await history.commit({})
    assert len(history.positions) == 2
