"""A stored state as an agent's own."""

from collections.abc import Mapping
from typing import Any

from perdure.canonical import Json
from perdure.checkpointer import Position
from perdure.delta import Delta, Values, apply
from perdure.security.keyring import Keyring
from perdure.state import State, materialise, recorded, reduce_updates


class Opened:
    def __init__(self, state: type[State], position: Position | None, values: Values, keyring: Keyring | None) -> None:
        self._state = state
        self.position = position
        self.values = values
        self._keyring = keyring

    @property
    def schema_version(self) -> int:
        return self._state.version

    def state(self) -> State:
        return materialise(self._state, self.values)

    def recorded(self, updates: Mapping[str, Any]) -> dict[str, Json]:
        return recorded(self._state, updates)

    def merge(self, updates: Mapping[str, Mapping[str, Any]], *, step: int) -> Delta:
        return reduce_updates(self._state, self.values, updates, step=step)

    def after(self, updates: Mapping[str, Mapping[str, Any]], *, step: int) -> "tuple[Delta, Opened]":
        delta = self.merge(updates, step=step)
        return delta, Opened(self._state, self.position, apply(self.values, delta), self._keyring)


def open_position(state: type[State], position: Position | None, keyring: Keyring | None) -> Opened:
    return Opened(state, position, position.values if position else {}, keyring)
