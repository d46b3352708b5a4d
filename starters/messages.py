"""The client's messages: start a thread, send to it, wait for the answer."""

import uuid
from typing import Any

from perdure.canonical import Json
from perdure.contracts import Accepted, Send, StatusAnswer, ThreadInput, TurnResult
from perdure.errors import NotFound, ThreadNotFound, TurnFailed
from perdure.starters.connection import STATUS, Connection
from perdure.starters.patience import Patience

_GLANCES = 4  # at most so many, which only see the thread's status, before a look: it sees results, too
_AT_WORK = frozenset({"running", "compensating"})
_WAITS_FOR_PEOPLE = frozenset({"awaiting_approval", "awaiting_input", "in_doubt", "out_of_budget"})


class Messages(Connection):
    """What is said to threads."""

    async def start(
        self, agent: str, message: str = "", *, thread: str = "", state: dict[str, Any] | None = None,
        sender: str = "", tenant: str = "", message_id: str = "", metadata: dict[str, Json] | None = None,
    ) -> tuple[str, Accepted]:  # fmt: skip
        """Start a thread with its first message; its id and the acknowledgement.

        ``metadata`` is kept with the checkpoint that takes the message in, and can be searched. Raises InvalidInput,
        AgentNotFound, Conflict if the thread exists, TemporalUnreachable.
        """
        said = new_message(message, state, sender=sender, id=message_id, metadata=metadata)
        thread_id = await self._require_free(thread or f"{agent}-{uuid.uuid4().hex[:8]}")
        given = ThreadInput(agent=agent, tenant=tenant)
        return thread_id, await self._update_with_start(thread_id, given, said.content, "send", said, Accepted)

    async def send(
        self, thread_id: str, message: str = "", *, state: dict[str, Any] | None = None, sender: str = "",
        message_id: str = "", metadata: dict[str, Json] | None = None, token: str = "",
    ) -> Accepted:  # fmt: skip
        """Send a message; a thread that had completed is started again from its head checkpoint.

        The same ``message_id`` twice is one message. ``token`` is that of a lease, where it isn't held by this client.
        Raises ThreadNotFound, ThreadClosed, ThreadBusy, LeaseHeld, InvalidInput.
        """
        token = self._token(thread_id, token)
        said = new_message(message, state, sender=sender, id=message_id, metadata=metadata, token=token)
        return await self._deliver(thread_id, said)

    async def _deliver(self, thread_id: str, said: Send) -> Accepted:
        try:
            return await self._update(thread_id, "send", said, Accepted)
        except ThreadNotFound:
            agent, tenant = await self._resumable(thread_id)
        given = ThreadInput(agent=agent, tenant=tenant, resume=True)
        return await self._update_with_start(thread_id, given, said.content, "send", said, Accepted)

    async def wait(self, thread_id: str, message_id: str = "", *, for_people: bool = True) -> TurnResult | StatusAnswer:
        """Wait until the turn of a message (default: whatever runs now) has ended; its result.

        With ``for_people`` also return, with the status, as soon as the thread waits for a person. Raises NotFound
        where the thread is at rest and doesn't remember the message, TurnFailed where its workflow has ended in the
        middle of a turn.
        """
        alive, patience = True, Patience()
        while True:
            status = await self._query(thread_id, "status", StatusAnswer)
            at_rest = not (status.node or status.queued) and status.status not in _AT_WORK
            for result in reversed(status.results):
                if message_id in result.message_ids or (at_rest and not message_id):
                    return result
            if (for_people and status.status in _WAITS_FOR_PEOPLE) or (at_rest and not message_id):
                return status
            if at_rest:
                hint = "It keeps those of its latest turns; `perdure history` shows the others."
                raise NotFound(f"Thread {thread_id} has no result of message {message_id}.", hint=hint)
            if not alive:
                ended = f"The workflow of thread {thread_id} ended in the middle of a turn."
                raise TurnFailed(ended, hint="Temporal shows why; the next message takes the thread up again.")
            alive = await self._news(thread_id, patience)

    async def _news(self, thread_id: str, patience: Patience) -> bool:
        """Wait until a look may be worth it; whether the thread's workflow is alive.

        A look is a query: its worker has to answer it, between the tasks of the turn, which so takes longer. A glance
        asks nobody but the server. It doesn't see that one turn has given way to the next; hence the look after some.
        """
        for _ in range(_GLANCES):
            await patience.pause()
            if (run := await self._open_run(thread_id)) is None:
                return False
            if run.typed_search_attributes.get(STATUS) not in _AT_WORK:
                break
        return True

    async def run(self, thread_id: str, message: str) -> str:
        """Send a message and wait for the answer. Raises TurnFailed where there is none."""
        accepted = await self.send(thread_id, message)
        result = await self.wait(thread_id, accepted.message_id, for_people=False)
        if not isinstance(result, TurnResult) or result.outcome != "answered":
            raise TurnFailed(f"Turn of {thread_id} ended without an answer: {getattr(result, 'error', '')}.")
        return result.answer


def new_message(
    content: str, state: dict[str, Any] | None = None, *, sender: str = "", id: str = "",
    metadata: dict[str, Json] | None = None, token: str = "",
) -> Send:  # fmt: skip
    """A message that may be sent. Raises InvalidInput."""
    said = Send(
        id=id or str(uuid.uuid4()), content=content, state=state or {}, sender=sender, metadata=metadata or {},
        token=token,
    )  # fmt: skip
    if fault := said.fault():
        raise fault
    return said
