"""All LangGraph threads of a store: which there are, and what is done to them as a whole."""

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from perdure.bridges.loops import OwnLoop
from perdure.bridges.names import of_namespaces, read_name, stored_name
from perdure.bridges.saved import PAGE, SavedThread
from perdure.bridges.states import AGENT, Facts, has_channels, has_version, read_metadata, their_id
from perdure.checkpointer import Checkpointer
from perdure.errors import Conflict, InvalidInput, ThreadNotFound
from perdure.stores.base import Store, ThreadRow
from perdure.stores.open import open_store

T = TypeVar("T")


class Place(NamedTuple):
    """A namespace of a LangGraph thread, and the name of our thread that it is."""

    thread_id: str
    namespace: str
    name: str


class Library:
    """A store, opened at the first use, in an event loop of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._loop = OwnLoop()
        self._opened = _Opened(self.url)
        # Nobody has to think of closing a saver: the store is closed when nobody has the saver any more.
        weakref.finalize(self, _close, self._loop, self._opened)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the store's loop, blocking the caller."""
        return self._own_loop().run(work)

    async def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it in the store's loop, from the caller's."""
        return await self._own_loop().wait_for(work)

    def _own_loop(self) -> OwnLoop:
        if self._process != os.getpid():  # this is a fork: neither the thread nor the connections came along
            self._begin()
        return self._loop

    def close(self) -> None:
        """Let go of the store; the next call opens it again."""
        _close(self._loop, self._opened)

    # ── in the store's loop ──────────────────────────────────────────────────────────────────────────────────────

    async def store(self) -> Store:
        """The store, with its schema up to date."""
        return (await self._opened.checkpointer()).store

    async def thread(self, name: str) -> SavedThread:
        """The thread of ours that has this name."""
        return SavedThread(await self._opened.checkpointer(), name)

    async def places(self, thread_id: str | None = None) -> list[Place]:
        """All namespaces of a thread, or of all threads, as far as there is something in them."""
        return [place async for place in self._places(thread_id)]

    async def delete(self, thread_id: str) -> None:
        """Remove a thread with all of its namespaces. Raises Conflict where another one was forked from it."""
        store = await self.store()
        await (await self.thread(stored_name(thread_id))).row()
        for place in await self.places(thread_id):
            await store.delete_thread(place.name)
        await store.delete_thread(stored_name(thread_id))  # also where it has only pending writes

    async def copy(self, source: str, target: str) -> None:
        """Copy a thread with all of its namespaces. Raises ThreadNotFound, and Conflict where the target exists."""
        store = await self.store()
        places = await self.places(source)
        if not places:
            raise ThreadNotFound(f"The store has no LangGraph thread {source}.")
        if await self.places(target) or await store.thread(stored_name(target)):
            raise Conflict(f"Thread {target} exists already.")
        for place in places:
            await store.copy_thread(place.name, stored_name(target, place.namespace))

    async def prune(self, thread_ids: Sequence[str], strategy: str) -> None:
        """Remove threads (``delete``), or all of them but the latest checkpoint of each namespace (``keep_latest``).

        Raises InvalidInput for another strategy, and Conflict where another thread was forked from what would go.
        """
        if strategy not in ("keep_latest", "delete"):
            raise InvalidInput(f"There is no strategy {strategy!r} to prune by.", hint="keep_latest or delete.")
        for thread_id in thread_ids:
            if strategy == "delete":
                await self.delete(thread_id)
                continue
            for place in await self.places(thread_id):
                thread = await self.thread(place.name)
                kept = await _needed(thread)
                await thread.remove({id async for id in _ids(thread)} - kept)

    async def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints that these runs made. Raises Conflict as ``prune``."""
        store = await self.store()
        for run_id in run_ids:
            found = await store.find({"run_id": run_id}, limit=2**31 - 1)
            for name in sorted({checkpoint.thread_id for checkpoint in found}):
                row = await store.thread(name)
                if row and row.agent == AGENT:
                    thread = await self.thread(name)
                    await thread.remove({their_id(c) for c in await thread.find({"run_id": run_id})})

    async def _places(self, thread_id: str | None) -> AsyncIterator[Place]:
        store = await self.store()
        if thread_id is None:
            async for row in _rows(store, ""):
                yield await _place(store, row)
            return
        root = await store.thread(stored_name(thread_id))
        if root and root.agent == AGENT:
            yield Place(thread_id, "", root.thread_id)
        async for row in _rows(store, of_namespaces(thread_id)):
            yield await _place(store, row)


class _Opened:
    """The store once it is open. It knows nothing of the library, which may be gone before it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opening: asyncio.Task[Checkpointer] | None = None

    async def checkpointer(self) -> Checkpointer:
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> Checkpointer:
        store = open_store(self._url)
        try:
            if await store.missing_migrations():
                await store.migrate()
        except BaseException:
            await store.close()
            raise
        return Checkpointer(store)

    async def close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        await asyncio.wait([opening])
        if not opening.exception():
            await opening.result().store.close()


def _close(loop: OwnLoop, opened: _Opened) -> None:
    loop.close(opened.close())


async def _rows(store: Store, prefix: str) -> AsyncIterator[ThreadRow]:
    """LangGraph's among the threads whose names begin so."""
    after = prefix
    while page := await store.threads(after=after):
        for row in page:
            if not row.thread_id.startswith(prefix):
                return
            if row.agent == AGENT:
                yield row
        after = page[-1].thread_id


async def _place(store: Store, row: ThreadRow) -> Place:
    thread_id, namespace = read_name(row.thread_id)
    if namespace is None:
        head = await store.checkpoint(row.thread_id, row.head_id)
        namespace = Facts.of(head).namespace if head else ""
    return Place(thread_id, namespace, row.thread_id)


async def _ids(thread: SavedThread) -> AsyncIterator[str]:
    async for checkpoint in thread.newest_first():
        yield their_id(checkpoint)


async def _needed(thread: SavedThread) -> set[str]:
    """The latest checkpoint, and those that it can't do without.

    A channel that LangGraph keeps as its writes (``DeltaChannel``) has a value only now and then: what it is at a
    checkpoint is made of the writes since. So everything stays back to where each of these channels has its value.
    """
    saved = await thread.latest()
    kept: set[str] = set()
    if saved is None:
        return kept
    counted = read_metadata(saved.checkpoint).get("counters_since_delta_snapshot", {})
    open_channels = has_version(saved.values, counted)
    while saved is not None:
        kept.add(their_id(saved.checkpoint))
        open_channels -= has_channels(saved.values, open_channels)
        parent = await thread.parent_of(saved.checkpoint) if open_channels else ""
        saved = await thread.get(parent, page=PAGE) if parent else None
    return kept
