"""State: what a node's update makes of a channel, which updates are refused, which definitions are.

Long: one claim a reducer and a refusal.
"""

import json
import math
import subprocess
import sys
import typing
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Secret, SecretBytes, SecretStr

from perdure import (
    Ephemeral,
    Message,
    Overwrite,
    Remove,
    Sensitive,
    State,
    add,
    append,
    maximum,
    merge,
    messages,
    minimum,
    overwrite,
    union,
)
from perdure import messages as by_id
from perdure.canonical import canonical
from perdure.delta import Delta, Values, apply, fold, growth
from perdure.errors import DefinitionError, InvalidInput
from perdure.state import Reducer, channels, conversations, materialise, recorded, reduce_updates
from tests.properties import integers, texts, thorough, values, words


def count(old: dict[str, int], new: dict[str, int]) -> dict[str, int]:
    """A reducer as a user writes it; it changes its argument in place, which is nobody else's business."""
    for key, number in new.items():
        old[key] = old.get(key, 0) + number
    return old


class Desk(State):
    """One channel of every kind."""

    title: str = "untitled"
    notes: Annotated[list[Any], append] = []
    origin: Annotated[list[str], append] = ["start"]
    profile: Annotated[dict[str, Any], merge] = {"lang": "en"}
    total: Annotated[int, add] = 0
    price: Annotated[Decimal, add] = Decimal("1.10")
    tags: Annotated[list[Any], union] = []
    high: Annotated[int | None, maximum] = None
    low: Annotated[Decimal, minimum] = Decimal(100)
    votes: Annotated[dict[str, int], count] = {}


def reduced(state: type[State], before: Values, **update: Any) -> Values:
    """The values after one node's update."""
    return apply(before, reduce_updates(state, before, {"node": update}, step=1))


# ── reducers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("channel", "before", "update", "after"),
    [
        ("title", {}, "A", "A"),
        ("title", {"title": "A"}, Overwrite("B"), "B"),
        ("notes", {"notes": [1]}, [1, 2], [1, 1, 2]),
        ("notes", {"notes": [1]}, Overwrite([]), []),
        ("origin", {}, ["more"], ["start", "more"]),
        ("profile", {}, {"tz": "CET"}, {"lang": "en", "tz": "CET"}),
        ("profile", {"profile": {"a": {"x": 1, "y": 2}}}, {"a": {"y": None}}, {"a": {"x": 1, "y": None}}),
        ("total", {"total": 2**64}, 1, 2**64 + 1),
        ("price", {}, Decimal("2.20"), "3.30"),
        ("tags", {"tags": [1, "1"]}, [1, True, 1.0, "2", "2"], [1, "1", True, 1.0, "2"]),
        ("high", {}, 3, 3),
        ("high", {"high": 3}, 2, 3),
        ("low", {"low": "9"}, Decimal(10), "9"),
        ("votes", {"votes": {"a": 1}}, {"a": 1, "b": 1}, {"a": 2, "b": 1}),
    ],
)  # fmt: skip
def test_a_reducer_merges(channel: str, before: Values, update: Any, after: Any) -> None:
    """Each reducer on one example: numbers also where JSON has texts for them, objects deep, null a value."""
    assert canonical(reduced(Desk, before, **{channel: update})[channel]) == canonical(after)


def test_messages_are_appended_replaced_and_named() -> None:
    """A message without an id gets one from its step, one with a known id takes its place, the rest is appended."""
    first = reduced(Desk, {}, messages=[Message(role="user", content="a"), Message(role="user", content="b", id="x")])
    one = {"messages": [Message(role="user", content="c")]}
    two = {"messages": [Message(role="user", content="B", id="x"), {"role": "user", "content": "d"}]}
    again = reduce_updates(Desk, first, {"one": one, "two": two}, step=2)
    said = [(message["id"], message["content"]) for message in apply(first, again)["messages"]]
    assert said == [("1.0", "a"), ("x", "B"), ("2.0", "c"), ("2.1", "d")]


