"""LangGraph's checkpointer over our store: its graphs get delta storage, verification, pruning and copies.

One line changes::

    graph = builder.compile(checkpointer=PerdureSaver("sqlite:///threads.db"))
"""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    PendingWrite,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from perdure.bridges.encoding import Codec
from perdure.bridges.library import Library, Place
from perdure.bridges.names import stored_name, untold
from perdure.bridges.saved import PAGE, Put, Saved, SavedThread
from perdure.bridges.states import channel_value, checkpoint_of, has_channels, read_metadata, searchable, their_id
from perdure.bridges.writes import Write, put_writes, read_writes
from perdure.checkpoint import Checkpoint as OurCheckpoint


class Found(NamedTuple):
    """A checkpoint that was found, with the thread it is in."""

    place: Place
    thread: SavedThread
    checkpoint: OurCheckpoint


class PerdureSaver(BaseCheckpointSaver[int]):
    """Keeps LangGraph's threads in the store at a URL, as ``perdure.stores.open`` takes it; the schema is made there.

    Every method can be called from any thread and any event loop; the store works in a loop of its own. Without
    ``serde``, values are kept as JSON that people can read; another serializer (one that encrypts) makes everything
    that is in channels and pending writes unreadable. Raises StoreUnreachable where the database doesn't answer.
    """

    def __init__(self, url: str, *, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self._library = Library(url)  # shared with the copies that ``with_allowlist`` makes
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store. What is asked for afterwards opens it again."""
        self._library.close()

    def setup(self) -> None:
        """Open the store and bring its schema up to date now, rather than at the first use."""
        self._library.run(self._library.store())

    # ── LangGraph's methods, each twice ──────────────────────────────────────────────────────────────────────────

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return self._library.run(self._get(config))

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return await self._library.wait_for(self._get(config))

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        found = self._list(config, filter, before, limit)
        try:
            while (item := self._library.run(_next(found))) is not None:
                yield item
        finally:
            self._library.run(_end(found))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        found = self._list(config, filter, before, limit)
        try:
            while (item := await self._library.wait_for(_next(found))) is not None:
                yield item
        finally:
            await self._library.wait_for(_end(found))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return self._library.run(self._put(config, checkpoint, metadata, new_versions))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        return await self._library.wait_for(self._put(config, checkpoint, metadata, new_versions))

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        self._library.run(self._put_writes(config, writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        await self._library.wait_for(self._put_writes(config, writes, task_id, task_path))

    def delete_thread(self, thread_id: str) -> None:
        self._library.run(self._library.delete(str(thread_id)))

    async def adelete_thread(self, thread_id: str) -> None:
        await self._library.wait_for(self._library.delete(str(thread_id)))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        self._library.run(self._library.delete_for_runs(run_ids))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        await self._library.wait_for(self._library.delete_for_runs(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        self._library.run(self._library.copy(str(source_thread_id), str(target_thread_id)))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self._library.wait_for(self._library.copy(str(source_thread_id), str(target_thread_id)))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        self._library.run(self._library.prune(thread_ids, strategy))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        await self._library.wait_for(self._library.prune(thread_ids, strategy))

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return self._library.run(self._history(config, channels))

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        return await self._library.wait_for(self._history(config, channels))

    def get_next_version(self, current: int | str | None, channel: None) -> int:
        """A number. A thread that another saver began keeps that one's form, digits in text."""
        if isinstance(current, str):
            return cast("int", f"{int(current.partition('.')[0]) + 1:032}")
        return (current or 0) + 1

    # ── in the store's loop ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def _codec(self) -> Codec:
        return Codec(self.serde)

    async def _get(self, config: RunnableConfig) -> CheckpointTuple | None:
        place, checkpoint_id = _place(config), get_checkpoint_id(config)
        thread = await self._library.thread(place.name)
        saved = await thread.get(checkpoint_id) if checkpoint_id else await thread.latest()
        return await self._tuple(place, thread, saved) if saved else None

    async def _put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        place = _place(config)
        put = Put(
            codec=self._codec, checkpoint=checkpoint, metadata=get_checkpoint_metadata(config, metadata),
            parent=get_checkpoint_id(config) or "", new_versions=new_versions,
            namespace=untold(place.thread_id, place.namespace),
        )  # fmt: skip
        await (await self._library.thread(place.name)).put(put)
        return _config(place, checkpoint["id"])

    async def _put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        codec, place = self._codec, _place(config)
        kept = [
            Write(task_id, task_path, WRITES_IDX_MAP.get(channel, index), channel, codec.encode(value))
            for index, (channel, value) in enumerate(writes)
        ]
        await put_writes(await self._library.store(), place.name, str(config["configurable"]["checkpoint_id"]), kept)

    async def _list(
        self,
        config: RunnableConfig | None,
        filter: dict[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> AsyncGenerator[CheckpointTuple, None]:
        only = get_checkpoint_id(config) if config else None
        async for found in self._found(config, filter or {}, (get_checkpoint_id(before) if before else None) or ""):
            if limit is not None and limit <= 0:
                return
            if only and their_id(found.checkpoint) != only:
                continue
            metadata = read_metadata(found.checkpoint)
            if filter and any(metadata.get(key) != value for key, value in filter.items()):
                continue
            saved = await found.thread.get(their_id(found.checkpoint), page=min(limit or PAGE, PAGE))
            if saved is not None:
                yield await self._tuple(found.place, found.thread, saved)
                limit = limit - 1 if limit is not None else None

    async def _found(self, config: RunnableConfig | None, filter: dict[str, Any], before: str) -> AsyncIterator[Found]:
        """What may fit, the highest id first. Of a single thread no more is read than is asked for."""
        places = await self._asked(config)
        if len(places) == 1:
            async for found in self._found_in(places[0], filter, before):
                yield found
            return
        everything = [found for place in places async for found in self._found_in(place, filter, before)]
        for found in sorted(everything, key=lambda found: their_id(found.checkpoint), reverse=True):
            yield found

    async def _found_in(self, place: Place, filter: dict[str, Any], before: str) -> AsyncIterator[Found]:
        thread = await self._library.thread(place.name)
        if wanted := searchable(filter):
            for checkpoint in await thread.find(wanted, before):
                yield Found(place, thread, checkpoint)
            return
        async for checkpoint in thread.newest_first(before):
            yield Found(place, thread, checkpoint.model_copy(update={"delta": {}}))

    async def _asked(self, config: RunnableConfig | None) -> Sequence[Place]:
        """Where a configuration looks: everywhere, in all namespaces of a thread, or in one."""
        if config is None:
            return await self._library.places()
        if config["configurable"].get("checkpoint_ns") is None:
            return await self._library.places(str(config["configurable"]["thread_id"]))
        return [_place(config)]

    async def _tuple(self, place: Place, thread: SavedThread, saved: Saved) -> CheckpointTuple:
        codec, id = self._codec, their_id(saved.checkpoint)
        writes = await read_writes(await self._library.store(), place.name, id)
        parent = await thread.parent_of(saved.checkpoint)
        return CheckpointTuple(
            config=_config(place, id),
            checkpoint=checkpoint_of(codec, saved.checkpoint, saved.values),
            metadata=read_metadata(saved.checkpoint),
            parent_config=_config(place, parent) if parent else None,
            pending_writes=[(write.task, write.channel, codec.decode(write.value)) for write in writes],
        )

    async def _history(self, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, DeltaChannelHistory]:
        """What was written to channels since they had a value, and that value."""
        codec, place, open_channels = self._codec, _place(config), set(channels)
        writes: dict[str, list_[PendingWrite]] = {channel: [] for channel in channels}
        seeds: dict[str, Any] = {}
        thread, checkpoint_id = await self._library.thread(place.name), get_checkpoint_id(config)
        saved = await thread.get(checkpoint_id) if checkpoint_id else await thread.latest()
        while saved is not None and open_channels and (parent := await thread.parent_of(saved.checkpoint)):
            saved = await thread.get(parent, page=PAGE)
            if saved is None:
                break
            for write in reversed(await read_writes(await self._library.store(), place.name, parent)):
                if write.channel in open_channels:
                    writes[write.channel].append((write.task, write.channel, codec.decode(write.value)))
            for channel in has_channels(saved.values, open_channels):
                seeds[channel] = channel_value(codec, saved.values, channel)
            open_channels -= seeds.keys()
        return {channel: _channel_history(writes[channel], channel, seeds) for channel in channels}


list_ = list  # the class has a method of this name


def _channel_history(newest_first: list_[PendingWrite], channel: str, seeds: dict[str, Any]) -> DeltaChannelHistory:
    history: DeltaChannelHistory = {"writes": newest_first[::-1]}
    if channel in seeds:
        history["seed"] = seeds[channel]
    return history


async def _next(found: AsyncIterator[CheckpointTuple]) -> CheckpointTuple | None:
    return await anext(found, None)


async def _end(found: AsyncGenerator[CheckpointTuple, None]) -> None:
    await found.aclose()


def _place(config: RunnableConfig) -> Place:
    thread_id, namespace = str(config["configurable"]["thread_id"]), config["configurable"].get("checkpoint_ns") or ""
    return Place(thread_id, namespace, stored_name(thread_id, namespace))


def _config(place: Place, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": place.thread_id, "checkpoint_ns": place.namespace, "checkpoint_id": checkpoint_id,
        }
    }  # fmt: skip
