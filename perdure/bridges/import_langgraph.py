"""Brings the threads of LangGraph's own checkpointers (SQLite, PostgreSQL) over, with all their history.

Nothing is changed where they come from, and none of the objects in them is made: they are taken over as they were
written, so the code that they belong to isn't needed. What was brought over before is left as it is, so that an import
can be broken off and begun again, and repeated for what has come since.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple, writes_sort_key
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from perdure.bridges.encoding import Codec, Opaque, Unopened
from perdure.bridges.names import stored_name, untold
from perdure.bridges.saved import Put, SavedThread
from perdure.bridges.states import their_id
from perdure.bridges.writes import Write, put_writes
from perdure.checkpointer import Checkpointer
from perdure.errors import InvalidInput, StoreUnreachable, UsageError
from perdure.stores.base import Store
from perdure.values import Value

Rows = list[tuple[Any, ...]]
Progress = Callable[[int, int], None]  # how many checkpoints were looked at, of how many
_CODEC = Codec(JsonPlusSerializer())
_KEYS = "SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints"
_AT = "WHERE thread_id = {0} AND checkpoint_ns = {0} AND checkpoint_id = {0}"


class Imported(Value):
    """What an import came to. ``skipped``: checkpoints that were there already."""

    source: str
    store: str
    threads: int = 0
    checkpoints: int = 0
    skipped: int = 0
    writes: int = 0


class _Key(NamedTuple):
    thread_id: str
    namespace: str
    checkpoint_id: str


class _Theirs:
    """A database of LangGraph's, read through LangGraph's own saver for it.

    A saver doesn't tell which checkpoints there are without reading all of them, nor where a pending write stands among
    those of its task: these two are asked of the tables.
    """

    def __init__(
        self, saver: BaseCheckpointSaver[Any], query: Callable[[str, Sequence[str]], Rows], *, mark: str, writes: str
    ) -> None:
        self._saver = saver
        self._query = query
        self._writes_at = f"SELECT task_id, {writes} {_AT.format(mark)}"

    def keys(self) -> list[_Key]:
        """All checkpoints, those of a namespace together, by id."""
        return sorted(_Key(*row) for row in self._query(_KEYS, ()))

    def checkpoint(self, key: _Key) -> CheckpointTuple | None:
        """A checkpoint with its pending writes. Raises InvalidInput where it can't be read."""
        found = self._saver.get_tuple({"configurable": dict(zip(_CONFIG, key, strict=True))})
        if found is not None and isinstance(found.checkpoint, Opaque):
            raise InvalidInput(
                f"Checkpoint {key.checkpoint_id} of {key.thread_id} can't be read: it is {found.checkpoint.kind}.",
                hint="Only a program that has its serializer can.",
            )
        return found

    def writes(self, key: _Key, found: CheckpointTuple) -> list[Write]:
        """The pending writes, each with its place."""
        places = sorted(self._query(self._writes_at, key), key=lambda row: writes_sort_key(row[1], row[0], row[2]))
        pending = found.pending_writes or []
        return [
            Write(task, path, place, channel, _CODEC.encode(value))
            for (task, path, place), (_, channel, value) in zip(places, pending, strict=True)
        ]


_CONFIG = ("thread_id", "checkpoint_ns", "checkpoint_id")


async def import_threads(source: str, store: Store, progress: Progress = lambda done, total: None) -> Imported:
    """Bring all threads over from ``sqlite:///FILE`` or ``postgresql://…``. Our threads are called as ``PerdureSaver``
    calls them, which goes on with them.

    Raises InvalidInput where there are no threads of LangGraph's, UsageError where its saver isn't installed,
    StoreUnreachable where either database doesn't answer, Conflict where a thread of our own has such a name.
    """
    checkpointer = Checkpointer(store)
    with _opened(source) as theirs:
        keys = await asyncio.to_thread(theirs.keys)
        done = Imported(source=_shown(source), store=store.url, threads=len({key.thread_id for key in keys}))
        for (thread_id, namespace), own in groupby(keys, key=lambda key: key[:2]):
            thread = SavedThread(checkpointer, stored_name(thread_id, namespace))
            known = [their_id(checkpoint) async for checkpoint in thread.newest_first()]
            for key in own:
                came, writes = await _import(theirs, store, thread, key, known)
                done = done.model_copy(
                    update={
                        "checkpoints": done.checkpoints + came, "skipped": done.skipped + (not came),
                        "writes": done.writes + writes,
                    }
                )  # fmt: skip
                progress(done.checkpoints + done.skipped, len(keys))
    return done


