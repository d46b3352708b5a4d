"""A bounded view of a thread's state: what a query can answer without asking a database.

It follows the deltas as they are stored; what is sealed in them is shown as ``[sensitive]``. While the state fits in
the bound it is the state; beyond it the oldest list items go first, then whole channels, and ``truncated`` says so.
"""

from typing import Any

from pydantic import BaseModel

from perdure.canonical import canonical
from perdure.delta import Delta, Values, fold
from perdure.security.sealing import redact

BOUND = 16_384  # bytes: a query answer stays far below gRPC's limit
_AHEAD = 16  # steps that a view may be behind until it is looked at
CARRIED = 1_024  # bytes of a view that isn't whole anyway: histories keep what is carried into the next run twice


class StateView(BaseModel):
    """The part of a state that fits in ``BOUND``; ``omitted`` counts list items, or bytes, left out by channel.

    ``sizes`` are the bytes of each channel in the canonical form of ``values``: name, value, colon and comma.
    """

    values: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    omitted: dict[str, int] = {}

    @property
    def truncated(self) -> bool:
        """Whether something of the state is not in the view."""
        return bool(self.omitted)

    def follow(self, *deltas: Delta | None) -> None:
        """Apply the deltas of steps; None stands for one that was too large to be carried."""
        known: list[Delta] = [redact(delta) for delta in deltas if delta is not None]
        if unknown := len(deltas) - len(known):
            self.omitted["*"] = self.omitted.get("*", 0) + unknown
        self.values = fold(self.values, known)
        operations = [operation for delta in known for operation in delta.items()]
        for channel, operation in operations:
            if operation["op"] in ("set", "unset"):
                self.omitted.pop(channel, None)
        for channel in dict(operations):
            self._measure(channel)
        self._shrink(BOUND)

    def carried(self) -> "StateView":
        """The view for the next run of its workflow: as it is while it is whole, else only the newest of it."""
        if not self.truncated:
            return self
        view = self.copied()
        view._shrink(CARRIED)
        return view

    def copied(self) -> "StateView":
        """Another one that says the same, to be changed."""
        return StateView(values=dict(self.values), sizes=dict(self.sizes), omitted=dict(self.omitted))

    def _measure(self, channel: str) -> None:
        if channel in self.values:
            self.sizes[channel] = len(canonical({channel: self.values[channel]})) - 1
        else:
            self.sizes.pop(channel, None)

    def _shrink(self, bound: int) -> None:
        while sum(self.sizes.values()) >= bound:
            channel = max(self.sizes, key=lambda name: (self.sizes[name], name))
            value = self.values[channel]
            if isinstance(value, list) and len(value) > 1:
                self._drop_oldest(channel, value, bound)
            else:
                self.omitted[channel] = self.sizes.pop(channel)
                del self.values[channel]

    def _drop_oldest(self, channel: str, items: list[Any], bound: int) -> None:
        """Drop items from the front until the channel is within three quarters of its share."""
        surplus = sum(self.sizes.values()) - bound * 3 // 4
        dropped = 0
        while surplus > 0 and dropped < len(items) - 1:
            surplus -= len(canonical(items[dropped])) + 1
            dropped += 1
        self.values[channel] = items[dropped:]
        self._measure(channel)
        self.omitted[channel] = self.omitted.get(channel, 0) + dropped


class Following:
    """A view that follows every step and is drawn when it is looked at: hardly anybody looks after each step.

    Looking changes nothing, so a workflow comes to the same whoever looks at it, and when.
    """

    def __init__(self, view: StateView) -> None:
        self._drawn = view
        self._ahead: list[Delta | None] = []

    def follow(self, delta: Delta | None) -> None:
        """As ``StateView.follow``."""
        self._ahead.append(delta)
        if len(self._ahead) == _AHEAD:
            self._drawn, self._ahead = self.now(), []

    def now(self) -> StateView:
        """The view as it is."""
        view = self._drawn.copied()
        view.follow(*self._ahead)
        return view


def view_of(values: Values) -> StateView:
    """The view of a whole state; of a long list only what may be shown is looked at."""
    view = StateView()
    newest = {channel: _newest(value) if isinstance(value, list) else value for channel, value in values.items()}
    view.follow({channel: {"op": "set", "value": value} for channel, value in newest.items()})
    for channel in view.values:
        if left := len(values[channel]) - len(newest[channel]) if isinstance(values[channel], list) else 0:
            view.omitted[channel] = view.omitted.get(channel, 0) + left
    return view


def _newest(items: list[Any]) -> list[Any]:
    """The last items of a list, until they are more than fits."""
    start, size = len(items), 0
    while start > 0 and size <= BOUND:
        start -= 1
        size += len(canonical(redact(items[start]))) + 1
    return items[start:]
