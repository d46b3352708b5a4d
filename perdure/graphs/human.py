"""Human nodes: what they ask, and what an answer writes."""

import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import TypeAdapter, ValidationError

from perdure.canonical import Json, canonical
from perdure.contracts import NodeKind, NodeSpec
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError, InvalidInput
from perdure.graphs.fitting import fits, item_types
from perdure.graphs.functions import as_json, check_called, failing, json_type, seen_as, updates_of
from perdure.message import Message
from perdure.questions import MAX_QUESTION, Question
from perdure.state import State, channels
from perdure.state import messages as conversation

AsksFor = str | Callable[[Any], Any]
Into = str | Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Ask:
    """A question to a person; ``details`` is any JSON that helps to answer it."""

    text: str
    details: Json = None


@dataclass(frozen=True, kw_only=True)
class HumanNode:
    """Asks a person and waits for so many seconds.

    ``into`` is the channel that takes the answer, one more item of a list where it ``adds``; or a function of state
    and answer that makes the updates.
    """

    kind: ClassVar[NodeKind] = "human"
    tools: ClassVar[tuple[str, ...]] = ()

    place: str
    state: type[State]
    question: AsksFor
    answer: TypeAdapter[Any]
    schema: dict[str, Any]
    into: Into
    adds: bool
    expires: float

    def spec(self) -> NodeSpec:
        """How it is run."""
        fixed = self.question if isinstance(self.question, str) else ""
        return NodeSpec(
            kind=self.kind, deadline=self.expires, question=fixed, asks=not fixed, answer_schema=self.schema
        )

    async def ask(self, state: State) -> Question:
        """The question, as the state stands. Raises InvalidInput where the function makes none."""
        asked: Any = self.question
        if callable(asked):
            asked = asked(seen_as(self.state, state))
            asked = await asked if inspect.isawaitable(asked) else asked
        question: Any = Ask(asked) if isinstance(asked, str) else asked
        if not isinstance(question, Ask) or not str(question.text).strip():
            raise InvalidInput(f"{self.place} asks {asked!r:.100}.", hint="Return a text, or an Ask.")
        details = as_json(question.details, f"{self.place} asks with details of")
        return Question(text=question.text, details=details, answer_schema=self.schema)

    def updates(self, state: State, value: Json) -> dict[str, Any]:
        """What an answer writes. Raises InvalidInput where it isn't of the type that the node declares."""
        try:
            # Strictly: an answer that the schema doesn't allow is no answer, however it might be meant.
            answer = self.answer.validate_json(canonical(value), strict=True)
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors())
            raise InvalidInput(f"{self.place} can't take this answer: {reasons}.") from error
        if callable(self.into):
            with failing(f"{self.place}: what makes updates of its answer"):
                made = self.into(seen_as(self.state, state), answer)
            return updates_of(self.place, self.state, made)
        if channels(self.state)[self.into].reducer is conversation:
            answer = Message(role="user", content=answer)
        return {self.into: [answer] if self.adds else answer}


def human_node(
    place: str, state: type[State], question: AsksFor, *, answer: Any, into: Into, expires: Duration
) -> HumanNode:
    """A human node, checked. Raises DefinitionError."""
    if callable(question):
        check_called(question, "state", state=state)
    elif not str(question or "").strip():
        raise DefinitionError("it asks nothing.")
    adapter = json_type(answer, "its answer")
    schema = adapter.json_schema()
    if len(canonical([schema, question if isinstance(question, str) else ""])) > MAX_QUESTION:
        raise DefinitionError(f"its question and the type of its answer have more than {MAX_QUESTION} bytes.")
    return HumanNode(
        place=place, state=state, question=question, answer=adapter, schema=schema, into=into,
        adds=_adds(into, answer, state), expires=seconds(expires),
    )  # fmt: skip


def _adds(into: Into, answer: Any, state: type[State]) -> bool:
    """Whether an answer is one more item of the list that takes it. Raises DefinitionError where it doesn't fit."""
    if callable(into):
        if inspect.iscoroutinefunction(into):
            raise DefinitionError("what makes updates of its answer must not be async.", hint="Let a node follow it.")
        check_called(into, "state", "answer", state=state)
        return False
    known = channels(state)
    if into not in known:
        raise DefinitionError(f"{state.__name__} has no channel {into!r}.", hint=f"Channels: {', '.join(known)}.")
    wanted = typing.get_type_hints(state)[into]
    reducer = known[into].reducer
    if reducer is conversation and fits(answer, str):
        return True
    if reducer.lists and any(fits(answer, item) for item in item_types(wanted)):
        return True
    if not fits(answer, wanted):
        raise DefinitionError(f"its answer doesn't fit {known[into].place}, which takes {known[into].type_name}.")
    return False
