"""People's functions in a graph: how they are called, and what may come out of them."""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from perdure.canonical import Json, canonical
from perdure.errors import DefinitionError, InvalidInput, PerdureError
from perdure.state import State, channels, holds_secret


@dataclass(frozen=True, kw_only=True)
class NodeContext:
    """What a node is told about its run. Declare a parameter ``ctx: NodeContext`` to receive it.

    ``idempotency_key`` is the same in every attempt. ``arg`` is what a ``Send`` gave, or the error that led here. In a
    ``dry_run`` it must change nothing outside.
    """

    thread_id: str
    turn: int
    step: int
    idempotency_key: str
    attempt: int = 1
    node: str = ""
    arg: Json = None
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The names of the parameters, empty where there is none; ``takes`` is the type of the argument.

    ``requires_arg``: the function can't run without one.
    """

    state: str = ""
    context: str = ""
    arg: str = ""
    takes: TypeAdapter[Any] | None = None
    optional: bool = False
    requires_arg: bool = False

    @property
    def takes_arg(self) -> bool:
        """Whether the function can see what a ``Send`` gives."""
        return bool(self.arg or self.context)

    def bind(self, state: State, context: NodeContext, place: str) -> dict[str, Any]:
        """Keyword arguments. Raises InvalidInput where the argument isn't of its declared type."""
        bound: dict[str, Any] = {self.state: state} if self.state else {}
        if self.context:
            bound[self.context] = context
        if self.arg and not (self.optional and context.arg is None):
            bound[self.arg] = self._typed(context.arg, place)
        return bound

    def _typed(self, arg: Json, place: str) -> Any:
        if self.takes is None:
            return arg
        try:
            return self.takes.validate_json(canonical(arg))
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or self.arg}: {e['msg']}" for e in error.errors())
            raise InvalidInput(f"{place} can't take this {type(arg).__name__} as `{self.arg}`: {reasons}.") from error


def signature_of(function: Callable[..., Any], state: type[State]) -> Signature:
    """How a node's function is called. Raises DefinitionError for one that can't be.

    A parameter of type ``NodeContext`` is told about the run. One that is a ``State``, or is called ``state``, or comes
    first and has no type, takes the state. One more may take the argument.
    """
    check_function(function)
    hints = hints_of(function)
    found: dict[str, inspect.Parameter] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DefinitionError(f"parameter {parameter.name!r} must be an ordinary named one.")
        role = _role(parameter.name, hints.get(parameter.name), first=not found)
        if role in found:
            raise DefinitionError(f"parameters {found[role].name!r} and {parameter.name!r} both take the {role}.")
        found[role] = parameter
    if "state" in found:
        check_state(found["state"].name, hints.get(found["state"].name), state)
    names: dict[str, Any] = {role: parameter.name for role, parameter in found.items()}
    return Signature(**names, **(_argument(found["arg"], hints) if "arg" in found else {}))


def _role(name: str, hint: Any, *, first: bool) -> str:
    if hint is NodeContext:
        return "context"
    if name == "state" or _is_state(hint) or (first and hint is None and name != "arg"):
        return "state"
    return "arg"


def _is_state(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, State)


def _argument(parameter: inspect.Parameter, hints: dict[str, Any]) -> dict[str, Any]:
    optional = parameter.default is not parameter.empty
    if parameter.name not in hints:
        return {"optional": optional}
    adapter = json_type(hints[parameter.name], f"parameter {parameter.name!r}")
    return {"takes": adapter, "optional": optional, "requires_arg": not optional and not _takes_none(adapter)}


def _takes_none(adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.validate_python(None)
    except ValidationError:
        return False
    return True


def check_function(function: Any) -> None:
    """Raise DefinitionError for what is no function, or one that yields."""
    if not inspect.isroutine(function):
        raise DefinitionError(f"{function!r} is no function.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DefinitionError(f"{function.__name__} yields, and must return.")


def check_called(function: Any, *parameters: str, state: type[State] | None = None) -> None:
    """Raise DefinitionError for what can't be called with so many values in this order, the state being the first."""
    check_function(function)
    signature = inspect.signature(function)
    try:
        signature.bind(*parameters)
    except TypeError as error:
        raise DefinitionError(f"{function.__name__} must take ({', '.join(parameters)}): {error}.") from error
    if state is not None:
        first = next(iter(signature.parameters))
        check_state(first, hints_of(function).get(first), state)


def check_state(name: str, hint: Any, state: type[State]) -> None:
    """Raise DefinitionError where a function wants another state than it would be given."""
    if hint is None or hint is Any or (_is_state(hint) and issubclass(state, hint)):
        return
    wanted = getattr(hint, "__name__", str(hint))
    raise DefinitionError(f"parameter {name!r} takes {wanted}, and the state is {state.__name__}.")


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of a function's parameters and of what it returns. Raises DefinitionError."""
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise DefinitionError(f"an annotation can't be resolved: {error}.") from error


def json_type(annotation: Any, place: str) -> TypeAdapter[Any]:
    """The type of a value that comes as JSON. Raises DefinitionError for one that can't, or that holds a secret."""
    if holds_secret(annotation):
        raise DefinitionError(f"{place} is a secret type, which would be stored as asterisks.")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        adapter.json_schema()
    except PydanticUserError as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise DefinitionError(f"{place} can't be read from JSON: {why}.") from error
    return adapter


def as_json(value: Any, place: str) -> Json:
    """A value as JSON. Raises InvalidInput that names the place."""
    try:
        found: Json = to_jsonable_python(value)
        canonical(found)
    except (PydanticSerializationError, InvalidInput) as error:
        why = str(error).rstrip(".")
        raise InvalidInput(f"{place} what can't be written as JSON: {why}.") from error
    return found


def seen_as(wanted: type[State], state: State) -> State:
    """The state as the functions of a graph know it: those of a subgraph see their own channels only.

    Raises InvalidInput where a validator of the subgraph's state refuses it.
    """
    if isinstance(state, wanted):
        return state
    try:
        return wanted.model_validate({name: getattr(state, name) for name in wanted.model_fields})
    except ValidationError as error:
        raise InvalidInput(f"The state doesn't fit {wanted.__name__}: {error}") from error


@contextmanager
def failing(place: str) -> Iterator[None]:
    """People's code that runs where nothing is tried again: what it raises becomes InvalidInput, with the place."""
    try:
        yield
    except PerdureError:
        raise
    except Exception as error:
        raise InvalidInput(f"{place} failed: {type(error).__name__}: {error}.") from error


def updates_of(place: str, state: type[State], returned: Any) -> dict[str, Any]:
    """Updates by channel, as a function returned them. Raises InvalidInput for what is no dict of known channels."""
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise InvalidInput(
            f"{place} returned this {type(returned).__name__}.", hint="Return a dict of updates by channel, or None."
        )
    known = channels(state)
    for name in returned:
        if name not in known:
            raise InvalidInput(
                f"{place} writes to {state.__name__}.{name}, which doesn't exist.",
                hint=f"Channels: {', '.join(known)}.",
            )
    return dict(returned)
