"""Effects: what a thread did outside, under which key, and how it is undone.

Classes (DESIGN §7): ``read`` and ``idempotent`` have nothing to undo, ``compensable`` has a compensation,
``irreversible`` can't be undone and is never attempted twice.
"""

from collections.abc import Iterable
from typing import Literal

from perdure.canonical import digest
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
]

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


def effect_key(thread_id: str, branch: int, turn: int, step: int, index: int, tool: str, arguments_digest: str) -> str:
    """The idempotency key of a call: by thread, lineage, position and arguments.

    The model's call id is not in it: the model mints that anew when the answer is asked for again.
    """
    return digest(thread_id, str(branch), str(turn), str(step), str(index), tool, arguments_digest)[:32]


def task_key(thread_id: str, branch: int, turn: int, step: int, task: int, node: str) -> str:
    """The idempotency key of a node's run: by thread, branch and position."""
    return digest(thread_id, str(branch), str(turn), str(step), str(task), f"node:{node}")[:32]


def undo_key(key: str) -> str:
    """The idempotency key of the compensation of an effect."""
    return f"{key}-undo"


def arguments_digest(tool: str, arguments: bytes) -> str:
    """What an approval binds to: exactly this tool with exactly these (canonical) arguments."""
    return digest(tool, arguments)


def to_undo(effects: Iterable[Effect]) -> list[Effect]:
    """What a rollback compensates, in its order: the reverse of completion."""
    undoable = [e for e in effects if e.effect == "compensable" and e.status in ("done", "needs_attention")]
    return sorted(undoable, key=lambda e: (e.finished_at, e.step, e.index), reverse=True)


class Residue(Value):
    """What a rollback left: the report at its end. Each list names effects by their label."""

    undone: tuple[str, ...] = ()
    still_done: tuple[str, ...] = ()
    in_doubt: tuple[str, ...] = ()
    needs_attention: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report as lines for people; empty where nothing happened outside."""
        groups = {
            "Undone": self.undone,
            "Still done, can't be undone": self.still_done,
            "In doubt": self.in_doubt,
            "Could not be undone, needs attention": self.needs_attention,
        }
        return [f"{title}: {', '.join(labels)}." for title, labels in groups.items() if labels]


def residue(effects: Iterable[Effect]) -> Residue:
    """The residue report over the effects of a saga."""
    groups: dict[str, list[str]] = {"undone": [], "still_done": [], "in_doubt": [], "needs_attention": []}
    for effect in sorted(effects, key=lambda e: e.undone_at):
        if effect.status in groups:
            groups[effect.status].append(effect.label())
        elif effect.status == "done" and effect.effect != "read":
            groups["still_done"].append(effect.label())
        elif effect.status == "attempted":
            groups["in_doubt"].append(effect.label())
    return Residue(**{name: tuple(labels) for name, labels in groups.items()})
