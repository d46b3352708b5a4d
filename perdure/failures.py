"""Errors across Temporal: ours to ``ApplicationError`` and back, in one place."""

from datetime import timedelta
from typing import Any

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from perdure import errors
from perdure.errors import PerdureError

_SHOWN = 2_000  # characters of a failure; whoever raised it may have put a whole response into it
_BENIGN = ApplicationErrorCategory.BENIGN
_EXPECTED = (errors.UsageError, errors.NotFound, errors.Conflict, errors.Refused, errors.ToolError)


def to_failure(error: PerdureError, *, delay: float | None = None) -> ApplicationError:
    """One of our errors as Temporal carries it: type is the class name; the hint and what else it knows are details."""
    # A tool may raise a class of its own, derived from ToolError: what the other side knows is the base.
    kind = next(base for base in type(error).__mro__ if getattr(errors, base.__name__, None) is base)
    more = {name: vars(error)[name] for name in vars(kind("")).keys() - {"message", "hint"}}
    return ApplicationError(
        bounded(error.message), error.hint, *([more] if more else []), type=kind.__name__,
        non_retryable=not error.retry,
        next_retry_delay=timedelta(seconds=delay) if delay is not None else None,
        category=_BENIGN if isinstance(error, _EXPECTED) else ApplicationErrorCategory.UNSPECIFIED,
    )  # fmt: skip


def from_failure(failure: BaseException) -> PerdureError:
    """The error behind a failure that Temporal reports; what isn't ours becomes ``Failed``."""
    cause = root(failure)
    kind = getattr(errors, getattr(cause, "type", None) or "", None)
    if not (isinstance(cause, ApplicationError) and isinstance(kind, type) and issubclass(kind, PerdureError)):
        return errors.Failed(describe(cause))
    details: list[Any] = [*cause.details, "", {}]
    hint, more = details[:2]
    error = kind(cause.message, hint=str(hint))
    if isinstance(more, dict):
        vars(error).update({name: value for name, value in more.items() if name in vars(error)})
    return error


def root(failure: BaseException) -> BaseException:
    """What actually happened, below Temporal's wrappers: the outermost error of an application, else the innermost."""
    while failure.__cause__ is not None and not isinstance(failure, ApplicationError):
        failure = failure.__cause__
    return failure


def describe(failure: BaseException) -> str:
    """A failure on one line, with its type where the message alone wouldn't tell; bounded, since it is kept."""
    text = str(failure) or type(failure).__name__
    if isinstance(failure, ApplicationError):
        name = failure.type or ""
        known = getattr(errors, name, None) is not None
        text = failure.message if known or not name else f"{name}: {failure.message}"
    return bounded(text)


def bounded(text: str, limit: int = _SHOWN) -> str:
    """The beginning of a text, with a sign where something is left out."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