def test_messages_are_removed() -> None:
    """By id, in whatever form the update comes; an id that isn't there is gone already; what is put stays."""
    before = reduced(Desk, {}, messages=[Message(role="user", content=text, id=text) for text in "abc"])
    update = [Message(role="user", content="d"), Remove(remove="a"), {"remove": "nowhere"}]
    assert [m["content"] for m in reduced(Desk, before, messages=update)["messages"]] == ["b", "c", "d"]
    both: dict[str, Any] = {"one": {"messages": update}, "two": {"messages": [{"remove": "c"}, {"remove": "1.0"}]}}
    assert [m["content"] for m in apply(before, reduce_updates(Desk, before, both, step=1))["messages"]] == ["b"]
    assert reduce_updates(Desk, before, {"one": {"messages": [Remove(remove="x")]}}, step=1) == {}


class Note(Message):
    """A message that knows more."""

    stars: int = 0


def test_every_conversation_is_one() -> None:
    """The reducer makes it, not the name: its messages are kept without what says nothing, whatever they are."""

    class Review(State):
        remarks: Annotated[list[Note], messages] = []
        plain: list[Message] = []

    said = {"remarks": [Note(role="user", stars=5), {"role": "user", "content": "b"}], "plain": [Message(role="user")]}
    after = reduced(Review, {}, **said)
    assert after["remarks"] == [
        {"role": "user", "stars": 5, "id": "1.0"},
        {"role": "user", "content": "b", "id": "1.1"},
    ]
    assert after["plain"][0]["content"] == ""
    assert conversations(Review) == ("messages", "remarks")


def test_an_id_is_never_given_twice() -> None:
    """Neither a message named by hand nor an Overwrite or a default without ids can make two messages one."""

    class Chatty(State):
        log: Annotated[list[Message], messages] = [Message(role="system", content="s")]

    by_hand = Message(role="user", content="a", id="1.0")
    named = reduced(Chatty, {}, log=[by_hand, Message(role="user", content="b")])
    assert [message["content"] for message in named["log"]] == ["s", "a", "b"]
    compact = {"log": Overwrite([Message(role="user", content="all")])}
    model = {"log": [Message(role="assistant", content="so")]}
    replaced = reduce_updates(Chatty, named, {"compact": compact, "model": model}, step=1)
    said = apply(named, replaced)["log"]
    assert [message["content"] for message in said] == ["all", "so"]
    assert len({message["id"] for message in said}) == 2


# ── the property ─────────────────────────────────────────────────────────────────────────────────────────────────

# Objects and plain values in the same places, so that each comes after the other.
trees: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 1), lambda inner: st.dictionaries(st.sampled_from("ab"), inner, min_size=1, max_size=2), max_leaves=4
)
decimals = st.decimals(-1000, 1000, places=2)
said = st.builds(
    lambda text, name: {"role": "user", "content": text} | ({"id": name} if name else {}), texts, st.none() | words
)
shared: dict[str, st.SearchStrategy[Any]] = {
    "notes": st.lists(values, max_size=3),
    "origin": st.lists(texts, max_size=2),
    "profile": st.dictionaries(words, trees | values, max_size=3),
    "total": integers,
    "price": decimals,
    "tags": st.lists(values, max_size=3),
    "high": st.integers(),
    "low": decimals,
    "votes": st.dictionaries(words, st.integers(-5, 5), max_size=3),
    "messages": st.lists(said, max_size=3),
}
whole = {name: made.map(Overwrite) for name, made in shared.items()}
shared["messages"] = st.lists(said | words.map(lambda name: {"remove": name}), max_size=3)
update = st.fixed_dictionaries({}, optional={name: made | whole[name] for name, made in shared.items()})
Step = list[dict[str, Any]]


def step_of(updates: Step, title: str | None) -> Step:
    """Only one node of a step may overwrite a channel; the others say it again without."""
    seen: set[str] = set()
    for each in updates:
        for name, value in each.items():
            if isinstance(value, Overwrite):
                each[name] = value.value if name in seen else value
                seen.add(name)
    return [*updates, {"title": title}] if title is not None else updates


steps: st.SearchStrategy[list[Step]] = st.lists(
    st.builds(step_of, st.lists(update, max_size=3), st.none() | texts), max_size=5
)


