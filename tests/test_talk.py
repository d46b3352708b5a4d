"""A conversation as a value: what it knows of its messages is always what they are."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure import Message, State
from perdure.activities.completion import request_of
from perdure.canonical import canonical
from perdure.delta import apply, fold
from perdure.graphs.definition import ModelDefinition
from perdure.state import materialise
from perdure.talk import Talk, shown
from tests.properties import texts, thorough, words

Messages = list[dict[str, Any]]

said = st.builds(lambda id, text: {"id": id, "role": "user", "content": text}, words, texts)
operations = st.fixed_dictionaries(
    {"op": st.just("messages"), "put": st.lists(said, max_size=3)},
    optional={"drop": st.lists(words, min_size=1, max_size=2)},
)
others = st.one_of(
    st.builds(lambda items: {"op": "append", "items": items}, st.lists(said, max_size=2)),
    st.builds(lambda value: {"op": "set", "value": value}, st.lists(said, max_size=2)),
)


def plainly(old: Messages, operation: dict[str, Any]) -> Messages:
    """The definition, message by message."""
    if operation["op"] != "messages":
        return [*old, *operation["items"]] if operation["op"] == "append" else operation["value"]
    out = [message for message in old if message["id"] not in operation.get("drop", ())]
    for message in operation["put"]:
        at = [place for place, other in enumerate(out) if other["id"] == message["id"]]
        out = [*out[: at[-1]], message, *out[at[-1] + 1 :]] if at else [*out, message]
    return out


@thorough
@given(st.lists(operations | others, max_size=8), st.lists(st.integers(0, 20), max_size=4))
def test_a_conversation_is_the_list_that_it_seems_to_be(steps: list[dict[str, Any]], asked: list[int]) -> None:
    """For any operations: messages, places and what is shown are right in every version, whichever was asked before.

    No version changes when another is made of it; and folding is applying one after the other.
    """
    versions: list[tuple[Any, Messages]] = [([], [])]
    for step in steps:
        values, expected = {"c": versions[-1][0]}, plainly(versions[-1][1], step)
        versions.append((apply(values, {"c": step})["c"], expected))
        for place in asked:
            if isinstance(now := versions[-1][0], Talk) and place < len(now):
                now.shown(place)
    for version, expected in versions:
        assert version == expected
        assert canonical(version) == canonical(expected)
        if isinstance(version, Talk):
            assert version.places == {message["id"]: place for place, message in enumerate(expected)}
            assert [version.shown(place) for place in range(len(version))] == [shown(message) for message in expected]
    assert fold({}, ({"c": step} for step in steps)).get("c", []) == versions[-1][1]


def test_it_is_json_and_a_copy_is_a_plain_list() -> None:
    """Nobody who gets a state as its own type, or a copy of its values, meets anything but a list."""
    message = {"id": "1", "role": "user", "content": "Hello."}
    talk = Talk([message])
    talk.shown(0)
    assert json.loads(json.dumps(talk)) == [message]
    assert type(deepcopy(talk)) is list
    state = materialise(State, {"messages": talk})
    assert (type(state.messages), state.messages) == (list, [Message.model_validate(message)])
    assert type(State.model_validate({"messages": talk}).model_dump()["messages"]) is list


requests = st.tuples(st.sampled_from(["m", "n"]), st.sampled_from(["", "Be brief."]), st.lists(said, max_size=3))


@thorough
@given(requests, requests)
def test_the_key_of_a_request_is_its_content(one: Any, other: Any) -> None:
    """Two requests have one key where their bodies are the same, and only there."""
    made = [
        request_of(ModelDefinition(model=model, instructions=instructions), {"messages": messages})
        for model, instructions, messages in (one, other)
    ]
    bodies = {canonical(request.body) for request in made}
    assert len({request.key for request in made}) == len(bodies)
