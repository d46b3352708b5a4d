"""Running a tool: what the agent's author wrote, behind the ledger."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from temporalio import activity
from temporalio.common import RawValue

from perdure.activities.decisions import authority, check_evidence, written_first
from perdure.activities.dry_run import gate, is_made, recorded, simulated, which_of_the_same
from perdure.activities.effects import EffectActivities
from perdure.activities.invoke import invoke, to_the_end
from perdure.activities.nodes import NodeActivities
from perdure.activities.once import once
from perdure.activities.records import Record, text_of, tool_message
from perdure.activities.runtime import Merged, Runtime
from perdure.activities.steps import Extra, commit_step
from perdure.approvals import stamp
from perdure.canonical import Json
from perdure.checkpoint import Ref
from perdure.context import ToolContext
from perdure.contracts import (
    AgentSpec,
    CallTool,
    Common,
    Ended,
    Known,
    NodeDone,
    Reconcile,
    RunNode,
    ToolDone,
    Undo,
)
from perdure.effects import Effect, call_summary, effect_key
from perdure.errors import (
    ApprovalVoid,
    ConcurrentModification,
    Conflict,
    InDoubt,
    InvalidInput,
    Refused,
    ToolError,
)
from perdure.failures import bounded
from perdure.message import ToolCall
from perdure.onetime import tokens
from perdure.states.schema import Opened
from perdure.stores.base import CachedResult, EffectRow, Receipt
from perdure.tool import MAX_OUTPUT, Tool


@dataclass(frozen=True)
class _Call:
    """A planned call with all that it needs to run. ``asked`` is what the model wrote; ``arguments`` may be a person's.

    ``key`` and ``digest`` are its own, also where the task leaves them out.
    """

    task: CallTool
    spec: AgentSpec
    tool: Tool
    opened: Opened
    asked: ToolCall
    arguments: BaseModel
    key: str
    digest: str

    @property
    def thread_id(self) -> str:
        return self.task.commit.thread_id

    @property
    def head(self) -> Ref:
        """The head on which it is made."""
        assert self.opened.position is not None, "a tool is called on a head"
        return self.opened.position.ref

    @property
    def channel(self) -> str:
        """The conversation that it stands in."""
        return self.spec.nodes[self.task.node].channel

    @property
    def is_effect(self) -> bool:
        return self.tool.spec.effect != "read"

    def common(self) -> Common:
        """What the workflow knows of the step that it commits."""
        commit = self.task.commit
        return Common(
            head=self.head, id=commit.id, node=self.task.node, turn=commit.turn, channel=self.channel,
            routes=self.spec.nodes[self.task.node].routes, call_id=self.asked.id,
        )  # fmt: skip


class ToolActivities:
    """The activities whose type carries a name: ``tool:NAME`` runs a tool, ``undo:NAME`` compensates with it,
    ``reconcile:NAME`` asks it how a call ended, and ``node:NAME`` runs the function of a node."""

    def __init__(self, runtime: Runtime, effects: EffectActivities, nodes: NodeActivities) -> None:
        self._runtime = runtime
        self._effects = effects
        self._nodes = nodes

    @activity.defn(dynamic=True)
    async def run(self, args: Sequence[RawValue]) -> ToolDone | Effect | Known | NodeDone:
        """Dispatch by the task, which the guard has decoded by the activity's type."""
        task: Any = args
        if isinstance(task, CallTool):
            return await self.call(task)
        if isinstance(task, Undo):
            return await self._effects.undo(task)
        if isinstance(task, Reconcile):
            return await self._effects.reconcile(task)
        assert isinstance(task, RunNode), "the guard decodes no others"
        return await self._nodes.run(task)

    async def call(self, task: CallTool) -> ToolDone:
        """Run one planned call, once the audit tells why. Never runs again what is already recorded under its key."""
        audit = await written_first(self._runtime, task.commit.thread_id, task.lines)
        done = await once(lambda: self._earlier(task), lambda: self._attempt(task), by_key=not task.alone)
        return done.model_copy(update={"audit": audit}) if audit else done

    async def _attempt(self, task: CallTool) -> ToolDone:
        call = await self._planned(task)
        context = self._context(call)
        if task.dry_run and not is_made(call.tool, call.arguments):
            return await self._dry(call, context)
        await self._check_approval(call)
        if call.is_effect and (known := await self._claim(call)):
            if known.invalid:
                raise InvalidInput(known.invalid)
            return await self._finish(call, known.model_copy(update={"content": _told(task, known.content)}))
        if (known := await self._cached(call)) is not None:
            return await self._finish(call, known, facts={"cached": True})
        tool, given = call.tool, call.arguments
        kwargs = tool.bind(context, {name: getattr(given, name) for name in tool.parameters})
        try:
            returned = await invoke(tool.function, kwargs, tool.spec.timeout)
        except ToolError as error:
            return await self._refused(call, error)
        finally:
            if context.joined and call.is_effect:
                await self._runtime.store.join_saga(call.thread_id, call.key, context.joined)
        ending = self._returned(call, context, returned)
        return await (to_the_end(ending) if call.is_effect else ending)

    async def _planned(self, task: CallTool) -> _Call:
        """The call as it was planned. Raises Refused where it is another by now, ToolGone."""
        runtime, tool, commit = self._runtime, self._runtime.tool(task.tool), task.commit
        spec = (await runtime.definition(task.spec)).spec
        opened = await runtime.open(commit, spec.name)
        channel = spec.nodes[task.node].channel
        asked = _asked(opened, channel)[task.index]
        arguments = tool.parse(asked.arguments) if task.arguments is None else tool.take(task.arguments)
        digest = tool.digest(arguments)
        if task.digest and digest != task.digest:
            raise Refused(f"The arguments of {tool.name} are not the ones that were planned (and approved).")
        step = commit.head.step if commit.head else 0
        key = task.key or effect_key(
            commit.thread_id, task.branch, commit.turn, step, task.index, tool.name, digest, channel
        )
        return _Call(task, spec, tool, opened, asked, arguments, key, digest)

    async def _returned(self, call: _Call, context: ToolContext, returned: Any) -> ToolDone:
        record = await self._record(call, context, returned)
        await self._remember(call, record)
        return await self._finish(call, record)

    async def _check_approval(self, call: _Call) -> None:
        """Nothing runs on a yes to something else, nor on a task that somebody else queued. Raises ApprovalVoid; or
        InDoubt, where an attempt began while the approval still counted."""
        try:
            if (evidence := call.task.approval) is not None:
                check_evidence(self._runtime, call.thread_id, call.tool.name, call.digest, evidence)
            elif call.tool.approval is not None and call.tool.approval.required(call.arguments) is not None:
                raise ApprovalVoid(f"{call.tool.name} needs an approval, and this call has none.")
        except ApprovalVoid as void:
            row = await self._runtime.store.effect(call.thread_id, call.key)
            if row is None or row.entry.status not in ("attempted", "in_doubt", "done"):
                raise
            if row.entry.status != "done":  # what is done is only read from the ledger
                raise InDoubt(f"It was attempted before, and may not be attempted again: {void.message}") from void

    async def _dry(self, call: _Call, context: ToolContext) -> ToolDone:
        """Answer a call of a dry run, and enter it in the ledger as one that was not made."""
        try:
            source, record = await self._answer(call, context)
        except ToolError as error:
            if call.tool.spec.on_error == "rollback":
                raise
            return await self._finish(call, Record(ok=False, content=await self._bounded(f"Error: {error}")))
        if call.is_effect:
            entry = _entry(call).model_copy(
                update={"status": "simulated", "source": source, "gate": gate(self._runtime, call.tool, call.arguments)}
            )
            row = EffectRow(
                thread_id=call.thread_id, entry=entry, arguments=call.tool.canonical_arguments(call.arguments),
                arguments_digest=call.digest, receipt=record.dump(),
            )  # fmt: skip
            await self._runtime.store.record_simulated(row, head=call.head.id)
        return await self._finish(call, record)

    async def _answer(self, call: _Call, context: ToolContext) -> tuple[str, Record]:
        """What answers a call of a dry run, and the key under which that was recorded; what an earlier attempt said
        stays. Raises NotSimulated, ToolError."""
        store, tool = self._runtime.store, call.tool
        if (before := await store.effect(call.thread_id, call.key)) is not None and before.receipt is not None:
            return before.entry.source, Record.read(before.receipt)
        number = which_of_the_same(tool, call.digest, _asked(call.opened, call.channel)[: call.task.index])
        if found := await recorded(store, call.thread_id, call.head, tool.name, call.digest, number):
            source, record = found  # told without what people changed about that call
            return source, record.model_copy(update={"content": await self._bounded(text_of(record.returned))})
        returned = await simulated(tool, call.arguments, context)
        return "", await self._record(call, context, returned, done=False)

    async def _cached(self, call: _Call) -> Record | None:
        """What the same call of this lineage came to lately, where the tool allows that."""
        if call.tool.cache is None:
            return None
        hit = await self._runtime.store.result(await self._scope(call), call.digest)
        return Record.read(hit.value) if hit and hit.value else None

    async def _remember(self, call: _Call, record: Record) -> None:
        if call.tool.cache is not None:
            expires = stamp(datetime.now(UTC) + timedelta(seconds=call.tool.cache))
            scope = await self._scope(call)
            fresh = CachedResult(scope=scope, key=call.digest, value=record.dump(), expires_at=expires)
            await self._runtime.store.put_result(fresh)

    async def _scope(self, call: _Call) -> str:
        return f"lineage:{await self._runtime.lineage(call.thread_id)}:tools"

    async def _earlier(self, task: CallTool) -> ToolDone | None:
        """What another attempt recorded and could not report."""
        runtime, thread_id = self._runtime, task.commit.thread_id
        if not task.alone and (found := await runtime.store.receipts(thread_id, [task.key])):
            return _done(Record.read(found[task.key]))
        # Of calls beside the workflow even the merge may be done, and its workflow task lost with all of them.
        if not (task.alone or activity.info().is_local) or (done := await runtime.found(task.commit)) is None:
            return None
        spec = (await runtime.definition(task.spec)).spec
        channel = spec.nodes[task.node].channel
        opened = runtime.opened(spec.name, done.position)
        asked = _asked(opened, channel)[task.index]
        answer = next(m for m in reversed(opened.values[channel]) if m.get("tool_call_id") == asked.id)
        record = Record(ok=answer.get("note") != "error", content=answer.get("content", ""))
        if not task.alone:
            return _done(record)
        common = await runtime.common(task.commit, spec, task.node, channel=channel, call_id=asked.id)
        return _done(record, done, common)

    async def _claim(self, call: _Call) -> Record | None:
        """Enter the attempt in the ledger. The record, if the effect is done already; an error, if it may not be."""
        entry, tool = _entry(call), call.tool
        row = EffectRow(
            thread_id=call.thread_id, entry=entry, arguments=tool.canonical_arguments(call.arguments),
            arguments_digest=call.digest, tokens=(
                *tokens(call.arguments, tool.one_time),
                *authority(self._runtime, call.thread_id, tool.name, call.task.approval),
            ),
        )  # fmt: skip
        before = await self._runtime.store.claim(row, head=call.head.id)
        if before is None or (before.entry.status in ("attempted", "failed") and tool.spec.effect != "irreversible"):
            return None
        if before.entry.status == "done" and before.receipt is not None:
            return Record.read(before.receipt)
        if before.entry.status in ("attempted", "in_doubt"):
            raise InDoubt(f"{entry.label()} was attempted before and its outcome is unknown.")
        raise Conflict(f"{entry.label()} is {before.entry.status} under this key and is not attempted again.")

    def _context(self, call: _Call) -> ToolContext:
        task = call.task
        return ToolContext(
            thread_id=call.thread_id, turn=task.commit.turn, step=call.head.step, idempotency_key=call.key,
            attempt=activity.info().attempt, approved_by=task.approval.approved_by if task.approval else (),
            dry_run=task.dry_run, state=call.opened.state,
        )  # fmt: skip

    async def _refused(self, call: _Call, error: ToolError) -> ToolDone:
        """A clear failure: nothing happened outside. The model reads it, unless the tool ends the turn."""
        if call.is_effect:
            await self._runtime.store.fail(call.thread_id, call.key, bounded(error.message))
        if call.tool.spec.on_error == "rollback":
            raise error
        return await self._finish(call, Record(ok=False, content=await self._bounded(f"Error: {error}")))

    async def _record(self, call: _Call, context: ToolContext, returned: Any, *, done: bool = True) -> Record:
        """The result, bounded for the model. If it or its updates are invalid an effect is still recorded as done."""
        try:
            dumped = json.loads(call.tool.dump(returned))
            updates = call.opened.recorded(context.updates) if context.updates else {}
            if updates:
                call.opened.merge(_updates(call, Record(ok=True, content="", updates=updates)), step=call.head.step + 1)
        except InvalidInput as error:
            if call.is_effect and done:
                receipt = Receipt(key=call.key, result=Record(ok=True, content="", invalid=error.message).dump())
                await self._runtime.store.finish(call.thread_id, receipt, head=call.head.id)
            raise
        content = _told(call.task, await self._bounded(text_of(dumped)))
        return Record(ok=True, content=content, updates=updates, returned=dumped if call.is_effect else None)

    async def _bounded(self, text: str) -> str:
        if len(text) <= MAX_OUTPUT:
            return text
        name = await self._runtime.store.put_blob("result", text.encode())
        left_out = f"{len(text) - MAX_OUTPUT} of {len(text)} characters left out"
        return f"{text[:MAX_OUTPUT]}\n[{left_out}; whole result: blob {name}]"

    async def _finish(self, call: _Call, record: Record, *, facts: dict[str, Json] | None = None) -> ToolDone:
        """Commit the step with its receipt, or leave the receipt for the merge."""
        receipt = Receipt(key=call.key, result=record.dump())
        try:
            return await self._keep(call, record, receipt, facts or {})
        except ConcurrentModification:
            if record.ok and not call.task.dry_run:
                await self._effects.finish_late(call.thread_id, receipt)
            raise

    async def _keep(self, call: _Call, record: Record, receipt: Receipt, facts: dict[str, Json]) -> ToolDone:
        task = call.task
        if not task.alone:
            await self._runtime.store.put_receipt(call.thread_id, receipt, head=call.head.id)
            if record.ok and not task.dry_run:  # while other calls go on, this one may have been taken for not done
                await self._effects.finish_late(call.thread_id, receipt)
            return _done(record)
        merged = await commit_step(
            self._runtime, call.spec, task.commit, call.opened, _updates(call, record),
            ended=(Ended(node=task.node, outcome="done"),), asked={},
            extra=Extra(receipt=receipt if record.ok and call.is_effect else None, facts=facts),
        )  # fmt: skip
        return _done(record, merged, call.common())


