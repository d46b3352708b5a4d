"""A reply in the form of the OpenAI chat-completions protocol: one JSON object, or a stream of events."""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from perdure.testing.conversation import Conversation, tokens
from perdure.testing.script import Reply, written

Json = dict[str, Any]


def whole(reply: Reply, conversation: Conversation) -> Json:
    """The answer in one piece. Ids are minted anew each time, as a real model does."""
    message: Json = {"role": "assistant", "content": reply.text or None, "refusal": reply.refusal}
    if reply.calls:
        message["tool_calls"] = _calls(reply)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish}
    return {
        **_head(conversation, "chat.completion"),
        "choices": [choice],
        "usage": usage(reply, conversation),
    }


def events(reply: Reply, conversation: Conversation) -> list[bytes]:
    """The answer as server-sent events, ended by ``[DONE]``."""
    head = _head(conversation, "chat.completion.chunk")
    sent = [_event({**head, "choices": [_choice(delta)]}) for delta in _deltas(reply)]
    sent.append(_event({**head, "choices": [_choice({}, reply.finish)]}))
    if conversation.wants_usage:
        sent.append(_event({**head, "choices": [], "usage": usage(reply, conversation)}))
    return [*sent, b"data: [DONE]\n\n"]


def usage(reply: Reply, conversation: Conversation) -> dict[str, int]:
    """Tokens in and out, estimated from the texts."""
    spoken = sum(tokens(call.name) + tokens(written(call)) for call in reply.calls)
    spoken += tokens(reply.text) + tokens(reply.refusal or "")
    prompt = conversation.prompt_tokens
    return {"prompt_tokens": prompt, "completion_tokens": spoken, "total_tokens": prompt + spoken}


def _head(conversation: Conversation, kind: str) -> Json:
    made = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time())}
    return {**made, "model": conversation.model}


def _calls(reply: Reply) -> list[Json]:
    return [
        {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": call.name, "arguments": written(call)},
        }
        for call in reply.calls
    ]


def _choice(delta: Json, finish: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _deltas(reply: Reply) -> Iterator[Json]:
    yield {"role": "assistant", "content": None if reply.calls and not reply.text else ""}
    for piece in _pieces(reply.text):
        yield {"content": piece}
    for piece in _pieces(reply.refusal or ""):
        yield {"refusal": piece}
    for index, call in enumerate(_calls(reply) if reply.calls else ()):
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{"index": index, **call, "function": {**call["function"], "arguments": ""}}]}
        for start in range(0, len(arguments), 12):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start : start + 12]}}]}


def _pieces(text: str) -> list[str]:
    """Words, each with the space before it, as tokens come."""
    words = text.split(" ") if text else []
    return [word if at == 0 else f" {word}" for at, word in enumerate(words)]


def _event(data: Json) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"
