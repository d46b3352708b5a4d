"""A conversation as a value of a state: a list that knows where each message is, and what showing it to a model takes.

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


class Cost(NamedTuple):
    """What showing a message takes: about so many tokens; and the digest of what is shown."""

    tokens: int
    digest: str


class Talk(list[Json]):
    """Messages, each an object; ids are only needed where one is looked for."""

    __slots__ = ("_costs", "_places")

    def __init__(self, messages: Iterable[Json] = ()) -> None:
        super().__init__(messages)
        self._places: dict[str, int] | None = None  # of ids; made when first asked for
        self._costs: list[Cost | None] = [None] * len(self)

    def but(self) -> "Talk":
        """Another one with the same messages, that knows what this one knows, for its maker to change."""
        other = Talk(self)
        other._places = self._places.copy() if self._places is not None else None
        other._costs = self._costs.copy()
        return other

    def at_rest(self) -> "Talk":
        """Another one with the same messages that takes little room: where they are, it finds out when it is asked."""
        other = Talk(self)
        other._costs = self._costs.copy()
        return other

    def put(self, messages: Iterable[Json]) -> None:
        """Each takes the place of its id, or the last place. Only for who has made this Talk, before anybody has it."""
        places = self.places
        for message in messages:
            place = places.setdefault(message["id"], len(self))
            if place == len(self):
                self.append(message)
                self._costs.append(None)
            else:
                self[place], self._costs[place] = message, None

    @property
    def places(self) -> dict[str, int]:
        """Where the message of each id is."""
        if self._places is None:
            self._places = {message["id"]: place for place, message in enumerate(self)}
        return self._places

    def cost(self, place: int) -> Cost:
        """What showing the message at this place takes."""
        known = self._costs[place]
        if known is None:
            known = self._costs[place] = cost_of(self[place])
        return known

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Json]:
        """A plain list: whoever makes a copy means to change it."""
        return [deepcopy(message, memo) for message in self]


def cost_of(message: dict[str, Json]) -> Cost:
    """What showing a stored message to a model takes."""
    return Cost(estimate(message), digest(canonical(to_openai(message))))


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
