"""Whether what a model said in a dry run still holds: minted names may differ that it doesn't use, and nothing else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import canonical
from perdure.message import Message, ToolCall
from perdure.plan import still_holds


def asks(**arguments: object) -> Message:
    """An answer that asks for a call."""
    return Message(role="assistant", tool_calls=(ToolCall(id="c", name="go", arguments=json.dumps(arguments)),))


def told(*answers: object) -> list[dict[str, str]]:
    """A conversation with these results of tools."""
    said = [answer if isinstance(answer, str) else canonical(answer).decode() for answer in answers]
    return [{"role": "user", "content": "Go on."}, *({"role": "tool", "content": text} for text in said)]


@pytest.mark.parametrize(
    ("then", "now", "holds"),
    [
        ({"id": "res-imagined", "total": 25}, {"id": "res-91ac", "total": 25}, True),
        ("Reserved as r-1.", "Reserved as r-22.", True),
        ({"id": "4f2a", "total": 25}, {"id": "4f2b", "total": 26}, False),  # another number
        ({"status": "ok"}, {"status": "declined"}, False),  # another word
        ({"id": "r-1"}, {"id": "r-2", "note": "late"}, False),  # more is said
        ({"stock": "10kg"}, {"stock": "2kg"}, False),  # an amount is no name
        ({"price": "CHF12.50"}, {"price": "CHF13.50"}, False),
        ({"leaves": "2026-12-01T09:00:00Z"}, {"leaves": "2026-12-01T11:00:00Z"}, False),
        ({"id": 17}, {"id": 18}, False),  # who tells such a name from an amount?
    ],
)
def test_what_may_differ(then: object, now: object, holds: bool) -> None:
    """Only names that are minted for each call."""
    assert still_holds(told(then), told(now), asks(where="Bern")) is holds


@pytest.mark.parametrize("arguments", [{"id": "r-1"}, {"text": "see r-1."}, {"deep": [{"of": "x/r-1"}]}])
def test_a_plan_that_uses_what_was_only_imagined_is_over(arguments: dict[str, object]) -> None:
    """Wherever it uses that name; one that is the same in both may be used."""
    assert not still_holds(told({"id": "r-1"}), told({"id": "r-2"}), asks(**arguments))
    assert still_holds(told({"id": "r-1"}), told({"id": "r-1"}), asks(**arguments))


def test_an_escape_hides_nothing() -> None:
    """A model writes JSON as it likes."""
    call = ToolCall(id="c", name="go", arguments='{"to": "z\\u00fcrich-1"}')
    said = Message(role="assistant", tool_calls=(call,))
    assert not still_holds(told({"id": "zürich-1"}), told({"id": "zürich-2"}), said)


_WORDS = st.lists(st.from_regex(r"[a-zé]{1,4}(-[0-9]{1,3})?|[0-9]{1,4}", fullmatch=True), min_size=1, max_size=6)


@given(_WORDS, st.data())
def test_one_word_that_has_become_another(words: list[str], data: st.DataObject) -> None:
    """Wherever it stands: a number or a plain word ends the plan; so does a name that is used; no other name does."""
    at = data.draw(st.integers(0, len(words) - 1))
    other = data.draw(_WORDS)[0]
    used = data.draw(st.booleans())
    then, now = told(" ".join(words)), told(" ".join([*words[:at], other, *words[at + 1 :]]))
    holds = still_holds(then, now, asks(where=words[at] if used else "-"))
    assert holds is (other == words[at] or ("-" in other and not used))


@given(_WORDS, _WORDS)
def test_what_is_the_same_holds(words: list[str], said: list[str]) -> None:
    """Whatever was said."""
    assert still_holds(told(*words), told(*words), asks(where=" ".join(said)))
