"""A stored state as an agent's own: opened with its keys and led to the version of the code; and the way back.

Only data is stored: what an upcaster made stands in the next delta, so a state is read back without any code.
"""

import secrets
from collections.abc import Mapping
from typing import Any

from perdure.canonical import Json
from perdure.checkpointer import Position
from perdure.delta import Delta, Operation, Values, apply, same
from perdure.errors import InvalidInput, UpcastFailed
from perdure.security.keyring import Keyring
from perdure.security.sealing import Sealer, finds_its_place, is_sealed, unseal
from perdure.state import State, channels, check_updates, materialise, needs_keys, recorded, reduce_updates
from perdure.states.reducers import OVERWRITE, overwrites, overwriting, setting
from perdure.states.versions import upcast_values, upcasters


class Opened:
    """A position of a thread as its agent's own state.

    ``position`` is None where the thread is new. ``values`` are the state as plain JSON, in the version of the code;
    they are shared: nobody may change them.
    """

    def __init__(
        self, state: type[State], keyring: Keyring | None, position: Position | None, *, stored: Values,
        values: Values, stale: frozenset[str], salt: str,
    ) -> None:  # fmt: skip
        self.position = position
        self.values = values
        self._state = state
        self._keyring = keyring
        self._stored = stored  # what the next delta applies to
        self._stale = stale  # channels that the next delta has to bring up to date
        self._salt = salt

    @property
    def schema_version(self) -> int:
        """The version that the state has after the next delta."""
        return self._state.version

    def state(self) -> State:
        """The state as the user's own type; whoever gets it may change it. Raises InvalidInput where it doesn't fit."""
        return materialise(self._state, self.values)

    def given(self, updates: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Updates by writer that come from outside, checked: a message's input, an update by hand, a fork's values.

        Raises InvalidInput where one doesn't fit, for an Ephemeral channel, and for values that are sealed already:
        whoever can read a store could have those of a stranger opened in a thread of his own.
        """
        check_updates(self._state, updates)
        return updates

    def recorded(self, updates: Mapping[str, Any]) -> dict[str, Json]:
        """Updates of a call as JSON, for its record: without what is Ephemeral, and with what is Sensitive sealed.

        Raises InvalidInput, KeyMissing.
        """
        sealer = self._sealer()
        return {name: self._recorded(name, record, sealer) for name, record in recorded(self._state, updates).items()}

    def merge(self, updates: Mapping[str, Mapping[str, Any]], *, step: int) -> Delta:
        """The delta as it is stored: what the updates of a step's writers change, and whatever an upcast has changed.

        Args:
            updates: writer's name -> channel -> update, as it is or as it was recorded.
            step: number of the step; new messages get their ids from it.

        Raises InvalidInput as ``reduce_updates``, KeyMissing, IntegrityError.
        """
        return self.after(updates, step=step)[0]

    def after(self, updates: Mapping[str, Mapping[str, Any]], *, step: int) -> "tuple[Delta, Opened]":
        """What ``merge`` returns, and the state as it is then."""
        plain = {writer: self._unsealed(update) for writer, update in updates.items()}
        changes = reduce_updates(self._state, self.values, plain, step=step)
        values = apply(self.values, changes)
        delta = self._delta(changes, values)
        then = Opened(
            self._state, self._keyring, self.position, stored=apply(self._stored, delta), values=values,
            stale=frozenset(), salt=f"{self._salt}+",
        )  # fmt: skip
        return delta, then

    def _delta(self, changes: Delta, values: Values) -> Delta:
        sealer = self._sealer()
        names = sorted(self._stale | changes.keys())  # in one order, so that they are sealed alike in every attempt
        return {name: self._operation(name, changes.get(name), values, sealer) for name in names}

    def _operation(self, name: str, change: Operation | None, values: Values, sealer: Sealer) -> Operation:
        """What makes the stored value of a channel, whatever form it has, the new one."""
        if name not in values:
            return {"op": "unset"}
        channel = channels(self._state)[name]
        if change is not None and name not in self._stale:
            operation = sealer.operation(change, channel.shape) if channel.sensitive else change
            if finds_its_place(operation, self._stored.get(name)):
                return operation
        anew = setting(values[name])
        return sealer.operation(anew, channel.shape) if channel.sensitive else anew

    def _recorded(self, name: str, record: Json, sealer: Sealer) -> Json:
        channel = channels(self._state)[name]
        if not channel.sensitive:
            return record
        if overwrites(record):
            return {OVERWRITE: sealer.value(overwriting(record), channel.shape)}
        return sealer.value(record, channel.shape)

    def _unsealed(self, update: Mapping[str, Any]) -> dict[str, Any]:
        """An update with what was sealed in its record opened again; only where it is going to be sealed anew."""
        known = channels(self._state)
        return {
            name: unseal(value, self._keyring) if name in known and known[name].sensitive else value
            for name, value in update.items()
        }

    def _sealer(self) -> Sealer:
        return Sealer(self._keyring, self._salt)


def open_position(state: type[State], position: Position | None, keyring: Keyring | None) -> Opened:
    """A position (None: that of a new thread) as a state of this class.

    Raises KeyMissing, IntegrityError; SchemaTooNew, SchemaTooOld or UpcastFailed where the state was written by other
    code and can't be led to this one's version.
    """
    if position is None:
        salt = secrets.token_hex(8)  # nothing tells new threads apart yet
        return Opened(state, keyring, None, stored={}, values={}, stale=frozenset(), salt=salt)
    written = unseal(position.values, keyring)
    values = _present(state, written, position)
    changed = _changed(written, values) if position.schema_version != state.version else written.keys() - values.keys()
    return Opened(
        state, keyring, position, stored=position.values, values=values, salt=position.ref.digest,
        stale=frozenset(changed | _in_the_clear(state, position.values)),
    )  # fmt: skip


def _present(state: type[State], written: Values, position: Position) -> Values:
    """The values in the version of the code, without what is Ephemeral now."""
    known = channels(state)
    transient = {name for name, channel in known.items() if channel.ephemeral}
    if position.schema_version == state.version:
        return {name: value for name, value in written.items() if name not in transient}
    place = f"Checkpoint {position.ref.id} of thread {position.thread_id}"
    upcast = upcast_values(state, written, position.schema_version, place=place, discreet=needs_keys(state))
    last = upcasters(state)[-1].__func__.__qualname__
    values: Values = {}
    for name in upcast.keys() - transient:
        if name not in known:
            raise UpcastFailed(
                f"{place}: after the upcaster {last} there is a channel {name!r}, which {state.__name__} doesn't have."
            )
        try:
            valid = known[name].validate(upcast[name])
        except InvalidInput as error:
            cause = None if known[name].sensitive else error
            raise UpcastFailed(f"{place}: after the upcaster {last}: {error.message}") from cause
        values[name] = known[name].identified(valid, step=f"v{state.version}", old=None)
    return values


def _changed(written: Values, values: Values) -> set[str]:
    """The channels that an upcast has changed, added or taken away."""
    kept = written.keys() & values.keys()
    return (written.keys() ^ values.keys()) | {name for name in kept if not same(written[name], values[name])}


def _in_the_clear(state: type[State], stored: Values) -> set[str]:
    """Channels that became Sensitive after they were written."""
    known = channels(state)
    return {
        name for name, value in stored.items()
        if name in known and known[name].sensitive and not is_sealed(value, known[name].shape)
    }  # fmt: skip
