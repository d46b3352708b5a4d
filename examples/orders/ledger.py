"""The shop's books: stock, and every effect ever made, in a SQLite file of their own.

The ledger is the witness of the demo and the tests. It knows nothing of Perdure, and it remembers how often
each effect was asked for, what undid it, and what was done twice because nobody gave a key.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt

from perdure.values import Value

Kind = Literal["reserve", "release", "charge", "refund", "book", "cancel"]
Undoing = Literal["release", "refund", "cancel"]
Answer = dict[str, Any]

# What an effect of each kind is called: "reservation-1" is a "reservation_id".
_NOUNS: dict[Kind, str] = {
    "reserve": "reservation",
    "release": "release",
    "charge": "charge",
    "refund": "refund",
    "book": "booking",
    "cancel": "cancellation",
}
_UNDOES: dict[Undoing, Kind] = {"release": "reserve", "refund": "charge", "cancel": "book"}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, price REAL NOT NULL, available INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    key TEXT UNIQUE,
    request TEXT NOT NULL,
    subject TEXT NOT NULL,
    amount REAL NOT NULL,
    undoes TEXT UNIQUE REFERENCES entries (id),
    attempts INTEGER NOT NULL DEFAULT 1,
    at TEXT NOT NULL,
    answer TEXT NOT NULL
);
"""
_ENTRIES = """
SELECT id, kind, key, subject, amount, undoes, attempts, at,
       CASE WHEN id IN (SELECT undoes FROM entries) THEN 'undone' ELSE 'done' END AS status
FROM entries
"""
_WRITE = """
INSERT INTO entries (number, id, kind, key, request, subject, amount, undoes, at, answer)
VALUES (:number, :id, :kind, :key, :request, :subject, :amount, :undoes, :at, :answer)
"""

_SHELVES = [
    ("laptop", 1250.0, 1000),
    ("monitor", 89.0, 1000),
    ("keyboard", 45.0, 1000),
    ("mouse", 19.0, 1000),
    ("gold bar", 60000.0, 1),
]


class Refusal(Exception):
    """The shop says no, and nothing has changed: an HTTP status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Reserve(Value):
    """Wish: set pieces aside."""

    sku: str
    quantity: PositiveInt


class Charge(Value):
    """Wish: take money from a card."""

    card: str
    amount: PositiveFloat


class Book(Value):
    """Wish: send a courier with what is reserved."""

    address: str
    reservation_id: str


class Undo(Value):
    """Wish: take an effect back; ``kind`` is what that is called."""

    kind: Undoing
    id: str


Wish = Reserve | Charge | Book | Undo


class Entry(Value):
    """One effect; ``undone`` once another entry ``undoes`` it.

    ``amount`` is pieces or money; ``attempts`` are the requests that were made under its key.
    """

    id: str
    kind: Kind
    key: str | None
    subject: str
    amount: float
    status: Literal["done", "undone"]
    attempts: int
    at: datetime
    undoes: str | None


class Item(Value):
    """A thing on the shelves."""

    sku: str
    price: float
    available: int


class _Deed(Value):
    """A wish come true: what to write down, and what to answer besides the id."""

    kind: Kind
    subject: str
    amount: float
    undoes: str | None = None
    answer: Answer


class Ledger:
    """The books in a file. Every effect is one transaction: a killed shop leaves whole entries."""

    def __init__(self, path: Path | str) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        self._db.executemany("INSERT OR IGNORE INTO stock VALUES (?, ?, ?)", _SHELVES)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def entries(self) -> list[Entry]:
        """All effects, oldest first."""
        return [Entry(**row) for row in self._db.execute(f"{_ENTRIES} ORDER BY number")]

    def stock(self) -> list[Item]:
        """What is on the shelves, by name."""
        return [Item(**row) for row in self._db.execute("SELECT * FROM stock ORDER BY sku")]

    def grant(self, wish: Wish, key: str | None) -> Answer:
        """Do it, write it down, and tell its id; under a key used for this wish before, answer as then.

        Raises Refusal, with nothing changed: 404 for what doesn't exist, 409 for what can't be done, 422 for
        a key that was used for another wish.
        """
        request = f"{type(wish).__name__} {wish.model_dump_json()}"
        with self._transaction():
            earlier = self._again(key, request)
            return earlier if earlier is not None else self._write(self._do(wish), key, request)

    def _again(self, key: str | None, request: str) -> Answer | None:
        row = self._db.execute("SELECT request, answer FROM entries WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if row["request"] != request:
            raise Refusal(422, f"The key {key} was used for another request: {row['request']}.")
        self._db.execute("UPDATE entries SET attempts = attempts + 1 WHERE key = ?", (key,))
        answer: Answer = json.loads(row["answer"])
        return answer

    def _write(self, deed: _Deed, key: str | None, request: str) -> Answer:
        (number,) = self._db.execute("SELECT coalesce(max(number), 0) + 1 FROM entries").fetchone()
        noun = _NOUNS[deed.kind]
        answer = {f"{noun}_id": f"{noun}-{number}", **deed.answer}
        row = {
            **deed.model_dump(exclude={"answer"}),
            "number": number,
            "id": f"{noun}-{number}",
            "key": key,
            "request": request,
            "at": datetime.now(UTC).isoformat(),
            "answer": json.dumps(answer),
        }
        self._db.execute(_WRITE, row)
        return answer

    def _do(self, wish: Wish) -> _Deed:
        match wish:
            case Reserve():
                total = self._take(wish.sku, wish.quantity)
                answer = {**wish.model_dump(), "total": total}
                return _Deed(kind="reserve", subject=wish.sku, amount=wish.quantity, answer=answer)
            case Charge():
                if "declined" in wish.card:
                    raise Refusal(409, f"The card {wish.card} was declined.")
                return _Deed(kind="charge", subject=wish.card, amount=wish.amount, answer=wish.model_dump())
            case Book():
                if "atlantis" in wish.address.lower():
                    raise Refusal(409, f"No courier goes to {wish.address}.")
                self._standing("reserve", wish.reservation_id)
                return _Deed(kind="book", subject=wish.address, amount=1, answer=wish.model_dump())
            case Undo():
                return self._undo(wish)

    def _take(self, sku: str, quantity: int) -> float:
        row = self._db.execute("SELECT price, available FROM stock WHERE sku = ?", (sku,)).fetchone()
        if row is None:
            raise Refusal(404, f"The shop has no {sku}.")
        if row["available"] < quantity:
            raise Refusal(409, f"There are only {row['available']} of {sku} left.")
        self._db.execute("UPDATE stock SET available = available - ? WHERE sku = ?", (quantity, sku))
        return float(row["price"] * quantity)

    def _undo(self, wish: Undo) -> _Deed:
        entry = self._standing(_UNDOES[wish.kind], wish.id)
        if entry.kind == "reserve":
            back = (int(entry.amount), entry.subject)
            self._db.execute("UPDATE stock SET available = available + ? WHERE sku = ?", back)
        answer = {"undone": entry.id, "amount": entry.amount}
        return _Deed(kind=wish.kind, subject=entry.subject, amount=entry.amount, undoes=entry.id, answer=answer)

    def _standing(self, kind: Kind, entry_id: str) -> Entry:
        """The entry; refused if there is none of that kind, or it was undone."""
        row = self._db.execute(f"{_ENTRIES} WHERE kind = ? AND id = ?", (kind, entry_id)).fetchone()
        if row is None:
            raise Refusal(404, f"There is no {_NOUNS[kind]} {entry_id}.")
        entry = Entry(**row)
        if entry.status == "undone":
            raise Refusal(409, f"{entry_id} was undone before.")
        return entry

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")
