"""The scripted model's server: the OpenAI chat-completions protocol on 127.0.0.1."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from perdure.testing.answer import Midway, NoAnswer, PartedAnswer, break_off
from perdure.testing.completion import events, whole
from perdure.testing.control import ControlledServer
from perdure.testing.conversation import Conversation, complaint
from perdure.testing.model_fault import ModelFault
from perdure.testing.script import Reply, Script, ScriptError
from perdure.values import Value


class ModelCall(Value):
    """One request as the journal keeps it. ``status`` is None as long as no answer was given in full."""

    at: datetime
    key: str
    model: str
    status: int | None
    n_messages: int
    stream: bool
    fault: str | None
    idempotency_key: str | None


class ModelServer(ControlledServer[ModelFault, ModelCall]):
    """A model that follows a script, served over HTTP.

        async with ModelServer(Script(rules=[...])) as server:
            client = AsyncOpenAI(base_url=server.base_url, api_key="any")

    ``script`` may be replaced while it runs; the faults of a new script are not armed by that.
    """

    def __init__(self, script: Script | None = None, *, port: int = 0) -> None:
        routes = [
            Route("/v1/chat/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._models),
        ]
        super().__init__(routes, fault_type=ModelFault, port=port)
        self.script = script or Script()
        for fault in self.script.faults:
            self.add_fault(fault)

    @property
    def base_url(self) -> str:
        """What an OpenAI client calls ``base_url``."""
        return f"{self.url}/v1"

    @property
    def calls_by_key(self) -> Counter[str]:
        """How often each logical call was answered in full, hence paid for: once, if nothing is wasted."""
        return Counter(call.key for call in self.log if call.status == 200)

    async def _models(self, _: Request) -> Response:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "perdure"} for name in self.script.models]
        return JSONResponse({"object": "list", "data": models})

    async def _complete(self, request: Request) -> Response:
        try:
            conversation = Conversation.model_validate_json(await request.body())
        except ValidationError as error:
            return _error(400, str(error))
        fault = self._faults.take(lambda fault: fault.hits(conversation))
        number = self._journal.open(_entry(request, conversation, fault))
        response = await self._respond(request, conversation, fault, number)
        if not isinstance(response, NoAnswer | PartedAnswer):
            self._journal.complete(number, status=response.status_code)
        return response

    async def _respond(
        self, request: Request, conversation: Conversation, fault: ModelFault | None, number: int
    ) -> Response:
        mode = fault.mode if fault else None
        if fault and mode == "status":
            return _failure(fault)
        if fault and mode in ("hang", "delay"):
            seconds = fault.seconds if mode == "delay" else None
            if not await self.hold(request, seconds=seconds):
                return NoAnswer()
        if mode == "cut":
            return NoAnswer()
        problem = complaint(conversation.messages)
        if problem:
            return _error(400, problem)
        try:
            reply = self.script.reply(conversation)
        except ScriptError as error:
            return _error(422, str(error))
        reply = reply.garbled() if mode == "malformed" else reply
        sent = partial(self._journal.complete, number, status=200)
        return _answer(reply, conversation, self._midway(request, mode), sent)

    def _midway(self, request: Request, mode: str | None) -> Midway | None:
        if mode == "cut_midway":
            return break_off
        return partial(self.hold, request) if mode == "hang_midway" else None


def _answer(reply: Reply, conversation: Conversation, midway: Midway | None, sent: Callable[[], None]) -> Response:
    if conversation.stream:
        return PartedAnswer(events(reply, conversation), media_type="text/event-stream", midway=midway, sent=sent)
    body = json.dumps(whole(reply, conversation)).encode()
    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    return PartedAnswer(parts, media_type="application/json", midway=midway, sent=sent)


def _entry(request: Request, conversation: Conversation, fault: ModelFault | None) -> ModelCall:
    return ModelCall(
        at=datetime.now(UTC),
        key=conversation.key,
        model=conversation.model,
        status=None,
        n_messages=len(conversation.messages),
        stream=bool(conversation.stream),
        fault=fault.mode if fault else None,
        idempotency_key=request.headers.get("idempotency-key"),
    )


def _failure(fault: ModelFault) -> Response:
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    return _error(fault.status, fault.message, headers)


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status, headers)
