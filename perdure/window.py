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

    A tool's answer is never shown without the call it belongs to, and the last thing a user said always is.
    Costs no more than what is shown, however long the conversation is.
    """
    start, room = len(messages), limit - len(instructions) // _BYTES_A_TOKEN
    while start > 0 and (room := room - estimate(messages[start - 1])) >= 0:
        start -= 1
    while start < len(messages) and messages[start]["role"] == "tool":
        start += 1
    shown = messages[start:]
    if start and not any(message["role"] == "user" for message in shown):
        asked = next((m for m in reversed(messages[:start]) if m["role"] == "user"), None)
        shown = [asked, *shown] if asked else shown
    system = [{"role": "system", "content": instructions}] if instructions else []
    return [*system, *(to_openai(message) for message in shown)]
