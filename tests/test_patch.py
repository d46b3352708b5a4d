"""How two values differ: as a JSON Patch, and edit by edit."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.canonical import canonical
from perdure.patch import Edit, applied, diff, edits
from tests.properties import thorough

# 1, 1.0 and true are equal in Python and are three values in JSON; / and ~ are escaped in a pointer, "0" is a key too.
SCALARS = st.none() | st.booleans() | st.sampled_from([0, 1, 1.0, 0.0, -0.0, 2**70]) | st.text("ab~/é\0", max_size=3)
KEYS = st.sampled_from(["", "0", "1", "-", "a", "a/b", "~", "~1", "~0/"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def by_the_rfc(value: Any, patch: list[dict[str, Any]]) -> Any:
    """Apply a patch as RFC 6902 §4 has it, by nothing that made it."""
    root = [copy.deepcopy(value)]  # so that the whole document has a place too
    for operation in patch:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        holder: Any = root
        key: Any = 0
        for part in parts:
            holder = holder[key]
            key = int(part) if isinstance(holder, list) else part
        new = copy.deepcopy(operation.get("value"))
        if operation["op"] == "add" and isinstance(holder, list):
            assert 0 <= key <= len(holder)
            holder.insert(key, new)
        elif operation["op"] == "add":
            holder[key] = new
        elif operation["op"] == "remove":
            del holder[key]
        else:
            assert operation["op"] == "replace"
            assert holder[key] is not holder, "it is there"
            holder[key] = new
    return root[0]


@given(JSON, JSON)
@thorough
def test_a_patch_leads_from_one_to_the_other(before: Any, after: Any) -> None:
    """For any two JSON values: the patch applied to the first is the second, by our own hand and by the RFC's rules;
    two that are the same need none, and nothing is changed on the way."""
    kept = canonical(before), canonical(after)
    patch = diff(before, after)
    assert canonical(applied(before, patch)) == canonical(after)
    assert canonical(by_the_rfc(before, patch)) == canonical(after)
    assert (patch == []) == (kept[0] == kept[1])
    assert (canonical(before), canonical(after)) == kept


@given(JSON, JSON)
@thorough
def test_edits_say_what_was_there(before: Any, after: Any) -> None:
    """For any two JSON values: undone from the last to the first, the edits lead back."""
    value, patch = copy.deepcopy(after), diff(before, after)
    kept = canonical(before), canonical(patch)
    for edit in reversed(list(edits(before, patch))):
        holder: Any = [value]
        key: Any = 0
        for part in edit.path:
            holder = holder[key]
            key = int(part) if isinstance(holder, list) else part
        assert edit.op == "remove" or canonical(holder[key]) == canonical(edit.new)
        if edit.op == "add":
            del holder[key]
        elif edit.op == "remove" and isinstance(holder, list):
            holder.insert(key, edit.old)
        else:
            holder[key] = edit.old
        if not edit.path:
            value = holder[0]
    assert canonical(value) == canonical(before)
    assert (canonical(before), canonical(patch)) == kept


@pytest.mark.parametrize(("before", "after"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0), (None, 0), ("1", 1)])
def test_what_python_takes_for_equal(before: Any, after: Any) -> None:
    """`1`, `1.0` and `true` are three values, also deep inside of lists."""
    assert diff({"a": [before]}, {"a": [after]}) == [{"op": "replace", "path": "/a/0", "value": after}]
    assert diff({"a": [[before], 7]}, {"a": [7, [before]]}) != []


@pytest.mark.parametrize("length", [10, 1_000])
def test_a_patch_is_as_long_as_what_changed(length: int) -> None:
    """Items that are added to a list, taken out of it or changed cost one operation each, however long the list is."""
    items = [{"id": f"m{number}", "content": "x" * 50} for number in range(length)]
    new = {"id": "new", "content": "y"}
    assert diff({"n": items}, {"n": [*items, new]}) == [{"op": "add", "path": f"/n/{length}", "value": new}]
    assert diff({"n": items}, {"n": items[1:]}) == [{"op": "remove", "path": "/n/0"}]
    assert diff({"n": items}, {"n": [new, *items]}) == [{"op": "add", "path": "/n/0", "value": new}]
    changed = [*items[:5], items[5] | {"content": "y"}, *items[6:]]
    assert diff({"n": items}, {"n": changed}) == [{"op": "replace", "path": "/n/5/content", "value": "y"}]


def test_an_edit() -> None:
    """An edit has its path in plain keys, and the value that went."""
    before, after = {"a/b": {"x": 1}, "gone": [1]}, {"a/b": {"x": 2}, "came": None}
    assert sorted(edits(before, diff(before, after)), key=lambda edit: edit.path) == [
        Edit(op="replace", path=("a/b", "x"), old=1, new=2),
        Edit(op="add", path=("came",), new=None),
        Edit(op="remove", path=("gone",), old=[1]),
    ]
