"""The rules of the effects ledger, for all stores: which entry follows from which."""

from typing import Any, get_args

from perdure.effects import Effect, EffectStatus
from perdure.stores.base import EffectRow
from perdure.values import Value

_ALL: frozenset[EffectStatus] = frozenset(get_args(EffectStatus))
_UNDECIDED: frozenset[EffectStatus] = frozenset({"attempted", "in_doubt"})
_NOT_DONE: frozenset[EffectStatus] = frozenset({"attempted", "in_doubt", "failed"})
_SETTLES: dict[EffectStatus, frozenset[EffectStatus]] = {
    "in_doubt": frozenset({"attempted"}),
    "failed": frozenset({"attempted", "in_doubt"}),
    "done": frozenset({"in_doubt", "needs_attention"}),
    "undone": frozenset({"done", "needs_attention"}),
    "needs_attention": frozenset({"done", "needs_attention"}),
}


class Move(Value):
    """A change of a ledger entry. It happens where the entry's status is one of ``known``; else nothing changes.

    ``becomes`` are fields and what they are set to; ``fills`` those that are set only where they are empty.
    """

    known: frozenset[EffectStatus]
    becomes: dict[str, str]
    fills: dict[str, str] = {}
    receipt: bytes | None = None


def first_attempt(row: EffectRow, now: str) -> EffectRow:
    """The row as the first attempt leaves it."""
    return _begun(row, now, {"status": "attempted", "attempts": 1, "finished_at": ""}, None)


def simulated(row: EffectRow, now: str) -> EffectRow:
    """The row of a call in a dry run."""
    return _begun(row, now, {"status": "simulated", "attempts": 0, "finished_at": now}, row.receipt)


def _begun(row: EffectRow, now: str, state: dict[str, Any], receipt: bytes | None) -> EffectRow:
    state |= {"error": "", "settled_by": "", "started_at": now, "undone_at": ""}
    entry = row.entry.model_copy(update=state)
    return row.model_copy(update={"entry": entry, "receipt": receipt, "tokens": ()})


def next_attempt(row: EffectRow) -> EffectRow:
    """The row as one more attempt leaves it: what is over, in doubt or irreversible stays as it is."""
    entry = row.entry
    if entry.effect == "irreversible" or entry.status not in ("attempted", "failed"):
        return row
    again = {"status": "attempted", "attempts": entry.attempts + 1, "error": "", "finished_at": ""}
    return row.model_copy(update={"entry": entry.model_copy(update=again)})


def finish(receipt: bytes, now: str, *, late: bool = False, by: str = "") -> Move:
    """A receipt is there. ``late``: it counts also for a call that had been taken for not done. ``by`` is who found
    out; nobody where the call itself has returned, whoever had said otherwise.

    What was in doubt for long was done before that, and not now: so the order of undoing stays right.
    """
    known = _NOT_DONE if late else _UNDECIDED
    becomes = {"status": "done", "error": "", "settled_by": by}
    return Move(known=known, becomes=becomes, fills={"finished_at": now}, receipt=receipt)


def fail(error: str, now: str) -> Move:
    """The call clearly did nothing."""
    return Move(
        known=frozenset({"attempted"}), becomes={"status": "failed", "finished_at": now, "error": error}
    )  # fmt: skip


def settle(status: EffectStatus, *, error: str, by: str, now: str) -> Move:
    """What is known of an effect, as ``Store.settle`` says it."""
    becomes = {"status": status, "error": error, "settled_by": by}
    if status == "undone":
        becomes["undone_at"] = now
    return Move(known=_SETTLES.get(status, frozenset()), becomes=becomes, fills={"finished_at": now})


def join(saga: str) -> Move:
    """The effect belongs to a saga."""
    return Move(known=_ALL, becomes={"saga": saga})


def moved(row: EffectRow, move: Move) -> EffectRow:
    """The row after the move."""
    if row.entry.status not in move.known:
        return row
    filled = {name: value for name, value in move.fills.items() if not getattr(row.entry, name)}
    receipt = row.receipt if move.receipt is None else move.receipt
    entry: Effect = row.entry.model_copy(update={**move.becomes, **filled})
    return row.model_copy(update={"entry": entry, "receipt": receipt})


def age(row: EffectRow) -> tuple[int, int, int, int, str]:
    """What the effects of a thread are sorted by, oldest first."""
    entry = row.entry
    return entry.branch, entry.turn, entry.step, entry.index, entry.key
