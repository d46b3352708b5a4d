"""The context window: which part of a long conversation the model is shown."""

from typing import NamedTuple

from perdure.canonical import Json
from perdure.talk import Talk, as_talk, shown, tokens


class Window(NamedTuple):
    """What the model is shown, and the digest of each of these messages."""

    messages: list[dict[str, Json]]
    digests: list[str]


def conversation(instructions: str, messages: list[Json], limit: int) -> Window:
    """The messages for the model: instructions, then the newest that fit in ``limit`` tokens.

    A tool's answer is never shown without the call it belongs to. Shown however long they are: the last thing a user
    said, and the newest message, with the call that it answers; a model that doesn't see its results asks again.
    Costs no more than what is shown, however long the conversation is.
    """
    talk = as_talk(messages)
    start = _start(talk, limit - tokens(instructions))
    places = list(range(start, len(talk)))
    if not any(talk[place]["role"] == "user" for place in places):
        places[:0] = next(([place] for place in range(start - 1, -1, -1) if talk[place]["role"] == "user"), [])
    parts = [talk.shown(place) for place in places]
    if instructions:
        parts.insert(0, shown({"role": "system", "content": instructions}))
    return Window([part.message for part in parts], [part.digest for part in parts])


def _start(talk: Talk, room: int) -> int:
    """Where the newest messages that fit in so many tokens begin; the newest one is among them in any case."""
    start = len(talk)
    while start > 0:
        start -= 1
        room -= talk.shown(start).tokens
        if talk[start]["role"] != "tool":
            break
    while start > 0 and (room := room - talk.shown(start - 1).tokens) >= 0:
        start -= 1
    while start < len(talk) and talk[start]["role"] == "tool":
        start += 1
    return start
