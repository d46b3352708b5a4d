"""The activity that calls the model and plans what it asks for."""

from temporalio import activity

from perdure.activities.completion import Answer, complete, request_key, request_of
from perdure.activities.locks import KeyedLocks
from perdure.activities.once import once
from perdure.activities.runtime import Runtime, committed
from perdure.agent import Definition
from perdure.budget import Usage
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Change, Position
from perdure.contracts import CALL_MODEL, CallModel, Commit, ModelDone, ToolPlan
from perdure.delta import latest_message
from perdure.effects import effect_key
from perdure.errors import IntegrityError, InvalidInput
from perdure.message import Message, ToolCall
from perdure.state import reduce_updates
from perdure.stores.base import CachedResult
from perdure.tool import Tool, call_summary

_ANSWER = 2_000  # characters of an answer that travel in history for the UI; the state has it whole


class ModelActivities:
    """Model calls: cached by the content of their request, committed with their result."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._asking = KeyedLocks()

    @activity.defn(name=CALL_MODEL.name)
    async def call_model(self, task: CallModel) -> ModelDone:
        """Answer the state at the head: from this step's own checkpoint if an earlier attempt committed it, from the
        result cache if the same request was answered before, else by the model. Commits the answer."""
        definition = await self._runtime.definition(task.spec)
        position, usage = await once(lambda: self._earlier(task.commit), lambda: self._answer(task, definition))
        message = Message.model_validate(position.values["messages"][-1])
        delta = {"messages": {"op": "messages", "put": [position.values["messages"][-1]]}}
        return ModelDone(
            committed=committed(position, delta),
            calls=tuple(
                self._plan(task, definition, position.ref.step, i, call) for i, call in enumerate(message.tool_calls)
            ),
            usage=usage,
            answer="" if message.tool_calls else message.content[:_ANSWER],
            note=message.note,
        )

    async def _earlier(self, commit: Commit) -> tuple[Position, Usage] | None:
        """What another attempt committed and could not report."""
        earlier = await self._runtime.store.checkpoint(commit.thread_id, commit.checkpoint_id)
        if earlier is None:
            return None
        position = await self._runtime.checkpointer.load(commit.thread_id, earlier.id)
        return position, Usage.model_validate(earlier.metadata.get("usage", {}))

    async def _answer(self, task: CallModel, definition: Definition) -> tuple[Position, Usage]:
        head = await self._runtime.head(task.commit)
        request = request_of(definition, head.values)
        key = request_key(request)
        scope = await self._scope(task.commit.thread_id, definition)
        async with self._asking.hold(f"{scope}/{key}"):  # identical calls at once: the second finds the first's result
            hit = await self._runtime.store.result(scope, key) if scope else None
            if hit is not None:
                return await self._commit(task, head, await self._recorded(hit), None)
            answer = await complete(
                self._runtime.model, request, key, seconds=definition.spec.model_call.timeout, stream=definition.stream
            )
            fresh = CachedResult(
                scope=scope,
                key=key,
                thread_id=task.commit.thread_id,
                checkpoint_id=task.commit.checkpoint_id,
                usage=answer.usage,
            )
            return await self._commit(task, head, answer, fresh if scope else None)

    async def _scope(self, thread_id: str, definition: Definition) -> str:
        if definition.cache == "lineage":
            return f"lineage:{await self._runtime.lineage(thread_id)}"
        return "global" if definition.cache == "global" else ""

    async def _recorded(self, hit: CachedResult) -> Answer:
        """The answer that an earlier call got, from the checkpoint that holds it; its tokens are saved, not spent."""
        checkpoint = await self._runtime.store.checkpoint(hit.thread_id, hit.checkpoint_id)
        if checkpoint is None:
            raise IntegrityError(
                f"The cached result {hit.key[:12]}… names checkpoint {hit.checkpoint_id}, which is missing."
            )
        message = _said(checkpoint)
        usage = Usage(calls=1, cached=1, saved=hit.usage.tokens)
        return Answer(content=message.content, calls=message.tool_calls, note=message.note, usage=usage)

    async def _commit(
        self, task: CallModel, head: Position, answer: Answer, result: CachedResult | None
    ) -> tuple[Position, Usage]:
        message = Message(role="assistant", content=answer.content, tool_calls=answer.calls, note=answer.note)
        metadata: dict[str, Json] = {"usage": answer.usage.model_dump(exclude_defaults=True)}
        commit = task.commit
        agent = self._runtime.app.agent(task.agent)
        delta = reduce_updates(agent.state, head.values, {"the model": {"messages": [message]}}, step=head.ref.step + 1)
        change = Change(
            thread_id=commit.thread_id, checkpoint_id=commit.checkpoint_id, source="step", nodes=(commit.node,),
            turn=commit.turn, schema_version=agent.state.version, metadata=metadata, delta=delta,
        )  # fmt: skip
        return await self._runtime.checkpointer.commit(head, change, result=result), answer.usage

    def _plan(self, task: CallModel, definition: Definition, step: int, index: int, call: ToolCall) -> ToolPlan:
        """What a call comes to: under which key, behind which gate; or the reason why it can't run, for the model."""
        plan = ToolPlan(call_id=call.id, tool=call.name, index=index, summary=f"{call.name}(…)")
        offered = [tool["function"]["name"] for tool in definition.tools]
        tool = self._runtime.app.tools.get(call.name)
        if call.name not in offered:
            return plan.model_copy(
                update={"error": f"There is no tool {call.name!r}. Tools: {', '.join(offered) or 'none'}."}
            )
        if tool is None:
            return plan.model_copy(update={"error": f"The tool {call.name!r} is no longer available."})
        try:
            return self._resolved(task, plan, tool, call, step)
        except InvalidInput as error:
            return plan.model_copy(update={"error": str(error)})

    def _resolved(self, task: CallModel, plan: ToolPlan, tool: Tool, call: ToolCall, step: int) -> ToolPlan:
        arguments = tool.parse(call.arguments)
        shown = arguments.model_dump(mode="json")
        name = tool.digest(arguments)
        commit = task.commit
        update: dict[str, Json] = {
            "summary": call_summary(tool.name, shown),
            "digest": name,
            "key": effect_key(commit.thread_id, task.branch, commit.turn, step, plan.index, tool.name, name),
        }
        reason = tool.approval.required(arguments) if tool.approval else None
        if tool.policy and reason is not None:
            update |= {"approval": tool.policy.model_copy(update={"reason": reason}), "arguments": shown}
        return plan.model_copy(update=update)


def _said(checkpoint: Checkpoint) -> Message:
    return Message.model_validate(latest_message(checkpoint.delta))
