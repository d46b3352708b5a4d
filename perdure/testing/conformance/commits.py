"""Checks of commits: what becomes true with one, what is recognised, what is refused."""

from perdure.checkpoint import Frontier, Task
from perdure.errors import CheckpointNotFound, ConcurrentModification
from perdure.stores.base import CachedResult, Receipt, Step, Store
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.picture import picture, refused
from perdure.testing.conformance.suite import Suite
from perdure.testing.conformance.writer import BULK, Writer, checkpoint_id, put


class Commits(Suite):
    """One commit after the other. Those that race are elsewhere."""

    async def test_the_first_commit_makes_the_thread(self, store: Store) -> None:
        """Its row says whose it is; the thread is its own lineage, on its first branch, open, and nobody's alone."""
        thread = Writer(store)
        at = await thread.commit(agent="desk", tenant="shop", turn=1, schema_version=3)
        row = await store.thread(thread.thread_id)
        assert row is not None
        seen = row.model_dump(exclude={"created_at", "updated_at"})
        assert seen == {
            "thread_id": thread.thread_id, "agent": "desk", "tenant": "shop", "lineage": thread.thread_id, "branch": 0,
            "turn": 1, "head_id": at.ref.id, "schema_version": 3, "closed": False, "origin_thread": "", "origin_id": "",
            "lease": "", "dry_run": False, "audited": 0, "audit_digest": "",
        }  # fmt: skip
        assert "" < row.created_at <= row.updated_at

    async def test_the_next_commit_moves_the_head(self, store: Store) -> None:
        """Head, turn and schema version are those of the latest checkpoint; whose thread it is, the first one said."""
        thread = Writer(store)
        await thread.commit(agent="desk", tenant="shop")
        before = await store.thread(thread.thread_id)
        at = await thread.commit(turn=2, schema_version=4)
        after = await store.thread(thread.thread_id)
        assert before is not None and after is not None
        moved = {"head_id": at.ref.id, "turn": 2, "schema_version": 4, "updated_at": after.updated_at}
        assert after == before.model_copy(update=moved)

    async def test_a_checkpoint_is_read_as_it_was_committed(self, store: Store) -> None:
        """Every field of it."""
        thread = Writer(store)
        await thread.commit()
        ahead = Frontier(tasks=(Task(node="a", arg={"n": [1, None]}), Task(node="a")), arrived={"join": ("b", "c")})
        await thread.commit(
            {**put(1), "text": {"op": "append", "items": ["é", None, {"a": 1.5}]}}, source="update", nodes=("x", "y"),
            turn=7, schema_version=2, next=ahead, metadata={"note": {"deep": [True]}}, facts={"who": "me"},
        )  # fmt: skip
        for written in thread.checkpoints:
            assert await store.checkpoint(thread.thread_id, written.id) == written

    async def test_what_a_commit_brings_becomes_true_with_it(self, store: Store) -> None:
        """A snapshot, a cached result, the receipt of an effect; and the parts that it merged are cleared."""
        thread = Writer(store)
        at = await thread.commit(put(BULK))
        await store.claim(effect_row(thread, "paid"), head=at.ref.id)
        for key in ("part", "other"):
            await store.put_receipt(thread.thread_id, Receipt(key=key, result=b"1"), head=at.ref.id)
        place = checkpoint_id()
        kept = CachedResult(scope="s", key="k", thread_id=thread.thread_id, checkpoint_id=place)
        await thread.commit(
            put(""), checkpoint_id=place, result=kept, receipt=Receipt(key="paid", result=b"2"), clears=("part", "gone")
        )
        effect = await store.effect(thread.thread_id, "paid")
        assert effect is not None
        assert (effect.entry.status, effect.receipt) == ("done", b"2")
        assert await store.snapshots(thread.thread_id) == [thread.drafts[1].step.snapshot]
        assert await store.result("s", "k") == kept
        assert await store.receipts_under(thread.thread_id, "") == {"other": b"1"}

    async def test_a_commit_done_again_changes_nothing(self, store: Store) -> None:
        """The same checkpoint is recognised at once and much later, whatever comes with it."""
        thread = Writer(store)
        await thread.commit()
        await thread.commit(put(1))
        await store.claim(effect_row(thread, "paid"), head=thread.head.ref.id)
        kept = CachedResult(scope="s", key="k", thread_id=thread.thread_id, checkpoint_id=thread.ids[1])
        again = thread.drafts[1].step.model_copy(
            update={"result": kept, "receipt": Receipt(key="paid", result=b"2"), "clears": ("part",)}
        )
        await store.put_receipt(thread.thread_id, Receipt(key="part", result=b"1"))
        for _ in range(2):
            before = await picture(store, [("s", "k")])
            assert await store.commit(thread.drafts[0].step) is False
            assert await store.commit(again) is False
            assert await picture(store, [("s", "k")]) == before
            await thread.grow(1)

    async def test_a_commit_on_an_old_head_is_refused(self, store: Store) -> None:
        """The error names the head that was extended and the one that is there; nothing that came along is kept."""
        thread = Writer(store)
        old = await thread.commit(put(BULK))
        late = await self._laden(thread)
        await store.claim(effect_row(thread, "paid"), head=old.ref.id)
        await store.put_receipt(thread.thread_id, Receipt(key="part", result=b"1"), head=old.ref.id)
        new = await thread.commit(put(1))
        assert late.result is not None
        async with refused(store, ConcurrentModification, results=[late.result]) as refusal:
            await store.commit(late)
        _names(refusal.value, old.ref.id, new.ref.id)

    async def test_other_content_under_the_same_id_is_refused(self, store: Store) -> None:
        """Whether the checkpoint is the head, or lies behind it."""
        thread = Writer(store)
        first = await thread.commit()
        await thread.commit(put(1))
        other = await thread.draft(put(2), on=first, checkpoint_id=thread.head.ref.id)
        for _ in range(2):
            async with refused(store, ConcurrentModification) as refusal:
                await store.commit(other.step)
            _names(refusal.value, first.ref.id, thread.head.ref.id)
            await thread.grow(1)

    async def test_a_thread_begins_once(self, store: Store) -> None:
        """Another first checkpoint for a thread that is there is refused."""
        thread = Writer(store)
        at = await thread.commit(put(1))
        rival = await Writer(store, thread.thread_id).draft(put(2))
        async with refused(store, ConcurrentModification) as refusal:
            await store.commit(rival.step)
        _names(refusal.value, "", at.ref.id)

    async def test_a_commit_on_a_thread_that_isnt_there_is_refused(self, store: Store) -> None:
        """It extends a head, and there is none."""
        elsewhere = Writer(store)
        await elsewhere.commit()
        draft = await Writer(store, "nobody").draft(put(1))
        at = elsewhere.head.ref.id
        checkpoint = draft.step.checkpoint.model_copy(update={"parent_id": at, "step": 1})
        async with refused(store, ConcurrentModification) as refusal:
            await store.commit(draft.step.model_copy(update={"checkpoint": checkpoint, "extends": at}))
        _names(refusal.value, at, "")
        assert await store.thread("nobody") is None

    async def test_a_commit_without_its_parent_is_refused(self, store: Store) -> None:
        """The parent may be missing from the thread itself, or from the one that it is forked from."""
        thread, nowhere = Writer(store), Writer(store)
        await thread.grow(2)
        lost = (await thread.draft(put(1))).position
        orphans = [await thread.draft(on=lost, replaces=thread.head.ref.id, branch=1, source="rewind")]
        orphans += [await Writer(store, "fork", origin=lost).draft(source="fork")]
        stranger = (await nowhere.draft(put(1))).position
        orphans += [await Writer(store, "fork", origin=stranger).draft(source="fork")]
        for orphan in orphans:
            async with refused(store, CheckpointNotFound) as refusal:
                await store.commit(orphan.step)
            assert str(orphan.step.checkpoint.parent_id) in str(refusal.value)
        assert await store.thread("fork") is None

    async def test_threads_dont_share_checkpoints(self, store: Store) -> None:
        """Two threads may have a checkpoint of the same id, each its own."""
        one, two = Writer(store), Writer(store)
        for thread, value in ((one, 1), (two, 2)):
            await thread.commit(put(value), checkpoint_id="the-same", metadata={"value": value})
        for thread in (one, two):
            assert await store.checkpoint(thread.thread_id, "the-same") == thread.checkpoints[0]

    async def _laden(self, thread: Writer) -> Step:
        """A step that brings everything that a step can bring."""
        place = checkpoint_id()
        kept = CachedResult(scope="s", key="late", thread_id=thread.thread_id, checkpoint_id=place)
        draft = await thread.draft(
            put(""), checkpoint_id=place, result=kept, receipt=Receipt(key="paid", result=b"2"), clears=("part",),
            metadata={"late": True},
        )  # fmt: skip
        assert draft.step.snapshot is not None
        return draft.step


def _names(error: BaseException, expected: str, actual: str) -> None:
    """The error names both versions, to programs and to people."""
    assert isinstance(error, ConcurrentModification)
    assert (error.expected, error.actual) == (expected, actual)
    assert expected in str(error) and actual in str(error)
