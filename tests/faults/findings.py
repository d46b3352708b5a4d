"""What became of every call of a round, held against the oracle."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from perdure.care.verify import verify
from perdure.contracts import TurnResult
from perdure.effects import Effect, undo_key
from perdure.examples.orders.ledger import Entry
from perdure.examples.orders.shop import Shop
from perdure.message import ToolCall
from perdure.values import Value
from tests.faults.matrix import Case, Deed, Fault, struck
from tests.faults.oracle import OPERATOR, Expected, expected, in_doubt, rolled_back
from tests.faults.play import Play


class Finding(Value):
    """A fault point, and what was seen of it in the end."""

    fault: str
    effect: str
    status: str
    settled_by: str = ""


async def look(play: Play) -> list[Finding]:
    """One finding for each fault point. Fails with all that is wrong at once."""
    books = Books(play.shop)
    wrong: list[str] = []
    found: list[Finding] = []
    for case in play.round.cases:
        thread = await _read(play, case)
        wrong += [f"{case.name}: {why}" for why in thread.wrong(books)]
        found += [thread.finding(deed, fault) for deed, fault in struck(case)]
    wrong += books.wrong(play.round.cases)
    if problem := (await verify(play.made.store)).problem:
        wrong.append(f"the store is damaged: {problem}")
    assert not wrong, "\n".join(wrong)
    return found


class Books:
    """The shop's side: what it did, and what it was asked. It is the witness: it knows nothing of threads."""

    def __init__(self, shop: Shop) -> None:
        self._entries = shop.ledger.entries()
        self._asked = Counter(request.key for request in shop.log if request.path != "/stock")
        self._looked = Counter(request.key for request in shop.log if request.path == "/stock")
        self._known: set[str | None] = set()

    def did(self, subject: str) -> list[Entry]:
        """What it did for a subject."""
        return [entry for entry in self._entries if (entry.subject, entry.kind) == (subject, "charge")]

    def undid(self, subject: str) -> list[Entry]:
        """What it took back for a subject."""
        return [entry for entry in self._entries if (entry.subject, entry.kind) == (subject, "refund")]

    def requests(self, key: str) -> int:
        """How often it was asked under a key."""
        self._known.add(key)
        return self._asked[key]

    def wrong(self, cases: Iterable[Case]) -> list[str]:
        """Whatever was asked under a key that no ledger knows; and reads that were not made as often as they must."""
        wrong = [f"asked under a strange key: {key}" for key in self._asked if key not in self._known]
        reads = [(case, deed) for case in cases for deed in case.deeds if deed.effect == "read"]
        made = sorted(self._looked.values())
        must = sorted(expected(case, deed).requests for case, deed in reads)
        # A frozen read may be made once more, when its worker goes on.
        frozen = any(deed.fault and deed.fault.strike == "SIGSTOP" for _, deed in reads)
        return wrong + ([] if made == must or (frozen and len(made) == len(must)) else [f"reads: {made}, not {must}"])


