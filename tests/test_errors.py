"""Errors: one tree, one way across Temporal, and each tells what a script needs to know."""

import re
from importlib import import_module
from pkgutil import walk_packages

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

import perdure
from perdure import errors
from perdure.errors import (
    Conflict,
    DecisionRefused,
    Failed,
    IntegrityError,
    ModelUnavailable,
    NotFound,
    PerdureError,
    Refused,
    ToolError,
    Unreachable,
    UsageError,
)
from perdure.failures import describe, from_failure, root, to_failure
from perdure.wire import data_converter
from tests.properties import texts, thorough

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PerdureError)]
_LINE = re.compile(r"(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+) +(?:\((?P<code>\d)\) +)?(?P<what>\S.*)")


def tree() -> dict[str, tuple[str, int]]:
    """The drawing at the top of ``errors.py``: class -> (base, exit code)."""
    drawn: dict[str, tuple[str, int]] = {}
    above: list[tuple[int, str, int]] = []
    for line in (errors.__doc__ or "").splitlines()[2:]:
        if not line:
            break
        part = _LINE.fullmatch(line)
        assert part, line
        depth = len(part["indent"])
        while above and above[-1][0] >= depth:
            above.pop()
        _, base, code = above[-1] if above else (0, "Exception", 1)
        drawn[part["name"]] = (base, int(part["code"] or code))
        above.append((depth, part["name"], drawn[part["name"]][1]))
    return drawn


def test_the_tree_is_drawn_as_it_is() -> None:
    """Every class stands in the drawing, under its base, with the exit code that it has or inherits."""
    assert tree() == {kind.__name__: (kind.__bases__[0].__name__, kind.exit_code) for kind in CLASSES}


def test_no_error_is_defined_elsewhere() -> None:
    """All errors are in one file, so that one that crosses Temporal is found by its name on the other side."""
    for module in walk_packages(perdure.__path__, "perdure."):
        import_module(module.name)
    found, todo = set(), [PerdureError]
    while todo:
        kind = todo.pop()
        found.add(kind.__module__)
        todo += [below for below in kind.__subclasses__() if below.__module__.startswith("perdure.")]
    assert found == {"perdure.errors"}


def test_only_what_is_out_of_reach_is_tried_again() -> None:
    """``retry`` follows the tree."""
    assert {kind for kind in CLASSES if kind.retry} == {kind for kind in CLASSES if issubclass(kind, Unreachable)}


async def journey(error: ApplicationError) -> BaseException:
    """Through Temporal's own form of a failure and back."""
    failure = Failure()
    converter = DefaultFailureConverter()
    converter.to_failure(error, data_converter.payload_converter, failure)
    return converter.from_failure(Failure.FromString(failure.SerializeToString()), data_converter.payload_converter)


@thorough
@given(st.sampled_from(CLASSES), texts.filter(bool), texts, texts)
async def test_every_error_survives_the_journey(kind: type[PerdureError], message: str, hint: str, more: str) -> None:
    """Class, message, hint, and what a class knows besides (a refusal's code, a bad row's name)."""
    error = kind(message, hint=hint)
    for name in vars(error).keys() - {"message", "hint"}:
        setattr(error, name, more)
    arrived = from_failure(await journey(to_failure(error)))
    assert type(arrived) is kind
    assert vars(arrived) == vars(error)
    assert str(arrived) == str(error)


def test_an_error_of_a_tool_travels_as_what_it_is() -> None:
    """A tool may raise a class of its own: on the way it is the ToolError that it is derived from."""

    class SoldOut(ToolError):
        """An error as a user writes it."""

    error = SoldOut("no stock", hint="order less")
    error.add_note("raised in a test")
    arrived = from_failure(to_failure(error))
    assert (type(arrived), str(arrived)) == (ToolError, "no stock order less")


async def test_temporal_knows_what_to_do_with_it() -> None:
    """Whether to retry, after how long, and whether it is somebody's mistake or an alarm."""
    for kind in CLASSES:
        failure = to_failure(kind("x"))
        assert failure.type == kind.__name__
        assert failure.non_retryable != kind.retry
        expected = issubclass(kind, UsageError | NotFound | Conflict | Refused | ToolError)
        assert (failure.category == ApplicationErrorCategory.BENIGN) == expected
    delayed = to_failure(ModelUnavailable("x"), delay=1.5).next_retry_delay
    assert delayed is not None and delayed.total_seconds() == 1.5


def test_what_is_not_ours_becomes_failed() -> None:
    """A foreign failure keeps its type in its words; a foreign detail breaks nothing."""
    foreign = ApplicationError("boom", {"odd": 1}, type="ValueError")
    assert (type(from_failure(foreign)), str(from_failure(foreign))) == (Failed, "ValueError: boom")
    assert str(from_failure(RuntimeError())) == "RuntimeError"
    odd = from_failure(ApplicationError("no", "hint", {"code": "late", "other": 1}, type="DecisionRefused"))
    assert isinstance(odd, DecisionRefused)
    assert (odd.code, odd.hint, hasattr(odd, "other")) == ("late", "hint", False)
    assert isinstance(from_failure(ApplicationError("no", type="IntegrityError")), IntegrityError)


def test_the_cause_is_found_below_the_wrappers() -> None:
    """What happened is the application's own error, not what Temporal wrapped around it nor what it was made from."""
    try:
        try:
            raise ValueError("inside")
        except ValueError as error:
            raise to_failure(ToolError("no stock")) from error
    except ApplicationError as error:
        wrapper = RuntimeError("Activity task failed")
        wrapper.__cause__ = error
        assert root(wrapper) is error
        assert describe(root(wrapper)) == "no stock"


@pytest.mark.parametrize(("message", "hint", "text"), [("It broke.", "Mend it.", "It broke. Mend it."), ("A", "", "A")])
def test_an_error_reads_as_a_sentence(message: str, hint: str, text: str) -> None:
    """The message, then what to do about it."""
    assert str(PerdureError(message, hint=hint)) == text
