"""A gate that holds requests open until a test lets them go."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Gate:
    """Held requests, oldest first. One whose client hangs up is no longer held."""

    def __init__(self) -> None:
        self._held: list[asyncio.Future[None]] = []
        self._changed = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many requests are held."""
        return len(self._held)

    async def hold(self, gone: Coroutine[Any, Any, None], *, seconds: float | None = None) -> bool:
        """Wait here. True: released, or ``seconds`` are over; False: the client hung up, ``gone`` ended."""
        pass_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        hung_up = asyncio.ensure_future(gone)
        self._held.append(pass_on)
        self._tell()
        try:
            await asyncio.wait({pass_on, hung_up}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            return not hung_up.done()
        finally:
            hung_up.cancel()
            if pass_on in self._held:
                self._held.remove(pass_on)
                self._tell()

    def release(self, count: int | None = None) -> int:
        """Let the oldest ``count`` requests go on (None: all); returns how many went."""
        going = self._held[:count]
        self._held = self._held[len(going) :]
        for pass_on in going:
            pass_on.set_result(None)
        self._tell()
        return len(going)

    async def until(self, reached: Callable[[int], bool], *, within: float) -> None:
        """Return once ``reached`` is true of how many are held. Raises TimeoutError after ``within`` s."""
        async with asyncio.timeout(within):
            while not reached(self.waiting):
                await self._changed.wait()

    def _tell(self) -> None:
        """Wake whoever waits for a change; the next change gets an event of its own."""
        self._changed.set()
        self._changed = asyncio.Event()
