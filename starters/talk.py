"""Conversations in a stored state: which channels are one, and what their messages say."""

from pydantic import TypeAdapter, ValidationError

from perdure.canonical import Json
from perdure.delta import Values
from perdure.message import Message

_MESSAGES = TypeAdapter(list[Message])


def is_talk(value: Json) -> bool:
    """Whether a channel's value is a conversation of ours; another framework's is a channel like others."""
    try:
        return bool(_MESSAGES.validate_python(value))
    except ValidationError:
        return False


def talks(*states: Values) -> set[str]:
    """The channels that are a conversation in each of these states, where they are anything."""
    names = {name for state in states for name, value in state.items() if is_talk(value)}
    return {name for name in names if all(is_talk(state[name]) for state in states if state.get(name))}


def body(message: Json) -> str:
    """What a stored message says and which calls it makes, in one text."""
    calls = [f"{call['name']}({call['arguments']})" for call in message.get("tool_calls") or ()]
    note = f"[{message['note']}]" if message.get("note") else ""
    return " ".join(part for part in (message.get("content") or "", *calls, note) if part)
