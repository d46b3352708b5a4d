"""The scripted model, seen through the real OpenAI client."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from perdure.testing import (
    Call,
    ModelFault,
    ModelServer,
    Reply,
    Rule,
    Script,
    call,
    refuse,
    result,
    say,
    together,
)

Messages = list[dict[str, Any]]

SCRIPT = Script(
    rules=[
        Rule(
            when="laptops",
            replies=[
                call("reserve_stock", sku="laptop", quantity=2),
                call("charge_card", card="tok_1", amount=result("reserve_stock.total")),
                say("Done: {reserve_stock.reservation_id}, {charge_card}. {Nothing else}."),
            ],
        ),
        Rule(when="laptops", on_error="not approved", replies=[call("note", text="stopped"), say("Stopped.")]),
        Rule(when="both", replies=[together(say("Looking."), call("one", n=1), call("two"))]),
        Rule(when="forbidden", replies=[refuse("I can't help with that.")]),
        Rule(when="long", replies=[say("And then", finish_reason="length")]),
        Rule(when="echo", replies=[say("You said: {user}")]),
        Rule(when="broken", replies=[Reply(calls=[Call(name="f", arguments="{no json")])]),
        Rule(when="too early", replies=[call("f", x=result("reserve_stock.total"))]),
    ],
    fallback=say("What?"),
    models=["gpt-5-mini", "other"],
)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer(SCRIPT) as running:
        yield running


@pytest.fixture
async def client(server: ModelServer) -> AsyncIterator[AsyncOpenAI]:
    async with connect(server.base_url) as connected:
        yield connected


def connect(base_url: str, timeout: float = 10.0) -> AsyncOpenAI:
    plain = DefaultAsyncHttpxClient(verify=False)  # no TLS: to load the certificates takes longer than a request
    return AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=timeout, http_client=plain)


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


async def ask(client: AsyncOpenAI, messages: Messages, **more: Any) -> ChatCompletion:
    completion = await client.chat.completions.create(
        **{"model": "gpt-5-mini", "messages": messages, "stream": False, **more}
    )
    assert isinstance(completion, ChatCompletion)
    return completion


async def begin(client: AsyncOpenAI, messages: Messages, **more: Any) -> openai.AsyncStream[ChatCompletionChunk]:
    chunks = await client.chat.completions.create(
        **{"model": "gpt-5-mini", "messages": messages, "stream": True, **more}
    )
    assert isinstance(chunks, openai.AsyncStream)
    return chunks


async def stream(client: AsyncOpenAI, messages: Messages, **more: Any) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in await begin(client, messages, **more)]


def text(completion: ChatCompletion) -> str | None:
    return completion.choices[0].message.content


def called(completion: ChatCompletion) -> list[tuple[str, Any]]:
    calls = completion.choices[0].message.tool_calls or []
    return [(made.function.name, json.loads(made.function.arguments)) for made in calls if made.type == "function"]


def answered(messages: Messages, completion: ChatCompletion, *results: str) -> Messages:
    """The conversation, the answer, and the results of its calls."""
    message = completion.choices[0].message
    told = [
        {"role": "tool", "tool_call_id": made.id, "content": content}
        for made, content in zip(message.tool_calls or [], results, strict=True)
    ]
    return [*messages, message.model_dump(exclude_none=True), *told]


async def test_a_conversation_runs_through_the_replies_of_its_rule(client: AsyncOpenAI) -> None:
    """The n-th answer since the user spoke is the n-th reply; results of tools fill arguments and text."""
    messages = user("Two laptops, please")
    first = await ask(client, messages)
    assert called(first) == [("reserve_stock", {"sku": "laptop", "quantity": 2})]
    assert first.choices[0].finish_reason == "tool_calls"
    assert text(first) is None

    messages = answered(messages, first, '{"reservation_id": "R-1", "total": 2500.0}')
    second = await ask(client, messages)
    assert called(second) == [("charge_card", {"card": "tok_1", "amount": 2500.0})]

    messages = answered(messages, second, "charged")
    third = await ask(client, messages)
    assert text(third) == "Done: R-1, charged. {Nothing else}."
    assert third.choices[0].finish_reason == "stop"

    messages = answered(messages, third)
    assert text(await ask(client, messages)) == "What?"
    assert called(await ask(client, messages + user("Two laptops again"))) == called(first)


async def test_the_same_request_gets_the_same_answer_with_new_ids(client: AsyncOpenAI) -> None:
    """Forks and retries see what the original saw, but ids are minted anew, as a real model does."""
    one, two = await ask(client, user("laptops")), await ask(client, user("laptops"))
    assert called(one) == called(two)
    assert one.id != two.id
    ids = {made.id for answer in (one, two) for made in answer.choices[0].message.tool_calls or []}
    assert len(ids) == 2


async def test_one_reply_can_make_several_calls(client: AsyncOpenAI) -> None:
    """together() puts words and calls in one answer."""
    answer = await ask(client, user("both"))
    assert text(answer) == "Looking."
    assert called(answer) == [("one", {"n": 1}), ("two", {})]


async def test_refusal_length_and_echo(client: AsyncOpenAI) -> None:
    """The other ways an answer may end, and the user's own words in it."""
    refused = (await ask(client, user("forbidden"))).choices[0]
    assert (refused.message.refusal, refused.message.content) == ("I can't help with that.", None)
    assert (await ask(client, user("long"))).choices[0].finish_reason == "length"
    assert text(await ask(client, user("echo this"))) == "You said: echo this"
    assert text(await ask(client, user("no rule"))) == "What?"


