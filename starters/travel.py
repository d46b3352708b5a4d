"""The client's time travel: fork a thread, rewind it, write to its state, let it go on, promote a dry run.

Where a checkpoint is asked for, anything that ``perdure.travel.named`` understands will do.
"""

import asyncio
import uuid
from collections.abc import Collection
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError

from perdure.canonical import Json
from perdure.contracts import (
    CheckpointAnswer,
    Committed,
    Origin,
    Promote,
    Resume,
    Rewind,
    Rewound,
    StatusAnswer,
    ThreadInput,
    UpdateState,
)
from perdure.errors import StoreUnreachable
from perdure.failures import from_failure
from perdure.starters.messages import Messages, new_message
from perdure.starters.operations import UNDOING
from perdure.starters.patience import Patience
from perdure.values import Value

_SOON = 0.05  # seconds that a fork takes; whoever looks before that only holds it up
_PATIENCE = 60.0  # seconds until it is; the store may be away for a while


class Forked(Value):
    """A thread that was forked: from where, the step of its first checkpoint, and which nodes follow that.

    ``message_id`` is that of the message that it was sent. ``dry_run``: it never does anything outside.
    """

    thread_id: str
    origin_thread: str
    origin_id: str
    step: int
    next: tuple[str, ...] = ()
    message_id: str = ""
    dry_run: bool = False


class TimeTravel(Messages):
    """What moves threads without a turn."""

    async def fork(
        self, thread_id: str, at: str = "", *, thread: str = "", state: dict[str, Any] | None = None,
        message: str = "", hold: bool = False, metadata: dict[str, Json] | None = None, by: str = "",
        dry_run: bool = False,
    ) -> Forked:  # fmt: skip
        """Make a new thread from a checkpoint of another (default: the head), which stays as it is.

        ``state`` sets channels in it, whatever their reducers. What follows the checkpoint runs by itself, unless
        ``hold`` (``resume`` lets it go on then) or a ``message``, which begins a turn in its place. With ``dry_run`` it
        never does anything outside: calls are answered from recorded receipts, or simulated. Raises ThreadNotFound,
        CheckpointNotFound, AmbiguousCheckpoint, InvalidInput, Conflict where the new thread exists, Refused for a fork
        of a dry run that isn't one.
        """
        said = new_message(message, sender=by) if message else None
        row, origin = await self._archive.thread(thread_id), await self._archive.checkpoint(thread_id, at)
        new = await self._require_free(thread or f"{thread_id[:180]}-fork-{uuid.uuid4().hex[:4]}")
        given = ThreadInput(
            agent=row.agent, tenant=row.tenant,
            origin=Origin(
                thread_id=origin.thread_id, checkpoint_id=origin.id, state=state or {}, metadata=metadata or {}, by=by,
                go_on=not (hold or message), dry_run=dry_run,
            ),
        )  # fmt: skip
        kind = "dry run" if dry_run else "fork"
        await self._start_workflow(new, given, f"{kind} of {thread_id} at step {origin.step}")
        await self._forked(new)
        if said is not None:
            await self._deliver(new, said)
        return Forked(
            thread_id=new, origin_thread=origin.thread_id, origin_id=origin.id, step=origin.step + 1,
            next=origin.next.nodes, message_id=said.id if said else "", dry_run=dry_run,
        )  # fmt: skip

    async def _forked(self, thread_id: str) -> None:
        """Wait until the fork is there. Raises what its workflow failed with."""
        patience = Patience()
        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.sleep(_SOON)
                while True:
                    answer = await self._query(thread_id, "checkpoint", CheckpointAnswer)
                    if answer.head is not None:
                        return
                    run = await self._last_run(thread_id)
                    if run is not None and run.status != WorkflowExecutionStatus.RUNNING:
                        await self._handle(thread_id).result()
                    await patience.pause()
        except WorkflowFailureError as failed:
            raise from_failure(failed.cause) from failed
        except TimeoutError as late:
            raise StoreUnreachable(
                f"Thread {thread_id} is not there after {_PATIENCE:g} s; its worker goes on trying.",
                hint="Does the worker reach the store?",
            ) from late

    async def rewind(
        self, thread_id: str, to: str, *, keep_effects: bool = False, go_on: bool = False, expected_version: str = "",
        metadata: dict[str, Json] | None = None, by: str = "", reason: str = "", token: str = "",
    ) -> Rewound:  # fmt: skip
        """Undo what was done outside since a checkpoint, then move the head back to it; a running turn is stopped.

        ``keep_effects`` keeps what can't be undone, ``go_on`` runs what follows the checkpoint. ``expected_version`` is
        the id of the head that the caller has seen. Raises Irrevocable, Refused where an effect is in doubt, LeaseHeld,
        ConcurrentModification, Failed where something could not be undone; the head stays then. And as ``rewind_plan``.
        """
        task = Rewind(
            to=await self._archive.rewind_target(thread_id, to), keep_effects=keep_effects, go_on=go_on,
            expected_version=expected_version, metadata=metadata or {}, by=by, reason=reason,
            token=self._token(thread_id, token),
        )  # fmt: skip
        return await self._update(thread_id, "rewind", task, Rewound, wake=True, patience=UNDOING)

    async def update_state(
        self, thread_id: str, state: dict[str, Any] | None = None, *, overwrite: Collection[str] = (),
        expected_version: str = "", as_node: str = "", metadata: dict[str, Json] | None = None, by: str = "",
        reason: str = "", token: str = "",
    ) -> Committed:  # fmt: skip
        """Write to channels of the state between turns, through their reducers, or over them (``overwrite``).

        ``expected_version`` is the id of the checkpoint that the caller has seen. ``as_node``: it counts as what this
        node came to. Raises ConcurrentModification with both versions, ThreadBusy, LeaseHeld, InvalidInput, NodeGone.
        """
        task = UpdateState(
            state=state or {}, overwrite=tuple(overwrite), expected_version=expected_version, as_node=as_node,
            metadata=metadata or {}, by=by, reason=reason, token=self._token(thread_id, token),
        )  # fmt: skip
        return await self._update(thread_id, "update_state", task, Committed, wake=True)

    async def resume(self, thread_id: str, *, by: str = "", token: str = "") -> StatusAnswer:
        """Let a thread go on with what follows its head. Raises Refused where nothing does, ThreadBusy, LeaseHeld."""
        task = Resume(by=by, token=self._token(thread_id, token))
        return await self._update(thread_id, "resume", task, StatusAnswer, wake=True)

    async def promote(
        self, thread_id: str, fork: str, *, by: str = "", reason: str = "", expected_version: str = "", token: str = ""
    ) -> StatusAnswer:
        """Make the plan of a dry run of the thread its next turn: its calls are made for real, behind their gates anew.

        Raises ThreadNotFound, ConcurrentModification where the thread isn't where the dry run began, Refused where the
        other is no dry run of it that came to an end by itself, ThreadBusy, ThreadClosed, LeaseHeld; nothing was
        changed then.
        """
        task = Promote(
            fork=fork, by=by, reason=reason, expected_version=expected_version, token=self._token(thread_id, token)
        )
        return await self._update(thread_id, "promote", task, StatusAnswer, wake=True)