def _asked(opened: Opened, channel: str) -> list[ToolCall]:
    """The calls of the latest answer that asked for any."""
    for message in reversed(opened.values.get(channel, [])):
        if calls := message.get("tool_calls"):
            return [ToolCall.model_validate(call) for call in calls]
    raise InvalidInput("The state has no tool call.")


def _entry(call: _Call) -> Effect:
    """The call as the ledger has it."""
    spec = call.tool.spec
    return Effect(
        key=call.key, tool=call.tool.name, effect=spec.effect, turn=call.task.commit.turn, index=call.task.index,
        step=call.head.step, checkpoint_id=call.head.id, branch=call.task.branch, compensation=spec.compensation,
        reconcile=spec.reconcile, saga=spec.saga,
        summary=call_summary(call.tool.name, call.arguments.model_dump(mode="json")),
    )  # fmt: skip


def _updates(call: _Call, record: Record) -> dict[str, dict[str, Json]]:
    """What the call writes: its own updates, and its answer in the conversation."""
    answer = {call.channel: [tool_message(call.asked.id, record)]}
    return {call.tool.name: record.updates, "the conversation": answer}


def _told(task: CallTool, content: str) -> str:
    """A result with a word to the model where a person changed what it had asked for; a hook's receipt has none yet."""
    if task.approval is None or task.arguments is None:
        return content
    made = call_summary(task.tool, task.arguments)
    note = f"\n[{task.approval.edited_by} changed the arguments: {made}]"
    return content if content.endswith(note) else content + note


def _done(record: Record, done: Merged | None = None, common: Common | None = None) -> ToolDone:
    told = ToolDone() if record.ok else ToolDone(ok=False, error=record.content[:500])
    if done is None or common is None:
        return told
    step = done.brief(common)
    if activity.info().is_local:  # then the history has nothing of its task
        step = step.model_copy(update={"id": common.id})
    return told.model_copy(update={"committed": step})
