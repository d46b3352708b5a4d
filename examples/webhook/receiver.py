"""A receiver of webhooks: one line for each event on standard output, to be read, or piped to wherever people are.

    PERDURE_WEBHOOK_SECRET=… python -m perdure.examples.webhook.receiver --port 9000

POST / takes deliveries. Each is verified before it is looked at, and told once, however often it arrives.
"""

import argparse
import json
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perdure.errors import Refused
from perdure.security.webhook import verify

_LONGEST = 1_000_000  # bytes of a delivery; they have a few thousand
_REMEMBERED = 10_000  # deliveries; a day of a busy deployment


class Receiver:
    """The web application. ``tell`` gets one line for each event.

    It remembers deliveries as long as it runs. One that must not tell anything twice keeps their ids in its database,
    in the same transaction as what it makes of them.
    """

    def __init__(
        self, secrets: Sequence[str], tell: Callable[[str], None], *, now: Callable[[], float] = time.time
    ) -> None:
        self.app = Starlette(routes=[Route("/", self.receive, methods=["POST"])])
        self._secrets = secrets
        self._tell = tell
        self._now = now
        self._seen: OrderedDict[str, None] = OrderedDict()

    async def receive(self, request: Request) -> Response:
        """Answer a delivery: 200 when it is told, or was before."""
        if int(request.headers.get("content-length") or _LONGEST + 1) > _LONGEST:
            return JSONResponse({"reason": "A delivery is shorter, and says how long it is."}, 413)
        body = await request.body()
        try:
            verify(self._secrets, request.headers, body, now=self._now())
        except Refused as refusal:
            return JSONResponse({"reason": refusal.message}, 401)
        news = json.loads(body)
        if news["delivery"] in self._seen:
            return JSONResponse({"known": True})
        self._tell(line(news))
        self._seen[news["delivery"]] = None  # after telling: a delivery that we failed to tell comes again
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return JSONResponse({"known": False})


def line(news: dict[str, Any]) -> str:
    """An event for people, on one line: what a model or a stranger has written in it can't make a second one."""
    said = {"summary": "", "request": "", "outcome": "", "expires_at": ""} | news["body"]
    said |= {"thread": news["thread"], "who": " or ".join(news["body"].get("approvers") or ["anyone"])}
    text = f"{news['at']} {news['event']} {news['thread']} {_TEXTS.get(news['event'], '').format(**said)}"
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


_TEXTS = {
    "request.opened": "{summary} waits for {who}: perdure approve {thread} {request}",
    "request.reminded": "{summary} waits for {who} until {expires_at}: perdure approve {thread} {request}",
    "request.escalated": "{summary} now waits for {who}: perdure approve {thread} {request}",
    "request.closed": "{summary}: {outcome}",
    "effect.in_doubt": "{summary}: nobody knows whether it was done: perdure effects {thread}",
    "effect.needs_attention": "{summary} could not be undone: perdure effects {thread}",
}


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(argv: list[str] | None = None) -> None:
    """Read the options and serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m perdure.examples.webhook.receiver", description=__doc__)
    parser.add_argument("--port", type=int, default=9000, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1")
    options = parser.parse_args(argv)
    secrets = [secret.strip() for secret in os.environ.get("PERDURE_WEBHOOK_SECRET", "").split(",") if secret.strip()]
    if not secrets:
        parser.error("PERDURE_WEBHOOK_SECRET is not set")
    uvicorn.run(Receiver(secrets, _write).app, host=options.host, port=options.port, access_log=False)


if __name__ == "__main__":
    main()
