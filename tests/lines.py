"""Threads with turns, effects, rewinds and forks, made without Temporal: what tests of time travel begin with."""

from typing import Any

from perdure.budget import Usage
from perdure.checkpoint import Checkpoint, Frontier, Source, Task
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.delta import Delta
from perdure.effects import Effect, EffectClass, EffectStatus
from perdure.stores import Store
from perdure.stores.base import EffectRow, Receipt
from tests.threads import checkpoint_id, name

MODEL = Frontier(tasks=(Task(node="model"),))
TOOLS = Frontier(tasks=(Task(node="tools"),))
END = Frontier()
_USED = {"usage": Usage(calls=1, prompt=10, completion=5).model_dump(exclude_defaults=True)}


class Line:
    """A thread, and where it stands."""

    def __init__(self, store: Store, thread_id: str = "") -> None:
        self.store = store
        self.thread_id = thread_id or name()
        self.checkpointer = Checkpointer(store)
        self.head: Position | None = None
        self.branch = 0
        self.turns = 0
        self.effects: list[str] = []

    async def put(
        self, delta: Delta | None = None, *, source: Source = "step", nodes: tuple[str, ...] = (),
        next: Frontier = END, parent: Position | None = None, metadata: dict[str, Any] | None = None,
        facts: dict[str, Any] | None = None, **beside: Any,
    ) -> str:  # fmt: skip
        """Commit a checkpoint on the head, or on a parent elsewhere; its id."""
        change = Change(
            thread_id=self.thread_id, checkpoint_id=checkpoint_id(), source=source, nodes=nodes, turn=self.turns,
            next=next, metadata=metadata or {}, facts=facts or {}, delta=delta or {},
        )  # fmt: skip
        self.head = await self.checkpointer.commit(parent or self.head, change, agent="clerk", **beside)
        return self.head.ref.id

    async def say(self, text: str, **more: Any) -> str:
        """An input, which begins a turn."""
        self.turns += 1
        return await self.put(_note(text), source="input", next=MODEL, **more)

    async def call(
        self, tool: str = "pay", effect: EffectClass = "compensable", status: EffectStatus = "done"
    ) -> tuple[str, str]:
        """A model step that asks for a call, and the call; the ids of both checkpoints."""
        asked = await self.put(_note(f"call {tool}"), nodes=("model",), next=TOOLS, facts=_USED)
        await self.effect(tool, effect, status)
        return asked, await self.put(_note(f"{tool} done"), nodes=("tools",), next=MODEL)

    async def effect(self, tool: str, effect: EffectClass, status: EffectStatus) -> str:
        """An entry of the ledger, of a call that is made on the head; its key."""
        assert self.head is not None
        key, head = f"{len(self.effects):02}-{self.thread_id}", self.head.ref
        entry = Effect(
            key=key, tool=tool, effect=effect, turn=self.turns, step=head.step, index=0, branch=self.branch,
            checkpoint_id=head.id, status="attempted", attempts=1,
        )  # fmt: skip
        row = EffectRow(thread_id=self.thread_id, entry=entry, arguments=b"{}", arguments_digest="d")
        await self.store.claim(row, head=head.id)
        self.effects.append(key)
        await self._becomes(key, status)
        return key

    async def _becomes(self, key: str, status: EffectStatus) -> None:
        if status == "failed":
            await self.store.fail(self.thread_id, key, "refused")
        elif status == "in_doubt":
            await self.store.settle(self.thread_id, key, "in_doubt")
        elif status != "attempted":
            await self.store.put_receipt(self.thread_id, Receipt(key=key, result=b"{}"))
            if status != "done":
                await self.store.settle(self.thread_id, key, status)

    async def answer(self, text: str = "Done.", **more: Any) -> str:
        """The model's answer, which ends the turn."""
        return await self.put(_note(text), nodes=("model",), facts=_USED, **more)

    async def turn(self, text: str = "hello") -> tuple[str, str]:
        """A turn of two steps: the ids of its ends."""
        return await self.say(text), await self.answer()

    async def rewind(self, to: str) -> str:
        """Move the head back; the id of the new one."""
        assert self.head is not None
        target = await self.checkpointer.load(self.thread_id, to)
        self.branch, self.turns = self.branch + 1, target.turn
        before = self.head.ref.id
        return await self.put(
            source="rewind", next=target.next, parent=target, facts={"from": before}, replaces=before,
            branch=self.branch,
        )  # fmt: skip

    async def fork(self, at: str, thread_id: str = "", delta: Delta | None = None) -> "Line":
        """A thread that begins with one of this one's checkpoints."""
        other = Line(self.store, thread_id)
        origin = await self.checkpointer.load(self.thread_id, at)
        other.turns = origin.turn
        await other.put(delta, source="fork", next=origin.next, parent=origin)
        return other

    async def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """One of its checkpoints."""
        found = await self.store.checkpoint(self.thread_id, checkpoint_id)
        assert found is not None
        return found


def _note(text: str) -> Delta:
    return {"notes": {"op": "append", "items": [text]}}
