"""Calling the model: what comes back, what goes wrong and whether that is tried again, what is paid for twice.

Long: one claim a way to go wrong.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from temporalio.exceptions import ApplicationError

from perdure import Agent, App, Approval, Message, Overwrite, tool
from perdure.activities.completion import Answer, complete
from perdure.activities.model import ModelActivities
from perdure.activities.runtime import Runtime
from perdure.activities.turns import TurnActivities
from perdure.budget import Usage
from perdure.canonical import canonical
from perdure.checkpoint import Ref
from perdure.checkpointer import Change
from perdure.contracts import Answered, CallModel, Commit, Committed, Common, Limits, OpenTurn, Send, whole_answer
from perdure.state import State, reduce_updates
from perdure.testing import Call, LocalServer, ModelFault, ModelServer, Reply, Rule, Script, call, refuse, say, together
from tests.properties import brief, texts, values, words
from tests.threads import checkpoint_id, name, store_in

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
KEY = "the-key"
TLS = ssl.create_default_context()  # once: loading the certificates takes longer than a call


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    """A model."""
    async with ModelServer(Script(fallback=say("Hi."))) as server:
        yield server


def connect(base_url: str) -> AsyncOpenAI:
    """The client as a worker makes it."""
    return AsyncOpenAI(
        base_url=base_url, api_key="offline", max_retries=0, http_client=DefaultAsyncHttpxClient(verify=TLS)
    )


def committed(done: Answered) -> Committed:
    """The checkpoint that a call has committed by itself."""
    assert done.committed is not None
    return done.committed


async def ask(base_url: str, *, stream: bool = False, seconds: float = 5.0) -> Answer:
    """One completion."""
    async with connect(base_url) as client:
        return await complete(client, ASK, KEY, seconds=seconds, stream=stream)


async def failure(base_url: str, *, stream: bool = False, seconds: float = 5.0) -> ApplicationError:
    """How a completion fails."""
    with pytest.raises(ApplicationError) as failed:
        await ask(base_url, stream=stream, seconds=seconds)
    return failed.value


streams = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

# ── what comes back ──────────────────────────────────────────────────────────────────────────────────────────────

calls = st.builds(Call, name=words, arguments=st.dictionaries(words, values, max_size=2) | texts)
replies = st.builds(Reply, text=texts, calls=st.lists(calls, max_size=3)) | st.builds(refuse, texts.filter(bool))


@brief
@given(replies)
async def test_a_stream_says_the_same(server: ModelServer, reply: Reply) -> None:
    """Text, calls with their arguments, refusal and usage are the same, whether they come in one piece or in many."""
    server.script = Script(fallback=reply)
    whole, streamed = await ask(server.base_url), await ask(server.base_url, stream=True)
    said = [canonical({**a.model_dump(exclude={"calls"}), "c": [[c.name, c.arguments] for c in a.calls]})
            for a in (whole, streamed)]  # fmt: skip
    assert said[0] == said[1]
    assert [c.name for c in whole.calls] == [c.name for c in reply.calls]
    for answer in (whole, streamed):
        assert len({c.id for c in answer.calls}) == len(reply.calls)


@streams
@pytest.mark.parametrize(
    ("reply", "note", "content"),
    [
        (say("Hi."), "", "Hi."),
        (say("And then", finish_reason="length"), "length", "And then"),
        (say("", finish_reason="content_filter"), "content_filter", ""),
        (refuse("I can't help with that."), "refusal", "I can't help with that."),
    ],
)
async def test_an_answer_that_is_not_ordinary_is_noted(
    server: ModelServer, stream: bool, reply: Reply, note: str, content: str
) -> None:
    """Cut by its length, filtered, refused: an answer all the same, with a note; what it used is counted."""
    server.script = Script(fallback=reply)
    answer = await ask(server.base_url, stream=stream)
    assert (answer.note, answer.content) == (note, content)
    assert (answer.usage.calls, answer.usage.prompt > 0) == (1, True)


async def test_a_call_has_an_id_whatever_the_server_says() -> None:
    """Ids left out or given twice would make two calls one."""
    made = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ("", "", "x", "x")]
    choice = {"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "tool_calls": made}}
    body = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    async with serving(lambda _: JSONResponse(body)) as url:
        answer = await ask(url)
    assert len({c.id for c in answer.calls}) == 4


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────────────────────


@streams
@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
async def test_trouble_of_the_server_is_tried_again(server: ModelServer, status: int, stream: bool) -> None:
    """Temporal retries it, the client doesn't; without a word from the server Temporal also decides when."""
    server.add_fault(ModelFault(mode="status", status=status, message="busy"))
    failed = await failure(server.base_url, stream=stream)
    assert (failed.type, failed.non_retryable, failed.next_retry_delay) == ("ModelUnavailable", False, None)
    assert f"The model answered {status}" in failed.message and "busy" in failed.message
    assert [(entry.status, entry.idempotency_key) for entry in server.log] == [(status, KEY)]


