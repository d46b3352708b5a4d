"""Random work on a store and on the one in memory, side by side: both must say the same to everything."""

from collections.abc import Awaitable, Callable
from itertools import product
from random import Random
from typing import Any

from perdure.care.prune import Rule, prune
from perdure.care.verify import verify
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Checkpointer, Position
from perdure.effects import EffectStatus
from perdure.errors import ConcurrentModification, PerdureError
from perdure.stores.base import CachedResult, Receipt, Store
from perdure.stores.memory import MemoryStore
from perdure.testing.conformance.audits import audit_entries
from perdure.testing.conformance.ledger import effect_row
from perdure.testing.conformance.picture import thread_picture
from perdure.testing.conformance.writer import BULK, Draft, Writer, add, checkpoint_id, put

NAMES = [f"thread-{n}" for n in range(4)]
KEYS = ["a", "b", "c"]
TOLD: list[EffectStatus] = ["in_doubt", "done", "failed", "undone", "needs_attention"]
TIMES = {"created_at", "updated_at", "started_at", "finished_at", "undone_at"}


class Work:
    """What is done, by chance, to threads of two stores. ``drafts`` are all steps that were ever committed."""

    def __init__(self, store: Store, chance: Random) -> None:
        self._stores = (MemoryStore(), store)
        self._chance = chance
        self.drafts: list[Draft] = []
        self.done: dict[str, int] = {}

    async def run(self, steps: int) -> None:
        """So many pieces of work. Raises AssertionError as soon as the stores disagree."""
        kinds = {
            self._commit: 8, self._commit_again: 2, self._commit_late: 2, self._fork: 3, self._rewind: 3,
            self._prune: 2, self._ledger: 4, self._receipt: 3, self._audit: 2, self._result: 2, self._close: 1,
            self._lease: 1, self._copy: 1, self._delete: 1,
        }  # fmt: skip
        for _ in range(steps):
            (piece,) = self._chance.choices(list(kinds), list(kinds.values()))
            await piece()
        await self._compare()

    async def _both(self, what: str, work: Callable[[Store], Awaitable[Any]]) -> bool:
        """Do the same to both; whether it succeeded."""
        one, two = [await _outcome(work(store)) for store in self._stores]
        assert one == two, what
        refused = isinstance(one, tuple)
        name = f"{what} refused" if refused else what
        self.done[name] = self.done.get(name, 0) + 1
        return not refused

    async def _send(self, what: str, draft: Draft) -> None:
        if await self._both(what, lambda store: store.commit(draft.step)):
            self.drafts.append(draft)

    def _thread(self) -> str:
        return self._chance.choice(NAMES)

    def _anywhere(self) -> Position | None:
        return self._chance.choice(self.drafts).position if self.drafts else None

    async def _head(self, name: str) -> Position | None:
        row = await self._stores[0].thread(name)
        return await Checkpointer(self._stores[0]).load(name, row.head_id) if row else None

    async def _draft(self, name: str, on: Position | None, **fields: Any) -> Draft:
        n = self._chance.randrange(100)
        delta = self._chance.choice([put(n), put(BULK), put(""), add(n), {}])
        noted = {"metadata": {"mark": n % 3}} if n % 2 else {}
        usual: dict[str, Any] = {"turn": n % 7, "checkpoint_id": checkpoint_id(), **noted}
        return await Writer(self._stores[0], name).draft(delta, on=on, **(usual | fields))

    # ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────

    async def _commit(self) -> None:
        name, place = self._thread(), checkpoint_id()
        kept = CachedResult(scope=name, key=self._chance.choice(KEYS), thread_id=name, checkpoint_id=place)
        receipt = Receipt(key=self._chance.choice(KEYS), result=b"committed")
        more = {"result": kept, "receipt": receipt, "clears": ("a",)} if self._chance.random() < 0.3 else {}
        await self._send("commit", await self._draft(name, await self._head(name), checkpoint_id=place, **more))

    async def _commit_again(self) -> None:
        if self.drafts:
            step = self._chance.choice(self.drafts).step
            await self._both("commit again", lambda store: store.commit(step))

    async def _commit_late(self) -> None:
        if on := self._anywhere():
            await self._send("commit anywhere", await self._draft(on.thread_id, on))

    async def _fork(self) -> None:
        if on := self._anywhere():
            name = self._thread()
            if name != on.thread_id:
                await self._send("fork", await self._draft(name, on, source="fork", lineage="all"))

    async def _rewind(self) -> None:
        name = self._thread()
        row, to = await self._stores[0].thread(name), self._anywhere()
        if row and to and to.thread_id == name:
            fields = {"source": "rewind", "replaces": row.head_id, "branch": row.branch + 1}
            await self._send("rewind", await self._draft(name, to, **fields))

    async def _prune(self) -> None:
        name, keep = self._thread(), self._chance.randrange(1, 6)
        rule = Rule(branches=True) if keep == 5 else Rule(keep=keep)
        await self._both("prune", lambda store: prune(store, name, rule))

    # ── what belongs to them ─────────────────────────────────────────────────────────────────────────────────────

    async def _ledger(self) -> None:
        name, key, told = self._thread(), self._chance.choice(KEYS), self._chance.choice(TOLD)
        on = await self._head(name) or self._anywhere()
        if on is None:
            return
        kind = self._chance.choice(["idempotent", "irreversible", "compensable"])
        tokens = tuple(self._chance.sample(KEYS, k=self._chance.choice([0, 0, 1, 2])))
        row = effect_row(Writer(self._stores[0], name), key, on=on, effect=kind, tokens=tokens)
        answered = row.model_copy(update={"receipt": b"simulated", "tokens": ()})
        head = self._chance.choice([on.ref.id, on.parent_id or "nowhere"]) if self._chance.random() < 0.2 else on.ref.id
        works: list[tuple[str, Callable[[Store], Awaitable[Any]]]] = [
            ("claim", lambda store: store.claim(row, head=head)),
            ("claim", lambda store: store.claim(row, head=head)),
            ("finish", lambda store: store.finish(name, Receipt(key=key, result=b"finished"), head=head)),
            ("finish late", lambda store: store.finish(name, Receipt(key=key, result=b"late"))),
            ("simulate", lambda store: store.record_simulated(answered, head=head)),
            ("join", lambda store: store.join_saga(name, key, told)),
            ("fail", lambda store: store.fail(name, key, "no")),
            ("settle", lambda store: store.settle(name, key, told, error="why", by="me")),
        ]
        await self._both(*self._chance.choice(works))

    async def _receipt(self) -> None:
        name, result = self._thread(), b"%d" % self._chance.randrange(100)
        head = await self._head(name)
        if head is not None:
            key = self._chance.choice([*KEYS, f"{head.ref.id}:part"])
            await self._both("receipt", lambda store: store.put_receipt(name, Receipt(key=key, result=result)))

    async def _audit(self) -> None:
        name, first = self._thread(), self._chance.randrange(9)
        lines = audit_entries(first + self._chance.randrange(3))[first:]
        await self._both("audit", lambda store: store.append_audit(name, lines))

    async def _result(self) -> None:
        past = self._chance.random() < 0.2
        result = CachedResult(
            scope="s", key=self._chance.choice(KEYS), value=b"%d" % self._chance.randrange(100),
            expires_at="2020-01-01T00:00:00+00:00" if past else "",
        )  # fmt: skip
        await self._both("result", lambda store: store.put_result(result))

    # ── threads ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _close(self) -> None:
        name = self._thread()
        await self._both("close", lambda store: store.close_thread(name))

    async def _lease(self) -> None:
        name, lease = self._thread(), str(self._chance.randrange(9))
        await self._both("lease", lambda store: store.set_lease(name, lease))

    async def _copy(self) -> None:
        source, target = self._thread(), self._thread()
        await self._both("copy", lambda store: store.copy_thread(source, target))

    async def _delete(self) -> None:
        name = self._thread()
        await self._both("delete", lambda store: store.delete_thread(name))

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def _compare(self) -> None:
        """Whatever can be read is the same in both, and both are whole."""
        one, two = self._stores
        for name in NAMES:
            assert await _seen(two, name) == await _seen(one, name), name
        assert _timeless(await two.open_effects()) == _timeless(await one.open_effects())
        for scope, key in product(["s", *NAMES], KEYS):
            assert await two.result(scope, key) == await one.result(scope, key), (scope, key)
        for metadata in ({"mark": 1}, {"mark": 2}, {}):
            found = [await store.find(metadata, limit=1_000) for store in (two, one)]
            assert _in_order(found[0]) == _in_order(found[1]), metadata
        for store in self._stores:
            assert (await verify(store)).problem is None


