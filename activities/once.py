"""Attempts of one activity may overlap: a worker that seemed dead was only slow. Whoever commits first has done it.

So an activity that commits looks whether that is done already; and it looks again where its own work is refused, for
then another attempt was quicker, and what that one recorded is what both came to. A first attempt has nobody before
it, unless results are recorded under keys that outlive the activity.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from perdure.errors import PerdureError

T = TypeVar("T")


async def once(
    recorded: Callable[[], Awaitable[T | None]], work: Callable[[], Awaitable[T]], *, by_key: bool = False
) -> T:
    """What another attempt has recorded, else what this one comes to. Raises what the work raises.

    ``by_key``: it is recorded under the key of what is done, not under the id of the checkpoint that was made for this
    one activity.
    """
    if (by_key or not is_first()) and (earlier := await recorded()) is not None:
        return earlier
    try:
        return await work()
    except (PerdureError, ApplicationError):
        if (quicker := await recorded()) is None:
            raise
        return quicker


def is_first() -> bool:
    """Whether no attempt of this activity can have come before."""
    return activity.in_activity() and activity.info().attempt == 1 and not activity.info().is_local
