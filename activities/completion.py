"""One chat completion: request in, answer out, and every way it can fail mapped to whether trying again makes sense."""

import asyncio
import math
from typing import Any, NamedTuple

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, RequestOptions
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from perdure.budget import Usage
from perdure.canonical import Json, canonical, digest
from perdure.delta import Values
from perdure.errors import ModelError, ModelUnavailable
from perdure.failures import to_failure
from perdure.graphs.definition import ModelDefinition
from perdure.message import ToolCall
from perdure.values import Value
from perdure.window import conversation

# Posted as it is: `chat.completions.create` walks every message of the request through its type annotations, which
# takes longer than all the rest of a step (measured, under a profiler: 90 ms for 150 messages).
_PATH = "/chat/completions"
_RETRIED = frozenset({408, 409, 429})  # and every 5xx; any other status means the request itself is wrong
_LONGEST_WAIT = 3600.0  # seconds; a Retry-After beyond an hour is a mistake of the server
_SAID = 1_000  # characters of a server's own words that are kept
# A cut stream surfaces as the transport's error; one in which the server reports an error as a bare APIError; and an
# answer that is no JSON as a ValueError. Each of them may go well when it is asked again.
_BROKEN_OFF = (openai.APIConnectionError, httpx2.TransportError, openai.APIError, ValueError)
_NOTES = {"length": "length", "content_filter": "content_filter"}


class Answer(Value):
    """What the model said."""

    content: str
    calls: tuple[ToolCall, ...] = ()
    note: str = ""
    usage: Usage


class Request(NamedTuple):
    """A request as the service takes it, and the digest of its content: the key of its result."""

    body: dict[str, Json]
    key: str


def request_of(model: ModelDefinition, values: Values) -> Request:
    """The request for the state. The key is made of digests that the conversation knows: a long one isn't read anew."""
    window = conversation(model.instructions, values.get(model.channel, []), model.context_tokens)
    body: dict[str, Json] = {**model.parameters, "model": model.model}
    if model.tools:
        body["tools"] = list(model.tools)
    return Request({**body, "messages": window.messages}, digest(canonical(body), "".join(window.digests)))


async def complete(client: AsyncOpenAI, request: dict[str, Json], key: str, *, seconds: float, stream: bool) -> Answer:
    """Ask the model once, for at most so many seconds.

    Raises a retryable ApplicationError for 408, 409, 429, 5xx, time-outs, lost connections and cut streams (after
    the server's Retry-After, where it gives one), and a final one of type ModelError for everything else.
    """
    options: RequestOptions = {"headers": {"Idempotency-Key": key}, "timeout": seconds, "max_retries": 0}
    try:
        async with asyncio.timeout(seconds):  # the client's own time-out is for each read: a trickle never ends it
            if stream:
                streamed = {**request, "stream": True, "stream_options": {"include_usage": True}}
                return await _gather(
                    await client.post(
                        _PATH, body=streamed, options=options, cast_to=ChatCompletionChunk, stream=True,
                        stream_cls=AsyncStream[ChatCompletionChunk],
                    )
                )  # fmt: skip
            return _whole(await client.post(_PATH, body=request, options=options, cast_to=ChatCompletion))
    except openai.APIStatusError as error:
        raise _status_failure(error) from error
    except TimeoutError as error:
        raise to_failure(ModelUnavailable(f"The model did not answer within {seconds:g} seconds.")) from error
    except _BROKEN_OFF as error:
        why = str(error)[:_SAID].rstrip(".") or type(error).__name__
        raise to_failure(ModelUnavailable(f"The model doesn't answer: {why}.")) from error
    except openai.OpenAIError as error:
        raise to_failure(ModelError(f"The model call failed: {str(error)[:_SAID]}.")) from error


def _status_failure(error: openai.APIStatusError) -> Exception:
    said = f"The model answered {error.status_code}: {error.message[:_SAID]}"
    if error.status_code in _RETRIED or error.status_code >= 500:
        return to_failure(ModelUnavailable(said), delay=_retry_after(error.response.headers))
    hint = "Check OPENAI_API_KEY." if error.status_code in (401, 403) else ""
    return to_failure(ModelError(said, hint=hint))


def _retry_after(headers: Any) -> float | None:
    """Seconds to wait, from ``retry-after-ms`` or ``retry-after``; dates are left to Temporal's own back-off."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(wait):
            return min(max(wait, 0.0), _LONGEST_WAIT)
    return None


def _whole(completion: Any) -> Answer:
    if not isinstance(completion, ChatCompletion) or not completion.choices:
        raise to_failure(ModelUnavailable("What answered is no model: the answer has no choices."))
    choice = completion.choices[0]
    calls = [
        (c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or () if c.type == "function"
    ]
    return _answer(choice.message.content, choice.message.refusal, calls, choice.finish_reason, completion.usage)


async def _gather(chunks: Any) -> Answer:
    """A streamed answer, whole; a stream that ends before its finish reason was cut."""
    content, refusal, finish, usage = "", "", None, None
    calls: dict[int, list[str]] = {}
    async for chunk in chunks:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            refusal += choice.delta.refusal or ""
            finish = choice.finish_reason or finish
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, ["", "", ""])
                call[0] = part.id or call[0]
                if part.function:
                    call[1] += part.function.name or ""
                    call[2] += part.function.arguments or ""
    if finish is None:
        raise to_failure(ModelUnavailable("The model's stream was cut."))
    return _answer(content, refusal, [tuple(calls[i]) for i in sorted(calls)], finish, usage)


def _answer(content: str | None, refusal: str | None, calls: list[Any], finish: str | None, usage: Any) -> Answer:
    if len({id for id, *_ in calls} - {"", None}) < len(calls):  # some servers leave out ids, or give one twice
        calls = [(f"{id or 'call'}-{number}", *call) for number, (id, *call) in enumerate(calls)]
    used = Usage(
        calls=1, prompt=getattr(usage, "prompt_tokens", 0) or 0, completion=getattr(usage, "completion_tokens", 0) or 0
    )
    return Answer(
        content=content or refusal or "",
        calls=tuple(ToolCall(id=id, name=name, arguments=arguments) for id, name, arguments in calls),
        note="refusal" if refusal else _NOTES.get(finish or "", ""),
        usage=used,
    )
