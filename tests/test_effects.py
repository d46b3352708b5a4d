"""Effects: keys, the order of undoing, and the report of what is left."""

from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.effects import Effect, arguments_digest, effect_key, residue, to_undo, undo_key
from tests.properties import texts, thorough

Parts = tuple[str, int, int, int, int, str, str]
positions = st.integers(0, 3)
keys = st.tuples(texts, positions, positions, positions, positions, texts, texts)
classes = st.sampled_from(["read", "idempotent", "compensable", "irreversible"])
statuses = st.sampled_from(
    ["registered", "attempted", "done", "failed", "in_doubt", "undone", "needs_attention"]
)  # fmt: skip
effects = st.builds(
    Effect, key=texts, tool=texts, effect=classes, turn=positions, step=positions, index=positions, status=statuses,
    summary=texts, finished_at=st.sampled_from(["", "2026-01-01T00:00:00.000001+00:00", "2026-01-02T00:00:00+00:00"]),
)  # fmt: skip


@thorough
@given(keys, keys)
def test_a_key_changes_with_each_of_its_parts(one: Parts, other: Parts) -> None:
    """Thread, branch, turn, step, position, tool, arguments: the same parts make the same key, different ones another.

    Also where parts put together would read the same.
    """
    assert (effect_key(*one) == effect_key(*other)) == (one == other)
    for place in range(len(one)):
        mixed: Any = (*one[:place], other[place], *one[place + 1 :])
        assert (effect_key(*mixed) == effect_key(*one)) == (mixed == one)
    assert len(effect_key(*one)) == 32
    assert undo_key(effect_key(*one)) != effect_key(*one)


def test_a_digest_binds_the_tool_and_its_arguments() -> None:
    """Neither another tool with the same arguments nor other arguments of the same tool."""
    pairs = [("pay", b'{"a":1}'), ("pay", b'{"a":2}'), ("refund", b'{"a":1}'), ("pay{", b'"a":1}')]
    assert len({arguments_digest(*pair) for pair in pairs}) == len(pairs)


@thorough
@given(st.lists(effects, max_size=8, unique_by=(lambda effect: effect.key, lambda effect: (effect.step, effect.index))))
def test_undoing_is_the_reverse_of_completion(ledger: list[Effect]) -> None:
    """What has a compensation and stands outside, last completed first; the order of the ledger doesn't matter."""
    undone = to_undo(ledger)
    stands = [e.key for e in ledger if e.effect == "compensable" and e.status in ("done", "needs_attention")]
    assert sorted(e.key for e in undone) == sorted(stands)
    completion = [(e.finished_at, e.step, e.index) for e in undone]
    assert completion == sorted(completion, reverse=True)
    assert to_undo(ledger[::-1]) == undone


@thorough
@given(st.lists(effects, max_size=8))
def test_the_residue_tells_of_each_effect_once(ledger: list[Effect]) -> None:
    """Everything that stands, or may stand, outside is in exactly one list; what clearly doesn't is in none."""
    left = residue(ledger)
    lists = {
        "undone": left.undone, "still_done": left.still_done, "in_doubt": left.in_doubt,
        "needs_attention": left.needs_attention,
    }  # fmt: skip
    expected: dict[str, list[str]] = {name: [] for name in lists}
    for effect in ledger:
        place = {"attempted": "in_doubt", "done": "still_done"}.get(effect.status, effect.status)
        if place in lists and not (place == "still_done" and effect.effect == "read"):
            expected[place].append(effect.label())
    assert {name: sorted(labels) for name, labels in lists.items()} == {
        name: sorted(labels) for name, labels in expected.items()
    }
    assert len(left.lines()) == sum(map(bool, lists.values()))
    assert all(any(label in line for line in left.lines()) for labels in lists.values() for label in labels)


def test_the_report_is_for_people() -> None:
    """One line a list; nothing to say is no line."""
    make = [Effect(key=str(n), tool=f"t{n}", effect="compensable", turn=1, step=n, index=0) for n in range(3)]
    done, undone, doubt = (
        effect.model_copy(update={"status": status})
        for effect, status in zip(make, ("done", "undone", "in_doubt"), strict=True)
    )
    said = {tuple(residue(order).lines()) for order in permutations([done, undone, doubt])}
    assert said == {("Undone: t1.", "Still done, can't be undone: t0.", "In doubt: t2.")}
    assert residue([]).lines() == []
