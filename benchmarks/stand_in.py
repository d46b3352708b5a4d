"""The model of the workload behind the client that Perdure calls: it answers at once, in the process that asks."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from openai import AsyncOpenAI
from openai.types.chat import ChatCompletion

from benchmarks import workload

_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}


class InstantModel(AsyncOpenAI):
    """Calls the tool until ``until`` steps have been made in the conversation, then answers. Nothing is sent anywhere.

    ``asked``: when each question came, by ``time.perf_counter``.
    """

    def __init__(self) -> None:
        super().__init__(api_key="none", base_url="http://model.invalid")
        self.until = 0
        self.asked: list[float] = []

    async def post(self, path: str, *, body: Any = None, **_: Any) -> Any:
        """The answer to a request for a completion, whatever its path."""
        self.asked.append(time.perf_counter())
        choice = {"index": 0, "message": self._message(body["messages"]), "finish_reason": "stop"}
        return ChatCompletion.model_validate(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": "instant",
                "choices": [choice],
                "usage": _USAGE,
            }
        )

    def _message(self, conversation: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        step = _made(conversation)
        if step >= self.until:
            return {"role": "assistant", "content": workload.ANSWER}
        function = {"name": workload.TOOL, "arguments": workload.arguments(step)}
        call = {"id": workload.call_id(step), "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}


def _made(conversation: Sequence[Mapping[str, Any]]) -> int:
    """How many steps the conversation has, by the latest call in it."""
    for message in reversed(conversation):
        if calls := message.get("tool_calls"):
            return int(json.loads(calls[0]["function"]["arguments"])["step"]) + 1
    return 0