class Thread:
    """A thread's side: its ledger by what each call was made for, its conversation, the end of its turn."""

    def __init__(
        self, case: Case, ledger: Mapping[str, Effect], messages: list[dict[str, Any]], result: TurnResult
    ) -> None:
        self._case = case
        self._ledger = ledger
        self._result = result
        self._calls = [ToolCall.model_validate(call) for m in messages for call in m.get("tool_calls") or ()]
        self._answers = [(m["tool_call_id"], str(m["content"])) for m in messages if m["role"] == "tool"]

    def finding(self, deed: Deed, fault: Fault) -> Finding:
        """What was seen of a call that was struck."""
        entry = self._ledger.get(deed.made_for)
        status = entry.status if entry else "read" if "shelves" in self._told(deed) else "failed"
        by = entry.settled_by if entry else ""
        name = f"undoing {fault.name}" if deed.undoing else fault.name
        return Finding(fault=name, effect=deed.effect, status=status, settled_by=by)

    def wrong(self, books: Books) -> list[str]:
        """Whatever isn't as the oracle says."""
        wrong = [f"{deed.tool}: {why}" for deed in self._case.deeds for why in self._deed(deed, books)]
        if sorted(call.id for call in self._calls) != sorted(answered for answered, _ in self._answers):
            wrong.append(f"calls and answers don't match: {self._answers}")
        if self._case.later:
            wrong += self._prelude(books)
        return wrong + self._turn()

    def _deed(self, deed: Deed, books: Books) -> list[str]:
        must, entry = expected(self._case, deed), self._ledger.get(deed.made_for)
        wrong = self._conversation(deed, must, books)
        if deed.edited and books.did(deed.subject):
            wrong.append("it was made with the arguments that nobody approved")
        if deed.effect == "read":
            return wrong + ([f"a read is in the ledger: {entry}"] if entry else [])
        if entry is None:
            return [*wrong, "it isn't in the ledger"]
        if (did := len(books.did(deed.made_for))) != must.did:
            wrong.append(f"the shop did it {did} times, not {must.did}")
        if (requests := books.requests(entry.key)) != must.requests:
            wrong.append(f"the shop was asked {requests} times, not {must.requests}")
        if entry.status != must.status:
            wrong.append(f"it is {entry.status}, not {must.status}")
        if entry.settled_by != must.settled_by:
            wrong.append(f"settled by {entry.settled_by!r}, not by {must.settled_by!r}")
        if deed.effect == "compensable":
            wrong += self._undone_once(deed.made_for, books, must.undo_requests)
        return wrong

    def _conversation(self, deed: Deed, must: Expected, books: Books) -> list[str]:
        """What the model was told of it."""
        told = self._told(deed)
        receipt = "shelves" if deed.effect == "read" else next((e.id for e in books.did(deed.made_for)), "nothing")
        says = f'"{receipt}"' in told
        if says != must.told:
            return [f"the model is told: {told}"]
        if must.told and deed.edited and "[finance changed the arguments" not in told:
            return [f"the model isn't told of the other arguments: {told}"]
        if must.status == "failed" and not told.startswith(("Error: ", "It was not done, according to ")):
            return [f"the model isn't told that it failed: {told}"]
        return []

    def _prelude(self, books: Books) -> list[str]:
        """The call before, which nothing struck."""
        subject = f"{self._case.name}.prelude."
        wrong = self._undone_once(subject, books, int(rolled_back(self._case)))
        once = (len(books.did(subject)), books.requests(self._ledger[subject].key)) == (1, 1)
        return wrong if once else [*wrong, "the call before was not made once"]

    def _undone_once(self, subject: str, books: Books, must: int) -> list[str]:
        """Undone once or not at all, and asked for that as often as it must be."""
        entry = self._ledger[subject]
        undid, requests = len(books.undid(subject)), books.requests(undo_key(entry.key))
        if (entry.status == "undone", undid, requests) == (must > 0, int(must > 0), must):
            return []
        return [f"{subject} is {entry.status}; it was undone {undid} times, and that was asked for {requests} times"]

    def _turn(self) -> list[str]:
        """How the turn has ended, and what it says is left."""
        case, left = self._case, self._result.residue
        cancelled = case.end == "is cancelled" and bool(in_doubt(case))
        outcome = "cancelled" if cancelled else "failed" if rolled_back(case) else "answered"
        wrong = [] if self._result.outcome == outcome else [f"the turn ended as {self._result.outcome}"]
        if outcome == "answered":
            return wrong + ([] if self._result.answer == "Finished." else ["without its answer"])
        undone = sum(entry.status == "undone" for entry in self._ledger.values())
        doubtful = len(in_doubt(case)) if cancelled else 0
        if (len(left.undone), len(left.in_doubt), left.needs_attention) != (undone, doubtful, ()):
            wrong.append(f"the residue is {left}")
        return wrong

    def _told(self, deed: Deed) -> str:
        """The answer to its call."""
        (name,) = [call.id for call in self._calls if json.loads(call.arguments).get("subject") == deed.subject]
        return next(content for answered, content in self._answers if answered == name)


async def _read(play: Play, case: Case) -> Thread:
    """A thread as it is in the store."""
    thread = play.threads[case.name]
    rows = await play.made.store.effects(thread)
    ledger = {json.loads(row.arguments)["subject"]: row.entry for row in rows}
    assert len(ledger) == len(rows), "a call has two keys"
    state = await play.made.client.state(thread)
    return Thread(case, ledger, state["messages"], play.results[case.name])


def table(found: Iterable[Finding]) -> str:
    """Fault by class: how many calls came to what, and who had to say so."""
    cells: dict[str, dict[str, Counter[str]]] = {}
    for finding in found:
        by = f" (by {'a person' if finding.settled_by == OPERATOR else 'its hook'})" if finding.settled_by else ""
        cells.setdefault(finding.fault, {}).setdefault(finding.effect, Counter())[finding.status + by] += 1
    lines = []
    for fault, row in cells.items():
        for effect, counts in row.items():
            came = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
            lines.append(f"{fault:36}{effect:14}{counts.total():4}  {came}")
    return "\n".join(lines)