def deep(old: Any, new: Any) -> Any:
    """Merge by key, in the plainest way."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return {
        key: deep(old[key], new[key]) if key in old and key in new else {**old, **new}[key] for key in {**old, **new}
    }


def united(old: list[Any], new: list[Any]) -> list[Any]:
    out = list(old)
    for item in new:
        if canonical(item) not in map(canonical, out):
            out.append(item)
    return out


def put(old: list[Any], new: list[Any]) -> list[Any]:
    gone = {item["remove"] for item in new if "remove" in item}
    by_id = {message["id"]: message for message in old if message["id"] not in gone}
    return list((by_id | {message["id"]: message for message in new if "remove" not in message}).values())


PLAIN: dict[str, Callable[[Any, Any], Any]] = {
    "title": lambda old, new: new,
    "notes": lambda old, new: old + new,
    "origin": lambda old, new: old + new,
    "profile": deep,
    "total": lambda old, new: old + new,
    "price": lambda old, new: old + new,
    "tags": united,
    "high": lambda old, new: new if old is None else max(old, new),
    "low": min,
    "votes": lambda old, new: {key: old.get(key, 0) + new.get(key, 0) for key in {**old, **new}} if new else old,
    "messages": put,
}


def named(update: Step, step: int, ids: set[str]) -> Step:
    """The update with the ids that new messages should get: the free numbers of their step, in order."""
    for each in update:
        listed = each.get("messages", [])
        items = listed.value if isinstance(listed, Overwrite) else listed
        kept = set() if isinstance(listed, Overwrite) else ids
        taken = kept | {item["id"] for item in items if "id" in item}
        free = (f"{step}.{number}" for number in range(100) if f"{step}.{number}" not in taken)
        filled = [item if item.keys() & {"id", "remove"} else {**item, "id": next(free)} for item in items]
        gone = {item["remove"] for item in items if "remove" in item}
        ids = (kept - gone) | {item["id"] for item in filled if "id" in item}
        if "messages" in each:
            each["messages"] = Overwrite(put([], filled)) if isinstance(listed, Overwrite) else filled
    return update


def plainly(desk: dict[str, Any], step: Step) -> dict[str, Any]:
    """The state after a step by the reducers as one would write them down."""
    for each in step:
        for name, value in each.items():
            desk[name] = value.value if isinstance(value, Overwrite) else PLAIN[name](desk[name], value)
    return desk


def as_json(desk: Desk | dict[str, Any]) -> bytes:
    state = desk if isinstance(desk, Desk) else Desk.model_validate(desk)
    return canonical(state.model_dump(mode="json"))


@thorough
@given(steps)
def test_deltas_are_the_fold_of_the_reducers(steps: list[Step]) -> None:
    """For any history: applying the deltas, after a journey as JSON, is folding the updates with the plain reducers.

    On the way: the old values stay as they were, the growth is exact, and folding all deltas at once is applying each.
    """
    now: Values = {}
    plain: dict[str, Any] = Desk().model_dump()
    deltas: list[Delta] = []
    for number, step in enumerate(steps):
        before = canonical(now)
        made = reduce_updates(Desk, now, {f"node {i}": each for i, each in enumerate(step)}, step=number)
        delta = json.loads(canonical(made))
        after = apply(now, delta)
        assert canonical(now) == before
        assert growth(now, delta, after) == len(canonical(after)) - len(before)
        now, deltas = after, [*deltas, delta]
        plain = plainly(plain, named(deepcopy(step), number, {message["id"] for message in plain["messages"]}))
        state = materialise(Desk, now)
        assert isinstance(state, Desk)
        assert as_json(state) == as_json(plain)
    assert canonical(fold({}, deltas)) == canonical(now)


places = words | st.sampled_from([f"new {number}" for number in range(5)])


@thorough
@given(st.lists(st.tuples(st.lists(places, unique=True), st.just([]) | st.lists(places), st.booleans()), max_size=8))
def test_dropped_messages_are_gone(steps: list[tuple[list[str], list[str], bool]]) -> None:
    """A delta may drop messages and put others; applying and folding agree, the growth stays exact."""
    now: Values = {}
    deltas: list[Delta] = []
    for number, (putting, dropping, appends) in enumerate(steps):
        ids = {message["id"] for message in now.get("m", [])}
        puts = [{"id": name, "content": f"{number}"} for name in putting]
        delta: Delta = {"m": {"op": "messages", "put": puts, "drop": dropping}}
        if appends:
            fresh = next(name for name in (f"new {number}", "other", f"other {number}") if name not in ids)
            delta = {"m": {"op": "append", "items": [{"id": fresh, "content": ""}]}}  # by another reducer
        before, now = now, apply(now, delta)
        old = before.get("m", [])
        kept = [message for message in old if message["id"] not in dropping]
        assert now["m"] == ([*old, *delta["m"]["items"]] if appends else put(kept, puts))
        assert growth(before, delta, now) == len(canonical(now)) - len(canonical(before))
        deltas.append(delta)
    assert fold({}, deltas) == now


def test_an_object_after_a_plain_value_is_not_merged_with_what_was_before() -> None:
    """Two nodes of one step write a key, the second an object: what the first one overwrote doesn't come back."""
    before: Values = {"profile": {"home": {"city": "Bern"}}}
    writers: dict[str, Any] = {"one": {"profile": {"home": None}}, "two": {"profile": {"home": {"zip": "3000"}}}}
    after = apply(before, reduce_updates(Desk, before, writers, step=1))
    assert after["profile"] == {"home": {"zip": "3000"}}


