"""Scripts, apart from the server: which reply follows from which conversation."""

import json
from typing import Any

import pytest

from perdure.testing import (
    Conversation,
    ModelFault,
    Rule,
    Script,
    ScriptError,
    call,
    refuse,
    result,
    say,
    together,
)
from perdure.testing.completion import events, usage, whole
from perdure.testing.conversation import complaint
from perdure.testing.faults import Faults

Messages = list[dict[str, Any]]


def conversation(messages: Messages, **more: Any) -> Conversation:
    return Conversation.model_validate({"model": "m", "messages": messages, **more})


def user(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def step(tool: str, returned: str, call_id: str = "c") -> Messages:
    """An answer that calls a tool, and the tool's result."""
    made = {"id": call_id, "type": "function", "function": {"name": tool, "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": call_id, "content": returned},
    ]


def text(script: Script, messages: Messages, **more: Any) -> str:
    return script.reply(conversation(messages, **more)).text


def test_the_first_of_the_rules_that_fit_speaks() -> None:
    """Rules are tried in order, by the latest user message; none fits: the fallback."""
    rules = [Rule(when="cat", replies=[say("meow")]), Rule(when="dog", replies=[say("woof")])]
    script = Script(rules=rules, fallback=say("?"))
    assert text(script, user("dog and cat")) == "meow"
    assert text(script, [*user("cat"), {"role": "assistant", "content": "meow"}, *user("dog")]) == "woof"
    assert text(script, user("cow")) == "?"
    assert text(script, [{"role": "system", "content": "cat"}]) == "?"


def test_an_error_of_a_tool_changes_the_course() -> None:
    """on_error begins at the first result that says so since the user spoke; the latest beginning speaks."""
    script = Script(
        rules=[
            Rule(when="go", replies=[call("a"), call("a"), say("went")]),
            Rule(when="go", on_error="sold out", replies=[call("b"), say("took b")]),
            Rule(on_error="rejected", replies=[say("gave up")]),
        ]
    )
    sold_out = [*user("go"), *step("a", "fine"), *step("a", "sold out")]
    assert script.reply(conversation(sold_out)).calls[0].name == "b"
    assert text(script, [*sold_out, *step("b", "fine")]) == "took b"
    assert text(script, [*sold_out, *step("b", "rejected by finance")]) == "gave up"
    assert script.reply(conversation([*sold_out, *user("go on")])).calls[0].name == "a"


def test_rules_may_ask_for_instructions_or_a_model() -> None:
    """Several agents can share one script."""
    rules = [
        Rule(system="translate", replies=[say("Bonjour.")]),
        Rule(model="big", replies=[say("I am big.")]),
    ]
    script = Script(rules=rules, fallback=say("?"))
    assert text(script, [{"role": "developer", "content": "You translate."}, *user("hello")]) == "Bonjour."
    assert text(script, user("hello"), model="big") == "I am big."
    assert text(script, user("hello"), model="bigger") == "?"


def test_values_come_from_the_latest_result() -> None:
    """In texts and anywhere in arguments, by path; numbers stay numbers; what is no place stays as it is."""
    reply = together(
        say("{find.items.1.name}, {find.items.0}, {plain}, {user}, {nobody.knows}, {find.missing}, {}"),
        call("use", deep=[{"n": result("find.items.1.n")}], all=result("find"), raw=result("plain")),
    )
    found = {"items": [{"n": 1}, {"n": 2, "name": "two"}]}
    messages = [
        *user("hi"),
        *step("find", "{}"),
        *step("find", json.dumps(found), "d"),
        *step("plain", "words", "e"),
    ]
    filled = reply.filled(conversation(messages))
    assert filled.text == 'two, {"n": 1}, words, hi, {nobody.knows}, {find.missing}, {}'
    assert filled.calls[0].arguments == {"deep": [{"n": 2}], "all": found, "raw": "words"}


@pytest.mark.parametrize("path", ["find.items.7", "find.items.x", "find.nothing", "find.n.n", "unknown", "plain.x"])
def test_a_result_that_is_not_there_is_an_error(path: str) -> None:
    """An argument is never made up."""
    messages = [*user("hi"), *step("find", '{"items": [], "n": 1}'), *step("plain", "words", "d")]
    with pytest.raises(ScriptError, match="result of"):
        call("use", x=result(path)).filled(conversation(messages))


def test_text_may_come_in_parts() -> None:
    """Parts that are text are read as one text, others are left out."""
    parts = [
        {"type": "text", "text": "a "},
        {"type": "image_url", "image_url": {}},
        {"type": "text", "text": "b"},
    ]
    assert conversation([{"role": "user", "content": parts}]).user == "a b"


def test_the_key_of_a_request_ignores_ids() -> None:
    """Other call ids, the same logical call; another text, model or tool, another."""
    base = conversation([*user("hi"), *step("a", "1", "x")]).key
    assert conversation([*user("hi"), *step("a", "1", "y")]).key == base
    others = [
        conversation([*user("hi"), *step("a", "2", "x")]),
        conversation([*user("hi"), *step("a", "1", "x")], model="n"),
        conversation([*user("hi"), *step("a", "1", "x")], tools=[{"type": "function"}]),
    ]
    assert len({base, *(other.key for other in others)}) == 4


def test_what_the_real_service_would_not_take() -> None:
    """Every call has its result at once, every result its call."""
    first, second = step("a", "1", "x"), step("a", "1", "y")
    both = {"role": "assistant", "tool_calls": [*first[0]["tool_calls"], *second[0]["tool_calls"]]}
    for fine in ([*first, *user("hi")], [both, second[1], first[1]], user("hi")):
        assert complaint(conversation(fine).messages) is None
    for wrong in (
        [first[0]],
        [first[0], *user("hi"), first[1]],
        [first[1]],
        [both, first[1], first[1]],
        [both, first[1]],
    ):
        assert complaint(conversation(wrong).messages)


def test_streamed_or_whole_the_usage_is_the_same() -> None:
    """The estimate follows from the texts alone, whatever the ids."""
    asked = conversation(user("hi"), stream=True, stream_options={"include_usage": True})
    for reply in (say("one two"), refuse("no"), together(say("so"), call("f", x=1))):
        counted = usage(reply, asked)
        assert whole(reply, asked)["usage"] == counted
        assert json.loads(events(reply, asked)[-2].removeprefix(b"data: "))["usage"] == counted
        assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"] > 0


def test_faults_come_in_turn() -> None:
    """Each lets its first requests pass and then hits as often as told; the earlier one goes first."""
    faults = Faults([ModelFault(mode="cut", after=1, times=2), ModelFault(mode="hang", times=None)])
    hits = [faults.take(lambda _: True) for _ in range(5)]
    assert [hit.mode if hit else None for hit in hits] == ["hang", "cut", "cut", "hang", "hang"]
    assert faults.take(lambda fault: fault.mode == "cut") is None
