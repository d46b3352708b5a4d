"""Activities around a turn: find a thread, open a turn, take up what follows a head, close a thread."""

from typing import Any

from temporalio import activity

from perdure.activities.once import once
from perdure.activities.planning import Place, open_plans
from perdure.activities.records import Record, tool_message
from perdure.activities.runtime import Runtime
from perdure.activities.steps import Extra, first_frontier, write
from perdure.canonical import Json, canonical
from perdure.checkpointer import Position
from perdure.contracts import (
    CLOSE_THREAD,
    INLINE,
    KEEP_LEASE,
    LOOK_UP,
    OPEN_TURN,
    RESUME_TURN,
    CloseThread,
    Committed,
    Found,
    KeepLease,
    LookUp,
    OpenedTurn,
    OpenTurn,
    ResumedTurn,
    ResumeTurn,
    Send,
)
from perdure.delta import Delta, Values
from perdure.effects import OPEN, Effect
from perdure.errors import Conflict, DefinitionError, InvalidInput, ThreadClosed, ThreadNotFound
from perdure.graphs.definition import Definition
from perdure.lease import Lease
from perdure.message import Message, open_calls
from perdure.state import State, conversations
from perdure.states.schema import Opened
from perdure.stores.base import Store, ThreadRow
from perdure.view import view_of

_LOOKED_BACK = 200  # checkpoints in which a resumed thread looks for messages that may be sent once more
_SEEN = 50  # so many of their ids travel in the history, two kilobytes
_ORPHANED = "Its workflow ended before its outcome was known."
_NO_RESULT = "Its result is unknown: the turn was stopped."