@streams
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_wrong_request_is_final(server: ModelServer, status: int, stream: bool) -> None:
    """Asked again it would be as wrong: a ModelError with the server's words, and a hint where a key is the matter."""
    server.add_fault(ModelFault(mode="status", status=status, message="no such model"))
    failed = await failure(server.base_url, stream=stream)
    assert (failed.type, failed.non_retryable) == ("ModelError", True)
    assert f"The model answered {status}" in failed.message and "no such model" in failed.message
    assert failed.details == (("Check OPENAI_API_KEY." if status in (401, 403) else ""),)


@pytest.mark.parametrize(("header", "delay"), [(0, 0.0), (7, 7.0), (0.25, 0.25), (1e9, 3600.0)])
async def test_retry_after_is_honoured(server: ModelServer, header: float, delay: float) -> None:
    """The server says when; beyond an hour it must be mistaken."""
    server.add_fault(ModelFault(mode="status", status=429, retry_after=header))
    waits = (await failure(server.base_url)).next_retry_delay
    assert waits is not None and waits.total_seconds() == delay


@pytest.mark.parametrize(
    ("headers", "delay"),
    [({"retry-after-ms": "1500", "retry-after": "9"}, 1.5), ({"retry-after": "-5"}, 0.0),
     ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None), ({"retry-after": "soon"}, None),
     ({"retry-after": "nan"}, None)],
)  # fmt: skip
async def test_retry_after_in_other_forms(headers: dict[str, str], delay: float | None) -> None:
    """Milliseconds go first; a date, or nonsense, is left to Temporal's own back-off."""
    async with serving(lambda _: JSONResponse({}, 429, headers)) as url:
        waits = (await failure(url)).next_retry_delay
    assert (None if waits is None else waits.total_seconds()) == delay


@streams
@pytest.mark.parametrize("mode", ["hang", "hang_midway", "cut", "cut_midway"])
async def test_no_answer_is_tried_again(server: ModelServer, mode: Any, stream: bool) -> None:
    """Nothing, or half of an answer, until the time is over or the connection is closed."""
    server.script = Script(fallback=say("a rather long answer"))
    server.add_fault(ModelFault(mode=mode))
    failed = await failure(server.base_url, stream=stream, seconds=0.3)
    assert (failed.type, failed.non_retryable) == ("ModelUnavailable", False)
    assert (await ask(server.base_url, stream=stream)).content == "a rather long answer"


Handler = Callable[[Request], Response]


@asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[str]:
    """Some server where a model should be; its base URL."""
    app = Starlette(routes=[Route("/v1/{path:path}", answer, methods=["POST"])])
    async with LocalServer(app) as server:
        yield f"{server.url}/v1"


async def trickle() -> AsyncIterator[str]:
    """A stream that goes on and never says anything."""
    while True:
        yield ": still here\n\n"
        await asyncio.sleep(0.05)


def events(*sent: Any) -> Handler:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in sent)
    return lambda _: Response(body, media_type="text/event-stream")


CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
HALF = {**CHUNK, "choices": [{"index": 0, "delta": {"content": "Hal"}, "finish_reason": None}]}


@pytest.mark.parametrize(
    ("answer", "stream", "why"),
    [
        (lambda _: StreamingResponse(trickle(), media_type="text/event-stream"), True, "within 0.5 seconds"),
        (events(HALF, {"error": {"message": "overloaded"}}), True, "overloaded"),
        (events(HALF), True, "stream was cut"),
        (lambda _: Response("data: {no json\n\n", media_type="text/event-stream"), True, "doesn't answer"),
        (lambda _: HTMLResponse("<h1>Welcome to the hotel</h1>"), False, "no model"),
        (lambda _: Response("{no json", media_type="application/json"), False, "doesn't answer"),
        (lambda _: JSONResponse({"choices": []}), False, "no choices"),
        (lambda _: JSONResponse([1]), False, ""),
    ],
    ids=["trickle", "error midway", "no finish", "no JSON midway", "html", "no JSON", "no choices", "a list"],
)
async def test_an_answer_that_is_none_is_tried_again(answer: Handler, stream: bool, why: str) -> None:
    """What a proxy says, what a server says that breaks down, and a stream that never ends."""
    async with asyncio.timeout(10), serving(answer) as url:
        failed = await failure(url, stream=stream, seconds=0.5)
    assert (failed.type, failed.non_retryable) == ("ModelUnavailable", False)
    assert why in failed.message


async def test_nobody_there_is_tried_again() -> None:
    """A port that nobody listens on."""
    async with ModelServer() as server:
        url = server.base_url
    assert (await failure(url)).type == "ModelUnavailable"


# ── the activity ─────────────────────────────────────────────────────────────────────────────────────────────────


@tool
async def look(what: str) -> str:
    """Look something up."""
    return what


@tool(effect="idempotent", approval=Approval(when=lambda args: args.amount > 100, approvers=["ann"], reason="Much."))
async def pay(amount: float) -> None:
    """Pay."""


class Desk:
    """The activities of one worker on a store, and the threads it serves."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.turns = TurnActivities(runtime)
        self.models = ModelActivities(runtime)
        self.spec = ""

    async def say(self, content: str, thread: str = "") -> tuple[str, Ref]:
        """A new thread with one message: its id and its head."""
        commit = Commit(thread_id=thread or name(), id=checkpoint_id(), turn=1)
        message = Send(id="1", content=content)
        opened = await self.turns.open_turn(OpenTurn(commit=commit, agent="clerk", message=message))
        self.spec = opened.spec.digest
        return commit.thread_id, opened.committed.head

    def task(self, thread: str, head: Ref, **more: Any) -> CallModel:
        """A call of the model on this head."""
        commit = Commit(thread_id=thread, id=checkpoint_id(), head=head, turn=1)
        return CallModel(commit=commit, spec=self.spec, node="model", **more)

    async def ask(self, task: CallModel) -> Answered:
        """What a call comes to, as the workflow understands it."""
        head, spec = task.commit.head, (await self.runtime.definition(self.spec)).spec
        assert head is not None
        common = Common(
            head=head, id=task.commit.id, node="model", turn=1, channel="messages", routes=spec.nodes["model"].routes
        )
        return whole_answer(await self.models.call_model(task), common)

    async def answer(self, content: str) -> Answered:
        """The answer to a message in a new thread."""
        return await self.ask(self.task(*await self.say(content)))

    async def again(self, thread: str, done: Answered, content: str) -> Ref:
        """The thread goes back to where only this message has been said."""
        checkpointer = self.runtime.checkpointer
        head = await checkpointer.load(thread, committed(done).head.id)
        begin = {"messages": Overwrite([Message(role="user", content=content, id="0.0")])}
        delta = reduce_updates(State, head.values, {"x": begin}, step=head.ref.step + 1)
        change = Change(thread_id=thread, checkpoint_id=checkpoint_id(), source="update", turn=1, delta=delta)
        return (await checkpointer.commit(head, change)).ref


@asynccontextmanager
async def desk(folder: Path, server: ModelServer, **agent: Any) -> AsyncIterator[Desk]:
    """A worker's activities, with an agent ``clerk``."""
    store = await store_in(folder)
    async with connect(server.base_url) as client:
        app = App(agents=[Agent(**{"name": "clerk", "model": "m", "tools": [look, pay], **agent})])
        yield Desk(Runtime(app=app, store=store, limits=Limits(), model=client))
    await store.close()


