"""A conversation as a model is sent it, and what a scripted model reads from it.

Everything here is a function of the messages alone: the same conversation gets the same answer in any order
and any number of times, in the original thread and in its forks.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from perdure.canonical import canonical, digest

Role = Literal["system", "developer", "user", "assistant", "tool"]


class _Sent(BaseModel):
    """A part of a request. What else a client sends is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Function(_Sent):
    """The tool a past answer called, and its arguments as text."""

    name: str
    arguments: str


class ToolCall(_Sent):
    """One call of a past answer."""

    id: str
    function: Function


class Message(_Sent):
    """One message; ``content`` may be text, a list of parts, or nothing."""

    role: Role
    content: str | list[dict[str, Any]] | None = None
    tool_calls: Annotated[Sequence[ToolCall], Field(min_length=1)] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The content as one text; parts that aren't text are left out."""
        if isinstance(self.content, list):
            return "".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class StreamOptions(_Sent):
    """Of these only ``include_usage`` matters here."""

    include_usage: bool = False


class Conversation(_Sent):
    """The body of ``POST /v1/chat/completions``."""

    model: str
    messages: Annotated[Sequence[Message], Field(min_length=1)]
    tools: Sequence[dict[str, Any]] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def asked(self) -> int:
        """Where the latest user message is; -1 if there is none."""
        return max((at for at, message in enumerate(self.messages) if message.role == "user"), default=-1)

    @property
    def user(self) -> str:
        """The latest user message, or an empty text."""
        return self.messages[self.asked].text if self.asked >= 0 else ""

    @property
    def system(self) -> str:
        """All instructions together."""
        return "\n".join(message.text for message in self.messages if message.role in ("system", "developer"))

    @property
    def wants_usage(self) -> bool:
        """Whether a stream shall end with a chunk of usage."""
        return self.stream_options is not None and self.stream_options.include_usage

    def answers_after(self, at: int) -> int:
        """How many answers the model has given after the message at ``at``."""
        return sum(message.role == "assistant" for message in self.messages[at + 1 :])

    def first_result_with(self, text: str) -> int | None:
        """Where, after the latest user message, a tool's result first contains ``text``."""
        for at in range(self.asked + 1, len(self.messages)):
            if self.messages[at].role == "tool" and text in self.messages[at].text:
                return at
        return None

    def result_of(self, tool: str) -> str | None:
        """What the tool returned last, as text; None if it has not been called."""
        names = {call.id: call.function.name for message in self.messages for call in message.tool_calls or ()}
        for message in reversed(self.messages):
            if message.role == "tool" and names.get(message.tool_call_id or "") == tool:
                return message.text
        return None

    @property
    def key(self) -> str:
        """A digest of model, messages and tools, without ids: what makes two requests the same call."""
        messages = [
            {
                "role": message.role,
                "content": message.content,
                "calls": [call.function.model_dump() for call in message.tool_calls or ()],
            }
            for message in self.messages
        ]
        return digest(canonical({"model": self.model, "messages": messages, "tools": list(self.tools or ())}))

    @property
    def prompt_tokens(self) -> int:
        """An estimate from the texts: four characters a token, four tokens a message."""
        total = sum(4 + tokens(message.text) + _call_tokens(message) for message in self.messages)
        return total + sum(tokens(json.dumps(tool)) for tool in self.tools or ())


def tokens(text: str) -> int:
    """About how many tokens a text is: one for every four characters begun."""
    return math.ceil(len(text) / 4)


def _call_tokens(message: Message) -> int:
    calls = message.tool_calls or ()
    return sum(tokens(call.function.name) + tokens(call.function.arguments) for call in calls)


def complaint(messages: Sequence[Message]) -> str | None:
    """What the real service would object to, if anything: calls without results, results without calls."""
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                return f"messages[{at}]: a tool message must answer a call of the answer before it."
            open_calls.remove(message.tool_call_id)
        elif open_calls:
            break
        else:
            open_calls = [call.id for call in message.tool_calls or ()]
    if open_calls:
        missing = ", ".join(open_calls)
        return f"An assistant message with tool_calls must be followed by tool messages answering: {missing}."
    return None
