"""Plans: what the calls of a model's answer come to before any of them runs."""

from perdure.activities.runtime import Runtime
from perdure.canonical import Json
from perdure.contracts import ToolPlan
from perdure.effects import effect_key
from perdure.errors import InvalidInput
from perdure.graphs.definition import ModelDefinition
from perdure.message import ToolCall
from perdure.tool import Tool, call_summary
from perdure.values import Value


class Place(Value):
    """Where in a thread calls are made: with their number, this is what makes their keys."""

    thread_id: str
    branch: int
    turn: int
    step: int


def plan_call(runtime: Runtime, model: ModelDefinition, place: Place, index: int, call: ToolCall) -> ToolPlan:
    """Under which key a call will run and behind which gate; or the reason why it can't run, for the model."""
    plan = ToolPlan(call_id=call.id, tool=call.name, index=index, summary=f"{call.name}(…)")
    offered = [tool["function"]["name"] for tool in model.tools]
    tool = runtime.app.tools.get(call.name)
    if call.name not in offered:
        return plan.model_copy(
            update={"error": f"There is no tool {call.name!r}. Tools: {', '.join(offered) or 'none'}."}
        )
    if tool is None:
        return plan.model_copy(update={"error": f"The tool {call.name!r} is no longer available."})
    try:
        return _resolved(place, plan, tool, call)
    except InvalidInput as error:
        return plan.model_copy(update={"error": str(error)})


def _resolved(place: Place, plan: ToolPlan, tool: Tool, call: ToolCall) -> ToolPlan:
    arguments = tool.parse(call.arguments)
    shown = arguments.model_dump(mode="json")
    name = tool.digest(arguments)
    update: dict[str, Json] = {
        "summary": call_summary(tool.name, shown),
        "digest": name,
        "key": effect_key(place.thread_id, place.branch, place.turn, place.step, plan.index, tool.name, name),
    }
    reason = tool.approval.required(arguments) if tool.approval else None
    if tool.policy and reason is not None:
        update |= {"approval": tool.policy.model_copy(update={"reason": reason}), "arguments": shown}
    return plan.model_copy(update=update)
