"""The ledger as people see it: what was done outside, what a rewind would undo, what a rollback left."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from perdure.contracts import RewindPlan
from perdure.effects import Effect, Residue
from perdure.starters.cli.output import line
from perdure.starters.cli.render.tables import state_of, table


def effects(ledger: Sequence[Effect]) -> RenderableType:
    """The ledger of a thread, oldest first."""
    rows = [(e.key, e.turn, e.label(), _standing(e), _undo(e)) for e in ledger]
    return table(("effect", "turn", "call", "status", "to undo"), rows, empty="No effects.")


def _standing(effect: Effect) -> Text:
    text = state_of(effect.status)
    if effect.attempts > 1:
        text.append(f" ({effect.attempts} attempts)")
    return text.append(f": {line(effect.error)}") if effect.error else text


def _undo(effect: Effect) -> str:
    if effect.effect == "irreversible":
        return "impossible"
    return f"{effect.effect}, {effect.compensation}" if effect.compensation else effect.effect


def residue_lines(left: Residue) -> list[str]:
    """What a rollback undid and what it left."""
    return [line(text) for text in left.lines()]


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
