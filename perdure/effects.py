"""Effects: what a thread did outside, under which key, and how it is undone.

Classes (DESIGN §7): ``read`` and ``idempotent`` have nothing to undo, ``compensable`` has a compensation,
``irreversible`` can't be undone and is never attempted twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from perdure.canonical import canonical, digest
from perdure.values import Value

EffectClass = Literal["read", "idempotent", "compensable", "irreversible"]
EffectStatus = Literal[
    "registered",  # in the ledger, not known to be attempted
    "attempted",  # an attempt began, no receipt yet
    "done",  # receipt recorded
    "failed",  # clearly not done
    "in_doubt",  # attempted, outcome unknown: a person settles it
    "undone",  # compensated
    "needs_attention",  # its compensation failed for good
    "simulated",  # in a dry run: nothing was done outside
]

THREAD = "thread"  # the saga of a whole thread
OPEN: frozenset[EffectStatus] = frozenset({"in_doubt", "needs_attention"})


class Effect(Value):
    """One entry of the ledger."""

    key: str
    tool: str
    effect: EffectClass
    turn: int
    step: int
    index: int
    branch: int = 0  # of the thread: how many rewinds came before
    checkpoint_id: str = ""  # the head on which the call was made
    summary: str = ""
    compensation: str = ""
    reconcile: str = ""  # the tool that can tell whether it was done
    saga: str = ""  # what is undone together: empty for the turn, THREAD for all of the thread, else a name
    source: str = ""  # of a simulated one: the key of the effect whose receipt answered
    gate: str = ""  # of a simulated one: who would have been asked to approve it
    status: EffectStatus = "registered"
    attempts: int = 0
    error: str = ""
    settled_by: str = ""
    started_at: str = ""
    finished_at: str = ""
    undone_at: str = ""

    def label(self) -> str:
        """How a person calls it."""
        return self.summary or self.tool


def effect_key(
    thread_id: str, branch: int, turn: int, step: int, index: int, tool: str, arguments_digest: str,
    channel: str = "messages",
) -> str:  # fmt: skip
    """The idempotency key of a call: by thread, lineage, position and arguments. ``index`` counts within an answer, and
    answers in several conversations may stand in one step.

    The model's call id is not in it: the model mints that anew when the answer is asked for again.
    """
    return digest(thread_id, str(branch), str(turn), str(step), channel, str(index), tool, arguments_digest)[:32]


def task_key(thread_id: str, branch: int, turn: int, step: int, task: int, node: str) -> str:
    """The idempotency key of a node's run: by thread, branch and position."""
    return digest(thread_id, str(branch), str(turn), str(step), str(task), f"node:{node}")[:32]


def undo_key(key: str) -> str:
    """The idempotency key of the compensation of an effect."""
    return f"{key}-undo"


def arguments_digest(tool: str, arguments: bytes) -> str:
    """What an approval binds to: exactly this tool with exactly these (canonical) arguments."""
    return digest(tool, arguments)


def call_summary(name: str, arguments: Mapping[str, Any], limit: int = 120) -> str:
    """A call on one line, for people: ``charge_card(amount=250.0, card="…")``."""
    inner = ", ".join(f"{key}={canonical(value).decode()}" for key, value in arguments.items())
    text = f"{name}({inner})"
    return text if len(text) <= limit else text[: limit - 2] + "…)"


def to_undo(effects: Iterable[Effect]) -> list[Effect]:
    """What a rollback compensates, in its order: the reverse of completion."""
    undoable = [e for e in effects if e.effect == "compensable" and e.status in ("done", "needs_attention")]
    return sorted(undoable, key=lambda e: (e.finished_at, e.step, e.index), reverse=True)


def to_ask(effects: Iterable[Effect]) -> list[Effect]:
    """Those of which nobody knows how they ended, but their tool's own hook may."""
    return [e for e in effects if e.reconcile and e.status in ("attempted", "in_doubt")]


def together(effects: Sequence[Effect], turn: int | None, saga: str = "") -> tuple[int, tuple[Effect, ...]]:
    """The turn that is undone, and all effects that are undone with it: those of the turn and of the sagas that it took
    part in, or those of one saga (``THREAD``: all). Without either, of the latest turn that has something to undo, or
    may have."""
    if saga:
        chosen = tuple(e for e in effects if saga in (THREAD, e.saga))
        return max((e.turn for e in chosen), default=0), chosen
    if turn is None:
        perhaps = [effect for effect in to_ask(effects) if effect.effect == "compensable"]
        turn = max((e.turn for e in [*to_undo(effects), *perhaps]), default=0)
    sagas = {e.saga for e in effects if e.turn == turn and e.saga}
    return turn, tuple(e for e in effects if e.turn == turn or e.saga in sagas)


def undo_order(
    effects: Sequence[Effect], after: Mapping[str, tuple[str, ...] | None]
) -> dict[str, frozenset[str]]:  # fmt: skip
    """What the compensation of each effect waits for: keys by key. ``effects`` are as ``to_undo`` gives them.

    Without a word each waits for all that were done after it: one after the other. ``after`` tells by tool which tools'
    compensations it waits for, and that it waits for no others: those run side by side. Where both would wait for one
    another, what was declared counts.
    """
    if not any(after.get(effect.tool) is not None for effect in effects):
        return {
            effect.key: frozenset({effects[number - 1].key} if number else ()) for number, effect in enumerate(effects)
        }
    waits: dict[str, set[str]] = {}
    for effect in effects:
        declared = after.get(effect.tool)
        named = declared if declared is not None else ()
        waits[effect.key] = {other.key for other in effects if other.tool in named and other.key != effect.key}
    for number, effect in enumerate(effects):
        if after.get(effect.tool) is None:
            waits[effect.key] |= {e.key for e in effects[:number] if not _waits_for(e.key, effect.key, waits)}
    return {key: frozenset(others) for key, others in waits.items()}


def _waits_for(one: str, other: str, waits: Mapping[str, set[str]]) -> bool:
    """Whether one waits for the other, be it by way of others."""
    seen, open = {one}, [one]
    while open:
        for key in waits[open.pop()] - seen:
            if key == other:
                return True
            seen.add(key)
            open.append(key)
    return False


class Residue(Value):
    """What a rollback left: the report at its end. Each list names effects by their label.

    ``settled`` are those that stand as somebody said: how, and who.
    """

    undone: tuple[str, ...] = ()
    still_done: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()
    needs_attention: tuple[str, ...] = ()
    settled: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as lines for people; empty where nothing happened outside."""
        groups = {
            "Undone": self.undone,
            "Still done, can't be undone": self.still_done,
            "In doubt": self.in_doubt,
            "Could not be undone, needs attention": self.needs_attention,
            "Settled": self.settled,
        }
        return [f"{title}: {', '.join(labels)}." for title, labels in groups.items() if labels]


def residue(effects: Iterable[Effect]) -> Residue:
    """The residue report over the effects of a saga."""
    names = ("undone", "still_done", "in_doubt", "needs_attention", "settled")
    groups: dict[str, list[str]] = {name: [] for name in names}
    for effect in sorted(effects, key=lambda e: e.undone_at):
        if effect.settled_by:
            groups["settled"].append(f"{effect.label()} is {effect.status}, says {effect.settled_by}")
        if effect.status in groups:
            groups[effect.status].append(effect.label())
        elif effect.status == "done" and effect.effect != "read":
            groups["still_done"].append(effect.label())
        elif effect.status == "attempted":
            groups["in_doubt"].append(effect.label())
    return Residue(**{name: tuple(labels) for name, labels in groups.items()})
