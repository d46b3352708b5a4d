"""The activity that calls the model and plans what it asks for."""

from temporalio import activity

from perdure.activities.completion import Answer, complete, request_of
from perdure.activities.locks import KeyedLocks
from perdure.activities.once import once
from perdure.activities.planning import Place, as_it_stands, discreet, plan_call
from perdure.activities.records import Record
from perdure.activities.runtime import Merged, Runtime
from perdure.activities.steps import Extra, commit_step
from perdure.budget import Usage
from perdure.canonical import Json
from perdure.contracts import (
    ANSWER,
    CALL_MODEL,
    Answered,
    CallModel,
    Common,
    Ended,
    ModelDone,
    Recorded,
    brief_answer,
)
from perdure.delta import latest_message
from perdure.effects import task_key
from perdure.graphs.definition import Definition, ModelDefinition
from perdure.message import Message
from perdure.plan import still_holds
from perdure.security.sealing import REDACTED, unseal
from perdure.state import channels
from perdure.states.schema import Opened
from perdure.stores.base import CachedResult, Receipt


class ModelActivities:
    """Model calls: cached by the content of their request, committed with their result."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._asking = KeyedLocks()

    @activity.defn(name=CALL_MODEL.name)
    async def call_model(self, task: CallModel) -> ModelDone:
        """Answer the state at the head: from this step's own record if an earlier attempt left it, from the result
        cache if the same request was answered before, else by the model. Commits the answer, or records it."""
        definition = await self._runtime.definition(task.spec)
        return await once(
            lambda: self._earlier(task, definition), lambda: self._attempt(task, definition), by_key=not task.alone
        )

    async def _earlier(self, task: CallModel, definition: Definition) -> ModelDone | None:
        """What another attempt recorded and could not report."""
        model, commit = definition.models[task.node], task.commit
        common = await self._common(task, definition)
        if not task.alone:
            found = await self._runtime.store.receipts(commit.thread_id, [_key(task)])
            return self._recalled(task, definition, common, Record.read(found[_key(task)])) if found else None
        earlier = await self._runtime.store.checkpoint(commit.thread_id, commit.id)
        if earlier is None:
            return None
        position = await self._runtime.checkpointer.load(commit.thread_id, earlier.id)
        said = Message.model_validate(self._runtime.opened(definition.spec.name, position).values[model.channel][-1])
        usage = Usage.model_validate(earlier.facts.get("usage", {}))
        return self._done(task, definition, common, said, usage, Merged(position=position, delta=earlier.delta))

    async def _common(self, task: CallModel, definition: Definition) -> Common:
        channel = definition.models[task.node].channel
        return await self._runtime.common(task.commit, definition.spec, task.node, channel=channel)

    async def _attempt(self, task: CallModel, definition: Definition) -> ModelDone:
        runtime, model = self._runtime, definition.models[task.node]
        opened = await runtime.open(task.commit, definition.spec.name)
        if task.recorded is not None and (planned := await self._planned(task, definition, opened, task.recorded)):
            return await self._keep(task, definition, opened, planned, None)
        request, key = request_of(model, opened.values)
        scope = await self._scope(task.commit.thread_id, model)
        async with self._asking.hold(f"{scope}/{key}"):  # identical calls at once: the second finds the first's result
            hit = await runtime.store.result(scope, key) if scope else None
            if hit is not None and (known := await self._recorded(hit)) is not None:
                return await self._keep(task, definition, opened, known, None)
            answer = await complete(
                runtime.model, request, key, seconds=definition.spec.nodes[task.node].timeout, stream=model.stream
            )
            fresh = CachedResult(scope=scope, key=key, usage=answer.usage)
            return await self._keep(task, definition, opened, answer, fresh if scope else None)

    async def _scope(self, thread_id: str, model: ModelDefinition) -> str:
        if model.cache == "lineage":
            return f"lineage:{await self._runtime.lineage(thread_id)}"
        return "global" if model.cache == "global" else ""

    async def _planned(self, task: CallModel, definition: Definition, opened: Opened, where: Recorded) -> Answer | None:
        """The answer that the same node gave in a dry run; None where it is another's turn by now, or where what the
        model would be shown is no longer what it was shown then. It costs nothing."""
        runtime, model = self._runtime, definition.models[task.node]
        checkpoint = await runtime.store.checkpoint(where.thread_id, where.checkpoint_id)
        if checkpoint is None or checkpoint.nodes != (task.node,) or checkpoint.cut or not checkpoint.parent_id:
            return None
        if model.channel != checkpoint.facts.get("channel", "messages"):
            return None
        message = latest_message(checkpoint.delta, model.channel)
        said = Message.model_validate(unseal({"answer": message}, runtime.keyring)["answer"])
        before = await runtime.checkpointer.load(where.thread_id, checkpoint.parent_id)
        then, now = (request_of(model, one.values) for one in (runtime.opened(definition.spec.name, before), opened))
        if not still_holds(then.body["messages"], now.body["messages"], said):
            return None
        return Answer(content=said.content, calls=said.tool_calls, note=said.note, usage=Usage())

    async def _recorded(self, hit: CachedResult) -> Answer | None:
        """What an earlier call got; its tokens are saved, not spent. None where its checkpoint was removed."""
        usage = Usage(calls=1, cached=1, saved=hit.usage.tokens)
        if hit.value is not None:
            message = Record.read(hit.value).updates["answer"]
        else:
            checkpoint = await self._runtime.store.checkpoint(hit.thread_id, hit.checkpoint_id)
            if checkpoint is None:
                return None
            message = latest_message(checkpoint.delta, str(checkpoint.facts.get("channel", "messages")))
        said = Message.model_validate(unseal({"answer": message}, self._runtime.keyring)["answer"])
        return Answer(content=said.content, calls=said.tool_calls, note=said.note, usage=usage)

    async def _keep(
        self, task: CallModel, definition: Definition, opened: Opened, answer: Answer, result: CachedResult | None
    ) -> ModelDone:
        """Commit the answer as the step, or record it for the merge of its step; and keep it for the same request."""
        model, commit = definition.models[task.node], task.commit
        common = await self._common(task, definition)
        message = Message(role="assistant", content=answer.content, tool_calls=answer.calls, note=answer.note)
        if not task.alone:
            return await self._record(task, definition, common, opened, message, answer.usage, result)
        facts: dict[str, Json] = {"usage": answer.usage.model_dump(exclude_defaults=True)}
        if model.channel != "messages":
            facts["channel"] = model.channel
        if result is not None:
            result = result.model_copy(update={"thread_id": commit.thread_id, "checkpoint_id": commit.id})
        merged = await commit_step(
            self._runtime, definition.spec, commit, opened, {task.node: {model.channel: [message]}},
            ended=(Ended(node=task.node, outcome=_outcome(message)),), asked={},
            extra=Extra(facts=facts, result=result),
        )  # fmt: skip
        return self._done(task, definition, common, message, answer.usage, merged)

    async def _record(
        self, task: CallModel, definition: Definition, common: Common, opened: Opened, message: Message, usage: Usage,
        result: CachedResult | None,
    ) -> ModelDone:  # fmt: skip
        updates = opened.recorded({common.channel: [message]})
        record = Record(ok=True, content="", updates=updates, usage=usage)
        receipt = Receipt(key=_key(task), result=record.dump())
        await self._runtime.store.put_receipt(task.commit.thread_id, receipt, head=common.head.id)
        if result is not None:
            [said] = updates[common.channel]
            value = Record(ok=True, content="", updates={"answer": said}).dump()
            await self._runtime.store.put_result(result.model_copy(update={"value": value}))
        return self._done(task, definition, common, message, usage, None)

    def _recalled(self, task: CallModel, definition: Definition, common: Common, record: Record) -> ModelDone:
        said = unseal(record.updates, self._runtime.keyring)[common.channel][-1]
        return self._done(task, definition, common, Message.model_validate(said), record.usage, None)

    def _done(
        self, task: CallModel, definition: Definition, common: Common, said: Message, usage: Usage,
        done: Merged | None,
    ) -> ModelDone:  # fmt: skip
        """As briefly as the workflow understands it."""
        runtime, model, commit = self._runtime, definition.models[task.node], task.commit
        # The step is that of the checkpoint in which the answer stands.
        place = Place(thread_id=commit.thread_id, branch=task.branch, turn=commit.turn, step=common.head.step + 1)
        plans = tuple(plan_call(runtime, model, place, i, call) for i, call in enumerate(said.tool_calls))
        answer = said.content[:ANSWER]
        if channels(runtime.app.graph(definition.spec.name).state)[model.channel].sensitive:
            plans, answer = discreet(plans), REDACTED if answer else ""  # a history is read by many
        if done is None:
            return brief_answer(Answered(None, plans, usage, key=_key(task), answer=answer, note=said.note), common)
        plans = as_it_stands(definition.spec, plans, done.position.next.nodes)
        answered = Answered(done.told(), plans, usage, answer=answer, note=said.note)
        return brief_answer(answered, common, plain=done.position.next.is_plain)


def _outcome(said: Message) -> str:
    return "tool_calls" if said.tool_calls else "answer"


def _key(task: CallModel) -> str:
    commit = task.commit
    step = commit.head.step if commit.head else 0
    return task_key(commit.thread_id, task.branch, commit.turn, step, task.task, task.node)
