"""The activity that merges the recorded results of a step into one checkpoint."""

from typing import Any

from temporalio import activity

from perdure.activities.once import once
from perdure.activities.records import Record, tool_message
from perdure.activities.runtime import Merged, Runtime
from perdure.activities.steps import Extra, commit_step, write
from perdure.budget import Usage
from perdure.checkpoint import Frontier, Task
from perdure.checkpointer import Position
from perdure.contracts import MERGE_STEP, NOT_EXECUTED, Commit, Committed, MergeStep, Part
from perdure.errors import ConcurrentModification, InvalidInput
from perdure.message import Message, open_calls
from perdure.state import conversations
from perdure.states.schema import Opened


class MergeActivities:
    """Merging steps."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=MERGE_STEP.name)
    async def merge_step(self, task: MergeStep) -> Committed:
        """Merge recorded results and the workflow's own messages into one checkpoint.

        Raises InvalidInput if two writers overwrite one channel; then nothing was written.
        """
        return await once(lambda: self._earlier(task.commit), lambda: self._merge_on_head(task))

    async def _earlier(self, commit: Commit) -> Committed | None:
        """What another attempt committed and could not report."""
        found = await self._runtime.found(commit)
        return _told(found, commit) if found else None

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
        opened = runtime.opened(task.agent, head)
        keys = tuple(part.key for part in task.parts if part.key)
        stored = await runtime.store.receipts(commit.thread_id, keys) if keys else {}
        records = {key: Record.read(data) for key, data in stored.items()}
        if task.source == "step":
            return _told(await self._commit_step(task, opened, records), commit)
        delta = opened.merge(_rest(task, opened, self._conversations(task), records), step=head.ref.step + 1)
        merged = await write(
            runtime, commit, opened, delta, source=task.source, next=Frontier(), extra=Extra(clears=keys)
        )
        return _told(merged, commit)

    async def _commit_step(self, task: MergeStep, opened: Opened, records: dict[str, Record]) -> Merged:
        """One writer for each part, in the order of the tasks; a node may have asked where to go on."""
        spec = (await self._runtime.definition(task.spec)).spec
        updates: dict[str, dict[str, Any]] = {}
        asked: dict[int, tuple[Task, ...]] = {}
        usage = Usage()
        for number, part in enumerate(task.parts):
            record = _record(part, records)
            usage = usage.plus(record.usage)
            if record.goto is not None:
                asked[part.task] = record.goto
            name = part.tool or part.node
            updates[f"{name} (call {number + 1})" if len(task.parts) > 1 else name] = record.updates
            if part.call_id:
                answer = {spec.nodes[part.node].channel: [tool_message(part.call_id, record)]}
                updates[f"the conversation ({number + 1})"] = answer
        facts = {"usage": usage.model_dump(exclude_defaults=True)} if usage != Usage() else {}
        keys = tuple(part.key for part in task.parts if part.key)
        return await commit_step(
            self._runtime, spec, task.commit, opened, updates, ended=task.ended, asked=asked,
            extra=Extra(facts=facts, clears=keys),
        )  # fmt: skip

    def _conversations(self, task: MergeStep) -> tuple[str, ...]:
        return conversations(self._runtime.app.graph(task.agent).state)


def _rest(
    task: MergeStep, opened: Opened, channels: tuple[str, ...], records: dict[str, Record]
) -> dict[str, dict[str, Any]]:
    """At the end of a stopped turn: what its calls came to, an answer for each that has none, and what is to say."""
    known = {part.call_id: part for part in task.parts}
    updates: dict[str, dict[str, Any]] = {}
    said: dict[str, list[Message]] = {}
    for channel in channels:
        # Not the parts decide but the conversation: the head may be another than the workflow knew.
        for call in open_calls(opened.values.get(channel, [])):
            part = known.get(call.id) or Part(call_id=call.id, tool=call.name, content=NOT_EXECUTED)
            record = _record(part, records)
            said.setdefault(channel, []).append(tool_message(call.id, record))
            if record.updates:
                updates[f"{part.tool} ({call.id})"] = record.updates
    if task.say:
        said.setdefault("messages", []).append(Message(role="assistant", content=task.say, note=task.note))
    return {**updates, "the conversation": said}


def _told(merged: Merged, commit: Commit) -> Committed:
    """What the workflow is told; where the head was another than it knew, also that."""
    if commit.head is None or merged.position.parent_id == commit.head.id:
        return merged.told()
    return merged.told().model_copy(update={"parent_id": merged.position.parent_id, "delta": None})


def _record(part: Part, records: dict[str, Record]) -> Record:
    if part.content or not part.key:
        return Record(ok=False, content=part.content)
    if part.key not in records:
        raise InvalidInput(f"No result of {part.tool or part.node} is recorded under {part.key}.")
    return records[part.key]
