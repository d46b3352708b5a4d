"""A journal: every request a server was sent, and how it was answered."""

from typing import Any, Generic, TypeVar

from perdure.values import Value

E = TypeVar("E", bound=Value)


class Journal(Generic[E]):
    """Entries in the order the requests came: written when one arrives, completed by its answer."""

    def __init__(self) -> None:
        self._entries: dict[int, E] = {}
        self._next = 0

    @property
    def entries(self) -> list[E]:
        """All entries so far."""
        return list(self._entries.values())

    def open(self, entry: E) -> int:
        """Write an entry; returns its number, by which it is completed."""
        number, self._next = self._next, self._next + 1
        self._entries[number] = entry
        return number

    def complete(self, number: int, **changes: Any) -> None:
        """Change fields of an entry. Nothing happens when the journal was cleared in between."""
        entry = self._entries.get(number)
        if entry is not None:
            self._entries[number] = entry.model_copy(update=changes)

    def clear(self) -> None:
        """Forget all entries; the numbers go on, so that a late answer completes nobody else's entry."""
        self._entries.clear()
