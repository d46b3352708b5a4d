"""Checks of what is kept beside checkpoints: cached results, receipts, blobs."""

from datetime import UTC, datetime, timedelta

from perdure.approvals import stamp
from perdure.budget import Usage
from perdure.stores.base import CachedResult, Receipt, Store
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import Writer, checkpoint_id


def _in(seconds: float) -> str:
    return stamp(datetime.now(UTC) + timedelta(seconds=seconds))


class Results(Suite):
    """The cache of calls."""

    async def test_a_result_is_read_as_it_was_kept(self, store: Store) -> None:
        """One that names a checkpoint, and one that has a value, until it expires or for ever."""
        thread = Writer(store)
        await thread.commit()
        usage = Usage(calls=1, prompt=2, completion=3)
        kept = [
            CachedResult(scope="s", key="1", thread_id=thread.thread_id, checkpoint_id=thread.ids[0], usage=usage),
            CachedResult(scope="s", key="2", value=b'{"a":[1,"\xc3\xa9"]}', expires_at=_in(3_600)),
            CachedResult(scope="s", key="3", thread_id=thread.thread_id, value=b""),
            CachedResult(scope="s", key="4", value=b"x" * 1_000_000),
        ]
        for result in kept:
            await store.put_result(result)
        for result in kept:
            assert await store.result("s", result.key) == result

    async def test_scope_and_key_are_two_names(self, store: Store) -> None:
        """Neither is the other, nor do their letters run together."""
        names = [
            ("ab", "c"),
            ("a", "bc"),
            ("c", "ab"),
            ("", "abc"),
            ("abc", ""),
            ("AB", "c"),
            ("ab:", "c"),
            ("é\0", ""),
        ]
        for n, (scope, key) in enumerate(names):
            await store.put_result(CachedResult(scope=scope, key=key, value=b"%d" % n))
        for n, (scope, key) in enumerate(names):
            found = await store.result(scope, key)
            assert found is not None and (found.scope, found.key, found.value) == (scope, key, b"%d" % n)
        assert await store.result("ab", "d") is None

    async def test_an_expired_result_is_not_found(self, store: Store) -> None:
        """Its time is a moment, wherever the clock that it was written by stands."""
        elsewhere = datetime.now(UTC).astimezone().isoformat()
        for key, expires in (("past", _in(-1)), ("long past", _in(-90_000)), ("now", elsewhere)):
            await store.put_result(CachedResult(scope="s", key=key, value=b"1", expires_at=expires))
            assert await store.result("s", key) is None, key

    async def test_the_newest_result_takes_the_place(self, store: Store) -> None:
        """Of one that is there, that has expired, or that was kept for ever; nothing of the old one stays."""
        thread = Writer(store)
        await thread.commit()
        usage = Usage(calls=1, prompt=5)
        versions = [
            CachedResult(scope="s", key="k", value=b"1"),
            CachedResult(scope="s", key="k", value=b"2", expires_at=_in(3_600), usage=usage),
            CachedResult(scope="s", key="k", thread_id=thread.thread_id, checkpoint_id=thread.ids[0]),
            CachedResult(scope="s", key="k", value=b"3"),
        ]
        for result in versions:
            await store.put_result(result)
            assert await store.result("s", "k") == result
        await store.put_result(CachedResult(scope="s", key="k", value=b"4", expires_at=_in(-1)))
        assert await store.result("s", "k") is None
        await store.put_result(versions[0])
        assert await store.result("s", "k") == versions[0]


class Receipts(Suite):
    """What calls returned, between their end and the commit of their step."""

    async def test_receipts_are_read_by_key(self, store: Store) -> None:
        """Those that are there, of this thread, whatever their bytes and however many are asked for."""
        thread, other = Writer(store), Writer(store)
        await thread.commit()
        await other.commit()
        kept = {"a": b"", "b": b'"\xc3\xa9"', "c": b"x" * 1_000_000, "d": bytes(range(256))}
        for key, result in kept.items():
            await store.put_receipt(thread.thread_id, Receipt(key=key, result=result), head=thread.head.ref.id)
        assert await store.receipts(thread.thread_id, ["a", "c", "gone"]) == {"a": kept["a"], "c": kept["c"]}
        assert await store.receipts(thread.thread_id, [*kept, *map(str, range(2_000))]) == kept
        assert await store.receipts(thread.thread_id, []) == await store.receipts(other.thread_id, ["a"]) == {}

    async def test_the_first_receipt_of_a_key_stays(self, store: Store) -> None:
        """A call that is repeated under its key doesn't change what it returned; a commit that clears it does."""
        thread = Writer(store)
        await thread.commit()
        for result in (b"1", b"2"):
            await store.put_receipt(thread.thread_id, Receipt(key="k", result=result), head=thread.head.ref.id)
            assert await store.receipts(thread.thread_id, ["k"]) == {"k": b"1"}
        await thread.commit(clears=("k",))
        assert await store.receipts(thread.thread_id, ["k"]) == {}

    async def test_a_receipt_needs_no_head(self, store: Store) -> None:
        """Where none is given, it doesn't matter which one is there."""
        thread = Writer(store)
        await thread.commit()
        await thread.commit()
        await store.put_receipt(thread.thread_id, Receipt(key="k", result=b"1"))
        assert await store.receipts(thread.thread_id, ["k"]) == {"k": b"1"}

    async def test_receipts_are_listed_under_a_prefix(self, store: Store) -> None:
        """In the order of their keys; a prefix is taken letter by letter, whatever a database may read into it."""
        thread, other = Writer(store), Writer(store)
        keys = [
            "a", "a%", "a%b", "a*", "a*b", "a?b", "aXb", "a[x]b", "a\\", "a\\b", "a_b", "ab", "ab\U0010ffff", "A", "b",
            "é", "éa", "ü:1", "ü:10", "ü:2",
        ]  # fmt: skip
        for each in (thread, other):
            await each.commit()
            for key in reversed(keys):
                await store.put_receipt(each.thread_id, Receipt(key=key, result=key.encode()))
        for prefix in ["", "a", "a%", "a*", "a?", "a_", "a[", "a\\", "ab", "é", "ü:", "ü:1", "zz", "A"]:
            found = await store.receipts_under(thread.thread_id, prefix)
            wanted = {key: key.encode() for key in sorted(keys) if key.startswith(prefix)}
            assert (list(found), found) == (list(wanted), wanted), prefix


class Blobs(Suite):
    """Bytes by their digest."""

    async def test_blobs_are_kept_under_their_digest(self, store: Store) -> None:
        """The same bytes have the same digest, whoever keeps them and as what; others have another."""
        blobs = [b"", b"a", bytes(range(256)), "é".encode() * 600_000]
        digests = [await store.put_blob("kind", blob) for blob in blobs]
        before = (await store.sizes())["rows"]
        assert [await store.put_blob("other", blob) for blob in blobs] == digests
        assert [await store.blob(digest) for digest in digests] == blobs
        assert len(set(digests)) == len(blobs)
        assert (await store.sizes())["rows"] == before
        assert await store.blob(checkpoint_id()) is None