async def test_usage_follows_from_the_text_alone(client: AsyncOpenAI) -> None:
    """The estimate is the same each time, and grows with the conversation and its tools."""
    usage = (await ask(client, user("echo"))).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (5, 4, 9)
    assert (await ask(client, user("echo"))).usage == usage
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    larger = (await ask(client, user("echo"), tools=[tool])).usage
    assert larger is not None
    assert larger.prompt_tokens > usage.prompt_tokens


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    """GET /v1/models names the script's models."""
    assert [model.id async for model in client.models.list()] == ["gpt-5-mini", "other"]


async def test_a_stream_carries_the_same_text_in_pieces(client: AsyncOpenAI) -> None:
    """Chunks add up to the answer; the last tells why it ended; usage comes only when asked for."""
    chunks = await stream(client, user("echo one two"))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 1
    assert "".join(pieces) == "You said: echo one two"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1

    counted = await stream(client, user("echo one two"), stream_options={"include_usage": True})
    whole = await ask(client, user("echo one two"))
    assert counted[-1].choices == []
    assert counted[-1].usage == whole.usage


async def test_a_stream_carries_calls_and_refusals(client: AsyncOpenAI) -> None:
    """Arguments arrive in pieces, each call under its index, its id and name once."""
    messages: Any = user("laptops")
    async with client.chat.completions.stream(model="gpt-5-mini", messages=messages) as events:
        final = await events.get_final_completion()
    made = (final.choices[0].message.tool_calls or [])[0]
    assert json.loads(made.function.arguments) == {"sku": "laptop", "quantity": 2}
    assert final.choices[0].finish_reason == "tool_calls"

    both = await stream(client, user("both"))
    deltas = [made for chunk in both for choice in chunk.choices for made in choice.delta.tool_calls or []]
    named = [(made.index, made.function.name) for made in deltas if made.function and made.function.name]
    assert named == [(0, "one"), (1, "two")]
    refused = await stream(client, user("forbidden"))
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in refused) == "I can't help with that."


async def test_rate_limit_says_when_to_come_back(server: ModelServer, client: AsyncOpenAI) -> None:
    """A 429 carries Retry-After, hits as often as told, and only what it is meant for."""
    server.add_fault(ModelFault(mode="status", status=429, retry_after=1.5, times=2, when="laptops"))
    assert text(await ask(client, user("echo"))) == "You said: echo"
    for _ in range(2):
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(client, user("laptops"))
        assert caught.value.response.headers["retry-after"] == "1.5"
    assert called(await ask(client, user("laptops")))
    assert [made.status for made in server.log] == [200, 429, 429, 200]
    assert [made.fault for made in server.log] == [None, "status", "status", None]
    assert sorted(server.calls_by_key.values()) == [1, 1]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_statuses(
    server: ModelServer, client: AsyncOpenAI, status: int, error: type[openai.APIStatusError]
) -> None:
    """Any HTTP error can be asked for, with a message of one's own."""
    server.add_fault(ModelFault(mode="status", status=status, message="on purpose"))
    with pytest.raises(error, match="on purpose") as caught:
        await ask(client, user("echo"))
    assert caught.value.status_code == status
    assert text(await ask(client, user("echo"))) == "You said: echo"


async def test_a_fault_can_let_requests_pass_first(server: ModelServer, client: AsyncOpenAI) -> None:
    """after=1: the second request fails; times=None: so does every later one, until they are cleared."""
    server.add_fault(ModelFault(mode="status", after=1, times=None))
    await ask(client, user("echo"))
    for _ in range(3):
        with pytest.raises(openai.InternalServerError):
            await ask(client, user("echo"))
    server.clear_faults()
    await ask(client, user("echo"))


async def test_a_cut_before_the_answer(server: ModelServer, client: AsyncOpenAI) -> None:
    """The connection closes without a word, and nothing counts as paid."""
    server.add_fault(ModelFault(mode="cut"))
    with pytest.raises(openai.APIConnectionError):
        await ask(client, user("echo"))
    assert [(made.status, made.fault) for made in server.log] == [(None, "cut")]
    assert not server.calls_by_key


async def test_a_cut_in_the_middle(server: ModelServer, client: AsyncOpenAI) -> None:
    """A part of the answer arrives, then the connection closes; streamed or not."""
    server.add_fault(ModelFault(mode="cut_midway", times=2))
    with pytest.raises(openai.APIConnectionError):
        await ask(client, user("echo one two three"))
    chunks = await begin(client, user("echo one two three"))
    seen: list[str] = []
    with pytest.raises(openai.APIConnectionError):
        async for chunk in chunks:
            seen.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - the loop ends by an error
    assert "".join(seen).startswith("You said:")
    assert not server.calls_by_key


