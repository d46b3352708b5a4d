"""Threads: their rows, and which of them were forked from which."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from perdure.checkpoint import Checkpoint
from perdure.errors import IntegrityError, StoreUnreachable
from perdure.stores import refusals
from perdure.stores.base import Step, ThreadRow
from perdure.stores.redis.keys import note, read_note
from perdure.stores.redis.part import Part, pairs

# A fork is noted at its parent before it is committed. The server refuses a commit that comes too long after that, and
# only takes a note for one that came to nothing when it is older still: so no parent goes away under a fork.
PATIENCE = 60  # seconds
_GIVEN_UP = 120
RESTORED = "restored"  # the token of a fork that was put back


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
        forks, _ = await self._noted(thread_id)
        return forks

    async def close_thread(self, thread_id: str) -> None:
        await self._run("change", thread_id, "closed", 1)

    async def set_lease(self, thread_id: str, lease: str) -> None:
        await self._run("change", thread_id, "lease", lease)

    async def _rows(self, thread_ids: Sequence[str]) -> list[ThreadRow | None]:
        found = await self._ask_all([("HGETALL", self._keys.part(name, "thread")) for name in thread_ids])
        return [read_row(name, pairs(row)) for name, row in zip(thread_ids, found, strict=True)]

    # ── forks ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _noted(self, thread_id: str) -> tuple[list[ThreadRow], dict[str, str]]:
        """The forks of a thread; and the notes of those that were given up, with the time at which they were made."""
        flat, now = await self._run("forks", thread_id)
        stamps = {name: stamp.decode() for name, stamp in pairs(flat).items()}
        forks: dict[str, ThreadRow] = {}
        dead: dict[str, str] = {}
        rows = await self._rows([read_note(field)[0] for field in stamps])
        for (field, stamp), row in zip(stamps.items(), rows, strict=True):
            if row is not None and (row.origin_thread, row.origin_id) == (thread_id, read_note(field)[1]):
                forks[row.thread_id] = row
            elif now - int(stamp) > _GIVEN_UP:
                dead[field] = stamp
        return [forks[name] for name in sorted(forks)], dead

    async def _check_forks(self, thread_id: str, gone: Collection[str] | None = None) -> dict[str, str]:
        """Raise Conflict where a fork begins at one of the checkpoints (None: at any).

        Returns the notes of forks that were given up: the script that removes looks once more, but not at them.
        """
        forks, dead = await self._noted(thread_id)
        for row in forks:
            if gone is None or row.origin_id in gone:
                raise refusals.forked(thread_id, row.thread_id)
        return dead

    async def _note(self, origin: tuple[str, str], fork: str, token: str, *, anyhow: bool = False) -> int | None:
        """Note a fork at its parent (thread, checkpoint): when that was, or None where there is no such checkpoint."""
        thread_id, checkpoint_id = origin
        checked = "" if anyhow else checkpoint_id
        stamp: int | None = await self._run("note", thread_id, checked, note(fork, checkpoint_id, token))
        return stamp

    async def _unnote(self, origin: tuple[str, str], fork: str, token: str) -> None:
        """Take a note back, unless it is the one with which the fork began: that is known when its answer was lost."""
        if await self._maker(fork) != token:
            await self._drop_note(origin, fork, token)

    async def _drop_note(self, origin: tuple[str, str], fork: str, token: str) -> None:
        thread_id, checkpoint_id = origin
        await self._tell(("HDEL", self._keys.part(thread_id, "forks"), note(fork, checkpoint_id, token)))

    async def _maker(self, thread_id: str) -> str:
        """The token of the note with which a fork began."""
        token = await self._ask("HGET", self._keys.part(thread_id, "thread"), "made_by")
        return token.decode() if token else RESTORED

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
        "closed", "0", "dry_run", _text(step.dry_run), "created_at", c.created_at, *origin,
    ]  # fmt: skip


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
