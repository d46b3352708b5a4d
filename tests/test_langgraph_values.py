"""What LangGraph puts into a store comes out as it went in, and stands there so that a person can read it."""

import json
import re
from base64 import b64decode, b64encode
from collections import deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Interrupt, Send
from pydantic import BaseModel

from perdure.bridges.changes import delta_between
from perdure.bridges.encoding import Codec, Unopened
from perdure.bridges.langgraph import PerdureSaver
from perdure.bridges.names import MAX_THREAD, of_namespaces, read_name, stored_name
from perdure.canonical import Json, canonical
from perdure.contracts import THREAD_ID
from perdure.delta import apply
from perdure.errors import IntegrityError, InvalidInput
from perdure.stores import open_store
from tests.properties import brief, floats, scalars, texts, thorough
from tests.travellers import on, picture, travel

SERDE = JsonPlusSerializer()
CODEC = Codec(SERDE)


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: float


class Pair(NamedTuple):
    left: Any
    right: Any


class Item(BaseModel):
    name: str
    tags: dict[str, Any] = {}


def stored(value: Any, codec: Codec = CODEC) -> Json:
    """A value as a store gives it back."""
    return json.loads(canonical(codec.encode(value)))


# ── encoding ─────────────────────────────────────────────────────────────────────────────────────────────────────

KEYS = st.text("$ab\0:", max_size=4) | st.sampled_from(["$order", "$map", "$model", "$typed", "$ext"])
JSON = st.recursive(scalars, lambda inside: st.lists(inside) | st.dictionaries(KEYS, inside), max_leaves=12)


@given(JSON)
@thorough
def test_json_comes_back_as_it_was(value: Any) -> None:
    """Also with the marks of our own among its keys; and so do the types of numbers and the order of keys."""
    assert repr(CODEC.decode(stored(value))) == repr(value)


OTHERS = st.sampled_from(
    [
        b"bytes", Colour.RED, Point(1, 2.5), Pair(1, Point(2, 3)), Item(name="pen", tags={"z": 1, "a": {2: "two"}}),
        {1, 2}, frozenset("a"), deque([1]), Decimal("1.50"), UUID(int=7), date(2026, 1, 2), timedelta(seconds=3),
        datetime(2026, 1, 2, tzinfo=UTC), Path("/tmp/x"), re.compile("a+"), Send("node", {"$a": [1, Colour.RED]}),
        Interrupt(value={"b": 1, "a": 2}, id="1"), float("inf"), _DeltaSnapshot([HumanMessage("hi", id="1")]),
        {1: "one", None: b"x", 2.5: [], ("a", (1, b"b")): {}}, (1, (2,)), "\ud800",
        AIMessage("", id="2", tool_calls=[{"name": "pay", "args": {"z": 1, "a": [2**60]}, "id": "c"}]),
    ]
)  # fmt: skip
LEAVES = OTHERS | st.none() | st.booleans() | st.integers(-(2**63), 2**63) | floats | texts


@given(st.recursive(LEAVES, lambda inside: st.lists(inside) | st.dictionaries(KEYS, inside), max_leaves=8))
@thorough
def test_anything_else_comes_back_as_from_the_serializer(value: Any) -> None:
    """What isn't JSON is what LangGraph's serializer makes of it."""
    expected = SERDE.loads_typed(SERDE.dumps_typed(value))
    assert repr(CODEC.decode(stored(value))) == repr(expected)


