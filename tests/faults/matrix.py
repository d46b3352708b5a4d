"""The matrix: which calls are struck by which faults. A fault point is one call and one fault."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from perdure.effects import EffectClass
from perdure.examples.orders.shop import ShopFault
from perdure.testing import Reply, Rule, call, say, together
from perdure.values import Value
from tests.crash.standing import Moment
from tests.faults.bank import EFFECTS, HOOKS

Strike = Literal["", "SIGKILL", "SIGSTOP"]
End = Literal["answers", "rolls back", "is cancelled"]


class Fault(Value):
    """What strikes a call: a signal at a ``moment`` in the worker, or while the shop holds its request; or the shop
    (``shop``: the mode of its fault), alone.

    ``begun``: it is in the ledger then. ``asks``: its request has reached the shop. ``done``: the shop has done it.
    ``known``: the ledger has the receipt. ``lasting``: each attempt is struck, not only the first. ``clear``: the shop
    says that it did nothing.
    """

    name: str
    strike: Strike = ""
    moment: Moment | None = None
    shop: Literal["refuse", "error", "hang", "hang_after", "cut", "cut_after"] | None = None
    begun: bool = True
    asks: bool = True
    done: bool = False
    known: bool = False
    lasting: bool = False
    clear: bool = False

    @property
    def at_the_shop(self) -> bool:
        """The worker is struck while the shop holds the request."""
        return bool(self.strike and self.shop)


class Deed(Value):
    """One call under fire. ``subject`` is nobody else's; a person who approves may have it ``edited``."""

    tool: str
    subject: str
    fault: Fault
    gated: bool = False
    edited: bool = False

    @property
    def effect(self) -> EffectClass:
        """Its class."""
        return next(effect for effect in ("read", *EFFECTS) if effect in self.tool)

    @property
    def hook(self) -> str:
        """What can tell how it ended, if anything."""
        hook = self.tool.rpartition("_")[2]
        return hook if hook in HOOKS[1:] else ""

    @property
    def firm(self) -> bool:
        """A refusal rolls the turn back."""
        return self.tool.startswith("firm_")

    @property
    def made_for(self) -> str:
        """The subject of the call that is made in the end."""
        return f"{self.subject}edited." if self.edited else self.subject


class Case(Value):
    """One thread: its calls stand side by side in one step, ``later`` than another call or not, and then the turn
    answers, is rolled back, or is cancelled if anything is in doubt."""

    name: str
    deeds: tuple[Deed, ...]
    later: bool = False
    end: End = "answers"

    @property
    def message(self) -> str:
        """What the thread is told."""
        return f"Please do <{self.name}>."

    def rule(self) -> Rule:
        """What the model says in it."""
        calls = together(*(call(d.tool, subject=d.subject, **{"gated": True} if d.gated else {}) for d in self.deeds))
        before: list[Reply] = [call("prelude", subject=f"{self.name}.prelude.")] if self.later else []
        last = call("give_up") if self.end == "rolls back" else say("Finished.")
        return Rule(when=f"<{self.name}>", replies=[*before, calls, last])


class Round(Value):
    """Threads that share a worker process, and are struck together. ``timeout`` is that of the tools, if it matters."""

    name: str
    cases: tuple[Case, ...]
    strike: Strike = ""
    timeout: str = ""

    @property
    def deeds(self) -> list[Deed]:
        """All calls under fire, each with the fault that strikes it."""
        return [deed for case in self.cases for deed in case.deeds]

    def faults(self) -> Iterator[ShopFault]:
        """What the shop is told to do wrong."""
        for deed in self.deeds:
            if mode := deed.fault.shop:
                times = None if deed.fault.lasting else 1
                path = "/stock" if deed.effect == "read" else "/charges"
                yield ShopFault(path=path, mode=mode, match=deed.made_for, times=times)


KINDS = ["read_alone", *(f"{effect}_{hook}" for effect in EFFECTS for hook in HOOKS)]
_FIRM = [f"firm_{effect}" for effect in ("read", *EFFECTS)]


def _cases(fault: Fault) -> tuple[Case, ...]:
    """Every kind of call three times: alone in the first step; beside others, later, and taken back in the end; behind
    a gate, every other one with other arguments."""
    alone = [[kind] for kind in KINDS]
    mixed = [KINDS[number::5] for number in range(5)]
    pairs = [KINDS[number::7] for number in range(7)]
    firm = [[kind] for kind in _FIRM] if fault.clear else []
    return (
        *_threads("alone", fault, alone),
        *_threads("beside", fault, mixed, later=True, end="rolls back"),
        *_threads("gated", fault, pairs, gated=True, end="is cancelled"),
        *_threads("firm", fault, firm, later=True),
    )


def _threads(
    name: str, fault: Fault, groups: Iterable[Sequence[str]], *, later: bool = False, end: End = "answers",
    gated: bool = False,
) -> Iterator[Case]:  # fmt: skip
    for number, kinds in enumerate(groups):
        thread = f"{fault.name.replace(' ', '-')}.{name}.{number}"
        deeds = tuple(
            Deed(tool=kind, subject=f"{thread}.{at}.", fault=fault, gated=gated, edited=gated and at % 2 == 0)
            for at, kind in enumerate(kinds)
        )
        yield Case(name=thread, deeds=deeds, later=later, end=end)


def _round(name: str, *faults: Fault, timeout: str = "") -> Round:
    cases = tuple(case for fault in faults for case in _cases(fault))
    return Round(name=name, cases=cases, strike=faults[0].strike, timeout=timeout)


KILLED = [
    Fault(name="killed before the claim", strike="SIGKILL", moment="taken", begun=False, asks=False),
    Fault(name="killed before the request", strike="SIGKILL", moment="asking", asks=False),
    Fault(name="killed before the effect", strike="SIGKILL", shop="hang"),
    Fault(name="killed after the effect", strike="SIGKILL", shop="hang_after", done=True),
    Fault(name="killed before the receipt", strike="SIGKILL", moment="answered", done=True),
    Fault(name="killed after the receipt", strike="SIGKILL", moment="recorded", done=True, known=True),
]
FROZEN = [
    Fault(name="frozen before the claim", strike="SIGSTOP", moment="taken", begun=False, asks=False),
    Fault(name="frozen before the receipt", strike="SIGSTOP", moment="answered", done=True),
]
ONCE = [
    Fault(name="an error", shop="error"),
    Fault(name="connection cut", shop="cut"),
    Fault(name="done, answer lost", shop="cut_after", done=True),
]
ALWAYS = [
    Fault(name="errors only", shop="error", lasting=True),
    Fault(name="done, answers lost", shop="cut_after", done=True, lasting=True),
    Fault(name="refused", shop="refuse", clear=True),
]
LATE = [
    Fault(name="time-out", shop="hang"),
    Fault(name="done, time-out", shop="hang_after", done=True),
]

ROUNDS = [
    *(_round(fault.name, fault) for fault in (*KILLED, *FROZEN)),
    _round("once", *ONCE),
    _round("always", *ALWAYS),
    _round("late", *LATE, timeout="3s"),
]
