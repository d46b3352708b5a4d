"""Random deeds on a store: what an engine, a bridge and an operator may do to it, in any order."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from perdure.audit import AuditEntry
from perdure.budget import Usage
from perdure.canonical import Json, canonical
from perdure.care.verify import verify
from perdure.checkpoint import new_id
from perdure.checkpointer import Change, Checkpointer, snapshot_digest
from perdure.delta import Delta
from perdure.effects import Effect, EffectClass, EffectStatus, arguments_digest
from perdure.errors import PerdureError
from perdure.stores import Store
from perdure.stores.base import CachedResult, EffectRow, Receipt, Snapshot, Step, ThreadRow
from perdure.stores.memory import MemoryStore
from tests.threads import History, noise
from tests.twins import Twins, picture

_THREADS = [f"t{number}" for number in range(6)] + ["ünï:code}x"]
_CLASSES: list[EffectClass] = ["read", "idempotent", "compensable", "irreversible"]
_STATUSES: list[EffectStatus] = ["done", "failed", "in_doubt", "undone", "needs_attention"]


class Deeds:
    """One deed after the other, by chance; what a store refuses is part of the game."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.refused = 0
        self._checkpointer = Checkpointer(store)
        self._random = random.Random(seed)
        self._time = seed
        self._deeds: list[Callable[[], Awaitable[Any]]] = [
            *[self.go_on] * 8, *[self.begin] * 2, self.fork, self.rewind, self.stale, *[self.claim] * 2,
            *[self.record] * 2, *[self.judge] * 2, self.simulate, self.write_down, self.keep_result, self.ask_result,
            self.prune, self.drop, self.delete, self.copy, self.lease, self.put_back, self.look,
        ]  # fmt: skip

    async def do(self, times: int) -> None:
        """So many deeds."""
        for _ in range(times):
            try:
                await self._random.choice(self._deeds)()
            except PerdureError:
                self.refused += 1

    # ── commits ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """A new thread, or one that is there."""
        await self._checkpointer.commit(None, self._change(self._name()), agent="a", tenant="b")

    async def go_on(self) -> None:
        """The next step of a thread, with whatever a step may bring."""
        row = await self._row()
        head = await self._checkpointer.load(row.thread_id, row.head_id)
        change = self._change(row.thread_id)
        result = CachedResult(
            scope="s",
            key=change.checkpoint_id[-4:],
            thread_id=row.thread_id,
            checkpoint_id=change.checkpoint_id,
            usage=Usage(calls=1),
        )
        receipt = Receipt(key=self._key(), result=noise(20).encode())
        await self._checkpointer.commit(
            head, change, result=self._random.choice([None, result]), receipt=self._random.choice([None, receipt]),
            clears=tuple(self._random.choices(["k1", "k2", "k3"], k=2)),
        )  # fmt: skip

    async def stale(self) -> None:
        """A commit on some checkpoint as if it were the head; sometimes one that is there already."""
        row = await self._row()
        parent, again = await self._some(row), await self._some(row)
        position = await self._checkpointer.load(row.thread_id, parent)
        change = self._change(row.thread_id)
        if self._random.random() < 0.5:
            change = replace(change, checkpoint_id=again)
        await self._checkpointer.commit(position, change)

    async def fork(self) -> None:
        """A thread that begins at some checkpoint of another."""
        row = await self._row()
        parent = await self._checkpointer.load(row.thread_id, await self._some(row))
        await self._checkpointer.commit(parent, self._change(self._name(), "fork"), lineage=row.lineage)

    async def rewind(self) -> None:
        """A new branch from some checkpoint back on the way."""
        row = await self._row()
        path = await self.store.path(row.thread_id, row.head_id, limit=10)
        target = await self._checkpointer.load(row.thread_id, self._random.choice(path).id)
        change = self._change(row.thread_id, "rewind")
        await self._checkpointer.commit(target, change, replaces=row.head_id, branch=row.branch + 1)

    # ── the ledger ───────────────────────────────────────────────────────────────────────────────────────────────

    async def claim(self) -> None:
        """An attempt of a call, mostly on the head; some need one-time tokens."""
        row = await self._row()
        head = row.head_id if self._random.random() < 0.8 else "elsewhere"
        tokens = tuple(self._random.sample(["a", "b", "ü"], k=self._random.choice([0, 0, 1, 2])))
        await self.store.claim((await self._call(row)).model_copy(update={"tokens": tokens}), head=head)

    async def simulate(self) -> None:
        """A call of a dry run."""
        row = await self._row()
        call = (await self._call(row)).model_copy(update={"receipt": noise(300).encode()})
        await self.store.record_simulated(call, head=self._random.choice([row.head_id, row.head_id, "elsewhere"]))

    async def _call(self, row: ThreadRow) -> EffectRow:
        key = self._key()
        step = (await self._checkpointer.load(row.thread_id, row.head_id)).ref.step
        entry = Effect(
            key=key, tool="pay", effect=_CLASSES[int(key[1:]) % 4], turn=int(key[1:]) % 3, step=step, index=0,
            branch=row.branch, checkpoint_id=row.head_id, summary="Sümmary\0/", saga=self._random.choice(["", "trip"]),
        )  # fmt: skip
        arguments = canonical({"amount": key})
        seen = arguments_digest(entry.tool, arguments)
        return EffectRow(thread_id=row.thread_id, entry=entry, arguments=arguments, arguments_digest=seen)

    async def record(self) -> None:
        """What a call returned, or that it did nothing."""
        row, receipt = await self._row(), Receipt(key=self._key(), result=noise(600).encode())
        head = self._random.choice([row.head_id, row.head_id, "elsewhere"])
        match self._random.randrange(6):
            case 0:
                await self.store.put_receipt(row.thread_id, receipt)
            case 1:
                await self.store.put_receipt(row.thread_id, receipt, head=head)
            case 2:
                await self.store.finish(row.thread_id, receipt, head=head)
            case 3:
                await self.store.finish(row.thread_id, receipt)
            case 4:
                await self.store.join_saga(row.thread_id, receipt.key, "thread")
            case _:
                await self.store.fail(row.thread_id, receipt.key, "näh\0")

    async def judge(self) -> None:
        """What a person, or a compensation, says of an effect."""
        row = await self._row()
        await self.store.settle(row.thread_id, self._key(), self._random.choice(_STATUSES), error="e", by="me")

    async def write_down(self) -> None:
        """Lines of the audit; some are there, some have no thread."""
        first = self._random.randrange(8)
        lines = [
            AuditEntry(id=f"ü{n}\0", at="2024-05-06T07:08:09.000+00:00", kind="decision.counted", body={"n": n})
            for n in range(first, first + self._random.randrange(4))
        ]
        await self.store.append_audit(self._name(), lines)

    # ── the rest ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def keep_result(self) -> None:
        """A result of its own, with or without an end."""
        expires = self._random.choice(["", "2020-01-01T00:00:00.000+00:00", "2099-01-01T00:00:00.000+00:00"])
        await self.store.put_result(CachedResult(scope="v", key=self._key(), value=b"1\0", expires_at=expires))

    async def ask_result(self) -> None:
        """Results of both kinds."""
        row = await self._row()
        await self.store.result("s", (await self._some(row))[-4:])
        await self.store.result("v", self._key())

    async def prune(self) -> None:
        """Everything before some checkpoint on the way back goes, and every other branch."""
        row = await self._row()
        path = await self.store.path(row.thread_id, row.head_id, limit=6)
        root = self._random.choice([c for c in path if c.thread_id == row.thread_id])
        kept = {c.id for c in path[: path.index(root) + 1]}
        everything = [c.id async for c in self.store.walk(row.thread_id)]
        values = (await self._checkpointer.load(row.thread_id, root.id)).values
        state = canonical(values)
        snapshot = Snapshot(checkpoint_id=root.id, state=state, digest=snapshot_digest(root.digest, state))
        gone = [id for id in everything if id not in kept]
        await self.store.remove(row.thread_id, gone, [snapshot] if root.parent_id else [], head=row.head_id)
        self._checkpointer = Checkpointer(self.store)  # it remembers what is gone

    async def drop(self) -> None:
        """Some checkpoint goes, whoever goes back to it."""
        row = await self._row()
        await self.store.remove(row.thread_id, [await self._some(row), "none"], [], head=row.head_id)
        self._checkpointer = Checkpointer(self.store)

    async def delete(self) -> None:
        """A thread goes, if it may."""
        await self.store.delete_thread(self._name())
        self._checkpointer = Checkpointer(self.store)

    async def copy(self) -> None:
        """A copy of a thread under some name."""
        await self.store.copy_thread(self._name(), self._name())

    async def lease(self) -> None:
        """The lease, and the end."""
        name = self._name()
        await self.store.set_lease(name, self._random.choice(["", '{"holder":"x"}']))
        if self._random.random() < 0.2:
            await self.store.close_thread(name)

    async def put_back(self) -> None:
        """A checkpoint is put back that is there, or that was removed just now."""
        row = await self._row()
        line = await self.store.line(row.thread_id, await self._some(row))
        assert line is not None
        last = line.last
        step = Step(
            checkpoint=last, base_id=line.base_id, since_base=line.since_base, state_size=line.state_size,
            snapshot=line.snapshot if line.base_id == last.id else None, lineage=row.lineage,
        )  # fmt: skip
        if self._random.random() < 0.5 and not last.cut:
            await self.store.remove(row.thread_id, [last.id], [], head=row.head_id)
        await self.store.restore(step, head=last.id == row.head_id)

    async def look(self) -> None:
        """Questions of every kind."""
        row = await self._row()
        at = await self._some(row)
        await self.store.line(row.thread_id, at)
        await self.store.checkpoint(row.thread_id, "none")
        await self.store.ancestor(row.thread_id, row.head_id, self._random.randrange(12))
        await self.store.find({"n": 1})
        await self.store.find({"n": 1, "m": "x"}, limit=3)
        await self.store.find({}, thread_id=row.thread_id, limit=3)
        await self.store.effects(row.thread_id, self._random.randrange(3))
        await self.store.effect(row.thread_id, self._key())
        await self.store.open_effects(after=(row.thread_id, "k3"), limit=3)
        await self.store.audit(row.thread_id, after=2, limit=2)
        await self.store.receipts(row.thread_id, ["k1", "k2", "none"])
        await self.store.threads(after="t2", limit=2)

    def _name(self) -> str:
        return self._random.choice(_THREADS)

    def _key(self) -> str:
        return f"k{self._random.randrange(8)}"

    async def _row(self) -> ThreadRow:
        rows = await self.store.threads()
        if not rows:
            await self.begin()
            rows = await self.store.threads()
        return self._random.choice(rows)

    async def _some(self, row: ThreadRow) -> str:
        return self._random.choice([c.id async for c in self.store.walk(row.thread_id)])

    def _change(self, thread_id: str, source: Any = "step") -> Change:
        self._time += self._random.randrange(3)
        size = self._random.choice([10, 300, 6_000])
        deltas: list[Delta] = [
            {"text": {"op": "set", "value": noise(size)}}, {"list": {"op": "append", "items": [noise(size)]}},
            {"ünï\0": {"op": "set", "value": "\0é😀"}}, {},
        ]  # fmt: skip
        labels: list[dict[str, Json]] = [{}, {}, {"n": 1}, {"n": 1, "m": "x"}, {"n": True}]
        delta, metadata = self._random.choice(deltas), self._random.choice(labels)
        return Change(
            thread_id=thread_id, checkpoint_id=new_id(self._time, self._random), source=source, turn=1, delta=delta,
            metadata=metadata, schema_version=self._random.choice([1, 2]), facts={"f": 1.5},
        )  # fmt: skip


def payment(history: History, key: str = "k", effect: Any = "irreversible") -> EffectRow:
    """An effect on the thread's head."""
    assert history.head is not None
    at = history.head.ref
    entry = Effect(key=key, tool="pay", effect=effect, turn=1, step=at.step, index=0, checkpoint_id=at.id)
    seen = arguments_digest("pay", b"{}")
    return EffectRow(thread_id=history.thread_id, entry=entry, arguments=b"{}", arguments_digest=seen)


async def same_deeds(store: Store, seed: int, deeds: int) -> None:
    """Have a store and one in memory do the same by chance; everything they say and hold must be the same too."""
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
