"""Activities around a step: open a turn, merge a step, close a thread."""

from typing import Any

from temporalio import activity

from perdure.activities.once import once
from perdure.activities.records import Record, tool_message
from perdure.activities.runtime import Runtime, committed
from perdure.agent import Agent
from perdure.canonical import canonical
from perdure.checkpointer import Change, Position
from perdure.contracts import (
    CLOSE_THREAD,
    LOOK_UP,
    MERGE_STEP,
    NOT_EXECUTED,
    OPEN_TURN,
    CloseThread,
    Commit,
    Committed,
    Found,
    LookUp,
    MergeStep,
    OpenedTurn,
    OpenTurn,
    Part,
    Send,
)
from perdure.delta import Delta, Values
from perdure.effects import OPEN, Effect
from perdure.errors import ConcurrentModification, Conflict, InvalidInput, ThreadClosed, ThreadNotFound
from perdure.message import Message, open_calls
from perdure.state import State, reduce_updates
from perdure.view import view_of

_LOOKED_BACK = 200  # checkpoints in which a resumed thread looks for messages that may be sent once more
_SEEN = 50  # so many of their ids travel in the history, two kilobytes
_ORPHANED = "Its workflow ended before its outcome was known."
_NO_RESULT = "Its result is unknown: the turn was stopped."


class TurnActivities:
    """Opening turns and merging steps."""

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
        entries = await self._doubted(task.thread_id)
        latest = await self._runtime.store.history(task.thread_id, limit=_LOOKED_BACK)
        seen = [c.metadata["message_id"] for c in reversed(latest) if "message_id" in c.metadata]
        return Found(
            agent=row.agent, tenant=row.tenant, head=head.ref, parent_id=head.parent_id, turn=row.turn,
            branch=row.branch, view=view_of(head.values), attention=tuple(e for e in entries if e.status in OPEN),
            seen=tuple(seen[-_SEEN:]),
        )  # fmt: skip

    async def _doubted(self, thread_id: str) -> list[Effect]:
        """The ledger. What is still marked as attempted nobody waits for any more: its workflow was terminated."""
        store = self._runtime.store
        entries = [row.entry for row in await store.effects(thread_id)]
        for number, entry in enumerate(entries):
            if entry.status == "attempted":
                await store.settle(thread_id, entry.key, "in_doubt", error=_ORPHANED)
                entries[number] = entry.model_copy(update={"status": "in_doubt", "error": _ORPHANED})
        return entries

    @activity.defn(name=OPEN_TURN.name)
    async def open_turn(self, task: OpenTurn) -> OpenedTurn:
        """Read the agent's specification as it is now and commit the message.

        Raises AgentNotFound, InvalidInput, or Conflict where a thread to be begun exists; then nothing was written.
        """
        agent = self._runtime.app.agent(task.agent)
        definition = await self._runtime.publish(agent.name)
        done = await once(lambda: self._earlier(task.commit), lambda: self._take_in(task, agent))
        return OpenedTurn(spec=definition.spec, committed=done)

    async def _take_in(self, task: OpenTurn, agent: Agent) -> Committed:
        runtime, commit = self._runtime, task.commit
        if commit.head is None and await runtime.store.thread(commit.thread_id) is not None:
            raise Conflict(f"There is a thread {commit.thread_id} already.", hint="Send to it, or choose another id.")
        head = await runtime.head(commit) if commit.head else None
        delta = _input_delta(agent.state, task.message, head)
        change = Change(
            thread_id=commit.thread_id, checkpoint_id=commit.checkpoint_id, source="input", turn=commit.turn,
            schema_version=agent.state.version, delta=delta, metadata={"message_id": task.message.id},
        )  # fmt: skip
        return committed(await runtime.checkpointer.commit(head, change, agent=agent.name, tenant=task.tenant), delta)

    async def _earlier(self, commit: Commit) -> Committed | None:
        """What another attempt committed and could not report."""
        earlier = await self._runtime.store.checkpoint(commit.thread_id, commit.checkpoint_id)
        if earlier is None:
            return None
        return _told(await self._runtime.checkpointer.load(commit.thread_id, earlier.id), earlier.delta, commit)

    @activity.defn(name=MERGE_STEP.name)
    async def merge_step(self, task: MergeStep) -> Committed:
        """Merge recorded results and the workflow's own messages into one checkpoint.

        Raises InvalidInput if two calls write one overwrite-channel; then nothing was written.
        """
        return await once(lambda: self._earlier(task.commit), lambda: self._merge_on_head(task))

    async def _merge_on_head(self, task: MergeStep) -> Committed:
        runtime, commit = self._runtime, task.commit
        try:
            return await self._merge(task, await runtime.head(commit))
        except ConcurrentModification:
            row = await runtime.store.thread(commit.thread_id)
            if row is None or not task.after or row.head_id != task.after:
                raise
            return await self._merge(task, await runtime.checkpointer.load(commit.thread_id, task.after))

    async def _merge(self, task: MergeStep, head: Position) -> Committed:
        runtime, commit = self._runtime, task.commit
        agent = runtime.app.agent(task.agent)
        keys = tuple(part.key for part in task.parts if part.key)
        recorded = await runtime.store.receipts(commit.thread_id, keys) if keys else {}
        delta = _merged(agent.state, head, task, {key: Record.read(data) for key, data in recorded.items()})
        change = Change(
            thread_id=commit.thread_id, checkpoint_id=commit.checkpoint_id, source=task.source,
            nodes=(commit.node,) if commit.node else (), turn=commit.turn,
            schema_version=agent.state.version, delta=delta,
        )  # fmt: skip
        return _told(await runtime.checkpointer.commit(head, change, clears=keys), delta, commit)

    @activity.defn(name=CLOSE_THREAD.name)
    async def close_thread(self, task: CloseThread) -> bool:
        """Mark the thread as closed, so that it stays closed when Temporal has forgotten it."""
        await self._runtime.store.close_thread(task.thread_id)
        return True


