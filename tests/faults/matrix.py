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
    """One call. ``subject`` is nobody else's; a person who approves may have it ``edited``. Its ``fault`` strikes the
    call, or its ``undoing``."""

    tool: str
    subject: str
    fault: Fault | None = None
    undoing: bool = False
    gated: bool = False
    edited: bool = False

    @property
    def effect(self) -> EffectClass:
        """Its class."""
        return next((effect for effect in ("read", *EFFECTS) if effect in self.tool), "compensable")

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
    def activity(self) -> str:
        """The type of the activity that is struck."""
        return f"undo:undo_{self.tool[-1]}" if self.undoing else f"tool:{self.tool}"

    @property
    def path(self) -> str:
        """Where the struck request goes, as a pattern."""
        return "/charges/*/refund" if self.undoing else "/stock" if self.effect == "read" else "/charges"

    @property
    def made_for(self) -> str:
        """The subject of the call that is made in the end."""
        return f"{self.subject}edited." if self.edited else self.subject


class Case(Value):
    """One thread: its calls are made side by side in one step, or ``apart``; ``later`` than another call or not. Then
    the turn answers, is rolled back, or is cancelled if anything is in doubt."""

    name: str
    deeds: tuple[Deed, ...]
    later: bool = False
    apart: bool = False
    end: End = "answers"

    @property
    def message(self) -> str:
        """What the thread is told."""
        return f"Please do <{self.name}>."

    def rule(self) -> Rule:
        """What the model says in it."""
        calls = [call(d.tool, subject=d.subject, **{"gated": True} if d.gated else {}) for d in self.deeds]
        before: list[Reply] = [call("prelude", subject=f"{self.name}.prelude.")] if self.later else []
        last = call("give_up") if self.end == "rolls back" else say("Finished.")
        steps = calls if self.apart else [together(*calls)]
        return Rule(when=f"<{self.name}>", replies=[*before, *steps, last])


class Round(Value):
    """Threads that share a worker process, and are struck together. ``timeout`` is that of the tools, if it matters."""

    name: str
    cases: tuple[Case, ...]
    strike: Strike = ""
    timeout: str = ""

    def points(self) -> Iterator[tuple[Deed, Fault]]:
        """The fault points: calls under fire, each with the fault that strikes it."""
        for case in self.cases:
            yield from struck(case)

    def faults(self) -> Iterator[ShopFault]:
        """What the shop is told to do wrong."""
        for deed, fault in self.points():
            if fault.shop:
                times = None if fault.lasting else 1
                yield ShopFault(path=deed.path, mode=fault.shop, match=deed.made_for, times=times)


def struck(case: Case) -> Iterator[tuple[Deed, Fault]]:
    """The calls of a thread that are struck."""
    for deed in case.deeds:
        if deed.fault:
            yield deed, deed.fault


_CHANGING = [f"{effect}_{hook}" for effect in EFFECTS for hook in HOOKS]
_KINDS = ["read_alone", *_CHANGING]
_FIRM = [f"firm_{effect}" for effect in ("read", *EFFECTS)]


def _cases(fault: Fault, *, hooks: slice = slice(None)) -> tuple[Case, ...]:
    """Every kind of call three times: alone in the first step (with ``hooks``: only some of each class); beside others,
    later, and taken back in the end; behind a gate, every other one with other arguments."""
    alone = [[kind] for kind in ("read_alone", *_CHANGING[hooks])]
    beside = [_KINDS[number::3] for number in range(3)]
    gated = [_KINDS[number::4] for number in range(4)]
    firm = [[kind] for kind in _FIRM] if fault.clear else []
    return (
        *_threads("alone", fault, alone),
        *_threads("beside", fault, beside, later=True, end="rolls back"),
        *_threads("gated", fault, gated, gated=True, end="is cancelled"),
        *_threads("firm", fault, firm, later=True),
    )


def _threads(
    name: str, fault: Fault, groups: Iterable[Sequence[str]], *, later: bool = False, end: End = "answers",
    gated: bool = False,
) -> Iterator[Case]:  # fmt: skip
    for number, kinds in enumerate(groups):
        thread = f"{fault.name.replace(',', '').replace(' ', '-')}.{name}.{number}"
        deeds = tuple(
            Deed(tool=kind, subject=f"{thread}.{at}.", fault=fault, gated=gated, edited=gated and at % 2 == 0)
            for at, kind in enumerate(kinds)
        )
        yield Case(name=thread, deeds=deeds, later=later, end=end)


def _undoings(fault: Fault) -> Iterator[Case]:
    """Each of three compensations is struck: one after the other; side by side; and where one waits for another."""

    def case(name: str, tools: Sequence[str], hit: str, *, apart: bool = False) -> Case:
        thread = f"undoing.{fault.name.replace(' ', '-')}.{name}.{hit}"
        deeds = [
            Deed(tool=tool, subject=f"{thread}.{tool}.", fault=fault, undoing=True)
            if tool[-1] in hit
            else Deed(tool=tool, subject=f"{thread}.{tool}.")
            for tool in tools
        ]
        return Case(name=thread, deeds=tuple(deeds), apart=apart, end="rolls back")

    yield from (case("chain", ["chain_a", "chain_b", "chain_c"], hit, apart=True) for hit in "abc")
    yield case("side", ["side_a", "side_b", "side_c"], "abc")
    yield from (case("then", ["side_a", "side_b", "then_c"], hit) for hit in ("ab", "c"))


def _struck(fault: Fault) -> Round:
    """A worker is struck."""
    return Round(name=fault.name, cases=_cases(fault), strike=fault.strike)


def _served(name: str, *faults: Fault, timeout: str = "") -> Round:
    """The shop does what it is told; no worker is struck."""
    chosen = [slice(number, None, 3) for number in range(len(faults))]
    cases = tuple(case for fault, hooks in zip(faults, chosen, strict=True) for case in _cases(fault, hooks=hooks))
    return Round(name=name, cases=cases, timeout=timeout)


KILLED = [
    Fault(name="killed before the start", strike="SIGKILL", moment="taken", begun=False, asks=False),
    Fault(name="killed before the request", strike="SIGKILL", moment="asking", asks=False),
    Fault(name="killed before the effect", strike="SIGKILL", shop="hang"),
    Fault(name="killed after the effect", strike="SIGKILL", shop="hang_after", done=True),
    Fault(name="killed before the receipt", strike="SIGKILL", moment="answered", done=True),
    Fault(name="killed after the receipt", strike="SIGKILL", moment="recorded", done=True, known=True),
]
FROZEN = [
    Fault(name="frozen before the start", strike="SIGSTOP", moment="taken", begun=False, asks=False),
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
    Fault(name="time-out, done", shop="hang_after", done=True),
]

ROUNDS = [
    *(_struck(fault) for fault in (*KILLED, *FROZEN)),
    _served("the shop fails once", *ONCE),
    _served("the shop always fails", *ALWAYS),
    _served("the shop is late", *LATE, timeout="3s"),
    Round(name="killed while undoing", cases=tuple(c for f in KILLED for c in _undoings(f)), strike="SIGKILL"),
    Round(name="frozen while undoing", cases=tuple(c for f in FROZEN for c in _undoings(f)), strike="SIGSTOP"),
]
