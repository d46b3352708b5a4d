"""The cells of the approval matrix, and an oracle that says what each must come to. It knows nothing of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

Say = Literal["approve", "reject", "edit"]
Digest = Literal["right", "wrong", "stale"]
Before = Literal["first", "repeated", "other"]
Signature = Literal["signed", "unsigned", "forged", "replayed"]
Duty = Literal["off", "other", "own"]

ASKED, CORRECTED, EDITED = 1, 2, 3  # amounts: the model's own, after the edit before, after the edit of the cell


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One decision by ann on one request of its own, and what came before it.

    ``say``: she approves, rejects, or approves with other arguments.
    ``digest``: of the arguments that are pending; of arguments that nobody was shown; or of those before cid changed
    them.
    ``late``: after the request's time.
    ``before``: nobody has decided; ann herself has approved; or bob has.
    ``signature``: ann's over exactly this; none; somebody's whose key isn't known; or one that was used before, on this
    request where there is one, else by ann on another.
    ``duty``: with separation off, the turn was asked for by ann, who may approve all the same; with separation on, it
    was asked for by somebody else, or by ann.
    """

    say: Say
    digest: Digest
    late: bool
    before: Before
    signature: Signature
    quorum: int
    duty: Duty

    @property
    def separated(self) -> bool:
        """Whether duties are separated."""
        return self.duty != "off"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a cell must come to: why ann's decision is refused (empty: it counts), with which amount the tool runs
    (None: it doesn't), how the request ends, and what the audit tells of it, in order."""

    code: str
    ran: int | None
    outcome: str
    told: tuple[str, ...]


CELLS: Sequence[Cell] = [
    Cell(say=say, digest=digest, late=late, before=before, signature=signature, quorum=quorum, duty=duty)
    for say, quorum, duty, late, digest, before, signature in product(
        ("approve", "reject", "edit"), (1, 2), ("off", "other", "own"), (False, True), ("right", "wrong", "stale"),
        ("first", "repeated", "other"), ("signed", "unsigned", "forged", "replayed"),
    )
]  # fmt: skip


def expected(cell: Cell) -> Expected:
    """By the rules as docs/approvals.md has them."""
    voted = cell.before == "other" or (cell.before == "repeated" and cell.duty != "own")
    settled = voted and cell.quorum == 1
    code = _refusal(cell, voted, settled)
    asked = CORRECTED if cell.digest == "stale" else ASKED
    enough = cell.say == "approve" and voted + 1 >= cell.quorum
    if settled:
        ran, outcome = asked, "approved"
    elif code or (cell.say == "approve" and not enough):
        ran, outcome = None, "expired"
    elif cell.say == "reject":
        ran, outcome = None, "rejected"
    else:
        ran, outcome = (asked if cell.say == "approve" else EDITED), "approved"
    return Expected(code=code, ran=ran, outcome=outcome, told=_told(cell, code, settled))


def _refusal(cell: Cell, voted: bool, settled: bool) -> str:
    """The first of the reasons that hold, in the order of the page."""
    used = voted or cell.digest == "stale"  # some signature, on this very request
    reasons = {
        "closed": settled,
        "expired": cell.late,
        "unsigned": cell.signature == "unsigned",
        "replayed": cell.signature == "replayed" and used,
        "wrong_digest": cell.digest != "right",
        "repeated": cell.before == "repeated" and voted,
        "separation": cell.duty == "own" and cell.say != "reject",
        "forged": cell.signature in ("forged", "replayed"),
    }
    return next((code for code, holds in reasons.items() if holds), "")


def _told(cell: Cell, code: str, settled: bool) -> tuple[str, ...]:
    told = ["opened"]
    if cell.digest == "stale":
        told += ["counted", "edited"]
    if cell.before != "first":
        told.append("refused: separation" if cell.before == "repeated" and cell.duty == "own" else "counted")
    closed_before = settled or cell.late
    if closed_before:
        told.append("closed")
    told.append(f"refused: {code}" if code else "counted")
    if not code and cell.say == "edit":
        told += ["edited", *["counted"] * cell.quorum]  # nobody's yes from before is among these
    return tuple(told if closed_before else [*told, "closed"])
