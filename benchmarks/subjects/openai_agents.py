"""The OpenAI Agents SDK on Temporal, by ``temporalio-openai-agents``, as its README sets it up.

By its sections "Hello World Durable Agent" and "Tool Calling": an ``Agent`` run by ``Runner.run`` in a workflow,
``OpenAIAgentsPlugin`` on the client, the tool an activity by ``activity_as_tool`` and registered with the worker. The
model is a ``Model`` of its own behind a ``ModelProvider``, the plugin's documented seam for that. The worker's settings
are the default ones, so the workflow runs in the sandbox.

Two settings are ours: ``max_turns``, since the default of 10 ends the loop, and tracing is off (documented in the
SDK's "Tracing"), since it would send its traces to OpenAI.
"""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from agents import Agent, Model, ModelProvider, ModelResponse, RunConfig, Runner, Usage
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText
    from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
    from temporalio.openai_agents.workflow import activity_as_tool

    from benchmarks import workload
    from benchmarks.peer import TemporalPeer, wanted
    from benchmarks.subject import serve

_MINUTE = timedelta(minutes=1)


class ScriptedModel(Model):
    """Answers at once."""

    async def get_response(self, system_instructions: Any, input: Any, *given: Any, **more: Any) -> ModelResponse:
        """The next call, or the answer."""
        return ModelResponse(output=[_next(input)], usage=Usage(), response_id=None)

    def stream_response(self, *given: Any, **more: Any) -> AsyncIterator[Any]:
        """Part of the SDK's interface; the loop is run without streaming."""
        raise NotImplementedError


class ScriptedProvider(ModelProvider):
    """Has one model."""

    def get_model(self, model_name: str | None) -> Model:
        """It, whatever it is called."""
        return ScriptedModel()


def _next(conversation: list[dict[str, Any]]) -> ResponseFunctionToolCall | ResponseOutputMessage:
    """What the model says: after a tool's output the next call; after enough of them the answer."""
    step = len(conversation) // 2
    if step < wanted(conversation[0]["content"]):
        return _call(step)
    text = ResponseOutputText(text=workload.ANSWER, annotations=[], type="output_text")
    return ResponseOutputMessage(id="answer", content=[text], role="assistant", status="completed", type="message")


def _call(step: int) -> ResponseFunctionToolCall:
    return ResponseFunctionToolCall(
        arguments=workload.arguments(step), call_id=workload.call_id(step), name=workload.TOOL, type="function_call"
    )


@activity.defn
async def look(step: int, query: str) -> str:
    """Look."""
    return workload.result(step)


@workflow.defn
class OpenAIAgentsLoop:
    """The loop."""

    @workflow.run
    async def run(self, message: str) -> str:
        """To the model's answer."""
        tool = activity_as_tool(look, start_to_close_timeout=_MINUTE)
        agent = Agent(name="loop", tools=[tool])
        result = await Runner.run(
            agent, input=message, max_turns=wanted(message) + 1, run_config=RunConfig(tracing_disabled=True)
        )
        return str(result.final_output)


class OpenAIAgents(TemporalPeer):
    """The workflow as a subject."""

    def __init__(self) -> None:
        parameters = ModelActivityParameters(start_to_close_timeout=_MINUTE)
        super().__init__(
            workflow=OpenAIAgentsLoop, model="invoke_model_activity", activities=[look],
            packages=("temporalio-openai-agents", "openai-agents"),
            plugins=[OpenAIAgentsPlugin(model_params=parameters, model_provider=ScriptedProvider())],
        )  # fmt: skip


if __name__ == "__main__":
    from benchmarks.subjects.openai_agents import OpenAIAgents as Imported  # a workflow must not live in __main__

    serve(Imported())
