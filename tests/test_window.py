"""The context window: what the model is shown of a long conversation."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import canonical, digest
from perdure.message import to_openai
from perdure.talk import estimate
from perdure.testing import Conversation
from perdure.testing.conversation import complaint
from perdure.window import conversation
from tests.properties import thorough

Messages = list[dict[str, Any]]
lengths = st.integers(0, 10) | st.integers(0, 4_000)
users = st.builds(lambda length: [{"role": "user", "content": "u" * length}], lengths)
answers = st.builds(lambda length: [{"role": "assistant", "content": "a" * length}], lengths)


@st.composite
def exchanges(draw: st.DrawFn) -> Messages:
    """The model calls tools, each of them answers."""
    sizes = draw(st.lists(st.tuples(lengths, lengths), min_size=1, max_size=3))
    calls = [{"id": f"c{i}", "name": "look", "arguments": "x" * asked} for i, (asked, _) in enumerate(sizes)]
    results = [{"role": "tool", "tool_call_id": f"c{i}", "content": "r" * told} for i, (_, told) in enumerate(sizes)]
    return [{"role": "assistant", "tool_calls": calls}, *results]


threads = st.builds(
    lambda parts: [message for part in parts for message in part],
    st.tuples(users, st.lists(users | answers | exchanges(), max_size=8)).map(lambda drawn: [drawn[0], *drawn[1]]),
)


@thorough
@given(threads, st.integers(1, 3_000), st.sampled_from(["", "Be brief."]))
def test_a_window_is_a_conversation(messages: Messages, limit: int, instructions: str) -> None:
    """For any conversation and any limit, the model is shown one that it can go on with:

    instructions first, then a suffix in which every result follows its call, with the last thing a user said and the
    newest message in it; more than the limit only for these, and all of it where it fits.
    """
    shown, digests = conversation(instructions, messages, limit)
    assert digests == [digest(canonical(message)) for message in shown]
    system = [{"role": "system", "content": instructions}] if instructions else []
    assert shown[: len(system)] == system
    rest = shown[len(system) :]
    every = [to_openai(message) for message in messages]
    users = [message for message in every if message["role"] == "user"]
    assert complaint(Conversation.model_validate({"model": "m", "messages": shown}).messages) is None
    assert rest[-1] == every[-1]
    assert [message for message in rest if message["role"] == "user"][-1] == users[-1]
    suffix = rest if rest == every[len(every) - len(rest) :] else rest[1:]
    assert suffix == every[len(every) - len(suffix) :]
    assert suffix == rest or rest[0] == users[-1]
    beside = suffix[1:] if suffix[0] == users[-1] else suffix  # the last thing a user said is shown whatever it costs
    size = len(instructions) // 4 + sum(map(estimate, messages[len(messages) - len(beside) :]))
    newest = every[max(at for at, message in enumerate(every) if message["role"] != "tool") :]
    assert size <= limit or rest in (newest, [users[-1], *newest])
    if len(instructions) // 4 + sum(map(estimate, messages)) <= limit:
        assert rest == every


def test_what_is_shown_grows_with_the_limit() -> None:
    """The newest that fit, not one more: three messages of 108 tokens each."""
    messages: Messages = [{"role": "user", "content": "x" * 400} for _ in range(3)]
    assert [len(conversation("", messages, limit).messages) for limit in (1, 108, 215, 216, 323, 324)] == [
        1,
        1,
        1,
        2,
        2,
        3,
    ]


def test_the_protocol_is_spoken() -> None:
    """A stored message as the service wants it: calls as functions, ids and notes left out."""
    call = {"id": "c", "name": "look", "arguments": "{}"}
    assert to_openai({"role": "assistant", "tool_calls": [call], "id": "3.0", "note": "length"}) == {
        "role": "assistant", "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
    }  # fmt: skip
    assert to_openai({"role": "tool", "tool_call_id": "c", "content": "x"}) == {
        "role": "tool", "tool_call_id": "c", "content": "x",
    }  # fmt: skip
