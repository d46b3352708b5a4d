"""Calling what the author of an agent wrote."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any


async def invoke(function: Callable[..., Any], kwargs: dict[str, Any], seconds: float) -> Any:
    """Call a function within its time-out; one that isn't async runs in a thread.

    Raises what the function raises, and TimeoutError. A thread can't be stopped: it may still be at work then, which
    is one more reason why a time-out is an unclear failure.
    """
    async with asyncio.timeout(seconds):
        if inspect.iscoroutinefunction(function):
            return await function(**kwargs)
        return await asyncio.to_thread(function, **kwargs)