async def test_the_answer_is_committed_with_what_it_used(server: ModelServer, tmp_path: Path) -> None:
    """The message in the state, the usage among the facts of the checkpoint, and both in what the workflow is told."""
    async with desk(tmp_path, server, instructions="Be brief.") as worker:
        thread, head = await worker.say("hello")
        done = await worker.ask(worker.task(thread, head))
        assert (done.answer, done.calls, done.note) == ("Hi.", (), "")
        assert done.usage.calls == 1 and done.usage.prompt > 0 and done.usage.completion > 0
        stored = await worker.runtime.store.checkpoint(thread, committed(done).head.id)
        assert stored is not None and stored.parent_id == head.id
        assert Usage.model_validate(stored.facts["usage"]) == done.usage
        state = await worker.runtime.checkpointer.load(thread, stored.id, expect=committed(done).head.digest)
        assert [m["content"] for m in state.values["messages"]] == ["hello", "Hi."]
        assert committed(done).delta == stored.delta


async def test_what_the_model_asks_for_becomes_a_plan(server: ModelServer, tmp_path: Path) -> None:
    """A valid call has a key and a digest, a gated one its policy; a wrong one says to the model what is wrong."""
    wrong = [call("nothing"), Reply(calls=[Call(name="look", arguments="{no json")]), call("look", where="x")]
    asked = together(call("look", what="x"), call("pay", amount=50), call("pay", amount=101), call("pay"), *wrong)
    server.script = Script(fallback=asked)
    async with desk(tmp_path, server) as worker:
        task = worker.task(*await worker.say("do it"))
        done = await worker.ask(task)
        assert done.answer == ""
        assert [plan.index for plan in done.calls] == list(range(7))
        ok, gated, failed = done.calls[:2], done.calls[2], done.calls[3:]
        assert [(p.summary, p.error, p.approval, p.arguments) for p in ok] == [
            ('look(what="x")', "", None, None), ("pay(amount=50.0)", "", None, None),
        ]  # fmt: skip
        assert len({p.key for p in done.calls[:3]}) == len({p.digest for p in done.calls[:3]}) == 3
        assert gated.approval is not None and gated.error == ""
        assert (gated.approval.approvers, gated.approval.reason, gated.arguments) == (
            ("ann",),
            "Much.",
            {"amount": 101},
        )
        whys = ["amount: Field required", "no tool 'nothing'. Tools: look, pay", "Invalid JSON", "where: Extra inputs"]
        assert [why for why, plan in zip(whys, failed, strict=True) if why not in plan.error] == []
        assert {(plan.key, plan.digest) for plan in failed} == {("", "")}
        other = await worker.ask(task.model_copy(update={"branch": 1}))
        assert [p.digest for p in other.calls] == [p.digest for p in done.calls]
        assert {p.key for p in other.calls if p.key}.isdisjoint(p.key for p in done.calls)


async def test_a_repeated_attempt_asks_nobody(server: ModelServer, tmp_path: Path) -> None:
    """An attempt that committed and could not report it: the next one, on any worker, reports the same."""
    async with desk(tmp_path, server) as worker:
        task = worker.task(*await worker.say("hello"))
        done = await worker.ask(task)
        assert await worker.ask(task) == done
        fresh = Runtime(app=worker.runtime.app, store=worker.runtime.store, limits=Limits(), model=worker.runtime.model)
        worker.models = ModelActivities(fresh)
        assert await worker.ask(task) == done
        assert len(server.log) == 1