class TurnActivities:
    """Opening turns."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=LOOK_UP.name)
    async def look_up(self, task: LookUp) -> Found:
        """Where a thread stands. Raises ThreadNotFound or ThreadClosed."""
        row = await self._runtime.store.thread(task.thread_id)
        if row is None:
            raise ThreadNotFound(f"There is no thread {task.thread_id}.", hint="Start it with `perdure start AGENT`.")
        if row.closed:
            raise ThreadClosed(f"Thread {task.thread_id} is closed.", hint="Start a new one.")
        head = await self._runtime.checkpointer.load(task.thread_id, row.head_id)
        attention, orphaned = await self._unsettled(task.thread_id)
        latest = await self._runtime.store.landmarks(task.thread_id, row.head_id, limit=_LOOKED_BACK)
        seen = [str(c.facts["message_id"]) for c in reversed(latest) if "message_id" in c.facts]
        told = {
            "attention": attention, "orphaned": orphaned, "seen": tuple(seen[-_SEEN:]), "audit": row.audit_end,
            "notify": self._runtime.limits.notify,
        }  # fmt: skip
        return found(row, head).model_copy(update=told)

    async def _unsettled(self, thread_id: str) -> tuple[tuple[Effect, ...], tuple[str, ...]]:
        """The effects that a person has to settle, and the keys of those that are in doubt since now: nobody waits any
        more for what is marked as attempted, for its workflow was terminated."""
        store = self._runtime.store
        entries = [row.entry for row in await store.effects(thread_id)]
        if orphaned := tuple(entry.key for entry in entries if entry.status == "attempted"):
            for key in orphaned:
                await store.settle(thread_id, key, "in_doubt", error=_ORPHANED)
            entries = [row.entry for row in await store.effects(thread_id)]
        return tuple(entry for entry in entries if entry.status in OPEN), orphaned

    @activity.defn(name=OPEN_TURN.name)
    async def open_turn(self, task: OpenTurn) -> OpenedTurn:
        """Read the agent's specification as it is now and commit the message.

        Raises AgentNotFound, InvalidInput, or Conflict where a thread to be begun exists; then nothing was written.
        """
        definition = await self._runtime.publish(task.agent)
        done = await once(lambda: self._runtime.earlier(task.commit), lambda: self._take_in(task, definition))
        return OpenedTurn(spec=definition.spec, committed=done)

    async def _take_in(self, task: OpenTurn, definition: Definition) -> Committed:
        runtime, commit = self._runtime, task.commit
        if commit.head is None and await runtime.store.thread(commit.thread_id) is not None:
            raise Conflict(f"There is a thread {commit.thread_id} already.", hint="Send to it, or choose another id.")
        opened = await runtime.open(commit, task.agent)
        graph = runtime.app.graph(task.agent)
        delta, after = opened.after(opened.given(_input(graph.state, task.message, opened)), step=_step(opened))
        facts: dict[str, Json] = {"message_id": task.message.id}
        if task.message.sender:
            facts["sender"] = task.message.sender
        extra = Extra(facts=facts, metadata=task.message.metadata)
        merged = await write(
            runtime, commit, opened, delta, source="input", next=await first_frontier(graph, definition.spec, after),
            extra=extra, agent=task.agent, tenant=task.tenant,
        )  # fmt: skip
        return merged.told()

    @activity.defn(name=RESUME_TURN.name)
    async def resume_turn(self, task: ResumeTurn) -> ResumedTurn:
        """The agent as it is now, and plans for the calls that wait at the head.

        Raises AgentNotFound, and DefinitionError where what follows is no longer part of the agent.
        """
        head = await self._runtime.checkpointer.load(task.thread_id, task.head.id, expect=task.head.digest)
        return await resumed(self._runtime, task.agent, head, task.branch)

    @activity.defn(name=KEEP_LEASE.name)
    async def keep_lease(self, task: KeepLease) -> bool:
        """Keep the lease in the store, so that it holds also where the workflow completes."""
        await self._runtime.store.set_lease(task.thread_id, task.lease.model_dump_json() if task.lease else "")
        return True

    @activity.defn(name=CLOSE_THREAD.name)
    async def close_thread(self, task: CloseThread) -> bool:
        """Mark the thread as closed, so that it stays closed when Temporal has forgotten it."""
        await self._runtime.store.close_thread(task.thread_id)
        return True


async def resumed(runtime: Runtime, agent: str, head: Position, branch: int) -> ResumedTurn:
    """What follows a head, with the agent as it is now. Raises as ``resume_turn``."""
    definition = await runtime.publish(agent)
    if gone := [node for node in head.next.nodes if node not in definition.spec.nodes]:
        raise DefinitionError(
            f"What follows is {', '.join(gone)}, which {agent} no longer has.",
            hint="Deploy it again, or send a message: that begins a new turn.",
        )
    opened = runtime.opened(agent, head)
    place = Place(thread_id=head.thread_id, branch=branch, turn=head.turn, step=head.ref.step)
    calls = open_plans(runtime, definition, opened, head.next.nodes, place)
    return ResumedTurn(spec=definition.spec, calls=calls, requesters=await requesters(runtime.store, head))


async def requesters(store: Store, head: Position) -> tuple[str, ...]:
    """Who asked for what follows the head: who sent the message of its turn, for whom it was promoted, and who has
    changed its state since, forked or rewound it."""
    names: list[str] = []
    for checkpoint in await store.landmarks(head.thread_id, head.ref.id, limit=head.ref.step + 1, in_turn=True):
        facts = checkpoint.facts
        names += [*facts.get("asked", ()), facts.get("sender", ""), facts.get("by", "")]
        if checkpoint.source == "input":
            break
    return tuple(dict.fromkeys(filter(None, names)))


def found(row: ThreadRow, head: Position, delta: Delta | None = None, going_on: ResumedTurn | None = None) -> Found:
    """Where a thread stands, as its workflow is told; ``delta`` where the head was committed just now, ``going_on``
    where what follows runs at once."""
    inline = delta is not None and len(canonical(delta)) <= INLINE
    return Found(
        agent=row.agent, tenant=row.tenant, head=head.ref, parent_id=head.parent_id, next=head.next.nodes,
        turn=head.turn, branch=row.branch, view=view_of(head.values).carried(), schema_version=head.schema_version,
        dry_run=row.dry_run, lease=Lease.model_validate_json(row.lease) if row.lease else None,
        delta=delta if inline else None, going_on=going_on,
    )  # fmt: skip


def _step(opened: Opened) -> int:
    return opened.position.ref.step + 1 if opened.position else 0


def _input(state: type[State], message: Send, opened: Opened) -> dict[str, dict[str, Any]]:
    """What a message writes. Raises InvalidInput."""
    update: dict[str, Any] = dict(opened.given({"The input": message.state})["The input"])
    if message.content:
        if "messages" in update:
            raise InvalidInput("Give either a message or the channel `messages`, not both.")
        update["messages"] = [Message(role="user", content=message.content, name=message.sender)]
    if not update:
        raise InvalidInput("The message is empty.", hint="Give a text or an input.")
    return {"the conversation": _unanswered(state, opened.values), "The input": update}


def _unanswered(state: type[State], values: Values) -> dict[str, Any]:
    """Answers for calls that an earlier turn left without one because not even its end could be committed: a model
    refuses a conversation in which they are missing."""
    left: dict[str, Any] = {}
    for channel in conversations(state):
        if calls := open_calls(values.get(channel, [])):
            left[channel] = [tool_message(call.id, Record(ok=False, content=_NO_RESULT)) for call in calls]
    return left
