"""Attempts of one activity may overlap: a worker that seemed dead was only slow. Whoever commits first has done it.

So an activity that commits looks whether that is done already; and it looks again where its own work is refused, for
then another attempt was quicker, and what that one recorded is what both came to.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio.exceptions import ApplicationError

from perdure.errors import PerdureError

T = TypeVar("T")


async def once(recorded: Callable[[], Awaitable[T | None]], work: Callable[[], Awaitable[T]]) -> T:
    """What another attempt has recorded, else what this one comes to. Raises what the work raises."""
    if (earlier := await recorded()) is not None:
        return earlier
    try:
        return await work()
    except (PerdureError, ApplicationError):
        if (quicker := await recorded()) is None:
            raise
        return quicker
