"""The context window: which part of a long conversation the model is shown."""

from perdure.canonical import Json
from perdure.message import to_openai

_BYTES_A_TOKEN = 4  # OpenAI's rule of thumb for English text; an estimate is enough for a bound
_OVERHEAD = 8  # tokens a message costs besides its text


def estimate(message: dict[str, Json]) -> int:
    """About how many tokens a stored message takes."""
    calls = sum(len(call["arguments"]) + len(call["name"]) for call in message.get("tool_calls", ()))
    return (len(message.get("content", "")) + calls) // _BYTES_A_TOKEN + _OVERHEAD


def conversation(instructions: str, messages: list[dict[str, Json]], limit: int) -> list[dict[str, Json]]:
    """The messages for the model: instructions, then the newest that fit in ``limit`` tokens.

    A tool's answer is never shown without the call it belongs to. Shown however long they are: the last thing a user
    said, and the newest message, with the call that it answers; a model that doesn't see its results asks again.
    Costs no more than what is shown, however long the conversation is.
    """
    start = len(messages)
    while start > 0:
        start -= 1
        if messages[start]["role"] != "tool":
            break
    room = limit - len(instructions) // _BYTES_A_TOKEN - sum(map(estimate, messages[start:]))
    while start > 0 and (room := room - estimate(messages[start - 1])) >= 0:
        start -= 1
    while start < len(messages) and messages[start]["role"] == "tool":
        start += 1
    shown = messages[start:]
    if not any(message["role"] == "user" for message in shown):
        asked = next((messages[at] for at in range(start - 1, -1, -1) if messages[at]["role"] == "user"), None)
        shown = [asked, *shown] if asked else shown
    system = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, *(to_openai(message) for message in shown)]
