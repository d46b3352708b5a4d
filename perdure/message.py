"""A message of a conversation, in the shape of OpenAI's chat protocol, plus the id the reducer works by."""

from collections.abc import Mapping, Sequence
from typing import Literal

from perdure.canonical import Json
from perdure.values import Value

Role = Literal["system", "user", "assistant", "tool"]


class ToolCall(Value):
    """A call the model asks for. ``arguments`` is the model's own text: it may not even be JSON."""

    id: str
    name: str
    arguments: str


class Message(Value):
    """One message.

    ``id`` is unique in the thread; leave it empty in an update and the commit gives one. ``note`` tells why a
    message is not an ordinary one (``length``, ``refusal``, ``rolled_back``, ``error``); the model never sees it.
    """

    role: Role
    content: str = ""
    id: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    note: str = ""


def open_calls(messages: Sequence[Mapping[str, Json]]) -> list[ToolCall]:
    """The calls of the latest answer that no tool message has answered yet."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message["role"] != "tool":
            calls = map(ToolCall.model_validate, message.get("tool_calls", ()))
            return [call for call in calls if call.id not in answered]
        answered.add(message["tool_call_id"])
    return []


class Remove(Value):
    """In an update of a conversation: take the message of this id out. Removals go before what the update puts in.

    Take out a call together with its answers: a model accepts neither without the other.
    """

    remove: str


def to_openai(message: dict[str, Json]) -> dict[str, Json]:
    """A stored message as the chat protocol wants it."""
    out: dict[str, Json] = {"role": message["role"], "content": message.get("content", "")}
    if calls := message.get("tool_calls"):
        out["tool_calls"] = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls
        ]
        out["content"] = out["content"] or None
    if message["role"] == "tool":
        out["tool_call_id"] = message["tool_call_id"]
    return out