def test_deltas_apply_without_the_code_that_made_them() -> None:
    """Another process, in which neither the state nor its reducers exist, reads the same state."""
    delta = reduce_updates(Desk, {}, {"node": {"votes": {"a": 2}, "notes": [2**70], "profile": {"x": {}}}}, step=0)
    program = "import json, sys; from perdure.delta import apply; print(json.dumps(apply({}, json.load(sys.stdin))))"
    ran = subprocess.run(
        [sys.executable, "-c", program], input=canonical(delta), capture_output=True, check=True, timeout=30
    )
    assert json.loads(ran.stdout) == apply({}, delta)


def test_what_a_user_gets_is_a_copy() -> None:
    """A reducer or a tool that changes its state in place changes neither the recorded values nor what others see."""

    class Loose(State):
        anything: Annotated[Any, lambda old, new: (old or {}).setdefault("list", []).append(new) or old] = None
        plain: dict[str, Any] = {}

    now: Values = {"anything": {"list": [1]}, "plain": {"list": [1]}}
    assert apply(now, reduce_updates(Loose, now, {"n": {"anything": 2}}, step=0))["anything"] == {"list": [1, 2]}
    state = materialise(Loose, now)
    assert isinstance(state, Loose)
    state.plain["list"].append(2)
    assert now == {"anything": {"list": [1]}, "plain": {"list": [1]}}


def test_the_same_value_again_costs_nothing() -> None:
    """An update that changes nothing makes no operation; ``true`` is not ``1``, and an explicit default is recorded."""
    now = {"title": "A", "votes": {"a": 1}, "tags": ["x"], "high": 3, "profile": {"a": 1}}
    same = {"title": "A", "votes": {}, "tags": ["x"], "high": 2, "profile": {"a": 1}, "notes": [], "messages": []}
    assert reduce_updates(Desk, now, {"node": same}, step=1) == {}
    assert reduce_updates(Desk, now, {"node": {"profile": {"a": True}}}, step=1) != {}
    assert reduce_updates(Desk, {}, {"node": {"title": "untitled"}}, step=1) != {}


