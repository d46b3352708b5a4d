"""A bounded view of a thread's state: what a query can answer without asking a database.

It follows the deltas as they are stored; what is sealed in them is shown as ``[sensitive]``. While the state fits in
the bound it is the state; beyond it the oldest list items go first, then whole channels, and ``truncated`` says so.
"""

from typing import Any

from pydantic import BaseModel

from perdure.canonical import canonical
from perdure.delta import Delta, Values, apply
from perdure.security.sealing import redact

BOUND = 16_384  # bytes: a query answer stays far below gRPC's limit
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

    def follow(self, delta: Delta | None) -> None:
        """Apply a step's delta; None stands for one that was too large to be carried."""
        if delta is None:
            self.omitted["*"] = self.omitted.get("*", 0) + 1
            return
        for channel, operation in redact(delta).items():
            if operation["op"] in ("set", "unset"):
                self.omitted.pop(channel, None)
            self.values = apply(self.values, {channel: operation})
            self._measure(channel)
        self._shrink(BOUND)

    def carried(self) -> "StateView":
        """The view for the next run of its workflow: as it is while it is whole, else only the newest of it."""
        if not self.truncated:
            return self
        view = StateView(values=dict(self.values), sizes=dict(self.sizes), omitted=dict(self.omitted))
        view._shrink(CARRIED)
        return view

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
