"""Errors across Temporal: ours to ``ApplicationError`` and back, in one place."""

from datetime import timedelta

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from perdure import errors
from perdure.errors import PerdureError

_BENIGN = ApplicationErrorCategory.BENIGN
_EXPECTED = (errors.UsageError, errors.NotFound, errors.Conflict, errors.Refused, errors.ToolError)


def to_failure(error: PerdureError, *, delay: float | None = None) -> ApplicationError:
    """One of our errors as Temporal carries it: type is the class name, the hint travels as detail."""
    return ApplicationError(
        error.message, error.hint, type=type(error).__name__, non_retryable=not error.retry,
        next_retry_delay=timedelta(seconds=delay) if delay is not None else None,
        category=_BENIGN if isinstance(error, _EXPECTED) else ApplicationErrorCategory.UNSPECIFIED,
    )  # fmt: skip


def from_failure(failure: BaseException) -> PerdureError:
    """The error behind a failure that Temporal reports; what isn't ours becomes ``Failed``."""
    cause = root(failure)
    kind = getattr(errors, getattr(cause, "type", None) or "", None)
    if isinstance(cause, ApplicationError) and isinstance(kind, type) and issubclass(kind, PerdureError):
        hint = str(cause.details[0]) if cause.details else ""
        return kind(cause.message, hint=hint)
    return errors.Failed(describe(cause))


def root(failure: BaseException) -> BaseException:
    """What actually happened, below Temporal's wrappers: the outermost error of an application, else the innermost."""
    while failure.__cause__ is not None and not isinstance(failure, ApplicationError):
        failure = failure.__cause__
    return failure


def describe(failure: BaseException) -> str:
    """A failure on one line, with its type where the message alone wouldn't tell."""
    if isinstance(failure, ApplicationError):
        name = failure.type or ""
        known = getattr(errors, name, None) is not None
        return failure.message if known or not name else f"{name}: {failure.message}"
    return str(failure) or type(failure).__name__
