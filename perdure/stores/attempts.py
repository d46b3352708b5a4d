"""What a SQL store does in one transaction for an attempt of a call: with the ledger, and with what the call returned.

An entry is read and locked, moves by the rules of ``perdure.stores.ledger``, and is written under a new seal.
"""

from collections.abc import Sequence

from perdure.stores import ledger, ledger_rows, refusals, rows
from perdure.stores.base import EffectRow, Receipt, ThreadRow
from perdure.stores.database import Call, Transaction
from perdure.stores.ledger import Move
from perdure.stores.ledger_rows import Holder
from perdure.stores.rows import Row, now


def rely_on(thread_id: str) -> Call:
    """Look at the thread's row, and let it be as it is until the transaction ends."""
    return "thread_to_rely_on", {"thread_id": thread_id}


def look(thread_id: str, key: str) -> Call:
    """Look at an entry that may move, and let nobody else move it until the transaction ends."""
    return "effect_to_change", {"thread_id": thread_id, "key": key.encode()}


def check_head(found: Sequence[Row], thread_id: str, head: str) -> ThreadRow:
    """The thread that was looked at. Raises ConcurrentModification unless this is its head."""
    thread = rows.thread(found[0]) if found else None
    if thread is None or thread.head_id != head:
        raise refusals.too_late(thread_id, head, thread.head_id if thread else "")
    return thread


class Claim:
    """One claim of an effect. It may be done again when nobody knows whether its transaction ended well.

    It leaves its mark in the row: a claim that meets its own mark has been recorded already, and its answer is the one
    it had then. So the first attempt stays the first, and is not taken for one of which nobody knows how it ended.
    """

    def __init__(self, row: EffectRow, head: str, mark: bytes) -> None:
        self._row = row
        self._head = head
        self._mark = mark
        self._before: EffectRow | None = None

    async def record(self, tx: Transaction) -> EffectRow | None:
        """See ``perdure.stores.base.Store.claim``."""
        first = ledger.first_attempt(self._row, now())
        adding = ("add_effect", ledger_rows.effect_values(first, self._mark))
        seen, added = await tx.together(rely_on(self._row.thread_id), adding)
        thread = check_head(seen.rows, self._row.thread_id, self._head)
        if added.changed:
            await self._use_tokens(tx, thread.lineage)
            return None
        (there,) = await tx.together(look(self._row.thread_id, self._row.entry.key))
        (found,) = there.rows  # the insert was refused, so the row is there
        if found["claim"] != self._mark:
            self._before = ledger_rows.effect(found)
            after = ledger.next_attempt(self._before)
            if after != self._before:
                await self._use_tokens(tx, thread.lineage)
                _write(tx, found, after, self._mark)
        return self._before

    async def _use_tokens(self, tx: Transaction, lineage: str) -> None:
        """Let the tokens be this call's, in one order for everybody. Raises TokenSpent."""
        mine = Holder(self._row.thread_id, self._row.entry.key)
        for token in sorted(self._row.tokens):
            values = ledger_rows.token_values(lineage, token, mine)
            if await tx.run("add_token", **values):
                continue
            row = await tx.one("token_to_change", **values)
            assert row is not None, "the insert was refused, so the row is there"
            holder = ledger_rows.holder(row)
            if holder != mine:
                await _check_failed(tx, mine, holder)
                tx.later("move_token", **values)


async def _check_failed(tx: Transaction, mine: Holder, holder: Holder) -> None:
    """Raise TokenSpent unless the other call clearly failed."""
    other = await tx.one("effect", thread_id=holder.thread_id, key=holder.key.encode())
    if other is None or ledger_rows.effect(other).entry.status != "failed":
        raise refusals.token_spent(*mine, *holder)


async def record_simulated(tx: Transaction, row: EffectRow, head: str) -> None:
    """See ``perdure.stores.base.Store.record_simulated``."""
    (seen,) = await tx.together(rely_on(row.thread_id))
    check_head(seen.rows, row.thread_id, head)
    tx.later("add_effect", **ledger_rows.effect_values(ledger.simulated(row, now()), b""))


async def move(tx: Transaction, thread_id: str, key: str, move: Move) -> None:
    """Let an entry move, if it is there. Raises IntegrityError where it isn't what was written."""
    (seen,) = await tx.together(look(thread_id, key))
    move_seen(tx, seen.rows, move)


def move_seen(tx: Transaction, found: Sequence[Row], move: Move) -> None:
    """As ``move``, for what ``look`` has found."""
    for row in found:
        before = ledger_rows.effect(row)
        if (after := ledger.moved(before, move)) != before:
            _write(tx, row, after, row["claim"])


async def put_receipt(
    tx: Transaction, thread_id: str, receipt: Receipt, *, head: str, keep: bool, by: str = ""
) -> None:  # fmt: skip
    """Record that a call returned; with ``keep`` what it returned can be read by its key. Raises as ``check_head``."""
    late = not (head or keep)
    *thread, entry = await tx.together(*([rely_on(thread_id)] if head else []), look(thread_id, receipt.key))
    for seen in thread:
        check_head(seen.rows, thread_id, head)
    move_seen(tx, entry.rows, ledger.finish(receipt.result, now(), late=late, by=by))
    if keep:
        tx.later("add_receipt", **rows.receipt_values(thread_id, receipt))


def _write(tx: Transaction, found: Row, after: EffectRow, mark: bytes) -> None:
    tx.later("change_effect", **ledger_rows.effect_after(found, after, mark))
