"""Calling what the author of an agent wrote, and keeping what came of it."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def invoke(function: Callable[..., Any], kwargs: dict[str, Any], seconds: float) -> Any:
    """Call a function within its time-out; one that isn't async runs in a thread.

    Raises what the function raises, and TimeoutError. A thread can't be stopped: it may still be at work then, which
    is one more reason why a time-out is an unclear failure.
    """
    async with asyncio.timeout(seconds):
        if inspect.iscoroutinefunction(function):
            return await function(**kwargs)
        return await asyncio.to_thread(function, **kwargs)


async def to_the_end(recording: Coroutine[Any, Any, T]) -> T:
    """Let what is known of a call be written down, though its activity is cancelled meanwhile: its worker stood still,
    or is told to stop, and what has returned must not be forgotten for that.

    Raises what the recording raises, and CancelledError once it has ended.
    """
    going = asyncio.ensure_future(recording)
    try:
        return await asyncio.shield(going)
    except asyncio.CancelledError:
        await asyncio.wait({going})
        raise