@pytest.mark.parametrize("value", [bytearray(b"array"), [bytearray(b"array")], 2**70, [{"a": -(2**70)}]])
def test_some_come_back_better(value: Any) -> None:
    """LangGraph's serializer would refuse them, or make something else of them where they are in a list."""
    assert repr(CODEC.decode(stored(value))) == repr(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([{"a": 1, "b": [True, None, 1.0]}], [{"a": 1, "b": [True, None, 1.0]}]),
        ({"b": 1, "a": 2}, {"$order": [1, 0], "a": 2, "b": 1}),
        (b"bytes", {"$bytes": "Ynl0ZXM="}),
        (Colour.RED, {"$ext": [0, [__name__, "Colour", "red"]]}),
        (Point(1, 2.5), {"$object": f"{__name__}:Point", "x": 1, "y": 2.5}),
        (
            [HumanMessage("Hello", id="1")],
            [
                {
                    "$model": "langchain_core.messages.human:HumanMessage", "additional_kwargs": {}, "content": "Hello",
                    "id": "1", "name": None, "response_metadata": {}, "type": "human",
                }
            ],
        ),
    ],
)  # fmt: skip
def test_a_person_can_read_it(value: Any, expected: Json) -> None:
    """Plain values stand as they are; messages and other objects are spelt out, item by item."""
    assert stored(value) == expected


def test_nothing_is_shared() -> None:
    """Whoever changes a value after it was put, or one that was read, changes nothing that is kept."""
    value: dict[str, Any] = {"list": [1], "object": {"a": [2]}}
    kept = CODEC.encode(value)
    value["list"].append("later")
    read = CODEC.decode(kept)
    read["object"]["a"].append("later")
    assert kept == {"list": [1], "object": {"a": [2]}}


def test_values_of_unknown_code_are_taken_over() -> None:
    """Without making an object of a class: it needn't even exist here. What can't be read is kept as it is."""
    packed = SERDE.dumps_typed({"item": Item(name="pen", tags={"b": 1, "a": 2}), "list": [Pair(1, {2: b"3"})]})
    opened = Unopened().loads_typed(packed)
    assert CODEC.decode(stored(opened)) == SERDE.loads_typed(packed)
    gone = Unopened().loads_typed((packed[0], packed[1].replace(b"Item", b"Gone")))
    assert stored(gone)["item"] == stored(opened)["item"] | {"$model": f"{__name__}:Gone"}
    assert stored(Unopened().loads_typed(("msgpack+aes", b"secret"))) == {"$typed": ["msgpack+aes", "c2VjcmV0"]}


def test_a_mark_of_a_later_version_is_refused() -> None:
    """Rather than taken for a value."""
    with pytest.raises(IntegrityError, match=r"\$later"):
        CODEC.decode({"$later": 1})


# ── encryption ───────────────────────────────────────────────────────────────────────────────────────────────────


class Cipher:
    """No secret, but like a real one never the same twice."""

    count = 0

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        Cipher.count += 1
        return "rot", Cipher.count.to_bytes(8) + bytes((byte + 13) % 256 for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        assert ciphername == "rot"
        return bytes((byte - 13) % 256 for byte in ciphertext[8:])


async def test_another_serializer_hides_everything(tmp_path: Path) -> None:
    """With one that encrypts, no value of a channel or of a write can be read in the store; a list still only grows."""
    url = f"sqlite:///{tmp_path}/store.db"
    with PerdureSaver(url, serde=EncryptedSerializer(Cipher())) as saver:
        graph = travel(saver)
        graph.invoke({"messages": [HumanMessage("Where to?", id="1")]}, on("trip"))
        expected = picture(graph, "trip")
    with PerdureSaver(url, serde=EncryptedSerializer(Cipher())) as saver:
        assert picture(travel(saver), "trip") == expected
    store = open_store(url)
    deltas = [checkpoint.delta async for checkpoint in store.walk("trip")]
    receipts = await store.receipts_under("trip", "")
    await store.close()
    texts = [canonical(deltas).decode(), *(receipt.decode() for receipt in receipts.values())]
    hidden = b"".join(b64decode(found) for text in texts for found in re.findall(r"\+rot\",\"([^\"]*)", text))
    for secret in (b"Where to?", b"Three cities.", b"Oslo"):
        assert not any(form in text for text in texts for form in (secret.decode(), b64encode(secret).decode()[:8]))
        assert bytes((byte + 13) % 256 for byte in secret) in hidden
    assert [delta["messages"]["op"] for delta in deltas if "messages" in delta] == ["set", "append"]


# ── deltas ───────────────────────────────────────────────────────────────────────────────────────────────────────

SMALL = st.recursive(
    st.sampled_from([0, 1, True, False, 1.0, "a", None]),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.sampled_from("abc"), inside),
    max_leaves=6,
)
NAMED = st.lists(
    st.fixed_dictionaries({"id": st.sampled_from("abcdef"), "content": st.sampled_from(["", "long" * 9])}),
    unique_by=lambda item: item["id"],
)
STATES = st.dictionaries(st.sampled_from("xyz"), SMALL | NAMED)


