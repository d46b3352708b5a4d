"""The client's leases: the exclusive right to write to a thread for a while."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from pydantic import ValidationError

from perdure.contracts import LeaseRequest
from perdure.errors import InvalidInput, PerdureError, TemporalUnreachable, Unreachable
from perdure.lease import Lease
from perdure.starters.connection import Connection

_PARTING = 5.0  # seconds at most in which it is given back
_RENEWALS = 3  # in the time that a lease holds: one may fail, and a second one


class Leases(Connection):
    """Who writes alone."""

    @asynccontextmanager
    async def lease(self, thread_id: str, *, holder: str, seconds: float = 60.0) -> AsyncIterator[Lease]:
        """Hold a lease while the body runs; what this client writes to the thread meanwhile carries its token.

        It is renewed in time and given back at the end. Where it is lost all the same, the body is cancelled and the
        reason raised: LeaseHeld, Refused where it has run out, or Unreachable. Raises LeaseHeld while somebody else
        holds one.
        """
        held = await self.acquire_lease(thread_id, holder=holder, seconds=seconds)
        self._tokens[thread_id] = held.token
        body = asyncio.current_task()
        assert body is not None, "a context manager runs in a task"
        cancelling = body.cancelling()
        renewing = asyncio.create_task(self._renew(thread_id, held.token, seconds, body))
        lost = False
        try:
            yield held
        except asyncio.CancelledError:
            if not renewing.done() or body.uncancel() > cancelling:  # it was somebody else who cancelled the body
                raise
            lost = True
            await renewing  # raises why
        finally:
            self._tokens.pop(thread_id, None)
            if not lost:
                await self._give_back(thread_id, held.token, renewing)

    async def _give_back(self, thread_id: str, token: str, renewing: "asyncio.Task[None]") -> None:
        """Best effort: a lease that can't be given back runs out by itself."""
        renewing.cancel()
        with suppress(asyncio.CancelledError, PerdureError):
            await renewing
        with suppress(PerdureError, TimeoutError):
            async with asyncio.timeout(_PARTING):
                await self.release_lease(thread_id, token=token)

    async def _renew(self, thread_id: str, token: str, seconds: float, body: "asyncio.Task[object]") -> None:
        """Renew for ever. Where that fails for good, the body is cancelled and the reason raised."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            await asyncio.sleep(seconds / _RENEWALS)
            asked = loop.time()
            try:
                async with asyncio.timeout_at(end):
                    await self.renew_lease(thread_id, token=token, seconds=seconds)
                end = asked + seconds
            except (Unreachable, TimeoutError) as error:
                if loop.time() >= end:
                    body.cancel()
                    raise TemporalUnreachable(f"The lease of {thread_id} could not be renewed in time.") from error
            except PerdureError:
                body.cancel()
                raise

    async def acquire_lease(self, thread_id: str, *, holder: str, seconds: float = 60.0) -> Lease:
        """A lease for so many seconds, with the token that proves whose it is. Raises LeaseHeld, InvalidInput."""
        return await self._lease(thread_id, "acquire_lease", holder=holder, seconds=seconds)

    async def renew_lease(self, thread_id: str, *, token: str, seconds: float = 60.0) -> Lease:
        """The same lease, for so many seconds from now. Raises LeaseHeld, Refused where it has run out."""
        return await self._lease(thread_id, "renew_lease", token=token, seconds=seconds)

    async def release_lease(self, thread_id: str, *, token: str) -> bool:
        """Give a lease back; whether it was held. Raises LeaseHeld where it is somebody else's."""
        return await self._update(thread_id, "release_lease", LeaseRequest(token=token), bool, wake=True)

    async def _lease(
        self, thread_id: str, name: str, *, holder: str = "", token: str = "", seconds: float
    ) -> Lease:  # fmt: skip
        try:
            request = LeaseRequest(holder=holder, token=token, seconds=seconds)
        except ValidationError as error:
            raise InvalidInput("A lease holds for up to 86,400 seconds, and its holder has a short name.") from error
        return await self._update(thread_id, name, request, Lease, wake=True)
