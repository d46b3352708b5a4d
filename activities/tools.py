"""Running a tool: what the agent's author wrote, behind the ledger."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RawValue

from perdure.activities.decisions import authority, check_evidence
from perdure.activities.dry_run import gate, is_made, recorded, simulated, which_of_the_same
from perdure.activities.effects import EffectActivities
from perdure.activities.invoke import invoke, to_the_end
from perdure.activities.nodes import NodeActivities
from perdure.activities.once import once
from perdure.activities.records import Record, text_of, tool_message
from perdure.activities.runtime import Runtime, committed
from perdure.activities.steps import Extra, commit_step
from perdure.approvals import stamp
from perdure.canonical import Json
from perdure.checkpoint import Ref
from perdure.context import ToolContext
from perdure.contracts import (
    NODE_PREFIX,
    RECONCILE_PREFIX,
    TOOL_PREFIX,
    UNDO_PREFIX,
    CallTool,
    Committed,
    Ended,
    Known,
    NodeDone,
    Reconcile,
    RunNode,
    ToolDone,
    Undo,
)
from perdure.effects import Effect
from perdure.errors import (
    ApprovalVoid,
    ConcurrentModification,
    Conflict,
    InDoubt,
    InvalidInput,
    Refused,
    ToolError,
    ToolGone,
)
from perdure.failures import bounded
from perdure.message import ToolCall
from perdure.onetime import tokens
from perdure.states.schema import Opened
from perdure.stores.base import CachedResult, EffectRow, Receipt
from perdure.tool import MAX_OUTPUT, Tool, call_summary


class ToolActivities:
    """The activities whose type carries a name: ``tool:NAME`` runs a tool, ``undo:NAME`` compensates with it,
    ``reconcile:NAME`` asks it how a call ended, and ``node:NAME`` runs the function of a node."""

    def __init__(self, runtime: Runtime, effects: EffectActivities, nodes: NodeActivities) -> None:
        self._runtime = runtime
        self._effects = effects
        self._nodes = nodes

    @activity.defn(dynamic=True)
    async def run(self, args: Sequence[RawValue]) -> ToolDone | Effect | Known | NodeDone:
        """Dispatch by activity type. Raises ToolGone for a type that isn't ours."""
        kind = activity.info().activity_type
        converter = activity.payload_converter()
        if kind.startswith(TOOL_PREFIX):
            return await self.call(converter.from_payload(args[0].payload, CallTool))
        if kind.startswith(UNDO_PREFIX):
            return await self._effects.undo(converter.from_payload(args[0].payload, Undo))
        if kind.startswith(RECONCILE_PREFIX):
            return await self._effects.reconcile(converter.from_payload(args[0].payload, Reconcile))
        if kind.startswith(NODE_PREFIX):
            return await self._nodes.run(converter.from_payload(args[0].payload, RunNode))
        raise ToolGone(f"No activity is named {kind!r} here.", hint="Is another program using this task queue?")

    async def call(self, task: CallTool) -> ToolDone:
        """Run one planned call. Never runs again what is already recorded under its key."""
        return await once(lambda: self._earlier(task), lambda: self._attempt(task))

    async def _attempt(self, task: CallTool) -> ToolDone:
        tool = self._runtime.tool(task.tool)
        opened = await self._runtime.open(task.commit, task.agent)
        arguments = await self._arguments(task, tool, opened)
        context = self._context(task, opened)
        if task.dry_run and not is_made(tool, arguments):
            return await self._dry(task, tool, opened, arguments, context)
        await self._check_approval(task, tool, arguments)
        if tool.spec.effect != "read" and (known := await self._claim(task, tool, arguments)):
            if known.invalid:
                raise InvalidInput(known.invalid)
            return await self._finish(task, opened, known.model_copy(update={"content": _told(task, known.content)}))
        if (known := await self._cached(task, tool)) is not None:
            return await self._finish(task, opened, known, facts={"cached": True})
        kwargs = tool.bind(context, {name: getattr(arguments, name) for name in tool.parameters})
        try:
            returned = await invoke(tool.function, kwargs, tool.spec.timeout)
        except ToolError as error:
            return await self._refused(task, tool, opened, error)
        finally:
            if context.joined and tool.spec.effect != "read":
                await self._runtime.store.join_saga(task.commit.thread_id, task.key, context.joined)
        return await to_the_end(self._returned(task, tool, opened, context, returned))

    async def _returned(
        self, task: CallTool, tool: Tool, opened: Opened, context: ToolContext, returned: Any
    ) -> ToolDone:
        record = await self._record(task, tool, opened, context, returned)
        await self._remember(task, tool, record)
        return await self._finish(task, opened, record)

    async def _arguments(self, task: CallTool, tool: Tool, opened: Opened) -> BaseModel:
        """What the call is made with: as it stands in the conversation, or as a person changed it."""
        if task.arguments is not None:
            arguments = tool.take(task.arguments)
        else:
            arguments = tool.parse(_find_call(opened, await self._channel(task), task.call_id).arguments)
        if tool.digest(arguments) != task.digest:
            raise Refused(f"The arguments of {task.tool} are not the ones that were planned (and approved).")
        return arguments

    async def _check_approval(self, task: CallTool, tool: Tool, arguments: BaseModel) -> None:
        """Nothing runs on a yes to something else, nor on a task that somebody else queued. Raises ApprovalVoid; or
        InDoubt, where an attempt began while the approval still counted."""
        try:
            if task.approval is not None:
                check_evidence(self._runtime, task.commit.thread_id, task.tool, task.digest, task.approval)
            elif tool.approval is not None and tool.approval.required(arguments) is not None:
                raise ApprovalVoid(f"{tool.name} needs an approval, and this call has none.")
        except ApprovalVoid as void:
            row = await self._runtime.store.effect(task.commit.thread_id, task.key)
            if row is None or row.entry.status not in ("attempted", "in_doubt", "done"):
                raise
            if row.entry.status != "done":  # what is done is only read from the ledger
                raise InDoubt(f"It was attempted before, and may not be attempted again: {void.message}") from void

    async def _dry(
        self, task: CallTool, tool: Tool, opened: Opened, arguments: BaseModel, context: ToolContext
    ) -> ToolDone:
        """Answer a call of a dry run, and enter it in the ledger as one that was not made."""
        try:
            source, record = await self._answer(task, tool, opened, arguments, context)
        except ToolError as error:
            if tool.spec.on_error == "rollback":
                raise
            return await self._finish(task, opened, Record(ok=False, content=await self._bounded(f"Error: {error}")))
        if tool.spec.effect != "read":
            entry = self._entry(task, tool, arguments).model_copy(
                update={"status": "simulated", "source": source, "gate": gate(self._runtime, tool, arguments)}
            )
            row = EffectRow(
                thread_id=task.commit.thread_id, entry=entry, arguments=tool.canonical_arguments(arguments),
                arguments_digest=task.digest, receipt=record.dump(),
            )  # fmt: skip
            await self._runtime.store.record_simulated(row, head=_head(task).id)
        return await self._finish(task, opened, record)

    async def _answer(
        self, task: CallTool, tool: Tool, opened: Opened, arguments: BaseModel, context: ToolContext
    ) -> tuple[str, Record]:
        """What answers a call of a dry run, and the key under which that was recorded; what an earlier attempt said
        stays. Raises NotSimulated, ToolError."""
        store, thread_id = self._runtime.store, task.commit.thread_id
        if (before := await store.effect(thread_id, task.key)) is not None and before.receipt is not None:
            return before.entry.source, Record.read(before.receipt)
        calls = _calls_before(opened, await self._channel(task), task.call_id)
        number = which_of_the_same(tool, task.digest, calls)
        if found := await recorded(store, thread_id, _head(task), tool.name, task.digest, number):
            source, record = found  # told without what people changed about that call
            return source, record.model_copy(update={"content": await self._bounded(text_of(record.returned))})
        returned = await simulated(tool, arguments, context)
        return "", await self._record(task, tool, opened, context, returned, done=False)

    async def _cached(self, task: CallTool, tool: Tool) -> Record | None:
        """What the same call of this lineage came to lately, where the tool allows that."""
        if tool.cache is None:
            return None
        hit = await self._runtime.store.result(await self._scope(task), task.digest)
        return Record.read(hit.value) if hit and hit.value else None

    async def _remember(self, task: CallTool, tool: Tool, record: Record) -> None:
        if tool.cache is not None:
            expires = stamp(datetime.now(UTC) + timedelta(seconds=tool.cache))
            scope = await self._scope(task)
            fresh = CachedResult(scope=scope, key=task.digest, value=record.dump(), expires_at=expires)
            await self._runtime.store.put_result(fresh)

    async def _scope(self, task: CallTool) -> str:
        return f"lineage:{await self._runtime.lineage(task.commit.thread_id)}:tools"

    async def _channel(self, task: CallTool) -> str:
        """The conversation that the call stands in."""
        return (await self._runtime.definition(task.spec)).spec.nodes[task.node].channel

    async def _earlier(self, task: CallTool) -> ToolDone | None:
        """What another attempt recorded and could not report."""
        thread_id = task.commit.thread_id
        if not task.alone:
            found = await self._runtime.store.receipts(thread_id, [task.key])
            return _done(Record.read(found[task.key])) if found else None
        done = await self._runtime.store.checkpoint(thread_id, task.commit.checkpoint_id)
        if done is None:
            return None
        position = await self._runtime.checkpointer.load(thread_id, done.id)
        message = self._runtime.opened(task.agent, position).values[await self._channel(task)][-1]
        record = Record(ok=message.get("note") != "error", content=message.get("content", ""))
        return _done(record, committed(position, done.delta))

    async def _claim(self, task: CallTool, tool: Tool, arguments: BaseModel) -> Record | None:
        """Enter the attempt in the ledger. The record, if the effect is done already; an error, if it may not be."""
        entry, stored = self._entry(task, tool, arguments), tool.canonical_arguments(arguments)
        row = EffectRow(
            thread_id=task.commit.thread_id, entry=entry, arguments=stored, arguments_digest=task.digest,
            tokens=(
                *tokens(arguments, tool.one_time),
                *authority(self._runtime, task.commit.thread_id, tool.name, task.approval),
            ),
        )  # fmt: skip
        before = await self._runtime.store.claim(row, head=_head(task).id)
        if before is None or (before.entry.status in ("attempted", "failed") and tool.spec.effect != "irreversible"):
            return None
        if before.entry.status == "done" and before.receipt is not None:
            return Record.read(before.receipt)
        if before.entry.status in ("attempted", "in_doubt"):
            raise InDoubt(f"{entry.label()} was attempted before and its outcome is unknown.")
        raise Conflict(f"{entry.label()} is {before.entry.status} under this key and is not attempted again.")

    def _entry(self, task: CallTool, tool: Tool, arguments: BaseModel) -> Effect:
        head, spec = _head(task), tool.spec
        return Effect(
            key=task.key, tool=tool.name, effect=spec.effect, turn=task.commit.turn, index=task.index,
            step=head.step, checkpoint_id=head.id, branch=task.branch, compensation=spec.compensation,
            reconcile=spec.reconcile, saga=spec.saga,
            summary=call_summary(tool.name, arguments.model_dump(mode="json")),
        )  # fmt: skip

    def _context(self, task: CallTool, opened: Opened) -> ToolContext:
        return ToolContext(
            thread_id=task.commit.thread_id, turn=task.commit.turn, step=_head(task).step, idempotency_key=task.key,
            attempt=activity.info().attempt, approved_by=task.approval.approved_by if task.approval else (),
            dry_run=task.dry_run, state=opened.state,
        )  # fmt: skip

    async def _refused(self, task: CallTool, tool: Tool, opened: Opened, error: ToolError) -> ToolDone:
        """A clear failure: nothing happened outside. The model reads it, unless the tool ends the turn."""
        if tool.spec.effect != "read":
            await self._runtime.store.fail(task.commit.thread_id, task.key, bounded(error.message))
        if tool.spec.on_error == "rollback":
            raise error
        return await self._finish(task, opened, Record(ok=False, content=await self._bounded(f"Error: {error}")))

    async def _record(
        self, task: CallTool, tool: Tool, opened: Opened, context: ToolContext, returned: Any, *, done: bool = True
    ) -> Record:
        """The result, bounded for the model. If it or its updates are invalid an effect is still recorded as done."""
        try:
            dumped = json.loads(tool.dump(returned))
            updates = opened.recorded(context.updates)
            opened.merge(
                await self._updates(task, Record(ok=True, content="", updates=updates)), step=_head(task).step + 1
            )
        except InvalidInput as error:
            if tool.spec.effect != "read" and done:
                receipt = Receipt(key=task.key, result=Record(ok=True, content="", invalid=error.message).dump())
                await self._runtime.store.finish(task.commit.thread_id, receipt, head=_head(task).id)
            raise
        content = _told(task, await self._bounded(text_of(dumped)))
        return Record(
            ok=True, content=content, updates=updates, returned=None if tool.spec.effect == "read" else dumped
        )

    async def _bounded(self, text: str) -> str:
        if len(text) <= MAX_OUTPUT:
            return text
        name = await self._runtime.store.put_blob("result", text.encode())
        left_out = f"{len(text) - MAX_OUTPUT} of {len(text)} characters left out"
        return f"{text[:MAX_OUTPUT]}\n[{left_out}; whole result: blob {name}]"

    async def _finish(
        self, task: CallTool, opened: Opened, record: Record, *, facts: dict[str, Json] | None = None
    ) -> ToolDone:
        """Commit the step with its receipt, or leave the receipt for the merge."""
        receipt = Receipt(key=task.key, result=record.dump())
        try:
            return await self._keep(task, opened, record, receipt, facts or {})
        except ConcurrentModification:
            if record.ok and not task.dry_run:
                await self._effects.finish_late(task.commit.thread_id, receipt)
            raise

    async def _keep(
        self, task: CallTool, opened: Opened, record: Record, receipt: Receipt, facts: dict[str, Json]
    ) -> ToolDone:
        if not task.alone:
            await self._runtime.store.put_receipt(task.commit.thread_id, receipt, head=_head(task).id)
            if record.ok and not task.dry_run:  # while other calls go on, this one may have been taken for not done
                await self._effects.finish_late(task.commit.thread_id, receipt)
            return _done(record)
        merged = await commit_step(
            self._runtime, task.agent, task.spec, task.commit, opened, await self._updates(task, record),
            ended=(Ended(node=task.node, outcome="done"),), asked={},
            extra=Extra(receipt=receipt if record.ok else None, facts=facts),
        )  # fmt: skip
        return _done(record, merged.told())

    async def _updates(self, task: CallTool, record: Record) -> dict[str, dict[str, Json]]:
        """What the call writes: its own updates, and its answer in the conversation."""
        answer = {await self._channel(task): [tool_message(task.call_id, record)]}
        return {task.tool: record.updates, "the conversation": answer}


