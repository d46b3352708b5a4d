"""The rules of the effects ledger, for stores that keep it without SQL: which status follows from which."""

from typing import Any

from perdure.effects import Effect, EffectStatus
from perdure.values import Value


class Move(Value):
    """A change of a ledger entry. It happens where the entry's status is one of ``known``; else nothing changes.

    ``becomes`` are fields and what they are set to; ``fills`` those that are set only where they are empty.
    """

    known: tuple[EffectStatus, ...]
    becomes: dict[str, str]
    fills: dict[str, str] = {}


_SETTLES: dict[EffectStatus, tuple[EffectStatus, ...]] = {
    "in_doubt": ("attempted",),
    "needs_attention": ("done", "needs_attention"),
    "undone": ("done", "needs_attention"),
    "done": ("in_doubt", "needs_attention"),
}
AGAIN = Move(known=("attempted", "failed"), becomes={"status": "attempted", "error": ""})


def first_attempt(entry: Effect, now: str) -> Effect:
    """The entry as the first attempt leaves it."""
    return entry.model_copy(
        update={
            "status": "attempted", "attempts": 1, "error": "", "settled_by": "", "started_at": now, "finished_at": "",
            "undone_at": "",
        }
    )  # fmt: skip


def next_attempt(entry: Effect) -> Effect:
    """The entry as one more attempt leaves it: what is over, in doubt or irreversible stays as it is."""
    if entry.effect == "irreversible" or entry.status not in AGAIN.known:
        return entry
    return moved(entry, AGAIN).model_copy(update={"attempts": entry.attempts + 1})


def finish(now: str) -> Move:
    """A receipt is there."""
    return Move(known=("attempted", "in_doubt"), becomes={"status": "done", "finished_at": now, "error": ""})


def fail(error: str, now: str) -> Move:
    """The call clearly did nothing."""
    return Move(known=("attempted",), becomes={"status": "failed", "finished_at": now, "error": error})


def settle(status: EffectStatus, *, error: str, by: str, now: str) -> Move:
    """What is known of an effect, as ``Store.settle`` says it."""
    becomes = {"status": status, "error": error, "settled_by": by}
    if status == "undone":
        becomes["undone_at"] = now
    return Move(known=_SETTLES.get(status, ("in_doubt",)), becomes=becomes, fills={"finished_at": now})


def moved(entry: Effect, move: Move) -> Effect:
    """The entry after the move."""
    if entry.status not in move.known:
        return entry
    filled: dict[str, Any] = {name: value for name, value in move.fills.items() if not getattr(entry, name)}
    return entry.model_copy(update=move.becomes | filled)