def _input_delta(state: type[State], message: Send, head: Position | None) -> Delta:
    update: dict[str, Any] = dict(message.state)
    if message.content:
        if "messages" in update:
            raise InvalidInput("Give either a message or the channel `messages`, not both.")
        update["messages"] = [Message(role="user", content=message.content, name=message.sender)]
    if not update:
        raise InvalidInput("The message is empty.", hint="Give a text or an input.")
    values, step = (head.values, head.ref.step + 1) if head else ({}, 0)
    return reduce_updates(state, values, {**_unanswered(values), "The input": update}, step=step)


def _unanswered(values: Values) -> dict[str, dict[str, Any]]:
    """Answers for calls that an earlier turn left without one because not even its end could be committed: a model
    refuses a conversation in which they are missing."""
    calls = open_calls(values.get("messages", []))
    left = [tool_message(call.id, Record(ok=False, content=_NO_RESULT)) for call in calls]
    return {"the conversation": {"messages": left}} if left else {}


def _merged(state: type[State], head: Position, task: MergeStep, records: dict[str, Record]) -> Delta:
    messages: list[Message] = []
    updates: dict[str, dict[str, Any]] = {}
    parts = _answers(head, task.parts) if task.source == "compensation" else task.parts
    for number, part in enumerate(parts):
        record = _record(part, records)
        messages.append(tool_message(part.call_id, record))
        if record.updates:
            updates[f"{part.tool} (call {number + 1})"] = record.updates
    if task.say:
        messages.append(Message(role="assistant", content=task.say, note=task.note))
    return reduce_updates(
        state, head.values, {**updates, "the conversation": {"messages": messages}}, step=head.ref.step + 1
    )


def _answers(head: Position, parts: tuple[Part, ...]) -> list[Part]:
    """One part for each call that has no answer yet: the head may be another than the workflow knew."""
    known = {part.call_id: part for part in parts}
    calls = open_calls(head.values.get("messages", []))
    return [known.get(call.id) or Part(call_id=call.id, tool=call.name, content=NOT_EXECUTED) for call in calls]


def _told(position: Position, delta: Delta, commit: Commit) -> Committed:
    """What the workflow is told; where the head was another than it knew, also that."""
    if commit.head is None or position.parent_id == commit.head.id:
        return committed(position, delta)
    return Committed(head=position.ref, parent_id=position.parent_id, size=len(canonical(delta)))


def _record(part: Part, records: dict[str, Record]) -> Record:
    if part.content or not part.key:
        return Record(ok=False, content=part.content)
    if part.key not in records:
        raise InvalidInput(f"No result of {part.tool} is recorded under {part.key}.")
    return records[part.key]
