"""A conversation as a value of a state: a list that knows where each message is, and what a model is shown of it.

So a step on a long conversation costs what it adds. It is JSON like any list of messages, and like every value of a
state it is not changed any more once others have it.
"""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, NamedTuple

from perdure.canonical import Json, canonical, digest
from perdure.message import to_openai

_BYTES_A_TOKEN = 4  # OpenAI's rule of thumb for English text; an estimate is enough for a bound
_OVERHEAD = 8  # tokens a message costs besides its text


class Shown(NamedTuple):
    """A message as a model is shown it, which nobody may change; about how many tokens it takes; and its digest."""

    message: dict[str, Json]
    tokens: int
    digest: str


class Talk(list[Json]):
    """Messages, each an object; ids are only needed where one is looked for."""

    __slots__ = ("_places", "_shown")

    def __init__(self, messages: Iterable[Json] = ()) -> None:
        super().__init__(messages)
        self._places: dict[str, int] | None = None  # of ids; made when first asked for
        self._shown: list[Shown | None] = [None] * len(self)

    def but(self) -> "Talk":
        """Another one with the same messages, that knows what this one knows, for its maker to change."""
        other = Talk(self)
        other._places = self._places.copy() if self._places is not None else None
        other._shown = self._shown.copy()
        return other

    def at_rest(self) -> "Talk":
        """Another one with the same messages that takes little room: where they are, it finds out when it is asked."""
        other = Talk(self)
        other._shown = self._shown.copy()
        return other

    def put(self, messages: Iterable[Json]) -> None:
        """Each takes the place of its id, or the last place. Only for who has made this Talk, before anybody has it."""
        places = self.places
        for message in messages:
            place = places.setdefault(message["id"], len(self))
            if place == len(self):
                self.append(message)
                self._shown.append(None)
            else:
                self[place], self._shown[place] = message, None

    @property
    def places(self) -> dict[str, int]:
        """Where the message of each id is."""
        if self._places is None:
            self._places = {message["id"]: place for place, message in enumerate(self)}
        return self._places

    def shown(self, place: int) -> Shown:
        """The message at this place as a model is shown it."""
        known = self._shown[place]
        if known is None:
            known = self._shown[place] = shown(self[place])
        return known

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Json]:
        """A plain list: whoever makes a copy means to change it."""
        return [deepcopy(message, memo) for message in self]


def shown(message: dict[str, Json]) -> Shown:
    """A stored message as a model is shown it."""
    as_shown = to_openai(message)
    return Shown(as_shown, estimate(message), digest(canonical(as_shown)))


def estimate(message: dict[str, Json]) -> int:
    """About how many tokens a stored message takes."""
    calls = sum(len(call["arguments"]) + len(call["name"]) for call in message.get("tool_calls", ()))
    return (len(message.get("content", "")) + calls) // _BYTES_A_TOKEN + _OVERHEAD


def tokens(text: str) -> int:
    """About how many tokens a text takes."""
    return len(text) // _BYTES_A_TOKEN


def as_talk(messages: list[Json]) -> Talk:
    """A list of messages as one that knows them."""
    return messages if isinstance(messages, Talk) else Talk(messages)