async def _import(
    theirs: _Theirs, store: Store, thread: SavedThread, key: _Key, known: Sequence[str]
) -> tuple[bool, int]:
    """Whether a checkpoint came over, and how many pending writes."""
    is_known = key.checkpoint_id in known
    if is_known and key.checkpoint_id != known[0]:  # to the newest, writes may have come since
        return False, 0
    found = await asyncio.to_thread(theirs.checkpoint, key)
    if found is None:  # removed meanwhile
        return False, 0
    # The writes come first: a checkpoint that is there is there with all that belongs to it.
    writes, new = await asyncio.to_thread(theirs.writes, key, found), 0
    for _, of_task in groupby(writes, key=lambda write: (write.task, write.path)):
        new += await put_writes(store, thread.name, key.checkpoint_id, list(of_task))
    if not is_known:
        await thread.put(_put(key, found))
    return not is_known, new


def _put(key: _Key, found: CheckpointTuple) -> Put:
    parent = found.parent_config["configurable"]["checkpoint_id"] if found.parent_config else ""
    versions = found.checkpoint["channel_versions"]  # every channel is compared, whatever its version says
    return Put(
        codec=_CODEC, checkpoint=found.checkpoint, metadata=found.metadata, parent=parent, new_versions=versions,
        source="import", namespace=untold(key.thread_id, key.namespace),
    )  # fmt: skip


# ── their databases ──────────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _opened(source: str) -> Iterator[_Theirs]:
    kind = urlsplit(source).scheme
    if kind not in ("sqlite", "postgresql", "postgres"):
        raise InvalidInput(
            f"{_shown(source)!r} names no database of LangGraph's.", hint="sqlite:///FILE or postgresql://…"
        )
    try:
        with _sqlite(source) if kind == "sqlite" else _postgres(source) as theirs:
            yield theirs
    except ImportError as error:
        package = "sqlite" if kind == "sqlite" else "postgres"
        raise UsageError(
            f"LangGraph's checkpointer for {package} is needed to read {_shown(source)}.",
            hint=f"pip install langgraph-checkpoint-{package}",
        ) from error


@contextmanager
def _sqlite(source: str) -> Iterator[_Theirs]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    path = Path(urlsplit(source).path.removeprefix("/"))
    if not path.is_file():
        raise StoreUnreachable(f"There is no file {path}.")
    try:
        with closing(
            sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, check_same_thread=False)
        ) as c:
            columns = {row[1] for row in c.execute("PRAGMA table_info(writes)")}
            writes = "task_path, idx FROM writes" if "task_path" in columns else "'', idx FROM writes"
            saver = SqliteSaver(c, serde=Unopened())
            yield _Theirs(saver, lambda sql, values: c.execute(sql, values).fetchall(), mark="?", writes=writes)
    except sqlite3.OperationalError as error:
        if "no such" in str(error):
            raise _nothing(source) from error
        raise StoreUnreachable(f"{_shown(source)} doesn't answer: {error}.") from error
    except sqlite3.DatabaseError as error:
        raise _nothing(source) from error


@contextmanager
def _postgres(source: str) -> Iterator[_Theirs]:
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row, tuple_row

    try:
        with psycopg.Connection.connect(
            source, autocommit=True, prepare_threshold=0, row_factory=dict_row
        ) as connection:

            def query(sql: str, values: Sequence[str]) -> Rows:
                with connection.cursor(row_factory=tuple_row) as cursor:
                    return cursor.execute(sql, values).fetchall()

            saver = PostgresSaver(connection, serde=Unopened())
            yield _Theirs(saver, query, mark="%s", writes="task_path, idx FROM checkpoint_writes")
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise _nothing(source) from error
    except psycopg.OperationalError as error:
        raise StoreUnreachable(f"{_shown(source)} doesn't answer: {str(error).strip()}.") from error


def _nothing(source: str) -> InvalidInput:
    return InvalidInput(
        f"{_shown(source)} holds no checkpoints of LangGraph's.", hint="Or of a version too old to read."
    )


def _shown(source: str) -> str:
    """The URL without its password."""
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else source
