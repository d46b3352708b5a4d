"""The hand-written workflow, but each model call is given the whole conversation, as most agent layers do.

The workflow keeps the conversation in its memory and passes it to the activity that asks the model: each call is one
more copy in the history. The tool is given its call alone. Everything else is as in ``handwritten``: the difference
between the two is what passing the conversation costs.
"""

from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity, workflow

from benchmarks import workload
from benchmarks.peer import TemporalPeer, wanted
from benchmarks.subject import serve
from benchmarks.subjects.handwritten import Call, look

_MINUTE = timedelta(minutes=1)


@dataclass
class Message:
    """A message of the conversation: the user's and the tool's have content, the model's a call."""

    role: str
    content: str = ""
    call: Call | None = None


@activity.defn
async def ask_with(conversation: list[Message]) -> Call:
    """The model: answers at once."""
    step = len(conversation) // 2
    if step == wanted(conversation[0].content):
        return Call("", "", workload.ANSWER)
    return Call(workload.call_id(step), workload.arguments(step))


@workflow.defn
class ConversationLoop:
    """The loop."""

    @workflow.run
    async def run(self, message: str) -> str:
        """To the model's answer."""
        conversation = [Message("user", message)]
        while True:
            call: Call = await workflow.execute_activity(ask_with, conversation, start_to_close_timeout=_MINUTE)
            if not call.id:
                return call.answer
            conversation.append(Message("assistant", call=call))
            result = await workflow.execute_activity(look, call, start_to_close_timeout=_MINUTE)
            conversation.append(Message("tool", result))


class Conversation(TemporalPeer):
    """The workflow as a subject."""

    def __init__(self) -> None:
        super().__init__(
            workflow=ConversationLoop, model="ask_with", packages=(), activities=[ask_with, look], sandboxed=False
        )


if __name__ == "__main__":
    from benchmarks.subjects.conversation import Conversation as Imported  # a workflow must not live in __main__

    serve(Imported())
