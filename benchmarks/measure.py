"""Interleaved rounds, and what they tell: medians, quartiles, ratios of what ran in the same round.

A machine's speed drifts. So contenders take turns, in changing order, and are compared round by round.
"""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.process import SubjectFailed

Sample = Mapping[str, Any]
Contender = Callable[[], Awaitable[Sample]]


@dataclass(frozen=True)
class Spread:
    """A median between its quartiles, of so many values."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Raises ValueError where there are no values."""
        if not values:
            raise ValueError("there is no median of nothing")
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high, len(values))

    def scaled(self, factor: float) -> "Spread":
        """In another unit; the factor is positive."""
        return Spread(self.median * factor, self.low * factor, self.high * factor, self.count)


@dataclass(frozen=True)
class Missing:
    """What could not be measured, and why."""

    why: str

    def scaled(self, factor: float) -> "Missing":
        """Missing in any unit."""
        return self


Measure = Spread | Missing


@dataclass
class Contest:
    """What contenders gave, round by round; and of those that gave up, why."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def values(self, name: str, key: str) -> list[float]:
        """One figure of a contender that did not fail, of each round."""
        return [float(sample[key]) for sample in self.samples[name]]

    def spread(self, name: str, key: str) -> Measure:
        """One figure of a contender."""
        return self._missing(name) or Spread.of(self.values(name, key))

    def ratio(self, name: str, other: str, key: str) -> Measure:
        """How many times another's figure a contender's is, round by round."""
        return self._missing(name, other) or Spread.of(ratios(self.values(name, key), self.values(other, key)))

    def rate(self, name: str, key: str, amount: float) -> Measure:
        """So much a second, where one figure of a contender is the seconds that it took."""
        return self._missing(name) or Spread.of([amount / value for value in self.values(name, key)])

    def _missing(self, *names: str) -> Missing | None:
        failed = [self.failed[name] for name in names if name in self.failed]
        return Missing(failed[0]) if failed else None


def ratios(these: Sequence[float], those: Sequence[float]) -> list[float]:
    """Of each pair the first as a multiple of the second."""
    return [one / other for one, other in zip(these, those, strict=True)]


async def compete(contenders: Mapping[str, Contender], *, rounds: int, warmups: int = 1) -> Contest:
    """Let contenders take turns, after so many rounds that don't count. One that fails takes no further part."""
    contest = Contest({name: [] for name in contenders})
    for number in range(-warmups, rounds):
        names = [name for name in contenders if name not in contest.failed]
        for name in names if number % 2 == 0 else reversed(names):
            try:
                sample = await contenders[name]()
            except SubjectFailed as failed:
                contest.failed[name] = str(failed)
                del contest.samples[name]
                continue
            if number >= 0:
                contest.samples[name].append(sample)
    return contest
