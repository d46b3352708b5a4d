"""The client's look into the store: states, checkpoints and branches of threads, and how two of them differ.

Where a checkpoint is asked for, anything that ``perdure.travel.named`` understands will do: an id or the end of one, a
step, ``head~2``, ``turn:3``, ``good``. Values of sensitive channels are shown as ``[sensitive]``.
"""

from collections.abc import Mapping

from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.contracts import CheckpointAnswer, RewindPlan
from perdure.delta import Values
from perdure.starters.branches import Tree
from perdure.starters.compare import Comparison
from perdure.starters.connection import Connection
from perdure.starters.entries import Difference, HistoryEntry


class Checkpoints(Connection):
    """What threads were."""

    async def checkpoint(self, thread_id: str) -> CheckpointAnswer:
        """The current checkpoint; a state too large for a query is completed from the store."""
        answer = await self._query(thread_id, "checkpoint", CheckpointAnswer)
        if not answer.truncated or answer.head is None:
            return answer
        state = await self.state(thread_id, answer.head.id)
        return answer.model_copy(update={"state": state, "truncated": False, "omitted": {}})

    async def state(self, thread_id: str, at: str = "") -> Values:
        """The state at a checkpoint (default: the head), checked against its digests.

        Raises ThreadNotFound, CheckpointNotFound, AmbiguousCheckpoint, IntegrityError.
        """
        return await self._archive.state(thread_id, at)

    async def history(
        self, thread_id: str, *, limit: int = 20, before: str = "", where: Mapping[str, Json] | None = None,
        all_branches: bool = False,
    ) -> list[HistoryEntry]:  # fmt: skip
        """A page of the head's line, newest first, across forks; with ``all_branches`` also what rewinds have left.

        ``before``: only what came before this checkpoint. ``where``: only those with these entries in their metadata.
        Raises ThreadNotFound, CheckpointNotFound, AmbiguousCheckpoint.
        """
        return await self._archive.history(
            thread_id, limit=limit, before=before, where=where or {}, all_branches=all_branches
        )

    async def tree(self, thread_id: str) -> Tree:
        """The branches of a thread and where others were forked from it. Raises ThreadNotFound."""
        return await self._archive.tree(thread_id)

    async def find(self, metadata: Mapping[str, Json], *, thread_id: str = "", limit: int = 100) -> list[Checkpoint]:
        """Checkpoints with all of these entries in their metadata, newest first; of all threads, or of one."""
        return await self._archive.find(metadata, thread_id=thread_id, limit=limit)

    async def diff(self, thread_id: str, before: str, after: str = "", *, other: str = "") -> Difference:
        """How the state differs between two checkpoints; the second is of ``other``, where that is given.

        Raises ThreadNotFound, CheckpointNotFound, AmbiguousCheckpoint, IntegrityError.
        """
        return await self._archive.diff((thread_id, before), (other or thread_id, after))

    async def compare(self, thread_id: str, other: str, *, at: str = "", other_at: str = "") -> Comparison:
        """Two branches since their common past: how their states differ, what each has cost, what each did outside.

        Of two threads, or of one thread at two of its checkpoints (default: the heads). Raises as ``diff``.
        """
        return await self._archive.compare(thread_id, other, at=at, other_at=other_at)

    async def rewind_plan(self, thread_id: str, to: str) -> RewindPlan:
        """What a rewind would undo, keep, or can't undo; nothing is changed.

        Raises ThreadNotFound, CheckpointNotFound, AmbiguousCheckpoint, InvalidInput where it isn't on the way back.
        """
        return await self._archive.rewind_plan(thread_id, to)

    async def blob(self, digest: str) -> bytes:
        """A large tool result by the digest that its message names. Raises CheckpointNotFound, IntegrityError."""
        return await self._archive.blob(digest)
