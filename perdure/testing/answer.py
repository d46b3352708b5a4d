"""Answers that may break off: sent in parts, with something happening halfway, or no answer at all."""

from collections.abc import Awaitable, Callable, Sequence

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from perdure.testing.serve import cut

Midway = Callable[[], Awaitable[bool]]


class NoAnswer(Response):
    """Close the connection without a word."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await cut(scope, receive)


class PartedAnswer(Response):
    """A 200 in parts. ``midway`` runs after half of them; where it returns False the connection is closed.

    ``sent`` is called once the last part is out.
    """

    def __init__(
        self, parts: Sequence[bytes], *, media_type: str, midway: Midway | None, sent: Callable[[], None]
    ) -> None:
        self.media_type = media_type
        super().__init__()
        del self.headers["content-length"]
        self._parts, self._midway, self._sent = parts, midway, sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        half = (len(self._parts) + 1) // 2
        for at, part in enumerate(self._parts):
            if at == half and self._midway is not None and not await self._midway():
                await cut(scope, receive)
                return
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        self._sent()


async def break_off() -> bool:
    """A ``midway`` that always closes the connection."""
    return False
