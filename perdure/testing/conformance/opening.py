"""Checks of opening: the schema, what a second store sees, what is said about the database."""

import asyncio

from perdure.care.verify import verify
from perdure.stores.base import CachedResult, Receipt, Store
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.picture import picture
from perdure.testing.conformance.suite import MakeStore, Suite
from perdure.testing.conformance.writer import Writer, put


class Opening(Suite):
    """Schema, opening again, cautions, sizes."""

    async def test_migrations_run_once(self, another_bare: MakeStore) -> None:
        """What is missing is what runs, in its order; then nothing is missing, for whoever opens the database."""
        store = another_bare()
        missing = await store.missing_migrations()
        assert await store.migrate() == missing
        for opened in (store, another_bare()):
            assert await opened.missing_migrations() == await opened.migrate() == []

    async def test_workers_that_migrate_at_once_do_it_once(self, another_bare: MakeStore) -> None:
        """Several workers start on an empty database: each migration is run by one of them, and none fails."""
        stores = [another_bare() for _ in range(4)]
        missing = await stores[0].missing_migrations()
        ran = await asyncio.gather(*(store.migrate() for store in stores))
        assert sorted(name for names in ran for name in names) == sorted(missing)
        assert await stores[0].missing_migrations() == []
        await Writer(stores[-1]).grow(1)

    async def test_partitions_change_nothing_that_is_read(self, another_bare: MakeStore) -> None:
        """A store that spreads its tables, or can't, holds threads like any other."""
        store = another_bare()
        await store.migrate(partitions=3)
        assert await another_bare().missing_migrations() == []
        threads = [Writer(store) for _ in range(5)]
        for thread in threads:
            await thread.grow(2)
            await thread.take_snapshot()
            fork = await thread.fork(thread.positions[1])
            assert [c.id for c in await store.path(fork.thread_id, fork.head.ref.id, limit=9)] == [
                fork.head.ref.id, *reversed(thread.ids[:2])
            ]  # fmt: skip
            assert [c async for c in store.walk(thread.thread_id)] == thread.checkpoints
        report = await verify(store)
        assert (report.problem, report.threads, report.checkpoints) == (None, 10, 25)

    async def test_opened_again_shows_the_same(self, store: Store, another: MakeStore) -> None:
        """What one store wrote, another one reads to the letter, also when the first is closed."""
        thread = Writer(store)
        await thread.grow(2)
        kept = CachedResult(scope="s", key="k", thread_id=thread.thread_id, checkpoint_id=thread.head.ref.id)
        await thread.commit(put("é\0"), metadata={"note": [1]}, facts={"by": "me"}, result=kept, agent="a", tenant="t")
        await thread.take_snapshot()
        await thread.fork(thread.positions[1])
        await thread.rewind(thread.positions[2], branch=1)
        await store.claim(effect_row(thread), head=thread.head.ref.id)
        await store.put_receipt(thread.thread_id, Receipt(key="r", result=b"1"))
        await store.set_lease(thread.thread_id, "{}")
        digest = await store.put_blob("kind", b"bytes")
        requests = [("s", "k")]
        seen, other = await picture(store, requests), another()
        assert await picture(other, requests) == seen
        await other.close()
        fresh = another()
        assert await picture(fresh, requests) == seen
        assert await fresh.blob(digest) == b"bytes"

    async def test_a_closed_store_leaves_others_alone(self, store: Store, another: MakeStore) -> None:
        """Each store has connections of its own, and may be closed twice."""
        other = another()
        thread = Writer(other)
        await thread.grow(1)
        await other.close()
        await other.close()
        assert await store.checkpoint(thread.thread_id, thread.ids[0]) == thread.checkpoints[0]

    async def test_cautions_are_sentences(self, store: Store) -> None:
        """They are shown to people as they are: whole sentences, none twice."""
        cautions = await store.cautions()
        assert all(caution[0].isupper() and caution.endswith(".") for caution in cautions)
        assert len(set(cautions)) == len(cautions)

    async def test_the_url_says_where(self, store: Store) -> None:
        """It stands in errors, reports and logs."""
        kind, mark, _ = store.url.partition("://")
        assert (kind.isidentifier(), mark) == (True, "://")

    async def test_sizes_count_what_is_there(self, store: Store) -> None:
        """By table; threads and checkpoints are among them, and the bytes are those of a database that isn't empty."""
        before = (await store.sizes())["rows"]
        thread = Writer(store)
        await thread.grow(3)
        await thread.fork(thread.head)
        sizes = await store.sizes()
        grown = {name: count - before.get(name, 0) for name, count in sizes["rows"].items()}
        assert (grown["threads"], grown["checkpoints"]) == (2, 4)
        assert isinstance(sizes["bytes"], int) and sizes["bytes"] > 0
        await store.delete_thread((await store.forks(thread.thread_id))[0].thread_id)
        await store.delete_thread(thread.thread_id)
        assert (await store.sizes())["rows"] == before