@thorough
@given(update)
def test_an_update_survives_its_record(each: dict[str, Any]) -> None:
    """Between a call and its commit an update is JSON; it merges as if it had never been."""
    record = json.loads(canonical(recorded(Desk, each)))
    direct = reduce_updates(Desk, {}, {"node": each}, step=1)
    assert reduce_updates(Desk, {}, {"node": record}, step=1) == direct


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Strict(State):
    """Channels that are easy to get wrong."""

    count: int = 0
    lines: Annotated[list[int], append] = []
    ratio: Annotated[float, add] = 0.0
    anything: Any = None
    custom: Annotated[int, lambda old, new: old // new] = 1


@pytest.mark.parametrize(
    ("update", "parts"),
    [
        ({"count": "many"}, ["Strict.count takes int, not this str", "valid integer"]),
        ({"count": Overwrite(None)}, ["Strict.count takes int, not this NoneType", "valid integer"]),
        ({"lines": [1, "x"]}, ["Strict.lines takes list[int], not this list", "1: ", "valid integer"]),
        ({"lines": 3}, ["Strict.lines", "not this int", "valid list"]),
        ({"messages": [{"role": "nobody"}]}, ["Strict.messages", "0.role"]),
        ({"messages": [{"role": "user", "shout": True}]}, ["Strict.messages", "0.shout", "not permitted"]),
        ({"ratio": math.nan}, ["Strict.ratio takes float, not this float", "Out of range"]),
        ({"anything": {"deep": [math.inf]}}, ["Strict.anything", "not this dict", "not finite"]),
        ({"anything": "\ud800"}, ["Strict.anything", "not this str", "surrogates"]),
        ({"anything": object()}, ["Strict.anything", "not this object", "Unable to serialize"]),
        ({"anything": b"\xff"}, ["Strict.anything", "not this bytes", "utf-8"]),
        ({"custom": 0}, ["Strict.custom", "can't merge this int", "ZeroDivisionError"]),
        ({"colour": "red"}, ["node writes to Strict.colour", "doesn't exist", "Channels: messages, count, lines"]),
    ],
)  # fmt: skip
def test_an_invalid_update_is_refused(update: dict[str, Any], parts: list[str]) -> None:
    """The error names the channel, the value's type and the reason; the values stay as they were."""
    before: Values = {"count": 1, "lines": [1]}
    with pytest.raises(InvalidInput) as refused:
        reduce_updates(Strict, before, {"fine": {"lines": [2]}, "node": update}, step=1)
    assert [part for part in parts if part not in str(refused.value)] == [], str(refused.value)
    assert before == {"count": 1, "lines": [1]}


def test_a_sum_out_of_range_is_refused() -> None:
    """Two valid numbers whose sum is not one are an invalid update, not a state that can't be stored."""
    with pytest.raises(InvalidInput, match=r"Strict\.ratio"):
        reduce_updates(Strict, {"ratio": 1.7e308}, {"node": {"ratio": 1.7e308}}, step=1)


@pytest.mark.parametrize(
    ("channel", "value"), [("count", 1), ("lines", Overwrite([1])), ("lines", {"$overwrite": [1]})]
)
def test_two_writers_of_one_value_conflict(channel: str, value: Any) -> None:
    """Two nodes that overwrite a channel in one step are both named."""
    with pytest.raises(InvalidInput, match=rf"left and right both overwrite Strict\.{channel}"):
        reduce_updates(Strict, {}, {"left": {channel: value}, "right": {channel: value}}, step=1)


@thorough
@given(steps, st.sampled_from([{"title": 3}, {"nowhere": 1}, {"total": math.inf}]))
def test_a_refused_step_changes_nothing(steps: list[Step], wrong: dict[str, Any]) -> None:
    """Whatever the state and the other writers: one invalid update, and the values are as they were."""
    now: Values = {}
    for number, step in enumerate(steps):
        writers = {f"node {i}": each for i, each in enumerate(step)}
        before = canonical(now)
        with pytest.raises(InvalidInput):
            reduce_updates(Desk, now, {**writers, "wrong": wrong}, step=number)
        assert canonical(now) == before
        now = apply(now, reduce_updates(Desk, now, writers, step=number))


def test_large_integers_survive() -> None:
    """Integers have no bounds: not in a delta, not as JSON, not in the state."""
    large = 3**200
    delta = json.loads(canonical(reduce_updates(Desk, {}, {"n": {"total": large, "notes": [-large]}}, step=1)))
    state = materialise(Desk, apply({}, delta))
    assert isinstance(state, Desk)
    assert (state.total, state.notes) == (large, [-large])


def test_a_stored_state_that_no_longer_fits_is_refused() -> None:
    """Values that the class can't hold any more are an error that says which."""
    with pytest.raises(InvalidInput, match=r"doesn't fit Strict(.|\n)*count"):
        materialise(Strict, {"count": "many"})


# ── definitions ──────────────────────────────────────────────────────────────────────────────────────────────────


class Handle:
    """Something that lives in one process."""


class Card(BaseModel):
    """A secret two levels down, in a type that also holds itself."""

    number: SecretStr = SecretStr("")
    others: list["Card"] = []


@dataclass
class Wallet:
    """A dataclass on the way to the secret."""

    cards: dict[str, Card]


class Account(BaseModel):
    """What is sensitive is a whole channel, never a part of one."""

    number: Annotated[str, Sensitive] = ""


@dataclass
class Purse:
    """The same, as another kind of class."""

    number: Annotated[str, Sensitive]


Alias = typing.NewType("Alias", list[Wallet])


def state_with(annotation: Any, *default: Any) -> type[State]:
    """A state class ``Odd`` with one field ``field``."""
    body = {"__annotations__": {"field": annotation}, "__module__": __name__}
    return type("Odd", (State,), body | ({"field": default[0]} if default else {}))


@pytest.mark.parametrize(
    ("annotation", "default", "why"),
    [
        (SecretStr, [SecretStr("")], "secret"),
        (SecretBytes | None, [None], "secret"),
        (list[Secret[int]], [[]], "secret"),
        (dict[str, Alias | None], [{}], "secret"),
        (int, [], "no default"),
        (Handle, [None], "can't be stored as JSON"),
        (dict[str, Handle] | None, [None], "can't be stored as JSON"),
        (Callable[[], int] | None, [None], "can't be stored as JSON"),
        (int, ["three"], "default"),
        (Any, [object()], "default"),
        (float, [math.nan], "default"),
        (Annotated[int, append], [0], "append is for lists"),
        (Annotated[dict[str, int], union], [{}], "union is for lists"),
        (Annotated[list[int], append] | None, [None], "outermost"),
        (list[Annotated[str, Sensitive]], [[]], "outermost"),
        (Annotated[str, Sensitive] | None, [None], "outermost"),
        (dict[str, Annotated[str, Ephemeral()]], [{}], "outermost"),
        (list[Account], [[]], "outermost"),
        (dict[str, Purse], [{}], "outermost"),
        (Annotated[list[int], append, Ephemeral], [[]], "Ephemeral"),
        (Annotated[int, Sensitive, Ephemeral], [0], "Ephemeral"),
        (Annotated[list[int], append, union], [[]], "two reducers: append and union"),
        (Annotated[list[dict[str, Any]], messages], [[]], "messages is for lists of Message"),
        (Annotated[list[Message] | None, messages], [None], "messages is for lists of Message"),
    ],
)
def test_a_wrong_definition_names_its_place(annotation: Any, default: list[Any], why: str) -> None:
    """A field that can't be a channel is refused when the state is defined, by its name and with the reason."""
    with pytest.raises(DefinitionError, match=rf"Odd\.field.*{why}"):
        channels(state_with(annotation, *default))


def test_the_conversation_keeps_its_reducer() -> None:
    """``messages`` is what the engine writes to: a class can't overwrite it, nor begin with something in it."""

    class Hidden(State):
        # In the body of the class, after the assignment, the name on the right is the list on the left.
        messages: Annotated[list[Message], messages] = []

    class Begun(State):
        messages: Annotated[list[Message], by_id] = [Message(role="user", content="hello")]

    for state in (Hidden, Begun):
        with pytest.raises(DefinitionError, match=rf"{state.__name__}\.messages must keep the reducer"):
            channels(state)


def test_an_unknown_annotation_names_the_state() -> None:
    """A name that can't be resolved is a definition error too."""
    with pytest.raises(DefinitionError, match=r"Odd: an annotation can't be resolved: .*Nowhere"):
        channels(state_with("Nowhere | None", None))


def test_every_reducer_is_known_by_name() -> None:
    """A field without a reducer is overwritten; a function becomes one, named after itself."""
    found = {name: repr(channel.reducer) for name, channel in channels(Desk).items()}
    builtin: list[Reducer] = [messages, overwrite, append, append, merge, add, add, union, maximum, minimum]
    assert list(found.values()) == [*map(repr, builtin), "count"]