async def test_a_request_is_held_until_released(server: ModelServer, client: AsyncOpenAI) -> None:
    """A hanging request shows as waiting, and is answered once released."""
    server.add_fault(ModelFault(mode="hang", times=2))
    answers = [asyncio.create_task(ask(client, user(f"echo {n}"))) for n in range(2)]
    await server.held(2)
    assert (server.waiting, [made.status for made in server.log]) == (2, [None, None])
    assert server.release(1) == 1
    done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    assert server.waiting == 1
    assert server.release() == 1
    assert {text(await answer) for answer in answers} == {"You said: echo 0", "You said: echo 1"}
    assert [made.status for made in server.log] == [200, 200]


async def test_a_stream_is_held_in_the_middle(server: ModelServer, client: AsyncOpenAI) -> None:
    """hang_midway: the first part arrives, the rest when released."""
    server.add_fault(ModelFault(mode="hang_midway"))
    chunks = await begin(client, user("echo one two three"))
    seen = [(await anext(chunks)).choices[0].delta.content]
    await server.held()
    server.release()
    seen += [chunk.choices[0].delta.content async for chunk in chunks]
    assert "".join(part for part in seen if part) == "You said: echo one two three"
    assert [made.status for made in server.log] == [200]


async def test_a_client_that_gives_up_is_not_answered(server: ModelServer) -> None:
    """After a time-out the request is no longer held, and doesn't count as paid."""
    server.add_fault(ModelFault(mode="hang"))
    async with connect(server.base_url, timeout=0.1) as impatient:
        with pytest.raises(openai.APITimeoutError):
            await ask(impatient, user("echo"))
    await server.idle()
    assert [made.status for made in server.log] == [None]


async def test_a_delayed_answer_comes(server: ModelServer, client: AsyncOpenAI) -> None:
    """delay: the answer is late, but right."""
    server.add_fault(ModelFault(mode="delay", seconds=0.05))
    assert text(await ask(client, user("echo"))) == "You said: echo"


async def test_arguments_that_are_no_json(server: ModelServer, client: AsyncOpenAI) -> None:
    """By a fault for once, or by the script for good."""
    server.add_fault(ModelFault(mode="malformed"))
    for words in ("laptops", "broken"):
        with pytest.raises(json.JSONDecodeError):
            called(await ask(client, user(words)))
    assert called(await ask(client, user("laptops")))


async def test_calls_must_have_results(client: AsyncOpenAI) -> None:
    """As the real service, it refuses a call without its result, and a result without its call."""
    messages = user("laptops")
    answer = await ask(client, messages)
    with pytest.raises(openai.BadRequestError, match="must be followed by tool messages"):
        await ask(client, [*messages, answer.choices[0].message.model_dump(exclude_none=True), *user("echo")])
    with pytest.raises(openai.BadRequestError, match="must answer a call"):
        await ask(client, [*messages, {"role": "tool", "tool_call_id": "call_x", "content": "?"}])
    with pytest.raises(openai.BadRequestError):
        await ask(client, [])


async def test_a_script_that_asks_too_much_is_told(client: AsyncOpenAI) -> None:
    """A result that nobody gave is an error of the script, not an empty argument."""
    with pytest.raises(openai.UnprocessableEntityError, match="No result of 'reserve_stock'"):
        await ask(client, user("too early"))


async def test_the_journal_keeps_the_idempotency_key(server: ModelServer, client: AsyncOpenAI) -> None:
    """Who asked, how often, under which key: the journal knows, until it is reset."""
    await ask(client, user("echo"), extra_headers={"Idempotency-Key": "k-1"})
    (entry,) = server.log
    assert (entry.idempotency_key, entry.model, entry.n_messages, entry.stream) == (
        "k-1",
        "gpt-5-mini",
        1,
        False,
    )
    server.reset()
    assert server.log == []


async def test_it_can_be_controlled_from_another_process(server: ModelServer, client: AsyncOpenAI) -> None:
    """Faults, holds and the journal over HTTP."""
    async with httpx2.AsyncClient(base_url=server.url) as control:
        assert (await control.post("/_faults", json={"mode": "nonsense"})).status_code == 422
        assert (await control.post("/_faults", json={"mode": "hang", "times": None})).status_code == 204
        answer = asyncio.create_task(ask(client, user("echo")))
        assert (await control.get("/_waiting", params={"count": 1})).json() == {"waiting": 1}
        assert (await control.get("/_waiting", params={"count": 2, "within": 0.01})).status_code == 408
        assert (await control.delete("/_faults")).status_code == 204
        assert (await control.post("/_release")).json() == {"released": 1}
        await answer
        (entry,) = (await control.get("/_log")).json()
        assert (entry["status"], entry["fault"], entry["n_messages"]) == (200, "hang", 1)
        assert (await control.post("/_reset")).status_code == 204
        assert (await control.get("/_log")).json() == []
