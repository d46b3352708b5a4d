"""Brief results: what an activity leaves out, the workflow finds again, whatever the step was."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.budget import Usage
from perdure.checkpoint import Frontier, Ref, Task, chain
from perdure.contracts import (
    ANSWER,
    Answered,
    Brief,
    Committed,
    Common,
    ModelDone,
    ToolPlan,
    brief,
    brief_answer,
    lean,
    whole,
    whole_answer,
)
from perdure.effects import call_summary
from tests.properties import texts, thorough, values, words

ROUTES = {"answer": ("end",), "tool_calls": ("tools",), "done": ("model",)}
USED = Usage(calls=1, prompt=1200, completion=60)


def common(*, channel: str = "messages", call_id: str = "") -> Common:
    """A step on the head of a thread."""
    head = Ref(id="head", step=4, digest="a" * 64)
    return Common(head=head, id="new", node="model", turn=2, routes=ROUTES, channel=channel, call_id=call_id)


def committed(at: Common, delta: Any, *, next: tuple[str, ...], arg: Any = None, version: int = 1) -> Committed:
    """The step as the store has it."""
    frontier = Frontier(tasks=tuple(Task(node=node, arg=arg) for node in next))
    digest = chain(
        at.head.digest, id=at.id, step=5, source="step", nodes=(at.node,), turn=at.turn, schema_version=version,
        next=frontier, delta=delta,
    )  # fmt: skip
    return Committed(head=Ref(id="new", step=5, digest=digest), next=next, schema_version=version, delta=delta)


def sent(told: Any) -> Any:
    """Through a history and back."""
    return type(told).model_validate_json(lean(told).json())


def put(**message: Any) -> Any:
    """A delta of one message."""
    return {"messages": {"op": "messages", "put": [message]}}


calls = st.lists(
    st.fixed_dictionaries({"id": words, "name": words, "arguments": texts | st.just('{"a": 1}')}), max_size=3
)
messages = st.fixed_dictionaries(
    {"id": st.sampled_from(["5.0", "other"]), "role": st.sampled_from(["assistant", "tool"])},
    optional={"content": texts, "note": words, "tool_calls": calls, "tool_call_id": st.sampled_from(["c1", "c2"])},
)
deltas = (
    messages.map(lambda message: put(**message))
    | st.lists(messages, max_size=2).map(lambda many: {"messages": {"op": "messages", "put": many}})
    | messages.map(lambda message: {"messages": {"op": "messages", "put": [message], "drop": ["x"]}})
    | st.dictionaries(words, values.map(lambda value: {"op": "set", "value": value}), max_size=2)
)
places = st.builds(common, channel=st.sampled_from(["messages", "other", ""]), call_id=st.sampled_from(["", "c1"]))


@thorough
@given(places, deltas, st.lists(st.sampled_from(["tools", "model", "x"]), max_size=2).map(tuple), st.none() | words,
       st.integers(1, 3))  # fmt: skip
def test_a_step_is_told_whole(at: Common, delta: Any, next: tuple[str, ...], arg: Any, version: int) -> None:
    """Any delta, any successors, whatever a Send gave them: head, digest and delta are what was committed."""
    done = committed(at, delta, next=next, arg=arg, version=version)
    assert whole(sent(brief(done, at, plain=arg is None)), at) == done
    too_long = done.model_copy(update={"delta": None})
    assert whole(sent(brief(too_long, at, plain=arg is None)), at) == too_long


@thorough
@given(messages, st.data())
def test_plans_are_told_whole(message: Any, data: st.DataObject) -> None:
    """Whatever was planned of a message's calls, and whether or not they stand in it."""
    at = common()
    asked = message.get("tool_calls", ()) if data.draw(st.booleans()) else data.draw(calls)
    plans = tuple(
        ToolPlan(call_id=call["id"], tool=call["name"], index=number, summary=data.draw(texts), key=data.draw(words),
                 error=data.draw(texts))
        for number, call in enumerate(asked)
    )  # fmt: skip
    done = committed(at, put(**message), next=("tools",)) if data.draw(st.booleans()) else None
    used = data.draw(st.builds(Usage, calls=st.integers(0, 2), prompt=st.integers(0, 9), saved=st.integers(0, 9)))
    content, note = message.get("content", "")[:ANSWER], message.get("note", "")
    answer = data.draw(st.sampled_from([content, "[sensitive]"] if content else [""]))
    answered = Answered(done, plans, used, key="k", answer=answer, note=note)
    assert whole_answer(sent(brief_answer(answered, at, plain=True)), at) == answered


def test_an_ordinary_step_costs_its_message() -> None:
    """A call that only reads, and its result: the history holds what was said, the tokens, and nothing else."""
    at, call = common(), {"id": "c1", "name": "look", "arguments": '{"what": "x"}'}
    asked = committed(at, put(id="5.0", role="assistant", tool_calls=[call]), next=("tools",))
    plan = ToolPlan(call_id="c1", tool="look", index=0, summary=call_summary("look", {"what": "x"}))
    told = brief_answer(Answered(asked, (plan,), USED), at, plain=True)
    assert told == ModelDone(committed=Brief(put={"tool_calls": [call]}), usage=USED)
    assert json.loads(lean(told).json()) == {"committed": {"put": {"tool_calls": [call]}}, "usage": [1200, 60]}
    after = common(call_id="c1")
    seen = committed(after, put(id="5.0", role="tool", tool_call_id="c1", content="seen"), next=("model",))
    assert json.loads(lean(brief(seen, after, plain=True)).json()) == {"put": {"content": "seen"}}
