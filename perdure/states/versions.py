"""Versions of a state: the functions that lead what older code wrote to what the code has now."""

import inspect
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from typing import TYPE_CHECKING, Any

from perdure.canonical import Json, canonical
from perdure.delta import Values
from perdure.errors import DefinitionError, InvalidInput, SchemaTooNew, SchemaTooOld, UpcastFailed

if TYPE_CHECKING:
    from perdure.state import State

Upcast = Callable[[dict[str, Json]], dict[str, Json]]

if TYPE_CHECKING:
    _Static = staticmethod[[dict[str, Json]], dict[str, Json]]
else:
    _Static = staticmethod  # only type checkers know what it is made of


class Upcaster(_Static):
    """A function that makes a state of ``version`` one of the next version."""

    def __init__(self, function: Upcast, version: int) -> None:
        super().__init__(function)
        self.version = version


def upcast(version: int) -> Callable[[Upcast], Upcaster]:
    """Mark a function in the body of a State: it makes the values of a state of this version those of the next.

    It is given a copy of the values as JSON, by channel, and returns the new ones. A channel that was never written
    is not among them. Raises DefinitionError for what can't be such a function.
    """
    if not _is_version(version):
        raise DefinitionError(f"upcast({version!r}): versions are numbers from 1.")

    def mark(function: Upcast) -> Upcaster:
        plain: Upcast = function.__func__ if isinstance(function, staticmethod) else function
        if not inspect.isfunction(plain) or inspect.iscoroutinefunction(plain):
            raise DefinitionError(f"upcast({version}) takes a plain function, not {plain!r}.")
        return Upcaster(plain, version)

    return mark


@cache
def upcasters(state: "type[State]") -> tuple[Upcaster, ...]:
    """The upcasters of a state class from its ``oldest`` version to its own, its bases' included.

    Raises DefinitionError where one is missing, doubled or superfluous, or where the versions make no sense.
    """
    _check_versions(state)
    chain: dict[int, Upcaster] = {}
    for name, found in _all_upcasters(state).items():
        if not state.oldest <= found.version < state.version:
            if found not in map(_as_upcaster, vars(state).values()) and found.version < state.oldest:
                continue  # a base reaches further back
            raise DefinitionError(
                f"{state.__name__}.{name} leads from version {found.version} to {found.version + 1}; "
                f"the versions are {state.oldest} to {state.version}."
            )
        if (other := chain.setdefault(found.version, found)) is not found:
            raise DefinitionError(
                f"{state.__name__} has two upcasters from version {found.version}: {_name(other)} and {_name(found)}.",
                hint="To replace the one of a base, give it the same name.",
            )
    for version in range(state.oldest, state.version):
        if version not in chain:
            raise DefinitionError(
                f"{state.__name__} has version {state.version} and no upcaster from {version} to {version + 1}.",
                hint=f"Write one with @upcast({version}), or set `oldest` where no state that old is left.",
            )
    return tuple(chain[version] for version in sorted(chain))


def upcast_values(state: "type[State]", values: Values, version: int, *, place: str, discreet: bool = False) -> Values:
    """The values of an older version as JSON of the present one; not yet checked against the channels.

    The given ones stay as they are. Raises SchemaTooNew, SchemaTooOld or UpcastFailed, which name ``place``;
    ``discreet`` ones don't quote what an upcaster says, since that may be sensitive.
    """
    name = state.__name__
    if version > state.version:
        raise SchemaTooNew(
            f"{place} was written with version {version} of {name}; this code has version {state.version}.",
            hint="Deploy the newer code here too.",
        )
    if version < state.oldest:
        raise SchemaTooOld(
            f"{place} was written with version {version} of {name}; this code's upcasters begin at {state.oldest}.",
            hint="Run `perdure db upgrade` with code that still has them.",
        )
    out = deepcopy(values)
    for step in upcasters(state):
        if step.version >= version:
            out = _run(step, out, place, discreet)
    return out


def _run(step: Upcaster, values: Values, place: str, discreet: bool) -> Values:
    what = f"the upcaster {_name(step)}, from version {step.version} to {step.version + 1},"
    try:
        out: Any = step(values)
    except Exception as error:  # its author's code
        said = type(error).__name__ if discreet else f"{type(error).__name__}: {error}"
        raise UpcastFailed(f"{place}: {what} raised {said}.") from (None if discreet else error)
    if not isinstance(out, dict) or not all(isinstance(key, str) for key in out):
        raise UpcastFailed(f"{place}: {what} returned this {type(out).__name__}, not values by channel.")
    try:
        canonical(out)
    except InvalidInput as error:
        raise UpcastFailed(f"{place}: {what} returned what is no JSON: {error.message}") from error
    return out


def _check_versions(state: "type[State]") -> None:
    name = state.__name__
    for attribute in ("version", "oldest"):
        if attribute in state.model_fields or not _is_version(getattr(state, attribute, None)):
            raise DefinitionError(
                f"{name}.{attribute} must be a number from 1.", hint=f"Write {attribute}: ClassVar[int] = …"
            )
    if state.oldest > state.version:
        raise DefinitionError(f"{name}.oldest is {state.oldest}, and its version is {state.version}.")
    for base in state.__mro__[1:]:
        if (theirs := getattr(base, "version", 0)) > state.version:
            raise DefinitionError(
                f"{name}.version is {state.version}, and that of its base {base.__name__} is {theirs}.",
                hint="A subclass has the channels of its base, so it counts on from there.",
            )


def _is_version(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _all_upcasters(state: "type[State]") -> dict[str, Upcaster]:
    """By name; what a subclass puts in the place of a name takes it away from its base."""
    names: dict[str, Any] = {}
    for base in reversed(state.__mro__):
        names.update(vars(base))
    return {name: found for name, value in names.items() if (found := _as_upcaster(value)) is not None}


def _as_upcaster(value: Any) -> Upcaster | None:
    """Also where @staticmethod stands above @upcast."""
    inside = value.__func__ if isinstance(value, staticmethod) and not isinstance(value, Upcaster) else value
    return inside if isinstance(inside, Upcaster) else None


def _name(step: Upcaster) -> str:
    return step.__func__.__qualname__
