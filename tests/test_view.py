"""The bounded view of a state: all of it while it is small, never more than its bound, and honest about the rest."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import canonical
from perdure.contracts import Carry, lean
from perdure.delta import Delta, Values, apply
from perdure.view import BOUND, CARRIED, Following, StateView, view_of
from tests.properties import thorough, words

lengths = st.integers(0, 400) | st.integers(0, BOUND // 2) | st.integers(BOUND - 40, BOUND + 40)
strings = st.builds(lambda length, letter: letter * length, lengths, st.sampled_from(["x", "é", '"']))
lists = st.lists(strings, max_size=4)
long_lists = st.builds(lambda length, times: ["x" * length] * times, lengths, st.integers(0, 60))
operations: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda value: {"op": "set", "value": value}, strings | lists),
    st.builds(lambda items: {"op": "append", "items": items}, lists),
)
messages = st.builds(
    lambda put, drop: {"op": "messages", "put": [{"id": id, "content": text} for id, text in put], "drop": drop},
    st.lists(st.tuples(words, strings), max_size=3), st.lists(words, max_size=1),
)  # fmt: skip
merges = st.builds(lambda value: {"op": "merge", "value": value}, st.dictionaries(words, strings, max_size=2))
one_of_each: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "title": st.builds(lambda value: {"op": "set", "value": value}, strings) | st.just({"op": "unset"}),
    "list": st.builds(lambda items: {"op": "append", "items": items}, lists)
    | st.builds(lambda value: {"op": "set", "value": value}, lists)
    | st.just({"op": "unset"}),
    "messages": messages,
    "profile": merges,
}
deltas: st.SearchStrategy[Delta] = st.fixed_dictionaries({}, optional=one_of_each)


@thorough
@given(st.lists(deltas, max_size=8))
def test_the_view_is_the_state_or_says_that_it_is_not(steps: list[Delta]) -> None:
    """For any history: the view fits in its bound; as long as the state has always fitted too, it is the state.

    Where it is not the state it says so, and it survives the journey into the thread's next run.
    """
    state: Values = {}
    view, fitted = StateView(), True
    for delta in steps:
        state = apply(state, delta)
        view.follow(delta)
        fitted = fitted and len(canonical(state)) <= BOUND
        assert len(canonical(view.values)) <= BOUND
        assert view.truncated or view.values == state
        assert not fitted or (view.values, view.truncated) == (state, False)
        assert Carry.model_validate_json(lean(Carry(view=view)).json()).view == view


@thorough
@given(st.lists(st.none() | deltas, max_size=40), st.sets(st.integers(0, 40)))
def test_looking_at_a_view_changes_nothing(steps: list[Delta | None], looks: set[int]) -> None:
    """A workflow comes to the same whoever looks at it, and when; and what is seen is the state, or says so."""
    state: Values = {}
    watched, alone, fitted = Following(StateView()), Following(StateView()), True
    for number, delta in enumerate(steps):
        state = apply(state, delta or {})
        watched.follow(delta)
        alone.follow(delta)
        fitted = fitted and len(canonical(state)) <= BOUND and delta is not None
        if number in looks:
            view = watched.now()
            assert watched.now() == view
            assert len(canonical(view.values)) <= BOUND
            assert view.truncated or view.values == state
            assert not fitted or (view.values, view.truncated) == (state, False)
    assert watched.now() == alone.now()


@thorough
@given(st.lists(lists, max_size=12))
def test_the_oldest_items_go_first(steps: list[list[str]]) -> None:
    """Of a list that only grows the newest items are shown, and ``omitted`` counts the others."""
    view, everything = StateView(), list[str]()
    for items in steps:
        view.follow({"list": {"op": "append", "items": items}})
        everything += items
        if "list" in view.values:
            left_out = view.omitted.get("list", 0)
            assert view.values["list"] == everything[left_out:]
        else:
            assert view.omitted["list"] > BOUND / 2  # a last item that doesn't fit by itself: its bytes
            return


@thorough
@given(st.lists(deltas, max_size=8))
def test_what_is_carried_is_small_where_it_is_not_whole(steps: list[Delta]) -> None:
    """Into the next run go a view that is whole as it is, and of another only the newest; the view itself stays."""
    view = StateView()
    for delta in steps:
        view.follow(delta)
    before, carried = view.model_copy(deep=True), view.carried()
    assert view == before
    assert carried.truncated == view.truncated
    assert carried == view if not view.truncated else len(canonical(carried.values)) <= CARRIED
    for channel, value in carried.values.items():
        whole = view.values[channel]
        assert value == (whole[len(whole) - len(value) :] if isinstance(whole, list) else whole)
        left_out = len(whole) - len(value) if isinstance(whole, list) else 0
        assert carried.omitted.get(channel, 0) == view.omitted.get(channel, 0) + left_out


@thorough
@given(st.dictionaries(words, strings | long_lists, max_size=4))
def test_the_view_of_a_state_is_as_much_of_it_as_fits(state: Values) -> None:
    """A thread that is taken up from the store sees its state, or the newest of it and how much is missing."""
    view = view_of(state)
    for channel, value in state.items():
        shown, left_out = view.values.get(channel), view.omitted.get(channel, 0)
        assert shown is None or shown == (value[left_out:] if isinstance(value, list) else value)
        assert shown is not None or left_out > 0
    assert len(canonical(view.values)) <= BOUND
    assert view.truncated == (len(canonical(state)) > BOUND)
    assert view.truncated or view.values == state


def test_a_channel_that_goes_leaves_nothing_behind() -> None:
    """Also where it was too large to be shown, and where it was never there."""
    view = StateView()
    view.follow({"a": {"op": "set", "value": 1}, "large": {"op": "set", "value": "x" * 2 * BOUND}})
    assert view.truncated
    view.follow({"large": {"op": "unset"}, "never": {"op": "unset"}})
    assert (view.values, view.truncated, view.sizes) == ({"a": 1}, False, {"a": 6})
    view.follow({"a": {"op": "unset"}})
    assert view == StateView()


def test_what_is_sealed_is_redacted() -> None:
    """A view goes into histories and answers queries: it has no keys, and not even the sealed text."""
    view = StateView()
    sealed = {"$sealed": "k1:AAAA"}
    message = {"id": "1", "role": "user", **sealed}
    view.follow({"pin": {"op": "set", "value": sealed}, "messages": {"op": "messages", "put": [message]}})
    view.follow({"notes": {"op": "append", "items": [sealed]}, "facts": {"op": "merge", "value": {"a": sealed}}})
    view.follow({"notes": {"op": "append", "items": [sealed]}, "messages": {"op": "messages", "put": [message]}})
    assert view.values == {
        "pin": "[sensitive]",
        "messages": [{"id": "1", "role": "user", "content": "[sensitive]"}],
        "notes": ["[sensitive]", "[sensitive]"],
        "facts": {"a": "[sensitive]"},
    }
    assert view_of(view.values) == view
    assert view_of({"pin": sealed}).values == {"pin": "[sensitive]"}


def test_a_delta_that_was_not_carried_is_missing() -> None:
    """What is known of the state stays, and is marked as incomplete for good."""
    view = StateView()
    view.follow({"a": {"op": "set", "value": 1}})
    view.follow(None)
    view.follow({"b": {"op": "set", "value": 2}})
    assert (view.values, view.truncated, view.omitted) == ({"a": 1, "b": 2}, True, {"*": 1})


def test_a_channel_set_anew_is_whole_again() -> None:
    """Truncated is what the view is now, not what it once was."""
    view = StateView()
    for _ in range(10):
        view.follow({"list": {"op": "append", "items": ["x" * 3_000]}})
    assert view.truncated
    view.follow({"list": {"op": "set", "value": ["all of it"]}})
    assert (view.values, view.truncated) == ({"list": ["all of it"]}, False)