async def _seen(store: Store, thread_id: str) -> Any:
    """All that is one thread's; of snapshots on the same step in two branches either may come first."""
    seen = await thread_picture(store, thread_id)
    seen["snapshots"].sort(key=lambda snapshot: snapshot.checkpoint_id)
    return _timeless(seen)


def _in_order(found: list[Checkpoint]) -> list[Checkpoint]:
    """Copies are of the same time and the same id: either may come first."""
    return sorted(found, key=lambda c: (c.id, c.thread_id))


async def _outcome(work: Awaitable[Any]) -> Any:
    """What came of it, without what the clock says; of a refusal its kind and both versions."""
    try:
        return _timeless(await work)
    except ConcurrentModification as error:
        return (type(error), error.expected, error.actual)
    except PerdureError as error:
        return (type(error), "", "")


def _timeless(value: Any) -> Any:
    """Plain data without the times at which a store has written."""
    if hasattr(value, "model_dump"):
        return _timeless(value.model_dump())
    if isinstance(value, dict):
        own = {"created_at"} if "checkpoint_id" not in value and "digest" in value else set()  # a checkpoint's own
        return {name: _timeless(item) for name, item in value.items() if name not in TIMES - own}
    return [_timeless(item) for item in value] if isinstance(value, list | tuple) else value
