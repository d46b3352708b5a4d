"""Plans: what the calls of a model's answer come to before any of them runs."""

from collections.abc import Iterable

from perdure.activities.runtime import Runtime
from perdure.canonical import Json
from perdure.contracts import AgentSpec, ToolPlan
from perdure.effects import call_summary, effect_key
from perdure.errors import InvalidInput
from perdure.graphs.definition import Definition, ModelDefinition
from perdure.message import ToolCall, open_calls
from perdure.state import channels
from perdure.states.schema import Opened
from perdure.tool import Tool
from perdure.values import Value


class Place(Value):
    """Where in a thread calls are made: with their number, this is what makes their keys."""

    thread_id: str
    branch: int
    turn: int
    step: int


def plan_call(runtime: Runtime, model: ModelDefinition, place: Place, index: int, call: ToolCall) -> ToolPlan:
    """Under which key a call will run and behind which gate; or the reason why it can't run, for the model."""
    plan = ToolPlan(
        call_id=call.id, tool=call.name, index=index, summary=f"{call.name}(…)", channel=model.channel
    )  # fmt: skip
    offered = [tool["function"]["name"] for tool in model.tools]
    tool = runtime.app.tools.get(call.name)
    if call.name not in offered:
        return plan.model_copy(
            update={"error": f"There is no tool {call.name!r}. Tools: {', '.join(offered) or 'none'}."}
        )
    if tool is None:
        return plan.model_copy(update={"error": f"The tool {call.name!r} is no longer available."})
    try:
        return _resolved(runtime, place, plan, tool, call)
    except InvalidInput as error:
        return plan.model_copy(update={"error": str(error)})


def open_plans(
    runtime: Runtime, definition: Definition, opened: Opened, nodes: Iterable[str], place: Place
) -> dict[str, tuple[ToolPlan, ...]]:
    """By conversation: plans for the calls that wait there, where one of these nodes makes them."""
    known = definition.spec.nodes
    talks = {known[node].channel for node in nodes if node in known and known[node].kind == "tools"}
    return {channel: _waiting(runtime, definition, opened, channel, place) for channel in sorted(talks)}


def discreet(plans: tuple[ToolPlan, ...]) -> tuple[ToolPlan, ...]:
    """Calls of a sensitive conversation, told without their arguments: a history is read by many."""
    return tuple(plan.model_copy(update={"summary": f"{plan.tool}(…)"}) for plan in plans)


def as_it_stands(spec: AgentSpec, plans: tuple[ToolPlan, ...], next: tuple[str, ...]) -> tuple[ToolPlan, ...]:
    """A call that only reads, that nobody has to approve and that is a step by itself needs neither key nor digest:
    nothing hangs on them, and the history is spared them."""
    if len(plans) != 1 or len(next) != 1 or plans[0].approval is not None:
        return plans
    (plan,) = plans
    tool = spec.tools.get(plan.tool)
    if tool is None or tool.effect != "read":
        return plans
    return (plan.model_copy(update={"key": "", "digest": ""}),)


def _waiting(
    runtime: Runtime, definition: Definition, opened: Opened, channel: str, place: Place
) -> tuple[ToolPlan, ...]:
    """Plans for the calls of the latest answer that have no answer yet, by the model that offered their tools."""
    messages = opened.values.get(channel, [])
    waiting = {call.id: call.name for call in open_calls(messages)}
    models = [model for model in definition.models.values() if model.channel == channel and model.tools]
    model = max(models, key=lambda one: len(set(waiting.values()) & one.offered()), default=None)
    answer: dict[str, Json] = next((m for m in reversed(messages) if m["role"] == "assistant"), {})
    calls = enumerate(map(ToolCall.model_validate, answer.get("tool_calls", ())))
    if model is None:
        return ()
    plans = tuple(plan_call(runtime, model, place, i, call) for i, call in calls if call.id in waiting)
    return discreet(plans) if channels(runtime.app.graph(definition.spec.name).state)[channel].sensitive else plans


def _resolved(runtime: Runtime, place: Place, plan: ToolPlan, tool: Tool, call: ToolCall) -> ToolPlan:
    arguments = tool.parse(call.arguments)
    shown = arguments.model_dump(mode="json")
    name = tool.digest(arguments)
    update: dict[str, Json] = {
        "summary": call_summary(tool.name, shown),
        "digest": name,
        "key": effect_key(
            place.thread_id, place.branch, place.turn, place.step, plan.index, tool.name, name, plan.channel
        ),
    }
    reason = tool.approval.required(arguments) if tool.approval else None
    if reason is not None:
        policy = runtime.app.policies[tool.name]
        told = {"reason": reason, "signed": runtime.approver_keys is not None}
        update |= {"approval": policy.model_copy(update=told), "arguments": shown}
    return plan.model_copy(update=update)
