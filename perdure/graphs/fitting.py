"""Whether every value of one type is a value of another: what a node writes is held against its channel by it."""

import types
import typing
from typing import Annotated, Any, Literal, Union

import typing_extensions

_UNIONS = (Union, types.UnionType)


def fits(given: Any, wanted: Any) -> bool:
    """Whether what is ``given`` can stand where ``wanted`` is declared. In doubt: no."""
    given, wanted = _plain(given), _plain(wanted)
    if wanted is Any or given == wanted:
        return True
    if typing.get_origin(given) in _UNIONS:
        return all(fits(member, wanted) for member in typing.get_args(given))
    if typing.get_origin(wanted) in _UNIONS:
        return any(fits(given, member) for member in typing.get_args(wanted))
    if typing.get_origin(given) is Literal:
        return _literal_fits(typing.get_args(given), wanted)
    if typing.get_origin(given) is not None:
        return bool(typing.get_origin(given) is wanted)
    if isinstance(given, type) and isinstance(wanted, type):
        return issubclass(given, wanted) or (given is int and wanted is float)
    return False


def _plain(annotation: Any) -> Any:
    """A type without what is annotated to it, and what an alias or a NewType stands for."""
    if typing.get_origin(annotation) is Annotated:
        return _plain(typing.get_args(annotation)[0])
    if isinstance(annotation, typing_extensions.TypeAliasType):
        return _plain(annotation.__value__)
    return _plain(annotation.__supertype__) if hasattr(annotation, "__supertype__") else annotation


def _literal_fits(values: tuple[Any, ...], wanted: Any) -> bool:
    if typing.get_origin(wanted) is Literal:
        return set(values) <= set(typing.get_args(wanted))
    return all(fits(type(value), wanted) for value in values)


def item_types(annotation: Any) -> tuple[Any, ...]:
    """The types of the items of a list type, also where it may be None."""
    annotation = _plain(annotation)
    if typing.get_origin(annotation) in _UNIONS:
        return tuple(item for member in typing.get_args(annotation) for item in item_types(member))
    return typing.get_args(annotation) if typing.get_origin(annotation) is list else ()


def literals(annotation: Any) -> tuple[str, ...]:
    """The texts of all ``Literal`` in a type, in their order, each once."""
    annotation = _plain(annotation)
    if typing.get_origin(annotation) is Literal:
        return tuple(dict.fromkeys(value for value in typing.get_args(annotation) if isinstance(value, str)))
    inside = (name for part in typing.get_args(annotation) for name in literals(part))
    return tuple(dict.fromkeys(inside))