def _head(task: CallTool) -> Ref:
    assert task.commit.head is not None, "a tool is called on a head"
    return task.commit.head


def _find_call(opened: Opened, channel: str, call_id: str) -> ToolCall:
    for message in reversed(opened.values.get(channel, [])):
        for call in message.get("tool_calls", ()):
            if call["id"] == call_id:
                return ToolCall.model_validate(call)
    raise InvalidInput(f"The state has no tool call {call_id!r}.")


def _calls_before(opened: Opened, channel: str, call_id: str) -> list[ToolCall]:
    """The calls that were asked for in the same answer before this one."""
    for message in reversed(opened.values.get(channel, [])):
        calls = [ToolCall.model_validate(call) for call in message.get("tool_calls", ())]
        if call_id in (ids := [call.id for call in calls]):
            return calls[: ids.index(call_id)]
    return []


def _told(task: CallTool, content: str) -> str:
    """A result with a word to the model where a person changed what it had asked for; a hook's receipt has none yet."""
    if task.approval is None or task.arguments is None:
        return content
    made = call_summary(task.tool, task.arguments)
    note = f"\n[{task.approval.edited_by} changed the arguments: {made}]"
    return content if content.endswith(note) else content + note


def _done(record: Record, done: Committed | None = None) -> ToolDone:
    told = ToolDone(ok=True) if record.ok else ToolDone(ok=False, error=record.content[:500])
    return told.model_copy(update={"committed": done}) if done else told
