"""One-time tokens: arguments that authorise one call and no other."""

from typing import Any, get_args

from pydantic import BaseModel

from perdure.canonical import canonical, digest


class OneTime:
    """Marks a parameter: ``token: Annotated[str, OneTime]``.

    A value that one call has used is refused to any other of the thread, of its forks, and of what it was forked from:
    also on a branch that a rewind has left. A call that clearly failed gives it back.
    """


def one_time(hints: dict[str, Any]) -> tuple[str, ...]:
    """The parameters that are marked."""
    return tuple(name for name, hint in hints.items() if any(_marks(item) for item in get_args(hint)[1:]))


def _marks(item: object) -> bool:
    return item is OneTime or isinstance(item, OneTime)


def tokens(arguments: BaseModel, names: tuple[str, ...]) -> tuple[str, ...]:
    """Digests of a call's tokens; one that is None is none."""
    given = arguments.model_dump(mode="json", include=set(names))
    return tuple(digest("one-time", canonical(value)) for name, value in sorted(given.items()) if value is not None)
