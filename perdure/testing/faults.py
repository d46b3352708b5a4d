"""Faults: what a server does wrong on demand, and how often."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import NonNegativeInt, PositiveInt

from perdure.values import Value


class Trouble(Value):
    """What every fault has: it lets ``after`` matching requests pass, then hits ``times`` (None: all)."""

    times: PositiveInt | None = 1
    after: NonNegativeInt = 0


T = TypeVar("T", bound=Trouble)


@dataclass
class _Armed(Generic[T]):
    """A fault and what is left of its counters."""

    fault: T
    passes: int
    hits: int | None


class Faults(Generic[T]):
    """The faults still to come, first come first served. The only thing a scripted server remembers."""

    def __init__(self, faults: Iterable[T] = ()) -> None:
        self._armed: list[_Armed[T]] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: T) -> None:
        """Arm one more fault, behind those that are armed."""
        self._armed.append(_Armed(fault, fault.after, fault.times))

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def take(self, applies: Callable[[T], bool]) -> T | None:
        """The fault that hits a request, or None; counts it. ``applies`` tells which faults match."""
        for armed in self._armed:
            if not applies(armed.fault):
                continue
            if armed.passes:
                armed.passes -= 1
                continue
            self._count(armed)
            return armed.fault
        return None

    def _count(self, armed: _Armed[T]) -> None:
        if armed.hits is None:
            return
        armed.hits -= 1
        if not armed.hits:
            self._armed.remove(armed)
