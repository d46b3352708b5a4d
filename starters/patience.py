"""Looking again and again whether something has happened."""

import asyncio
import time

_SHORTEST, _LONGEST = 0.05, 1.0  # seconds
_SHARE = 0.5


class Patience:
    """Pauses between looks, in proportion to the time waited already: what comes soon is seen soon, and what takes long
    costs few looks."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    async def pause(self) -> None:
        """Wait until the next look."""
        await asyncio.sleep(pause_after(time.monotonic() - self._began))


def pause_after(waited: float) -> float:
    """The next pause after so many seconds: half of them, within bounds."""
    return min(max(waited * _SHARE, _SHORTEST), _LONGEST)
