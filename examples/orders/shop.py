"""The shop: stock, payments and a courier behind HTTP, to sell to and to fail on demand.

    GET    /stock                                 POST   /charges        {card, amount}
    POST   /reservations   {sku, quantity}        POST   /charges/{id}/refund
    DELETE /reservations/{id}                     POST   /bookings       {address, reservation_id}
    GET    /ledger                                DELETE /bookings/{id}

With an ``Idempotency-Key`` a repeated request is answered as the first was and does nothing again; without
one it is done again. A refusal is 404, 409 or 422 with a ``reason``. The rest is the control of any scripted
server (see ``perdure.testing.control``). As a process, which writes ``{"url": ...}`` once it listens:

    python -m perdure.examples.orders.shop --ledger FILE --port N
"""

import argparse
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perdure.examples.orders.ledger import Answer, Book, Charge, Ledger, Refusal, Reserve, Undo, Undoing, Wish
from perdure.testing import ControlledServer, NoAnswer, Trouble, run_as_process
from perdure.values import Value


class ShopFault(Trouble):
    """One kind of trouble, for some requests.

    Those whose path fits the pattern ``path`` (``/bookings``, ``/bookings/*``, ``/charges/*/refund``), whose
    method is ``method`` (None: any) and whose body (without one: query) contains ``match``.

    - ``refuse``: 409 with the ``reason``; nothing is done
    - ``error``: 500; nothing is done
    - ``hang``: do and answer once released; nothing is done if the client hangs up before
    - ``hang_after``: do it, then answer once released: the effect is done but its answer lost
    - ``cut``: close the connection; nothing is done
    - ``cut_after``: do it, then close the connection
    """

    path: str
    mode: Literal["refuse", "error", "hang", "hang_after", "cut", "cut_after"]
    method: Literal["GET", "POST", "DELETE"] | None = None
    match: str = ""
    reason: str = "The shop was told to refuse this."

    def hits(self, method: str, path: str, said: str) -> bool:
        """Whether the fault is meant for this request."""
        return self.method in (None, method) and fnmatchcase(path, self.path) and self.match in said


class ShopRequest(Value):
    """One request as the journal keeps it; ``status`` is None as long as it has no answer."""

    at: datetime
    method: str
    path: str
    key: str | None
    status: int | None
    fault: str | None


class Shop(ControlledServer[ShopFault, ShopRequest]):
    """The shop over a ledger file: ``async with Shop(path) as shop: shop.url``."""

    def __init__(self, path: Path | str, *, port: int = 0) -> None:
        self._path = path
        self._ledger: Ledger | None = None
        super().__init__([*self._routes()], fault_type=ShopFault, port=port)

    @property
    def ledger(self) -> Ledger:
        """The books. Raises RuntimeError unless the shop is open."""
        if self._ledger is None:
            raise RuntimeError("The shop is not open.")
        return self._ledger

    async def start(self) -> None:
        """Open the ledger and serve. Raises OSError when the port is taken."""
        self._ledger = Ledger(self._path)
        try:
            await super().start()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop serving and close the ledger."""
        await super().stop()
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    def _routes(self) -> Iterator[Route]:
        wishes: list[tuple[str, type[Reserve | Charge | Book]]] = [
            ("/reservations", Reserve),
            ("/charges", Charge),
            ("/bookings", Book),
        ]
        undoings: list[tuple[str, str, Undoing]] = [
            ("DELETE", "/reservations/{id}", "release"),
            ("POST", "/charges/{id}/refund", "refund"),
            ("DELETE", "/bookings/{id}", "cancel"),
        ]
        for path, kind_of_wish in wishes:
            yield Route(path, partial(self._granting, kind_of_wish), methods=["POST"])
        for method, path, kind in undoings:
            yield Route(path, partial(self._undoing, kind), methods=[method])
        yield Route("/stock", self._get_stock)
        yield Route("/ledger", self._get_ledger)

    async def _get_ledger(self, _: Request) -> Response:
        return JSONResponse([entry.model_dump(mode="json") for entry in self.ledger.entries()])

    async def _get_stock(self, request: Request) -> Response:
        return await self._attend(request, lambda: [item.model_dump() for item in self.ledger.stock()])

    async def _granting(self, kind_of_wish: type[Reserve | Charge | Book], request: Request) -> Response:
        body = await request.body()
        return await self._attend(request, lambda: self._grant(request, kind_of_wish.model_validate_json(body)))

    async def _undoing(self, kind: Undoing, request: Request) -> Response:
        wish = Undo(kind=kind, id=request.path_params["id"])
        return await self._attend(request, lambda: self._grant(request, wish))

    def _grant(self, request: Request, wish: Wish) -> Answer:
        return self.ledger.grant(wish, _key(request))

    async def _attend(self, request: Request, act: Callable[[], Any]) -> Response:
        """One request from the journal's first word to its last."""
        said = (await request.body()).decode() or request.url.query
        fault = self._faults.take(lambda fault: fault.hits(request.method, request.url.path, said))
        number = self._journal.open(_entry(request, fault))
        response = await self._respond(request, fault, act)
        if not isinstance(response, NoAnswer):
            self._journal.complete(number, status=response.status_code)
        return response

    async def _respond(self, request: Request, fault: ShopFault | None, act: Callable[[], Any]) -> Response:
        mode = fault.mode if fault else None
        if fault and mode == "refuse":
            return _refusal(409, fault.reason)
        if mode == "error":
            return JSONResponse({"reason": "The shop broke down."}, 500)
        if mode == "cut" or (mode == "hang" and not await self.hold(request)):
            return NoAnswer()
        response = _done(act)
        if mode == "cut_after" or (mode == "hang_after" and not await self.hold(request)):
            return NoAnswer()
        return response


def _done(act: Callable[[], Any]) -> Response:
    try:
        return JSONResponse(act())
    except Refusal as refusal:
        return _refusal(refusal.status, refusal.reason)
    except ValidationError as error:
        return _refusal(422, str(error))


def _refusal(status: int, reason: str) -> Response:
    return JSONResponse({"reason": reason}, status)


def _key(request: Request) -> str | None:
    return request.headers.get("idempotency-key")


def _entry(request: Request, fault: ShopFault | None) -> ShopRequest:
    return ShopRequest(
        at=datetime.now(UTC),
        method=request.method,
        path=request.url.path,
        key=_key(request),
        status=None,
        fault=fault.mode if fault else None,
    )


def main(argv: list[str] | None = None) -> None:
    """Read the options and serve. Raises OSError for a taken port."""
    parser = argparse.ArgumentParser(prog="python -m perdure.examples.orders.shop", description=__doc__)
    parser.add_argument("--ledger", type=Path, required=True, help="the SQLite file of the shop's books")
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    options = parser.parse_args(argv)
    shop = Shop(options.ledger, port=options.port)
    run_as_process(shop, lambda: {"url": shop.url})


if __name__ == "__main__":
    main()
