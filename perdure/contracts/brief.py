"""What a step comes to, told briefly: without what both sides know.

A result stands in the history for ever, and much of it follows from elsewhere: the id of a new checkpoint was in the
task, its step is one more than its head's, its digest is over what is told anyway, and how a call is planned follows
from the message that asks for it. So an activity leaves out what the workflow will find by itself, and tells it where
it would find something else: nothing is ever guessed.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.budget import Usage
from perdure.canonical import Json
from perdure.checkpoint import Frontier, Ref, Task, chain
from perdure.contracts.spec import END
from perdure.contracts.tasks import Brief, Committed, ModelDone, ToolPlan
from perdure.delta import Delta
from perdure.effects import call_summary

ANSWER = 2_000  # characters of an answer that travel in history for the UI; the state has it whole


@dataclass(frozen=True)
class Common:
    """What both sides know of a step of one task: the head it extends, the id of its checkpoint, and its message's
    place. ``call_id``: the call that the message answers; without it, and with a ``channel``, it is the model's own.
    ``routes`` are those of the node."""

    head: Ref
    id: str
    node: str
    turn: int
    routes: Mapping[str, tuple[str, ...]]
    channel: str = ""
    call_id: str = ""

    @property
    def message(self) -> dict[str, Json]:
        """What is known of a message before it is said."""
        answers = {"role": "tool", "tool_call_id": self.call_id} if self.call_id else {"role": "assistant"}
        return {**answers, "id": f"{self.head.step + 1}.0"}

    def next(self, put: Mapping[str, Json] | None) -> tuple[str, ...]:
        """Where the routes lead once this message has been put, or whatever else was done."""
        said = "tool_calls" if put and put.get("tool_calls") else "answer"
        outcome = said if self.channel and not self.call_id else "done"
        return tuple(node for node in self.routes.get(outcome, ()) if node != END)


@dataclass(frozen=True)
class Answered:
    """What a model's call came to, whole."""

    committed: Committed | None
    calls: tuple[ToolPlan, ...]
    usage: Usage
    key: str = ""
    answer: str = ""
    note: str = ""


def brief(done: Committed, common: Common, *, plain: bool) -> Brief:
    """A committed step, as briefly as ``whole`` makes it the same again.

    ``plain``: what follows it are just nodes (``Frontier.is_plain``), so that the workflow can compute its digest.
    """
    put = _put(done.delta, common)
    return Brief(
        put=put, delta=None if put is not None else done.delta, schema_version=done.schema_version,
        next=None if done.next == common.next(put) else done.next,
        digest="" if plain and done.delta is not None else done.head.digest,
    )  # fmt: skip


def whole(told: Brief, common: Common) -> Committed:
    """The committed step that was told."""
    delta = told.delta
    if told.put is not None:
        delta = {common.channel: {"op": "messages", "put": [{**common.message, **told.put}]}}
    next = common.next(told.put) if told.next is None else told.next
    digest = told.digest or _digest(common, next, told.schema_version, delta)
    head = Ref(id=common.id, step=common.head.step + 1, digest=digest)
    return Committed(head=head, next=next, schema_version=told.schema_version, delta=delta)


def brief_answer(answered: Answered, common: Common, *, plain: bool = False) -> ModelDone:
    """What a model's call came to, as briefly as ``whole_answer`` makes it the same again."""
    done = brief(answered.committed, common, plain=plain) if answered.committed else None
    message = done.put or {} if done else {}
    expected = _plans(message, common, len(answered.calls))
    calls = tuple(_difference(plan, other) for plan, other in zip(answered.calls, expected, strict=True))
    told = message.get("content", "")[:ANSWER] == answered.answer and message.get("note", "") == answered.note
    return ModelDone(
        committed=done, key=answered.key, usage=answered.usage,
        calls=calls if any(calls) or len(calls) != len(message.get("tool_calls", ())) else (),
        answer="" if told else answered.answer, note="" if told else answered.note,
    )  # fmt: skip


def whole_answer(done: ModelDone, common: Common) -> Answered:
    """What a model's call came to."""
    message = done.committed.put or {} if done.committed else {}
    count = len(done.calls) or len(message.get("tool_calls", ()))
    plans = zip(_plans(message, common, count), done.calls or [{}] * count, strict=True)
    said = not (done.answer or done.note)
    return Answered(
        committed=whole(done.committed, common) if done.committed else None, key=done.key, usage=done.usage,
        calls=tuple(ToolPlan.model_validate(plan.model_dump(exclude_defaults=True) | other) for plan, other in plans),
        answer=message.get("content", "")[:ANSWER] if said else done.answer,
        note=message.get("note", "") if said else done.note,
    )  # fmt: skip


def _put(delta: Delta | None, common: Common) -> dict[str, Json] | None:
    """The message that is all there is in a delta, without what is known of it; None where there is more, or other."""
    if delta is None or not common.channel or delta.keys() != {common.channel}:
        return None
    operation = delta[common.channel]
    if operation.keys() != {"op", "put"} or operation["op"] != "messages" or len(operation["put"]) != 1:
        return None
    (message,) = operation["put"]
    known = common.message
    if any(message.get(name) != value for name, value in known.items()):
        return None
    return {name: value for name, value in message.items() if name not in known}


def _digest(common: Common, next: tuple[str, ...], schema_version: int, delta: Delta | None) -> str:
    """The digest of a step that was an ordinary one; empty where that can't be known."""
    if delta is None:
        return ""
    return chain(
        common.head.digest, id=common.id, step=common.head.step + 1, source="step", nodes=(common.node,),
        turn=common.turn, schema_version=schema_version, delta=delta,
        next=Frontier(tasks=tuple(Task(node=node) for node in next)),
    )  # fmt: skip


def _plans(message: Mapping[str, Json], common: Common, count: int) -> list[ToolPlan]:
    """How the calls of a message are planned that only read, and need nobody's approval."""
    calls: Sequence[Mapping[str, Json]] = message.get("tool_calls", ())
    if len(calls) != count:
        return [ToolPlan(call_id="", tool="", summary="", index=number) for number in range(count)]
    return [
        ToolPlan(
            call_id=call["id"], tool=call["name"], index=number, channel=common.channel,
            summary=_summary(call["name"], call["arguments"]),
        )
        for number, call in enumerate(calls)
    ]  # fmt: skip


def _summary(tool: str, arguments: str) -> str:
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        given = None
    return call_summary(tool, given) if isinstance(given, dict) else f"{tool}(…)"


def _difference(plan: ToolPlan, other: ToolPlan) -> dict[str, Any]:
    """The fields of a plan that are not the other's, as JSON."""
    names = {name for name in ToolPlan.model_fields if getattr(plan, name) != getattr(other, name)}
    return plan.model_dump(mode="json", include=names)