@pytest.mark.parametrize("mode", ["status", "cut"])
async def test_a_failed_call_leaves_nothing(server: ModelServer, tmp_path: Path, mode: Any) -> None:
    """The head is where it was, nothing is cached; the same call then goes well, under the same key."""
    server.add_fault(ModelFault(mode=mode))
    async with desk(tmp_path, server) as worker:
        thread, head = await worker.say("hello")
        task = worker.task(thread, head)
        with pytest.raises(ApplicationError):
            await worker.ask(task)
        row = await worker.runtime.store.thread(thread)
        assert row is not None and row.head_id == head.id
        assert (await worker.ask(task)).usage.cached == 0
        keys = {entry.idempotency_key for entry in server.log}
        assert (len(server.log), len(keys)) == (2, 1)


# ── the cache ────────────────────────────────────────────────────────────────────────────────────────────────────


async def usages(worker: Desk, server: ModelServer) -> list[tuple[int, int]]:
    """A thread asks, asks the same again, another thread asks it too: (cached, calls of the model so far) of each."""
    seen = []
    thread, head = await worker.say("hello")
    done = await worker.ask(worker.task(thread, head))
    seen.append((done.usage.cached, len(server.log)))
    paid = done.usage.tokens
    for where, at in ((thread, await worker.again(thread, done, "hello")), await worker.say("hello")):
        repeated = await worker.ask(worker.task(where, at))
        assert (repeated.answer, repeated.usage.calls) == (done.answer, 1)
        spent = (repeated.usage.tokens, repeated.usage.saved)
        assert spent == ((0, paid) if repeated.usage.cached else (paid, 0))
        seen.append((repeated.usage.cached, len(server.log)))
    return seen


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("lineage", [(0, 1), (1, 1), (0, 2)]), ("global", [(0, 1), (1, 1), (1, 1)]), ("off", [(0, 1), (0, 2), (0, 3)])],
)
async def test_a_scope_pays_once(
    server: ModelServer, tmp_path: Path, scope: Any, expected: Sequence[tuple[int, int]]
) -> None:
    """The same request is answered once within a lineage, once everywhere, or every time; a hit tells what it saved."""
    async with desk(tmp_path, server, cache=scope) as worker:
        assert await usages(worker, server) == list(expected)


async def test_another_request_is_another_answer(server: ModelServer, tmp_path: Path) -> None:
    """Whatever of the request differs: message, instructions, parameters, tools."""
    agents: list[dict[str, Any]] = [{}, {"instructions": "Be kind."}, {"parameters": {"seed": 1}}, {"model": "n"}]
    for number, agent in enumerate(agents):
        (folder := tmp_path / str(number)).mkdir()
        async with desk(folder, server, cache="global", **agent) as worker:
            await worker.answer("hello")
            await worker.answer("hello " * 9)
    assert len(server.log) == 8


async def test_calls_at_once_wait_for_one_another(server: ModelServer, tmp_path: Path) -> None:
    """Five threads ask the same at the same time: one is paid for, the others read its answer."""
    async with desk(tmp_path, server, cache="global") as worker:
        server.add_fault(ModelFault(mode="delay", seconds=0.2))
        done = await asyncio.gather(*(worker.answer("hello") for _ in range(5)))
    assert sorted(answer.usage.cached for answer in done) == [0, 1, 1, 1, 1]
    assert len(server.log) == 1


async def test_a_cached_answer_calls_again(server: ModelServer, tmp_path: Path) -> None:
    """A hit carries its tool calls; their keys belong to the new place, so an effect there is a new one."""
    server.script = Script(rules=[Rule(when="pay", replies=[call("pay", amount=1)])])
    async with desk(tmp_path, server, cache="global") as worker:
        one, two = await worker.answer("pay"), await worker.answer("pay")
    assert (one.usage.cached, two.usage.cached) == (0, 1)
    assert one.calls[0].digest == two.calls[0].digest
    assert one.calls[0].key != two.calls[0].key