@given(STATES, STATES)
@thorough
def test_a_delta_leads_from_one_state_to_the_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    """To the very same JSON, whatever the two are."""
    assert canonical(apply(old, delta_between(old, new))) == canonical(new)


@pytest.mark.parametrize(
    ("old", "new", "operation"),
    [
        ([1, 2], [1, 2, 3], {"op": "append", "items": [3]}),
        ([1, 2], [2], {"op": "set", "value": [2]}),
        ({"a": "x" * 50, "b": {"c": 1}}, {"a": "x" * 50, "b": {"c": 2}}, {"op": "merge", "value": {"b": {"c": 2}}}),
        ({"a": 1, "b": 2}, {"a": 1}, {"op": "set", "value": {"a": 1}}),
        (
            [{"id": "1", "text": "x" * 90}, {"id": "2"}, {"id": "3"}],
            [{"id": "1", "text": "x" * 90}, {"id": "3", "new": 1}, {"id": "4"}],
            {"op": "messages", "put": [{"id": "3", "new": 1}, {"id": "4"}], "drop": ["2"]},
        ),
    ],
)
def test_a_delta_is_small(old: Json, new: Json, operation: dict[str, Json]) -> None:
    """What was added to a list, what changed in an object, which messages are other ones; else the whole."""
    assert delta_between({"it": old}, {"it": new}) == {"it": operation}


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────

NAMES = st.text(st.sampled_from("ab0:._-|@/ é\0") | st.characters(codec="utf-8"), max_size=12)


@given(NAMES, NAMES)
@thorough
def test_a_name_can_be_read_back(thread: str, namespace: str) -> None:
    """Whatever the thread and its namespace are called, they have an id that our own commands take, and only they."""
    name = stored_name(thread, namespace)
    assert re.fullmatch(THREAD_ID, name)
    assert read_name(name) == (thread, namespace)
    assert name.startswith(of_namespaces(thread)) == bool(namespace)


@given(NAMES, NAMES)
@brief
def test_one_thread_is_not_taken_for_the_namespace_of_another(one: str, other: str) -> None:
    """The names of one thread's namespaces don't begin as those of another do."""
    assert (one == other) == stored_name(other, "x").startswith(of_namespaces(one))


def test_long_names() -> None:
    """A long namespace is shortened, to another name than any other; a thread's id that is too long is refused."""
    deep = "|".join(f"node{number}:0f9a7c52-6a0e-4c1c-9d4e-0123456789ab" for number in range(9))
    names = {stored_name("a" * MAX_THREAD, namespace) for namespace in (deep, deep + "x", deep[1:])}
    assert len(names) == 3
    assert all(re.fullmatch(THREAD_ID, name) and read_name(name) == ("a" * MAX_THREAD, None) for name in names)
    with pytest.raises(InvalidInput, match="too long"):
        stored_name("a" * (MAX_THREAD + 1))


@pytest.mark.parametrize(
    ("thread", "namespace", "name"),
    [
        ("0f9a7c52-6a0e-4c1c-9d4e-0123456789ab", "", "0f9a7c52-6a0e-4c1c-9d4e-0123456789ab"),
        ("user:17", "pay:0f9a|card:1b2c", "user:17::pay:0f9a.7ccard:1b2c"),
        ("bob@example.org", "", "bob.40example.2eorg"),
        ("-x:", "", "0..-x.3a"),
    ],
)
def test_a_name_is_readable(thread: str, namespace: str, name: str) -> None:
    """What can stand in an id stands there."""
    assert stored_name(thread, namespace) == name
