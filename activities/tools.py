"""Running a tool: what the agent's author wrote, behind the ledger."""

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RawValue

from perdure.activities.effects import EffectActivities
from perdure.activities.invoke import invoke
from perdure.activities.once import once
from perdure.activities.records import Record, text_of, tool_message
from perdure.activities.runtime import Runtime, committed
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Change, Position
from perdure.contracts import TOOL_PREFIX, UNDO_PREFIX, CallTool, ToolDone, Undo
from perdure.delta import Delta, latest_message
from perdure.effects import Effect
from perdure.errors import Conflict, InDoubt, InvalidInput, Refused, ToolError, ToolGone
from perdure.failures import bounded
from perdure.message import ToolCall
from perdure.state import materialise, recorded, reduce_updates
from perdure.stores.base import EffectRow, Receipt
from perdure.tool import MAX_OUTPUT, Tool, ToolContext, call_summary


class ToolActivities:
    """The activities whose type carries a tool's name: ``tool:NAME`` runs it, ``undo:NAME`` compensates with it."""

    def __init__(self, runtime: Runtime, effects: EffectActivities) -> None:
        self._runtime = runtime
        self._effects = effects

    @activity.defn(dynamic=True)
    async def run(self, args: Sequence[RawValue]) -> ToolDone | Effect:
        """Dispatch by activity type. Raises ToolGone for a type that isn't ours."""
        kind = activity.info().activity_type
        converter = activity.payload_converter()
        if kind.startswith(TOOL_PREFIX):
            return await self.call(converter.from_payload(args[0].payload, CallTool))
        if kind.startswith(UNDO_PREFIX):
            return await self._effects.undo(converter.from_payload(args[0].payload, Undo))
        raise ToolGone(f"No activity is named {kind!r} here.", hint="Is another program using this task queue?")

    async def call(self, task: CallTool) -> ToolDone:
        """Run one planned call. Never runs again what is already recorded under its key."""
        return await once(lambda: self._earlier(task), lambda: self._attempt(task))

    async def _attempt(self, task: CallTool) -> ToolDone:
        tool = self._runtime.tool(task.tool)
        head = await self._runtime.head(task.commit)
        call = _find_call(head, task.call_id)
        arguments = tool.parse(call.arguments)
        if tool.digest(arguments) != task.digest:
            raise Refused(f"The arguments of {task.tool} are not the ones that were planned (and approved).")
        context = self._context(task, head)
        if tool.spec.effect != "read" and (known := await self._claim(task, tool, arguments, head)):
            if known.invalid:
                raise InvalidInput(known.invalid)
            return await self._finish(task, head, known)
        kwargs = tool.bind(context, {name: getattr(arguments, name) for name in tool.parameters})
        try:
            returned = await invoke(tool, kwargs)
        except ToolError as error:
            return await self._refused(task, tool, head, error)
        return await self._finish(task, head, await self._record(task, tool, head, context, returned))

    async def _earlier(self, task: CallTool) -> ToolDone | None:
        """What another attempt recorded and could not report."""
        thread_id = task.commit.thread_id
        if task.alone:
            done = await self._runtime.store.checkpoint(thread_id, task.commit.checkpoint_id)
            if done is None:
                return None
            position = await self._runtime.checkpointer.load(thread_id, done.id)
            return _done(_recorded(done), position, done.delta)
        found = await self._runtime.store.receipts(thread_id, [task.key])
        return _done(Record.read(found[task.key])) if found else None

    async def _claim(self, task: CallTool, tool: Tool, arguments: BaseModel, head: Position) -> Record | None:
        """Enter the attempt in the ledger. The record, if the effect is done already; an error, if it may not be."""
        entry = Effect(
            key=task.key, tool=tool.name, effect=tool.spec.effect, turn=task.commit.turn, index=task.index,
            step=task.commit.head.step if task.commit.head else 0, compensation=tool.spec.compensation,
            summary=call_summary(tool.name, arguments.model_dump(mode="json")),
        )  # fmt: skip
        stored = tool.canonical_arguments(arguments)
        row = EffectRow(thread_id=task.commit.thread_id, entry=entry, arguments=stored, arguments_digest=task.digest)
        before = await self._runtime.store.claim(row, head=head.ref.id)
        if before is None or (before.entry.status in ("attempted", "failed") and tool.spec.effect != "irreversible"):
            return None
        if before.entry.status == "done" and before.receipt is not None:
            return Record.read(before.receipt)
        if before.entry.status in ("attempted", "in_doubt"):
            raise InDoubt(f"{entry.label()} was attempted before and its outcome is unknown.")
        raise Conflict(f"{entry.label()} is {before.entry.status} under this key and is not attempted again.")

    def _context(self, task: CallTool, head: Position) -> ToolContext:
        state = self._runtime.app.agent(task.agent).state
        return ToolContext(
            thread_id=task.commit.thread_id, turn=task.commit.turn, step=head.ref.step, idempotency_key=task.key,
            attempt=activity.info().attempt, approved_by=task.approved_by,
            state=lambda: materialise(state, head.values),
        )  # fmt: skip

    async def _refused(self, task: CallTool, tool: Tool, head: Position, error: ToolError) -> ToolDone:
        """A clear failure: nothing happened outside. The model reads it, unless the tool ends the turn."""
        if tool.spec.effect != "read":
            await self._runtime.store.fail(task.commit.thread_id, task.key, bounded(error.message))
        if tool.spec.on_error == "rollback":
            raise error
        return await self._finish(task, head, Record(ok=False, content=await self._bounded(f"Error: {error}")))

    async def _record(self, task: CallTool, tool: Tool, head: Position, context: ToolContext, returned: Any) -> Record:
        """The result, bounded for the model. If it or its updates are invalid the effect is still recorded as done."""
        try:
            dumped = json.loads(tool.dump(returned))
            self._delta(task, head, Record(ok=True, content="", updates=context.updates))
            updates = recorded(self._runtime.app.agent(task.agent).state, context.updates)
        except InvalidInput as error:
            if tool.spec.effect != "read":
                receipt = Receipt(key=task.key, result=Record(ok=True, content="", invalid=error.message).dump())
                await self._runtime.store.finish(task.commit.thread_id, receipt, head=head.ref.id)
            raise
        content = await self._bounded(text_of(dumped))
        return Record(
            ok=True, content=content, updates=updates, returned=None if tool.spec.effect == "read" else dumped
        )

    async def _bounded(self, text: str) -> str:
        if len(text) <= MAX_OUTPUT:
            return text
        name = await self._runtime.store.put_blob("result", text.encode())
        left_out = f"{len(text) - MAX_OUTPUT} of {len(text)} characters left out"
        return f"{text[:MAX_OUTPUT]}\n[{left_out}; whole result: blob {name}]"

    async def _finish(self, task: CallTool, head: Position, record: Record) -> ToolDone:
        """Commit the step with its receipt, or leave the receipt for the merge."""
        receipt = Receipt(key=task.key, result=record.dump())
        if not task.alone:
            await self._runtime.store.put_receipt(task.commit.thread_id, receipt, head=head.ref.id)
            return _done(record)
        delta, commit = self._delta(task, head, record), task.commit
        change = Change(
            thread_id=commit.thread_id, checkpoint_id=commit.checkpoint_id, source="step", nodes=(commit.node,),
            turn=commit.turn, schema_version=self._runtime.app.agent(task.agent).state.version, delta=delta,
        )  # fmt: skip
        position = await self._runtime.checkpointer.commit(head, change, receipt=receipt if record.ok else None)
        return _done(record, position, delta)

    def _delta(self, task: CallTool, head: Position, record: Record) -> Delta:
        state = self._runtime.app.agent(task.agent).state
        updates = {task.tool: record.updates, "the conversation": {"messages": [tool_message(task.call_id, record)]}}
        return reduce_updates(state, head.values, updates, step=head.ref.step + 1)


def _find_call(head: Position, call_id: str) -> ToolCall:
    for message in reversed(head.values.get("messages", [])):
        for call in message.get("tool_calls", ()):
            if call["id"] == call_id:
                return ToolCall.model_validate(call)
    raise InvalidInput(f"The state has no tool call {call_id!r}.")


def _recorded(checkpoint: Checkpoint) -> Record:
    message = latest_message(checkpoint.delta)
    return Record(ok=message.get("note") != "error", content=message.get("content", ""))


def _done(record: Record, position: Position | None = None, delta: Delta | None = None) -> ToolDone:
    done = ToolDone(ok=True) if record.ok else ToolDone(ok=False, error=record.content[:500])
    if position is None or delta is None:
        return done
    return done.model_copy(update={"committed": committed(position, delta)})
