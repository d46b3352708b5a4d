"""What Temporal's UI shows of a thread is drawn when somebody looks: most of what changes is never looked at."""

from temporalio import workflow
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.worker import (
    HandleQueryInput,
    Interceptor,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
)

from perdure.workflows.thread import AgentThread


class DrawnWhenLookedAt(Interceptor):
    """Puts the current details into the answer of the query by which the UI asks for them.

    The SDK wants them beforehand (``workflow.set_current_details``): that would be at every change, and at each of them
    again when a workflow is replayed.
    """

    def workflow_interceptor_class(self, input: WorkflowInterceptorClassInput) -> type[WorkflowInboundInterceptor]:
        return _Drawn


class _Drawn(WorkflowInboundInterceptor):
    async def handle_query(self, input: HandleQueryInput) -> object:
        answer = await super().handle_query(input)
        thread = workflow.instance()
        if isinstance(answer, WorkflowMetadata) and isinstance(thread, AgentThread):
            answer.current_details = thread.details()
        return answer
