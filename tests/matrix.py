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


_SAYS: Sequence[Say] = ("approve", "reject", "edit")
_DIGESTS: Sequence[Digest] = ("right", "wrong", "stale")
_BEFORE: Sequence[Before] = ("first", "repeated", "other")
_SIGNATURES: Sequence[Signature] = ("signed", "unsigned", "forged", "replayed")
_DUTIES: Sequence[Duty] = ("off", "other", "own")
CELLS: Sequence[Cell] = [
    Cell(say=say, digest=digest, late=late, before=before, signature=signature, quorum=quorum, duty=duty)
    for say, quorum, duty, late in product(_SAYS, (1, 2), _DUTIES, (False, True))
    for digest, before, signature in product(_DIGESTS, _BEFORE, _SIGNATURES)
]


def expected(cell: Cell) -> Expected:
    """By the rules as docs/approvals.md has them."""
    voted, settled = _before(cell)
    code = next((code for code, holds in reasons(cell).items() if holds), "")
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


def reasons(cell: Cell) -> dict[str, bool]:
    """Why ann's decision may not count, in the order of the page: the first that holds is told."""
    voted, settled = _before(cell)
    used = voted or cell.digest == "stale"  # some signature, on this very request
    return {
        "closed": settled,
        "expired": cell.late,
        "unsigned": cell.signature == "unsigned",
        "replayed": cell.signature == "replayed" and used,
        "wrong_digest": cell.digest != "right",
        "repeated": cell.before == "repeated" and voted,
        "separation": cell.duty == "own" and cell.say != "reject",
        "forged": cell.signature in ("forged", "replayed"),
    }


def _before(cell: Cell) -> tuple[bool, bool]:
    """Whether somebody's yes counts already, and whether that was enough."""
    voted = cell.before == "other" or (cell.before == "repeated" and cell.duty != "own")
    return voted, voted and cell.quorum == 1


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
