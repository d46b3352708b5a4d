"""What must hold of a call once everything is over. It follows from its class and its fault alone."""

from typing import Literal

from perdure.values import Value
from tests.faults.matrix import Case, Deed, struck

Fate = Literal["done", "failed", "in_doubt", "undone", "read"]
_ATTEMPTS = 3  # of a call that may be tried again
OPERATOR = "ops"


class Expected(Value):
    """What became of a call: ``status`` in the thread's ledger, how often the shop ``did`` it, and how many
    ``requests`` it saw for it and for its undoing (``undo_requests``). ``settled_by`` is whoever had to tell.
    ``told``: the model has the receipt."""

    status: Fate
    did: int = 0
    requests: int = 1
    undo_requests: int = 0
    settled_by: str = ""
    told: bool = False


def expected(case: Case, deed: Deed) -> Expected:
    """The call after its turn has ended, however it ends."""
    after = _attempted(deed)
    if after.status == "in_doubt" and case.end != "is cancelled":
        after = _settled(deed, after)
    if after.status == "done" and deed.effect == "compensable" and rolled_back(case):
        after = after.model_copy(
            update={"status": "undone", "settled_by": "", "undo_requests": _asked_to_undo(deed)}
        )  # fmt: skip
    return _learnt(deed, after)


def in_doubt(case: Case) -> list[Deed]:
    """The calls of which nobody knows how they ended, until a person says."""
    return [deed for deed in case.deeds if _attempted(deed).status == "in_doubt"]


def rolled_back(case: Case) -> bool:
    """Whether what the turn did is taken back."""
    refused = any(deed.firm and fault.clear for deed, fault in struck(case))
    return refused or case.end == "rolls back" or (case.end == "is cancelled" and bool(in_doubt(case)))


def said_done(deed: Deed) -> bool:
    """What the person says: the truth; but while a worker is frozen, nobody sees what it still holds."""
    return deed.fault is not None and deed.fault.done and deed.fault.strike != "SIGSTOP"


def _attempted(deed: Deed) -> Expected:
    """As far as the engine gets by itself."""
    fault, again = deed.fault, deed.effect != "irreversible"
    if fault is None or deed.undoing:
        return _done(deed, requests=1)
    if fault.clear:
        return Expected(status="failed")
    if not fault.begun or fault.known:  # nothing was attempted, or all is recorded: nobody can be wrong
        return _done(deed, requests=1)
    if again and not fault.lasting:
        return _done(deed, requests=fault.asks + 1)
    did, requests = int(fault.done), _ATTEMPTS if again else int(fault.asks)
    if deed.effect == "read":
        return Expected(status="failed", requests=requests)
    if deed.hook != "knows":
        return Expected(status="in_doubt", did=did, requests=requests)
    return Expected(
        status="done" if fault.done else "failed", did=did, requests=requests, settled_by="knows", told=fault.done
    )


def _done(deed: Deed, requests: int) -> Expected:
    read = deed.effect == "read"
    return Expected(status="read" if read else "done", did=not read, requests=requests, told=True)


def _asked_to_undo(deed: Deed) -> int:
    """A compensation is tried again under its key until it is recorded."""
    lost = deed.undoing and deed.fault is not None and deed.fault.asks and not deed.fault.known
    return 2 if lost else 1


def _settled(deed: Deed, doubt: Expected) -> Expected:
    done = said_done(deed)
    return doubt.model_copy(update={"status": "done" if done else "failed", "settled_by": OPERATOR})


def _learnt(deed: Deed, after: Expected) -> Expected:
    """A frozen worker goes on in the end, and writes down what it did."""
    frozen = deed.fault is not None and deed.fault.strike == "SIGSTOP" and deed.fault.done
    if frozen and after.status in ("failed", "in_doubt"):
        return after.model_copy(update={"status": "done", "settled_by": ""})
    return after
