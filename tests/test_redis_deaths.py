"""The store on Redis, when somebody dies in the middle: who writes, the server, or the answer on its way."""

import asyncio
import random
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from perdure.audit import AuditEntry
from perdure.care.verify import verify
from perdure.errors import Conflict, StoreOutdated, StoreUnreachable, TokenSpent
from perdure.stores.base import Receipt
from perdure.stores.redis import server as redis_server
from perdure.stores.redis_store import RedisStore
from tests import redis_deaths
from tests.deeds import payment
from tests.proxy import Proxy
from tests.threads import History
from tests.twins import picture, plain
from tests.valkey import Server, server

ROOT = Path(__file__).parents[1]
LASTING = {"appendonly": "yes", "appendfsync": "always"}


# ── a process that is killed ─────────────────────────────────────────────────────────────────────────────────────


async def _everything(store: RedisStore) -> Any:
    """Everything that can be read, but for the time."""
    names = [redis_deaths.ROOT, redis_deaths.MIDDLE, redis_deaths.NEXT, redis_deaths.FIRST]
    seen = plain(await picture(store))
    seen["results"] = plain([await store.result("s", name) for name in names])
    seen["found"] = plain(await store.find({"all": True}))
    seen["open"] = plain(await store.open_effects())
    assert (await verify(store)).problem is None
    return _timeless(seen)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(item) for name, item in value.items() if name not in ("created_at", "updated_at")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


async def _killed(deed: str, valkey: Server, url: str) -> list[RedisStore]:
    """A store for each command before which a process was killed that did this, and one in which it is done."""
    run = [sys.executable, "-m", "tests.redis_deaths", url, deed]
    done = await asyncio.to_thread(subprocess.run, run, cwd=ROOT, timeout=120)
    assert done.returncode == 0
    count = sum(b"schema" in key for key in valkey.ask("KEYS", f"{deed}-*:schema"))
    return [RedisStore.from_url(f"{url}?prefix={deed}-{number}") for number in range(count)]


@pytest.mark.parametrize(
    ("deed", "commands"),
    [("commit", 4), ("fork", 6), ("remove", 4), ("delete", 4), ("copy", 8), ("audit", 2), ("doubt", 4)],
)
async def test_who_is_killed_leaves_the_old_or_the_new(
    deed: str, commands: int, valkey: Server, valkey_url: str
) -> None:
    """Killed before any of its commands, a commit has happened or it has not; done again, it has. Never a mixture.

    So it is with all that takes more than one command: forks, removals, copies, the audit, an effect in doubt.
    """
    stores = await _killed(deed, valkey, valkey_url)
    seen = [await _everything(store) for store in stores]
    old, new = seen[0], seen[-1]
    happened = [state == new for state in seen]
    assert old != new and {old == state or new == state for state in seen} == {True}
    assert happened == sorted(happened) and len(stores) > commands
    for store, has_happened in zip(stores, happened, strict=True):
        if not has_happened:
            await redis_deaths.DEEDS[deed](store)
            assert await _everything(store) == new
        await store.close()


async def test_a_claim_that_dies_with_a_token_is_made_again(valkey: Server, valkey_url: str) -> None:
    """Killed before any of its commands, and made again: it holds its tokens, and is the first attempt of its call.

    Before that the tokens may be used already, but no other call runs with them that has not failed.
    """
    stores = await _killed("claim", valkey, valkey_url)
    assert len(stores) > 8
    for store in stores:
        entries = [row.entry for row in await store.effects(redis_deaths.THREAD)]
        assert [(entry.key, entry.attempts) for entry in entries] in ([("effect", 1)], [("effect", 1), ("other", 1)])
        await redis_deaths.claim(store)
        other = await store.effect(redis_deaths.THREAD, "other")
        assert other is not None and (other.entry.status, other.entry.attempts <= 2) == ("attempted", True)
        for token in ("a", "b"):
            with pytest.raises(TokenSpent):
                await store.claim(redis_deaths.call("third", tokens=(token,)), head=redis_deaths.MIDDLE)
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
async def proxy(valkey: Server, valkey_url: str) -> AsyncIterator[Proxy]:
    """In front of the server."""
    with tempfile.TemporaryDirectory(prefix="perdure-px-") as folder:
        async with Proxy(valkey.socket, Path(folder) / "s") as proxy:
            yield proxy


async def _warm(store: RedisStore, *scripts: str) -> None:
    """Have the server know scripts, so that what is lost is the answer of the script and not a NOSCRIPT."""
    for script in scripts:
        await store._server.ask("SCRIPT", "LOAD", redis_server._script(script).source)


async def test_a_claim_whose_answer_is_lost_is_still_the_first(proxy: Proxy) -> None:
    """It is sent again, and recognised: it neither counts as a second attempt nor hides one. So are its tokens."""
    store = RedisStore.from_url(f"unix://{proxy.socket}")
    await _warm(store, "entry", "swap")
    history = History(store)
    head = (await history.commit({})).ref.id
    row = payment(history, effect="idempotent").model_copy(update={"tokens": ("a", "b")})
    for attempts, script in enumerate(("entry", "swap", "entry", "swap"), start=1):
        proxy.lose(redis_server._script(script).sha)
        before = await store.claim(row, head=head)
        assert (before.entry.attempts if before else 0) == attempts - 1
        after = await store.effect(history.thread_id, "k")
        assert after is not None and after.entry.attempts == attempts
    assert proxy.lost == 4
    await store.close()


async def test_a_change_whose_answer_is_lost_is_made_once(proxy: Proxy) -> None:
    """A receipt, a settlement, a line of the audit: each is there once, and nobody is refused."""
    store = RedisStore.from_url(f"unix://{proxy.socket}")
    await _warm(store, "entry", "audit")
    history = History(store)
    head = (await history.commit({})).ref.id
    assert await store.claim(payment(history), head=head) is None
    lines = [AuditEntry(id=str(n), at="2024-05-06T07:08:09.000+00:00", kind="effect.settled") for n in range(3)]
    proxy.lose(redis_server._script("entry").sha)
    await store.put_receipt(history.thread_id, Receipt(key="k", result=b"1"), head=head)
    proxy.lose(redis_server._script("entry").sha)
    await store.settle(history.thread_id, "k", "needs_attention", error="why", by="me")
    proxy.lose(redis_server._script("audit").sha)
    end = await store.append_audit(history.thread_id, lines)
    assert proxy.lost == 3
    [row] = await store.open_effects()
    assert (row.entry.attempts, row.entry.status, row.receipt) == (1, "needs_attention", b"1")
    assert (end.number, len(await store.audit(history.thread_id))) == (3, 3)
    assert (await verify(store)).problem is None
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
