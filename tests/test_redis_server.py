"""The store on Redis and its server: what a configuration may lose, replicas, a cluster, and errors as ours."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from perdure.checkpointer import Checkpointer
from perdure.errors import (
    PerdureError,
    StoreUnreachable,
)
from perdure.stores.redis import server as redis_server
from perdure.stores.redis_store import RedisStore
from tests.deeds import same_deeds
from tests.threads import History
from tests.valkey import Server, free_port, server

LASTING = {"appendonly": "yes", "appendfsync": "always"}


@pytest.fixture
async def store(valkey_url: str) -> AsyncIterator[RedisStore]:
    """An empty store with its schema."""
    store = RedisStore.from_url(valkey_url)
    yield store
    await store.close()


# ── what it may lose ─────────────────────────────────────────────────────────────────────────────────────


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


async def test_what_a_server_keeps_to_itself_is_said_too(valkey: Server, valkey_url: str) -> None:
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


# ── a cluster, and errors ────────────────────────────────────────────────────────────────────────────────────────


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
        await same_deeds(store, 5, 150)
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
