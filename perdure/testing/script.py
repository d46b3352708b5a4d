"""The script of a model: plain data that tells what it answers in which conversation.

    Script(rules=[
        Rule(when="laptops", replies=[
            call("reserve_stock", sku="laptop", quantity=2),
            call("charge_card", card="tok_1", amount=result("reserve_stock.total")),
            say("Done: {reserve_stock.reservation_id}."),
        ]),
        Rule(when="laptops", on_error="not approved", replies=[say("Nobody approved it, so I stopped.")]),
    ])

A script has no memory. Which rule speaks, and which of its replies, follows from the messages of the request:
a plain rule begins at the latest user message, a rule with ``on_error`` at the first result of a tool since
then that contains that text. The rule that begins last speaks (the first of the list if several do), and the
number of answers since it began chooses the reply. So a request sent again gets the same answer, and a fork
goes its own way.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from perdure.testing.conversation import Conversation
from perdure.testing.model_fault import ModelFault
from perdure.values import Value

FinishReason = Literal["stop", "tool_calls", "length", "content_filter"]

_PLACE = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_RESULT = "$result"


class ScriptError(ValueError):
    """The script refers to a result that the conversation doesn't hold. The server answers 422."""


class Call(Value):
    """A call of a tool. ``arguments`` given as text are sent as they are, so that they may be no JSON at all.

    Anywhere inside, ``{"$result": "tool.key"}`` (see ``result``) stands for a value that a tool has returned.
    """

    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)


class Reply(Value):
    """One answer of the model: text, calls, or a refusal.

    In the text, ``{tool}`` stands for what that tool returned last, ``{tool.key}`` for a part of it, and
    ``{user}`` for the latest user message; braces around anything else stay as they are.
    """

    text: str = ""
    calls: Sequence[Call] = ()
    refusal: str | None = None
    finish_reason: FinishReason | None = None

    @property
    def finish(self) -> FinishReason:
        """Why the answer ends: as told, else because of its calls, else because all is said."""
        return self.finish_reason or ("tool_calls" if self.calls else "stop")

    def filled(self, conversation: Conversation) -> Self:
        """The reply with the conversation's values in place. Raises ScriptError for a missing result."""
        calls = [Call(name=call.name, arguments=_fill(call.arguments, conversation)) for call in self.calls]
        return self.model_copy(update={"text": _fill_text(self.text, conversation), "calls": calls})

    def garbled(self) -> Self:
        """The reply with the arguments of its calls cut short, so that they are no JSON."""
        calls = [Call(name=call.name, arguments=written(call)[:-1]) for call in self.calls]
        return self.model_copy(update={"calls": calls})


class Rule(Value):
    """Replies, and when they apply.

    ``when`` is a part of the latest user message, ``system`` of the instructions; ``model`` is a whole name.
    Empty means any. ``on_error`` makes the replies begin at a tool's result that contains it.
    """

    when: str = ""
    on_error: str = ""
    model: str = ""
    system: str = ""
    replies: Sequence[Reply]

    def begins(self, conversation: Conversation) -> int | None:
        """After which message the rule's first reply comes; None if the rule doesn't apply."""
        if self.when not in conversation.user or self.system not in conversation.system:
            return None
        if self.model and self.model != conversation.model:
            return None
        return conversation.first_result_with(self.on_error) if self.on_error else conversation.asked


class Script(Value):
    """All that a scripted model says, what goes wrong on the way, and the models it lists."""

    rules: Sequence[Rule] = ()
    fallback: Reply = Reply(text="My script has no reply for this.")
    faults: Sequence[ModelFault] = ()
    models: Sequence[str] = ("gpt-5-mini",)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a script from a JSON file. Raises OSError, or pydantic's ValidationError."""
        return cls.model_validate_json(path.read_bytes())

    def reply(self, conversation: Conversation) -> Reply:
        """The answer to a conversation, filled in. Raises ScriptError for a result that isn't there."""
        begins = [(at, rule) for rule in self.rules if (at := rule.begins(conversation)) is not None]
        if not begins:
            return self.fallback.filled(conversation)
        at, rule = max(begins, key=lambda pair: pair[0])
        spoken = conversation.answers_after(at)
        reply = rule.replies[spoken] if spoken < len(rule.replies) else self.fallback
        return reply.filled(conversation)


def say(text: str, *, finish_reason: FinishReason | None = None) -> Reply:
    """A reply in words."""
    return Reply(text=text, finish_reason=finish_reason)


def refuse(reason: str) -> Reply:
    """A reply that refuses, as a model does for its safety rules."""
    return Reply(refusal=reason)


def call(tool: str, /, **arguments: Any) -> Reply:
    """A reply that calls one tool."""
    return Reply(calls=[Call(name=tool, arguments=arguments)])


def together(*replies: Reply) -> Reply:
    """One reply with the texts and the calls of several: ``together(call(...), call(...))``."""
    text = " ".join(reply.text for reply in replies if reply.text)
    return Reply(text=text, calls=[call for reply in replies for call in reply.calls])


def result(path: str) -> dict[str, str]:
    """An argument that is taken from what a tool returned last: ``result("reserve_stock.total")``."""
    return {_RESULT: path}


def written(call: Call) -> str:
    """The arguments of a call as the protocol carries them: JSON in a text."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def _fill(value: Any, conversation: Conversation) -> Any:
    if isinstance(value, dict):
        if value.keys() == {_RESULT}:
            return _look_up(value[_RESULT], conversation)
        return {key: _fill(item, conversation) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, conversation) for item in value]
    return value


def _fill_text(text: str, conversation: Conversation) -> str:
    def fill(place: re.Match[str]) -> str:
        if place[1] == "user":
            return conversation.user
        try:
            value = _look_up(place[1], conversation)
        except ScriptError:
            return place[0]
        return value if isinstance(value, str) else json.dumps(value)

    return _PLACE.sub(fill, text)


def _look_up(path: str, conversation: Conversation) -> Any:
    tool, *keys = path.split(".")
    content = conversation.result_of(tool)
    if content is None:
        raise ScriptError(f"No result of {tool!r} is in the conversation.")
    value = _parsed(content)
    for key in keys:
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ScriptError(f"The result of {tool!r} has no {'.'.join(keys)!r}: {content}") from None
    return value


def _parsed(content: str) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return content
