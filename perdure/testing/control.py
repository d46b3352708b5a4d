"""What a test does to a scripted server: add faults, hold requests and let them go, read the journal.

In the same process these are methods; from another process they are requests:

    POST   /_faults   one fault as JSON      GET /_log       the journal, a JSON list
    DELETE /_faults   disarm all             GET /_waiting   {"waiting": n}; with ?count=N it waits for N
    POST   /_release  {"count": n} or all    POST /_reset    disarm, release, clear the journal
"""

import asyncio
import json
from typing import Generic, TypeVar

from pydantic import PositiveInt, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perdure.testing.answer import NoAnswer
from perdure.testing.faults import Faults, Trouble
from perdure.testing.gate import Gate
from perdure.testing.journal import Journal
from perdure.testing.serve import LocalServer, gone
from perdure.values import Value

F = TypeVar("F", bound=Trouble)
E = TypeVar("E", bound=Value)


class ControlledServer(LocalServer, Generic[F, E]):
    """A local server with faults of type ``F`` and a journal of ``E``; the base of the servers for tests."""

    def __init__(self, routes: list[Route], *, fault_type: type[F], port: int = 0) -> None:
        self._fault_type = fault_type
        self._faults: Faults[F] = Faults()
        self._gate = Gate()
        self._journal: Journal[E] = Journal()
        super().__init__(Starlette(routes=[*routes, *self._controls()]), port=port)

    @property
    def log(self) -> list[E]:
        """Every request since the start or the last ``reset``, in the order they came."""
        return self._journal.entries

    @property
    def waiting(self) -> int:
        """How many requests are held open now."""
        return self._gate.waiting

    async def held(self, count: int = 1, *, within: float = 10.0) -> None:
        """Return once ``count`` requests are held at once. Raises TimeoutError after ``within`` seconds."""
        await self._gate.until(lambda waiting: waiting >= count, within=within)

    async def idle(self, *, within: float = 10.0) -> None:
        """Return once no request is held: each was released, or its client gave up. Raises TimeoutError."""
        await self._gate.until(lambda waiting: not waiting, within=within)

    async def hold(self, request: Request, *, seconds: float | None = None) -> bool:
        """For a server's handlers: hold a request, its body read, until released or for ``seconds``.

        False if the client hung up meanwhile; then ``NoAnswer()`` is the response.
        """
        return await self._gate.hold(gone(request.receive), seconds=seconds)

    def add_fault(self, fault: F) -> None:
        """Arm one more fault."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Disarm all faults; held requests stay held."""
        self._faults.clear()

    def release(self, count: int | None = None) -> int:
        """Let the oldest ``count`` held requests go on (None: all); returns how many went."""
        return self._gate.release(count)

    def reset(self) -> None:
        """Disarm all faults, release all requests, clear the journal."""
        self._faults.clear()
        self._gate.release()
        self._journal.clear()

    def _controls(self) -> list[Route]:
        return [
            Route("/_faults", self._post_fault, methods=["POST"]),
            Route("/_faults", self._delete_faults, methods=["DELETE"]),
            Route("/_release", self._post_release, methods=["POST"]),
            Route("/_reset", self._post_reset, methods=["POST"]),
            Route("/_log", self._get_log),
            Route("/_waiting", self._get_waiting),
        ]

    async def _post_fault(self, request: Request) -> Response:
        try:
            self.add_fault(self._fault_type.model_validate_json(await request.body()))
        except ValidationError as error:
            return JSONResponse({"reason": str(error)}, 422)
        return Response(status_code=204)

    async def _delete_faults(self, _: Request) -> Response:
        self.clear_faults()
        return Response(status_code=204)

    async def _post_release(self, request: Request) -> Response:
        try:
            wish = _Release.model_validate_json(await request.body() or b"{}")
        except ValidationError as error:
            return JSONResponse({"reason": str(error)}, 422)
        return JSONResponse({"released": self.release(wish.count)})

    async def _post_reset(self, _: Request) -> Response:
        self.reset()
        return Response(status_code=204)

    async def _get_log(self, _: Request) -> Response:
        return JSONResponse([json.loads(entry.model_dump_json()) for entry in self.log])

    async def _get_waiting(self, request: Request) -> Response:
        try:
            wish = _Waiting.model_validate(dict(request.query_params))
        except ValidationError as error:
            return JSONResponse({"reason": str(error)}, 422)
        reached = asyncio.ensure_future(self.held(wish.count, within=wish.within))
        hung_up = asyncio.ensure_future(gone(request.receive))
        await asyncio.wait({reached, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        hung_up.cancel()
        if not reached.done():
            reached.cancel()
            return NoAnswer()
        return JSONResponse({"waiting": self.waiting}, 408 if reached.exception() else 200)


class _Release(Value):
    """The body of ``POST /_release``."""

    count: PositiveInt | None = None


class _Waiting(Value):
    """The query of ``GET /_waiting``."""

    count: int = 0
    within: float = 10.0
