"""The verdict over the demo: whether the shop's own books say what they should.

The shop knows nothing of Perdure, so its books are a witness. Pure functions: books in, checks out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from perdure.care.verify import Report
from perdure.effects import Effect, undo_key
from perdure.examples.orders.ledger import Entry, Item, Kind
from perdure.values import Value


class Check(Value):
    """One claim, and what was found instead; nothing where the claim is right."""

    claim: str
    found: str = ""

    @property
    def ok(self) -> bool:
        """Whether the claim is right."""
        return not self.found


class Line(Value):
    """One effect that the books should hold exactly once.

    ``again``: it was asked for more than once. ``undoes`` is the kind of what it took back.
    """

    kind: Kind
    subject: str
    amount: float
    again: bool = False
    undone: bool = False
    undoes: Kind | None = None

    def fits(self, entry: Entry) -> bool:
        """Whether an entry is this effect, however it went."""
        return (entry.kind, entry.subject, entry.amount) == (self.kind, self.subject, self.amount)

    def label(self) -> str:
        """As a claim."""
        again = ", though asked for again" if self.again else ""
        undone = ", undone once" if self.undone else ""
        return f"{self.kind} {self.amount:g} ({self.subject}): done once{again}{undone}"


_CARD = "tok_visa_1"
# The first charge is asked for again because the worker is killed before it hears the shop's answer.
BOOKS = (
    Line(kind="reserve", subject="laptop", amount=2),
    Line(kind="charge", subject=_CARD, amount=2500, again=True),
    Line(kind="book", subject="12 Harbour Street", amount=1),
    Line(kind="reserve", subject="monitor", amount=1, undone=True),
    Line(kind="charge", subject=_CARD, amount=89, undone=True),
    Line(kind="refund", subject=_CARD, amount=89, undoes="charge"),
    Line(kind="release", subject="monitor", amount=1, undoes="reserve"),
)
SHELVES = {"laptop": 998, "monitor": 1000}


def check_story(entries: Sequence[Entry], shelves: Iterable[Item]) -> list[Check]:
    """What the scripted story must have left: each effect as it is in ``BOOKS``, and nothing else."""
    surplus = [entry.id for entry in entries if not any(line.fits(entry) for line in BOOKS)]
    stock = {item.sku: item.available for item in shelves if item.sku in SHELVES}
    wrong = [f"{sku}: {stock.get(sku)}" for sku, wanted in SHELVES.items() if stock.get(sku) != wanted]
    paid = sum(entry.amount for entry in entries if entry.kind == "charge" and entry.status == "done")
    return [
        *(_check_line(line, entries) for line in BOOKS),
        Check(claim="no other effect is in the books", found=", ".join(surplus)),
        Check(claim="the card has paid 2500.00 in the end", found="" if paid == 2500 else f"{paid:.2f}"),
        Check(claim="998 laptops and 1000 monitors are on the shelves", found=", ".join(wrong)),
    ]


def check_books(entries: Sequence[Entry]) -> list[Check]:
    """What holds for any story: an effect once for each key, undone at most once, and in reverse order."""
    keys = Counter(entry.key for entry in entries)
    twice = [str(key) for key, count in keys.items() if key is not None and count > 1]
    undone = Counter(entry.undoes for entry in entries if entry.undoes)
    again = [str(name) for name, count in undone.items() if count > 1]
    return [
        Check(claim="every effect has its own key", found=", ".join([*_unkeyed(entries), *twice])),
        Check(claim="nothing was undone twice", found=", ".join(again)),
    ]


def check_order(thread: str, entries: Sequence[Entry], effects: Iterable[Effect]) -> Check:
    """Whether what a thread took back was taken back in the reverse order of its doing."""
    keys = {undo_key(effect.key) for effect in effects}
    position = {entry.id: at for at, entry in enumerate(entries)}
    undone = [entry.undoes or "" for entry in entries if entry.key in keys]
    wanted = sorted(undone, key=lambda name: position.get(name, -1), reverse=True)
    claim = f"{thread}: {', '.join(wanted)} undone, the latest first" if undone else f"{thread}: nothing undone"
    return Check(claim=claim, found="" if undone == wanted else f"it was {', '.join(undone)}")


def check_agreement(entries: Sequence[Entry], effects: Sequence[Effect]) -> Check:
    """Whether Perdure's ledger and the shop's books tell the same, effect by effect."""
    by_key = {entry.key: entry.status for entry in entries if entry.key}
    known = {effect.key for effect in effects} | {undo_key(effect.key) for effect in effects}
    wrong = [
        f"{effect.label()} is {effect.status} here and {by_key.get(effect.key, 'nothing')} there"
        for effect in effects
        if by_key.get(effect.key) != (effect.status if effect.status in ("done", "undone") else None)
    ]
    strange = [f"{entry.id} is unknown here" for entry in entries if entry.key not in known]
    return Check(claim="Perdure's own ledger tells the same", found="; ".join([*wrong, *strange]))


def check_model(answered: Mapping[str, int], needed: int) -> Check:
    """Whether each answer of the model was paid for once."""
    paid, again = sum(answered.values()), sum(count - 1 for count in answered.values())
    wrong = f"{paid} answers were paid for" + (f", {again} of them again" if again else "")
    return Check(
        claim=f"the model gave the {needed} answers that were needed, each once",
        found="" if paid == needed and not again else wrong,
    )


def check_store(report: Report) -> Check:
    """Whether every checkpoint, and every effect in Perdure's own ledger, matches its digest."""
    claim = f"each of the {report.checkpoints} checkpoints of {report.threads} threads matches its digest"
    problem = report.problem
    return Check(claim=claim, found=f"{problem.table} {problem.row}: {problem.what}" if problem else "")


def _check_line(line: Line, entries: Sequence[Entry]) -> Check:
    found = [entry for entry in entries if line.fits(entry)]
    if len(found) != 1:
        return Check(claim=line.label(), found=f"done {len(found)} times")
    entry, kinds = found[0], {each.id: each.kind for each in entries}
    wrong = []
    if line.again and entry.attempts < 2:  # any other may be, too: a slow machine misses a heartbeat
        wrong.append("it was asked for once")
    if (entry.status == "undone") != line.undone:
        wrong.append(f"it is {entry.status}")
    if kinds.get(entry.undoes or "") != line.undoes:
        wrong.append(f"it undoes {entry.undoes or 'nothing'}")
    return Check(claim=line.label(), found=", ".join(wrong))


def _unkeyed(entries: Iterable[Entry]) -> list[str]:
    return [f"{entry.id} has none" for entry in entries if entry.key is None]
