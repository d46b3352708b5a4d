"""Threads: their rows, and which of them were forked from which."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from perdure.checkpoint import Checkpoint
from perdure.errors import IntegrityError, StoreUnreachable
from perdure.stores import refusals
from perdure.stores.base import Step, ThreadRow
from perdure.stores.redis.keys import pair, read_pair
from perdure.stores.redis.part import Part, pairs

# A fork is noted at its parent before it is committed. The server refuses a commit that comes too long after that, and
# only takes a note for one that came to nothing when it is older still: so no parent goes away under a fork.
PATIENCE = 60  # seconds
_GIVEN_UP = 120


class Threads(Part):
    """Rows and forks."""

    async def thread(self, thread_id: str) -> ThreadRow | None:
        return (await self._rows([thread_id]))[0]

    async def threads(self, *, after: str = "", limit: int = 1000) -> list[ThreadRow]:
        found: list[ThreadRow] = []
        while len(found) < limit:
            start = f"({after}" if after else "-"
            page = await self._ask("ZRANGEBYLEX", self._keys.threads, start, "+", "LIMIT", 0, limit)
            if not page:
                break
            after = page[-1].decode()
            found += [row for row in await self._rows([name.decode() for name in page]) if row]
        return found[:limit]

    async def forks(self, thread_id: str) -> list[ThreadRow]:
        noted, _ = await self._noted(thread_id)
        rows = {row.thread_id: row for row in noted.values() if row}
        return [rows[name] for name in sorted(rows)]

    async def close_thread(self, thread_id: str) -> None:
        await self._run("change", thread_id, "closed", 1)

    async def set_lease(self, thread_id: str, lease: str) -> None:
        await self._run("change", thread_id, "lease", lease)

    async def _rows(self, thread_ids: Sequence[str]) -> list[ThreadRow | None]:
        found = await self._ask_all([("HGETALL", self._keys.part(name, "thread")) for name in thread_ids])
        return [read_row(name, pairs(row)) for name, row in zip(thread_ids, found, strict=True)]

    # ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _noted(self, thread_id: str) -> tuple[dict[str, ThreadRow | None], dict[str, bytes]]:
        """The forks noted at a thread, each with its row if it came to be; and those that were given up, with the time
        at which they were noted."""
        flat, now = await self._run("forks", thread_id)
        stamps = pairs(flat)
        noted: dict[str, ThreadRow | None] = {}
        for field, row in zip(stamps, await self._rows([read_pair(field)[0] for field in stamps]), strict=True):
            begins = row is not None and (row.origin_thread, row.origin_id) == (thread_id, read_pair(field)[1])
            noted[field] = row if begins else None
        dead = {name: stamps[name] for name, row in noted.items() if not row and now - int(stamps[name]) > _GIVEN_UP}
        return noted, dead

    async def _check_forks(self, thread_id: str, gone: Collection[str] | None = None) -> dict[str, str]:
        """Raise Conflict where a fork begins at one of the checkpoints (None: at any). The forks that were given up: the
        script that removes looks once more, and takes no note of these."""
        noted, dead = await self._noted(thread_id)
        for row in sorted((row for row in noted.values() if row), key=lambda row: row.thread_id):
            if gone is None or row.origin_id in gone:
                raise refusals.forked(thread_id, row.thread_id)
        return {field: stamp.decode() for field, stamp in dead.items()}

    async def _reserve(self, thread_id: str, checkpoint_id: str, fork: str, *, anyhow: bool = False) -> int | None:
        """Note a fork at its parent: the time of that, or None where there is no such checkpoint."""
        checked = "" if anyhow else checkpoint_id
        stamp: int | None = await self._run("reserve", thread_id, checked, pair(fork, checkpoint_id))
        return stamp

    async def _announce_thread(self, thread_id: str) -> None:
        await self._tell(("ZADD", self._keys.threads, 0, thread_id))


def too_slow(thread_id: str) -> StoreUnreachable:
    """More time passed within one call than its fence allows: it may be made again."""
    return StoreUnreachable(f"The fork {thread_id} took longer than {PATIENCE} seconds to begin.")


def read_row(thread_id: str, stored: Mapping[str, bytes]) -> ThreadRow | None:
    """A thread from its hash. Raises IntegrityError."""
    if "head_id" not in stored:
        return None
    try:
        fields = {name: stored[name].decode() for name in ThreadRow.model_fields if name in stored}
        return ThreadRow.model_validate(fields | {"thread_id": thread_id})
    except ValueError as error:
        raise IntegrityError(
            f"Thread {thread_id}: its row can't be read: {error}.", table="threads", row=thread_id
        ) from error


def row_fields(row: ThreadRow) -> list[str]:
    """The fields of a thread's hash, flat; its id is in its key."""
    fields: dict[str, Any] = row.model_dump(exclude={"thread_id"})
    return [part for name, value in fields.items() for part in (name, _text(value))]


def head_fields(checkpoint: Checkpoint) -> list[str]:
    """Those that follow the head."""
    return [
        "head_id", checkpoint.id, "turn", str(checkpoint.turn), "schema_version", str(checkpoint.schema_version),
    ]  # fmt: skip


def moved_fields(step: Step) -> list[str]:
    """Those that a step sets when its checkpoint becomes the head."""
    branch = [] if step.branch is None else ["branch", str(step.branch)]
    return [*head_fields(step.checkpoint), "updated_at", step.checkpoint.created_at, *branch]


def new_fields(step: Step) -> list[str]:
    """Those of a thread that a step begins, but for the ones of its head."""
    c = step.checkpoint
    origin = ["origin_thread", c.parent_thread, "origin_id", c.parent_id or ""] if c.parent_thread else []
    return [
        "agent", step.agent, "tenant", step.tenant, "lineage", step.lineage or c.thread_id, "branch", "0",
        "closed", "0", "created_at", c.created_at, *origin,
    ]  # fmt: skip


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
