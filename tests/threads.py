"""Threads in a store, made without Temporal: what tests of the store and the checkpointer begin with."""

import itertools
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perdure import Message, State
from perdure.budget import Usage
from perdure.checkpoint import new_id
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.delta import Delta
from perdure.effects import Effect, EffectClass, arguments_digest
from perdure.message import ToolCall
from perdure.state import reduce_updates
from perdure.stores import Store, open_store
from perdure.stores.base import CachedResult, EffectRow, Receipt

_NOISE = [c for c in string.printable[:94] if c not in '"\\']  # JSON writes each of them as one byte
_numbers = itertools.count(1)
_random = random.Random(7)


def noise(length: int) -> str:
    """Text that hardly compresses: every character is one of 92, by chance."""
    return "".join(_random.choices(_NOISE, k=length))


def name() -> str:
    """A thread id nobody has, as long as they are in earnest."""
    return f"thread-{next(_numbers):04}-{_random.getrandbits(64):016x}"


def checkpoint_id() -> str:
    """The next checkpoint id; ids sort by their order."""
    return new_id(next(_numbers), _random)


async def store_in(folder: Path, file: str = "store.db") -> Store:
    """A store with its schema, in a SQLite file."""
    store = open_store(f"sqlite:///{folder / file}")
    await store.migrate()
    return store


def effect(thread_id: str, key: str = "k", kind: EffectClass = "idempotent", **more: Any) -> EffectRow:
    """A ledger entry before its first attempt."""
    entry = Effect(**{"key": key, "tool": "pay", "effect": kind, "turn": 1, "step": 0, "index": 0, **more})
    seen = arguments_digest(entry.tool, b"{}")
    return EffectRow(thread_id=thread_id, entry=entry, arguments=b"{}", arguments_digest=seen)


class History:
    """A thread that grows by commits, with every position it has been at."""

    def __init__(self, store: Store, thread_id: str = "") -> None:
        self.store = store
        self.thread_id = thread_id or name()
        self.checkpointer = Checkpointer(store)
        self.positions: list[Position] = []

    @property
    def head(self) -> Position | None:
        """Where the thread stands."""
        return self.positions[-1] if self.positions else None

    def change(self, delta: Delta, **more: Any) -> Change:
        """A change that has not been committed."""
        fields: dict[str, Any] = {"source": "step", "nodes": ("model",), "turn": 1, "checkpoint_id": checkpoint_id()}
        return Change(thread_id=self.thread_id, delta=delta, **(fields | more))

    async def commit(self, delta: Delta, **more: Any) -> Position:
        """Commit a delta on the head."""
        beside = {name: more.pop(name) for name in ("result", "receipt", "clears", "agent") if name in more}
        position = await self.checkpointer.commit(self.head, self.change(delta, **more), **beside)
        self.positions.append(position)
        return position

    async def say(self, messages: Sequence[Message], state: type[State] = State, **more: Any) -> Position:
        """Commit messages on the head."""
        values, step = (self.head.values, self.head.ref.step + 1) if self.head else ({}, 0)
        return await self.commit(reduce_updates(state, values, {"x": {"messages": messages}}, step=step), **more)

    async def loop(self, call: int, result: int) -> None:
        """One step of an agent: the model calls a tool with so many bytes, the tool returns so many.

        Two checkpoints, and an entry in the result cache, as the engine writes them.
        """
        call_id = f"call_{_random.getrandbits(96):024x}"
        asked = Message(role="assistant", tool_calls=(ToolCall(id=call_id, name="lookup", arguments=noise(call)),))
        usage = Usage(calls=1, prompt=_random.randrange(10_000), completion=_random.randrange(1000))
        place = checkpoint_id()
        cached = CachedResult(
            scope=f"lineage:{self.thread_id}", key=f"{_random.getrandbits(256):064x}", thread_id=self.thread_id,
            checkpoint_id=place, usage=usage,
        )  # fmt: skip
        facts = {"usage": usage.model_dump(exclude_defaults=True)}
        await self.say([asked], checkpoint_id=place, facts=facts, result=cached)
        answered = Message(role="tool", tool_call_id=call_id, content=noise(result))
        await self.say([answered], nodes=("tools",), receipt=Receipt(key=noise(32), result=b"{}"))
