"""One-time tokens: arguments that authorise one call and no other."""

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from perdure.canonical import canonical, digest
from perdure.errors import DefinitionError


class OneTime:
    """Marks a parameter: ``token: Annotated[str, OneTime]``.

    A value that one call has used is refused to any other of the thread, of its forks, and of what it was forked from:
    also on a branch that a rewind has left. A call that clearly failed gives it back.
    """


def one_time(hints: dict[str, Any]) -> tuple[str, ...]:
    """The parameters that are marked. Raises DefinitionError where only a part of one is."""
    marked = tuple(name for name, hint in hints.items() if _is_marked(hint))
    if partly := [name for name, hint in hints.items() if name not in marked and _names_it(hint)]:
        raise DefinitionError(
            f"parameter {partly[0]!r} is a token in parts.",
            hint="OneTime marks a whole parameter: its value is the token.",
        )
    return marked


def _is_marked(hint: Any) -> bool:
    """Also one that may be left out: ``Annotated[str, OneTime] | None``."""
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return any(map(_marks, marks)) or _is_marked(inner)
    if get_origin(hint) in (Union, UnionType):
        return any(map(_is_marked, get_args(hint)))
    return False


def _names_it(hint: Any) -> bool:
    return _marks(hint) or any(map(_names_it, get_args(hint)))


def _marks(item: object) -> bool:
    return item is OneTime or isinstance(item, OneTime)


def tokens(arguments: BaseModel, names: tuple[str, ...]) -> tuple[str, ...]:
    """Digests of a call's tokens; one that is None is none."""
    given = arguments.model_dump(mode="json", include=set(names))
    return tuple(digest("one-time", canonical(value)) for name, value in sorted(given.items()) if value is not None)
