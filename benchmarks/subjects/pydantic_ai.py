"""Pydantic AI on Temporal, as its documentation sets it up.

https://ai.pydantic.dev/durable_execution/temporal/ ("Durable Agent"): an ``Agent`` with the
capability ``TemporalDurability`` (the wrapper ``TemporalAgent`` is deprecated in its favour), run in a workflow that
lists it in ``__pydantic_ai_agents__``, ``PydanticAIPlugin`` on the client. The tool is a function of the agent, which
the capability turns into an activity. The model is a ``FunctionModel``, documented for testing. It tells a usage, so
that Pydantic AI doesn't estimate one from the whole conversation. The worker's settings are the default ones, so the
workflow runs in the sandbox.

One setting is ours: no ``request_limit``, since the default of 50 ends the loop.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from pydantic_ai import Agent, ModelMessage, ModelResponse, TextPart, ToolCallPart, UsageLimits, UserPromptPart
    from pydantic_ai.durable_exec.temporal import PydanticAIPlugin, PydanticAIWorkflow, TemporalDurability
    from pydantic_ai.models.function import AgentInfo, FunctionModel
    from pydantic_ai.usage import RequestUsage

    from benchmarks import workload
    from benchmarks.peer import TemporalPeer, wanted
    from benchmarks.subject import serve


async def answer(conversation: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """The model: answers at once."""
    step, (first, *_) = len(conversation) // 2, conversation[0].parts
    assert isinstance(first, UserPromptPart)
    part: TextPart | ToolCallPart = TextPart(workload.ANSWER)
    if step < wanted(str(first.content)):
        part = ToolCallPart(workload.TOOL, workload.arguments(step), tool_call_id=workload.call_id(step))
    return ModelResponse(parts=[part], usage=RequestUsage(input_tokens=1, output_tokens=1))


async def look(step: int, query: str) -> str:
    """Look."""
    return workload.result(step)


agent = Agent(FunctionModel(answer), name="loop", tools=[look], capabilities=[TemporalDurability()])


@workflow.defn
class PydanticAILoop(PydanticAIWorkflow):
    """The loop."""

    __pydantic_ai_agents__ = [agent]

    @workflow.run
    async def run(self, message: str) -> str:
        """To the model's answer."""
        result = await agent.run(message, usage_limits=UsageLimits(request_limit=None))
        return str(result.output)


class PydanticAI(TemporalPeer):
    """The workflow as a subject."""

    def __init__(self) -> None:
        super().__init__(
            workflow=PydanticAILoop, model="agent__loop__model_request", packages=("pydantic-ai-slim",),
            plugins=[PydanticAIPlugin()],
        )  # fmt: skip


if __name__ == "__main__":
    from benchmarks.subjects.pydantic_ai import PydanticAI as Imported  # a workflow must not live in __main__

    serve(Imported())
