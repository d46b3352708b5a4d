"""The ledger as people see it: what was done outside, what a rewind would undo, what a rollback left."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from perdure.contracts import RewindPlan
from perdure.effects import Effect, Residue, to_undo, undo_order
from perdure.starters.cli.output import line
from perdure.starters.cli.render.tables import moment, state_of, table
from perdure.starters.unsettled import OpenEffect


def effects(ledger: Sequence[Effect]) -> RenderableType:
    """The ledger of a thread, oldest first."""
    rows = [(e.key, e.turn, e.label(), _standing(e), _undo(e)) for e in ledger]
    return table(("effect", "turn", "call", "status", "to undo"), rows, empty="No effects.")


def queue(found: Sequence[OpenEffect]) -> RenderableType:
    """What of all threads a person has to settle, the oldest first, each with the command that does."""
    rows = [
        (
            each.thread_id, each.agent, each.effect.label(), _standing(each.effect), moment(each.since), each.command,
        )
        for each in found
    ]  # fmt: skip
    return table(("thread", "agent", "call", "status", "since (UTC)", "to settle it"), rows, empty="Nothing is open.")


def _standing(effect: Effect) -> Text:
    text = state_of(effect.status)
    if effect.attempts > 1:
        text.append(f" ({effect.attempts} attempts)")
    if effect.settled_by:
        text.append(line(f", says {effect.settled_by}"))
    if effect.status == "simulated":
        text.append(f" from {effect.source}" if effect.source else " by the tool itself")
    return text.append(f": {line(effect.error)}") if effect.error else text


def _undo(effect: Effect) -> str:
    how = "impossible" if effect.effect == "irreversible" else effect.effect
    return ", ".join(filter(None, (how, effect.compensation, f"saga {effect.saga}" if effect.saga else "")))


def undoing(effects: Sequence[Effect], after: Mapping[str, tuple[str, ...] | None]) -> RenderableType:
    """What a rollback would do, in its order; ``after`` is what tools declare of that, by name."""
    asked = [e for e in effects if e.status in ("attempted", "in_doubt") and e.reconcile]
    undone = to_undo(effects)
    waits = undo_order(undone, after)
    numbers = {effect.key: number for number, effect in enumerate(undone, 1)}
    rows = [("first", e.key, e.turn, e.label(), f"{e.reconcile} is asked whether it was done") for e in asked]
    for effect in undone:
        others = ", ".join(str(number) for number in sorted(numbers[key] for key in waits[effect.key]))
        when = f", after {others}" if others else ""
        rows.append((str(numbers[effect.key]), effect.key, effect.turn, effect.label(), f"{effect.compensation}{when}"))
    return table(("", "effect", "turn", "call", "how"), rows, empty="There is nothing to undo.")


def residue_lines(left: Residue) -> list[str]:
    """What a rollback undid and what it left."""
    return [line(text) for text in left.lines()]


def promotion(simulated: Sequence[Effect]) -> RenderableType:
    """What the plan of a dry run would do for real, in its order, and who is asked before that."""
    rows = [
        (number, effect.label(), effect.effect, _standing(effect), effect.gate or "nobody")
        for number, effect in enumerate((each for each in simulated if each.status == "simulated"), 1)
    ]
    return table(("", "call", "class", "so far", "who is asked"), rows, empty="The plan does nothing outside.")


def plan(planned: RewindPlan) -> RenderableType:
    """What a rewind would do, in the order in which it would."""
    groups = (
        ("is undone", planned.undo), ("stays, and needs no undoing", planned.keep),
        ("can't be undone", planned.impossible), ("is not settled yet", planned.unsettled),
    )  # fmt: skip
    rows = [(effect.key, effect.turn, effect.label(), what) for what, effects in groups for effect in effects]
    back = f"Back by {planned.steps} step{'s' if planned.steps != 1 else ''}"
    if not rows:
        return Text(f"{back}; nothing was done outside since.")
    return Group(
        Text(f"{back}. What was done outside since:"), table(("effect", "turn", "call", "what happens"), rows, empty="")
    )
