"""Threads as the store has them: what can be known of a thread without Temporal, or when Temporal has forgotten it."""

import re
from typing import TYPE_CHECKING

from perdure.canonical import digest as canonical_digest
from perdure.checkpoint import Checkpoint
from perdure.contracts import THREAD_ID, Status, StatusAnswer
from perdure.delta import Values
from perdure.effects import OPEN, Effect
from perdure.errors import CheckpointNotFound, IntegrityError, InvalidInput, ThreadNotFound
from perdure.settings import Settings

if TYPE_CHECKING:
    from perdure.checkpointer import Checkpointer
    from perdure.stores.base import Store, ThreadRow


class Archive:
    """Reads the store that the settings name; it is opened at the first question, and must be there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened: Checkpointer | None = None

    async def close(self) -> None:
        """Let go of the store's connections."""
        if self._opened is not None:
            await self._opened.store.close()

    async def thread(self, thread_id: str) -> "ThreadRow":
        """The thread's row. Raises ThreadNotFound, StoreUnreachable."""
        row = await self._store.thread(checked_id(thread_id))
        if row is None:
            raise ThreadNotFound(f"The store has no thread {thread_id}.", hint="Is PERDURE_STORE right?")
        return row

    async def state(self, thread_id: str, checkpoint_id: str = "") -> Values:
        """The state at a checkpoint (default: the head), checked against its digests.

        Raises ThreadNotFound, CheckpointNotFound, IntegrityError.
        """
        row = await self.thread(thread_id)
        return (await self._checkpointer.load(thread_id, checkpoint_id or row.head_id)).values

    async def history(self, thread_id: str, *, limit: int = 20, before_step: int | None = None) -> list[Checkpoint]:
        """A page of checkpoints, newest first. Raises ThreadNotFound."""
        await self.thread(thread_id)
        return await self._store.history(thread_id, limit=limit, before_step=before_step)

    async def blob(self, digest: str) -> bytes:
        """A large tool result by the digest that its message names. Raises CheckpointNotFound, IntegrityError."""
        found = await self._store.blob(digest)
        if found is None:
            raise CheckpointNotFound(f"The store has no blob {digest}.")
        if canonical_digest(found) != digest:
            raise IntegrityError(f"The blob {digest} doesn't match its digest.", table="blobs", row=digest)
        return found

    async def effects(self, thread_id: str) -> list[Effect]:
        """The ledger, oldest first; empty for a thread that the store doesn't have."""
        return [row.entry for row in await self._store.effects(checked_id(thread_id))]

    async def status(self, thread_id: str) -> StatusAnswer:
        """What a thread without a workflow does: it waits for a message, unless a person has to settle something.

        Raises ThreadNotFound.
        """
        row = await self.thread(thread_id)
        head = await self._store.checkpoint(thread_id, row.head_id)
        unsettled = [effect for effect in await self.effects(thread_id) if effect.status in OPEN]
        return StatusAnswer(
            thread_id=thread_id, agent=row.agent, status=_status(row, unsettled), turn=row.turn,
            step=head.step if head else 0,
            attention=tuple(f"{e.key}: {e.label()} ({e.status})" for e in unsettled),
        )  # fmt: skip

    @property
    def _store(self) -> "Store":
        return self._checkpointer.store

    @property
    def _checkpointer(self) -> "Checkpointer":
        if self._opened is None:
            from perdure.checkpointer import Checkpointer  # and with it the database's driver: only when needed
            from perdure.stores.open import open_existing

            self._opened = Checkpointer(open_existing(self._settings.store_url()))
        return self._opened


def checked_id(thread_id: str) -> str:
    """The thread id. Raises InvalidInput if it can't be one."""
    if not re.fullmatch(THREAD_ID, thread_id):
        raise InvalidInput(
            f"{thread_id!r} is no thread id.",
            hint="Letters, digits and . _ : - are allowed, up to 200, beginning with a letter or digit.",
        )
    return thread_id


def _status(row: "ThreadRow", unsettled: list[Effect]) -> Status:
    if row.closed:
        return "closed"
    if any(effect.status == "in_doubt" for effect in unsettled):
        return "in_doubt"
    return "needs_attention" if unsettled else "idle"
