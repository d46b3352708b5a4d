"""Effects: keys, the order of undoing, and the report of what is left."""

from graphlib import TopologicalSorter
from itertools import pairwise, permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.effects import (
    THREAD,
    Effect,
    arguments_digest,
    effect_key,
    residue,
    to_ask,
    to_undo,
    together,
    undo_key,
    undo_order,
)
from tests.properties import texts, thorough

Parts = tuple[str, int, int, int, int, str, str, str]
positions = st.integers(0, 3)
keys = st.tuples(texts, positions, positions, positions, positions, texts, texts, texts)
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
    """Thread, branch, turn, step, position, tool, arguments, conversation: the same make the same key, others another.

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


# ── orders ───────────────────────────────────────────────────────────────────────────────────────────────────────

TOOLS = [f"t{number}" for number in range(5)]


@st.composite
def orders(draw: st.DrawFn) -> dict[str, tuple[str, ...] | None]:
    """A partial order as tools declare it: some say nothing, the others wait for some of those before them."""
    shuffled = draw(st.permutations(TOOLS))
    return {
        name: draw(st.none() | st.lists(st.sampled_from(shuffled[:place]), unique=True).map(tuple) if place else
                   st.sampled_from([None, ()]))
        for place, name in enumerate(shuffled)
    }  # fmt: skip


made = st.lists(st.sampled_from(TOOLS), max_size=8).map(
    lambda names: [
        Effect(key=f"k{n}", tool=tool, effect="compensable", turn=1, step=n, index=0, status="done")
        for n, tool in enumerate(names)
    ][::-1]
)  # as they are undone, the latest first


def everything_before(waits: dict[str, frozenset[str]]) -> dict[str, set[str]]:
    """For each what is through before it begins, also by way of others. Raises CycleError where there is a circle."""
    before: dict[str, set[str]] = {}
    for key in TopologicalSorter(waits).static_order():
        before[key] = set(waits[key]).union(*(before[other] for other in waits[key]))
    return before


@thorough
@given(made, orders())
def test_the_order_of_undoing_keeps_what_was_declared(
    effects: list[Effect], after: dict[str, tuple[str, ...] | None]
) -> None:
    """Nobody waits for ever. Who declared something waits for exactly that; who didn't waits for all that were done
    later, except those that wait for it."""
    waits = undo_order(effects, after)
    before = everything_before(waits)
    assert waits.keys() == {effect.key for effect in effects}
    for number, effect in enumerate(effects):
        declared = after[effect.tool]
        if declared is not None:
            assert waits[effect.key] == {other.key for other in effects if other.tool in declared}
            continue
        for later in effects[:number]:
            assert later.key in before[effect.key] or effect.key in before[later.key]
        assert waits[effect.key] <= {later.key for later in effects[:number]}


@thorough
@given(made)
def test_without_a_word_undoing_is_a_chain(effects: list[Effect]) -> None:
    """Each waits for the one that was done after it, and the latest for nobody; whatever tools the app doesn't know."""
    for after in ({}, dict.fromkeys(TOOLS)):
        waits = undo_order(effects, after)
        assert all(waits[earlier.key] == {later.key} for later, earlier in pairwise(effects))
        assert not effects or waits[effects[0].key] == frozenset()


# ── what belongs together ────────────────────────────────────────────────────────────────────────────────────────

sagas = st.sampled_from(["", "", THREAD, "booking", "feast"])
in_sagas = st.lists(
    st.builds(
        Effect, key=texts, tool=texts, effect=classes, turn=positions, step=positions, index=positions, status=statuses,
        saga=sagas, reconcile=st.sampled_from(["", "hook"]),
    ),
    max_size=8, unique_by=lambda effect: effect.key,
)  # fmt: skip


@thorough
@given(in_sagas, positions)
def test_a_turn_takes_its_sagas_along_and_no_others(ledger: list[Effect], turn: int) -> None:
    """All effects of the turn, and all of the sagas that it took part in, whatever turn they are of."""
    found, chosen = together(ledger, turn)
    assert found == turn
    joined = {effect.saga for effect in ledger if effect.turn == turn} - {""}
    assert list(chosen) == [effect for effect in ledger if effect.turn == turn or effect.saga in joined]


@thorough
@given(in_sagas)
def test_a_saga_is_what_bears_its_name(ledger: list[Effect]) -> None:
    """And that of the thread, on request, is everything. Without a word it is the latest turn with something to undo,
    or with something of which a hook may tell that it is to be undone."""
    assert list(together(ledger, None, "booking")[1]) == [effect for effect in ledger if effect.saga == "booking"]
    assert list(together(ledger, None, THREAD)[1]) == ledger
    perhaps = [e for e in to_ask(ledger) if e.effect == "compensable"]
    assert together(ledger, None)[0] == max((e.turn for e in [*to_undo(ledger), *perhaps]), default=0)


# ── the report ───────────────────────────────────────────────────────────────────────────────────────────────────


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


def test_the_report_names_who_settled_what() -> None:
    """Beside what it came to; what nobody had to settle is not among it."""
    plain = Effect(key="k", tool="t", effect="compensable", turn=1, step=1, index=0, status="undone")
    ann = plain.model_copy(update={"key": "a", "tool": "a", "settled_by": "ann"})
    hook = plain.model_copy(update={"key": "h", "tool": "h", "status": "failed", "settled_by": "hook"})
    left = residue([plain, ann, hook])
    assert (left.undone, left.settled) == (("t", "a"), ("a is undone, says ann", "h is failed, says hook"))


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
