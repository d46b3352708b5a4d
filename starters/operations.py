"""The client's operations: stop a turn, undo it, settle what is in doubt, give it more room, close the thread."""

from perdure.budget import Budget
from perdure.contracts import CancelTurn, Compensate, ExtendBudget, ResolveEffect
from perdure.effects import Effect, Residue
from perdure.errors import Refused, ThreadNotFound
from perdure.starters.connection import Connection

UNDOING = 3600.0  # seconds that a caller waits for compensations; they have retries of their own


class Operations(Connection):
    """What operators do to threads."""

    async def cancel(self, thread_id: str, *, by: str = "", reason: str = "", compensate: bool = True) -> None:
        """Stop the running turn. Raises ThreadNotFound."""
        await self._signal(thread_id, "cancel_turn", CancelTurn(by=by, reason=reason, compensate=compensate))

    async def compensate(
        self, thread_id: str, *, turn: int | None = None, saga: str = "", by: str = "", reason: str = ""
    ) -> Residue:
        """Undo the effects of a turn and of the sagas it took part in, or of one saga (``thread``: all of the thread);
        without either, of the latest turn that has some.

        A thread that had completed is woken for it. Raises Refused if there are none.
        """
        task = Compensate(turn=turn, saga=saga, by=by, reason=reason)
        return await self._update(thread_id, "compensate", task, Residue, wake=True, patience=UNDOING)

    async def resolve(self, thread_id: str, key: str, *, done: bool | None, by: str, reason: str = "") -> Effect:
        """Settle an effect that is in doubt or could not be undone; with None the tool's own hook is asked.

        Raises EffectNotFound, Refused, also where the hook can't tell, and Conflict where the ledger knows better.
        """
        task = ResolveEffect(key=key, done=done, by=by, reason=reason)
        return await self._update(thread_id, "resolve_effect", task, Effect, wake=True)

    async def extend(self, thread_id: str, *, steps: int = 0, tokens: int = 0, by: str = "") -> Budget:
        """Give the running turn more room. Raises Refused if none runs."""
        task = ExtendBudget(steps=steps, tokens=tokens, by=by)
        try:
            return await self._update(thread_id, "extend_budget", task, Budget)
        except ThreadNotFound:
            await self._resumable(thread_id)
            raise Refused(f"Thread {thread_id} has completed; no turn is running.") from None

    async def close_thread(self, thread_id: str) -> None:
        """Let the thread finish its turn and take no more messages."""
        await self._update(thread_id, "close", None, type(None), wake=True)
