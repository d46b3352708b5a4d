"""A LangGraph thread in our store: its checkpoints as LangGraph asks for them, and what is added and removed."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, NamedTuple

from langgraph.checkpoint.base import ChannelVersions
from langgraph.checkpoint.base import Checkpoint as TheirCheckpoint

from perdure.bridges.changes import delta_between
from perdure.bridges.encoding import Codec
from perdure.bridges.states import (
    AGENT,
    REPLACES,
    Facts,
    metadata_of,
    nodes_of,
    source_of,
    their_id,
    unchanged_channels,
    values_of,
)
from perdure.canonical import Json, canonical
from perdure.checkpoint import Checkpoint, Source, layer_of
from perdure.checkpointer import Change, Checkpointer, Position, snapshot_digest, verify_line
from perdure.delta import Values, apply
from perdure.errors import CheckpointNotFound, ConcurrentModification, Conflict
from perdure.stores.base import Snapshot, Store, ThreadRow

PAGE = 50  # checkpoints read at once
_ALL = 2**31 - 1
_TRIES = 100  # of a commit: each refused one means that another has succeeded


class Saved(NamedTuple):
    """A checkpoint with its state."""

    checkpoint: Checkpoint
    values: Values


class Put(NamedTuple):
    """What LangGraph puts: a checkpoint, its metadata, its parent's id (empty: none), what has a new version.

    ``source`` is what we call where it comes from, if that is not what its metadata say. ``namespace`` is given where
    the thread's name doesn't tell.
    """

    codec: Codec
    checkpoint: TheirCheckpoint
    metadata: Mapping[str, Any]
    parent: str
    new_versions: ChannelVersions
    source: Source | None = None
    namespace: str = ""


class SavedThread:
    """One thread of ours, which is one namespace of one of LangGraph's. Ids are LangGraph's.

    A thread of ours is a tree whose checkpoints stay as they are; LangGraph's is a set that is sorted by id. So what it
    puts goes under its parent, or under the head where that is nowhere. What it puts under an id that is taken becomes
    a checkpoint of its own, which stands for the earlier one.
    """

    def __init__(self, checkpointer: Checkpointer, name: str) -> None:
        self.name = name
        self._checkpointer = checkpointer
        self._ready: dict[str, Saved] = {}

    @property
    def _store(self) -> Store:
        return self._checkpointer.store

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def latest(self) -> Saved | None:
        """The checkpoint with the highest id."""
        row = await self.row()
        if row is None:
            return None
        head = await self._head(row)
        latest = await self._latest(head)
        if latest != their_id(head):
            return await self.get(latest)
        return Saved(head, (await self._load(head)).values)

    async def get(self, checkpoint_id: str, *, page: int = 1) -> Saved | None:
        """The checkpoint of this id. ``page``: how many before it are going to be asked for next, and are read too."""
        if (ready := self._ready.pop(checkpoint_id, None)) is not None:
            return ready
        if page > 1 and (row := await self.row()) and await self._is_line(row):
            return await self._read(checkpoint_id, page)
        return await self._read(await self._standing_for(checkpoint_id))

    async def newest_first(self, before: str = "") -> AsyncIterator[Checkpoint]:
        """The checkpoints by id, the highest first, a page at a time; only those below ``before``."""
        row = await self.row()
        if row is None:
            return
        found = self._line(row) if await self._is_line(row) else self._tree()
        async for checkpoint in found:
            if not before or their_id(checkpoint) < before:
                yield checkpoint

    async def find(self, metadata: Mapping[str, Json], before: str = "") -> list[Checkpoint]:
        """The same, but only those that have these entries in their metadata."""
        row = await self.row()
        found = _current(await self._store.find(metadata, thread_id=self.name, limit=_ALL)) if row else []
        if row and not await self._is_line(row):
            found = [c for c in found if await self._standing_for(their_id(c)) == c.id]
        return [c for c in found if not before or their_id(c) < before]

    async def parent_of(self, checkpoint: Checkpoint) -> str:
        """The id of its parent; empty where it has none, or none any more."""
        parent = Facts.of(checkpoint).parent
        if parent is not None:
            return parent
        if checkpoint.cut and await self._store.checkpoint(self.name, checkpoint.parent_id or "") is None:
            return ""
        return checkpoint.parent_id or ""

    async def row(self) -> ThreadRow | None:
        """The thread's row. Raises Conflict where the thread is not one of LangGraph's."""
        row = await self._store.thread(self.name)
        if row is not None and row.agent != AGENT:
            raise Conflict(f"Thread {self.name} is one of the agent {row.agent}, not of a LangGraph graph.")
        return row

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def put(self, put: Put) -> None:
        """Commit what LangGraph puts; the same once more changes nothing. Raises InvalidInput, StoreUnreachable."""
        for left in reversed(range(_TRIES)):
            row = await self.row()
            try:
                await self._commit(row, put)
                return
            except (ConcurrentModification, CheckpointNotFound):  # another was first, or removed its parent
                if not left:
                    raise

    async def _commit(self, row: ThreadRow | None, put: Put) -> None:
        head = await self._head(row) if row else None
        id = put.checkpoint["id"]
        latest = await self._latest(head) if head else ""
        known = await self.get(id) if id <= latest else None
        base = await self._base(head, put)
        values, facts = self._content(base, known, put)
        if known is not None and _is_same(known, values, facts, put):
            return
        if known is not None or id < latest or (head and Facts.of(head).latest):
            facts = facts.model_copy(update={"latest": max(id, latest)})
        change = self._change(base, known, put, values, facts)
        moves = bool(head and base and base.ref.id != head.id)
        await self._checkpointer.commit(
            base, change, agent=AGENT, replaces=head.id if head and moves else "",
            branch=row.branch + 1 if row and moves else None,
        )  # fmt: skip

    def _content(self, base: Position | None, known: Saved | None, put: Put) -> tuple[Values, Facts]:
        before = base.values if base else {}
        under_parent = base is not None and known is None and put.parent == base.ref.id
        unchanged = unchanged_channels(put.checkpoint, before, put.new_versions) if under_parent else set()
        values = values_of(put.codec, put.checkpoint, known.values if known else before, unchanged)
        _, rest = metadata_of(put.metadata)
        facts = Facts(
            ts=put.checkpoint["ts"], updated=put.checkpoint.get("updated_channels"), metadata=rest,
            parent=None if (base.ref.id if base else "") == put.parent else put.parent, namespace=put.namespace,
        )  # fmt: skip
        return values, facts

    def _change(self, base: Position | None, known: Saved | None, put: Put, values: Values, facts: Facts) -> Change:
        before = base.values if base else {}
        mine, _ = metadata_of(put.metadata)
        id = put.checkpoint["id"]
        if known is not None:
            version = int(known.checkpoint.id.removeprefix(id).removeprefix("~") or 1) + 1
            facts = facts.model_copy(update={"id": id})
            mine, id = mine | {REPLACES: id}, f"{id}~{version}"
        begins = put.metadata.get("source") == "input"
        return Change(
            thread_id=self.name, checkpoint_id=id, source=put.source or source_of(put.metadata),
            nodes=nodes_of(values, before), turn=(base.turn if base else 0) + begins, metadata=mine,
            facts=facts.stored(), delta=delta_between(before, values),
        )  # fmt: skip

    async def _base(self, head: Checkpoint | None, put: Put) -> Position | None:
        """Where it goes: under its parent, or else under the head."""
        if head is None:
            return None
        base = head
        if put.parent and put.parent != their_id(head):
            base = await self._store.checkpoint(self.name, await self._standing_for(put.parent)) or head
        return await self._load(base)

    async def remove(self, ids: Collection[str]) -> None:
        """Remove checkpoints with their pending writes; the others stay as they are.

        Raises Conflict where another thread was forked from one of them.
        """
        everything = [c.model_copy(update={"delta": {}}) async for c in self._store.walk(self.name)]
        gone = {c.id for c in everything if their_id(c) in ids}
        rest = [c for c in everything if c.id not in gone]
        if not rest:
            await self._store.delete_thread(self.name)
        elif gone:
            roots = [await self._snapshot(c) for c in rest if c.parent_id in gone and not c.parent_thread]
            await self._store.remove(self.name, sorted(gone), roots, head=_head_of(rest))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def _head(self, row: ThreadRow) -> Checkpoint:
        head = await self._store.checkpoint(self.name, row.head_id)
        if head is None:
            raise CheckpointNotFound(f"The head of thread {self.name} is missing.", hint="Run `perdure db verify`.")
        return head

    async def _latest(self, head: Checkpoint) -> str:
        """The highest id. The head knows it, unless that one was removed since."""
        latest = Facts.of(head).latest
        if not latest or latest == their_id(head):
            return their_id(head)
        if await self._store.checkpoint(self.name, latest) is not None:
            return latest
        return max([their_id(checkpoint) async for checkpoint in self._store.walk(self.name)])

    async def _standing_for(self, checkpoint_id: str) -> str:
        """Our id of what was put under this one, the last time."""
        later = await self._store.find({REPLACES: checkpoint_id}, thread_id=self.name, limit=1)
        return later[0].id if later else checkpoint_id

    async def _read(self, our_id: str, page: int = 1) -> Saved | None:
        """A checkpoint; those before it on its line are made ready, in one go over their deltas."""
        found = await self._store.path(self.name, our_id, limit=page)
        if not found:
            return None
        *later, first = found
        position = await self._load(first)
        saved = Saved(first, position.values)
        self._ready = {}
        for checkpoint in reversed(later):
            self._ready[saved.checkpoint.id] = saved
            verify_line(self.name, (saved.checkpoint.digest, saved.checkpoint.step), (layer_of(checkpoint),))
            saved = Saved(checkpoint, apply(saved.values, checkpoint.delta))
        return saved

    async def _is_line(self, row: ThreadRow) -> bool:
        """Whether the way back from the head is all there is, in the order of the ids."""
        return row.branch == 0 and not Facts.of(await self._head(row)).latest

    async def _line(self, row: ThreadRow) -> AsyncIterator[Checkpoint]:
        cursor: str | None = row.head_id
        while cursor:
            found = await self._store.path(self.name, cursor, limit=PAGE)
            for checkpoint in found:
                yield checkpoint
            last = found[-1] if found else None
            cursor = None if last is None or last.cut or last.parent_thread else last.parent_id
            if last is not None and last.cut:  # what was before that and was not removed stands by itself
                async for checkpoint in self._tree():
                    if their_id(checkpoint) < their_id(last):
                        yield checkpoint

    async def _tree(self) -> AsyncIterator[Checkpoint]:
        everything = [c.model_copy(update={"delta": {}}) async for c in self._store.walk(self.name)]
        for checkpoint in _current(everything):
            yield checkpoint

    async def _load(self, checkpoint: Checkpoint) -> Position:
        """The state at a checkpoint."""
        position = await self._checkpointer.load(checkpoint.thread_id, checkpoint.id)
        if position.ref.digest == checkpoint.digest:
            return position
        # What is remembered under this id is of a thread that was deleted since.
        return await Checkpointer(self._store, cache_bytes=0).load(checkpoint.thread_id, checkpoint.id)

    async def _snapshot(self, checkpoint: Checkpoint) -> Snapshot:
        position = await self._load(checkpoint)
        state = canonical(position.values)
        return Snapshot(checkpoint_id=checkpoint.id, state=state, digest=snapshot_digest(position.ref.digest, state))


def _is_same(known: Saved, values: Values, facts: Facts, put: Put) -> bool:
    mine, _ = metadata_of(put.metadata)
    theirs = {key: value for key, value in known.checkpoint.metadata.items() if key != REPLACES}
    stands = Facts.of(known.checkpoint)
    parent = known.checkpoint.parent_id or "" if stands.parent is None else stands.parent
    now = [values, mine, put.parent, facts.ts, facts.updated, facts.metadata]
    return canonical(now) == canonical([known.values, theirs, parent, stands.ts, stands.updated, stands.metadata])


def _current(checkpoints: Collection[Checkpoint]) -> list[Checkpoint]:
    """The highest id first; of those that stand for one another only the last."""
    last: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        id = their_id(checkpoint)
        if id not in last or _version(last[id]) < _version(checkpoint):
            last[id] = checkpoint
    return [last[id] for id in sorted(last, reverse=True)]


def _version(checkpoint: Checkpoint) -> int:
    _, _, version = checkpoint.id.removeprefix(their_id(checkpoint)).partition("~")
    return int(version or 1)


def _head_of(rest: Collection[Checkpoint]) -> str:
    """What becomes the head: of the ends of lines the one that knows the highest id."""
    continued = {c.parent_id for c in rest}
    ends = [c for c in rest if c.id not in continued]
    return max(ends, key=lambda c: (Facts.of(c).latest or c.id, Facts.of(c).latest)).id
