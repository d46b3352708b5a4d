"""Calling what the author of an agent wrote."""

import asyncio
from typing import Any

from perdure.tool import Tool


async def invoke(tool: Tool, kwargs: dict[str, Any]) -> Any:
    """Call the tool's function within its time-out; one that isn't async runs in a thread.

    Raises what the function raises, and TimeoutError. A thread can't be stopped: it may still be at work then, which
    is one more reason why a time-out is an unclear failure.
    """
    async with asyncio.timeout(tool.spec.timeout):
        if tool.is_async:
            return await tool.function(**kwargs)
        return await asyncio.to_thread(tool.function, **kwargs)
