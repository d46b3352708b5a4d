"""What an experiment is, and what it finds."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.bench import Bench
from benchmarks.measure import Contest, Measure, Missing, Spread


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    ``unit`` is × for a ratio. ``limit``: the target; a measured median beyond it misses the target: above it, or with
    ``at_least`` below it.
    """

    what: str
    measured: Measure
    unit: str = "×"
    limit: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.limit is None or isinstance(self.measured, Missing):
            return None
        return self.measured.median >= self.limit if self.at_least else self.measured.median <= self.limit


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A figure of a subject by the number of steps: ``step_ms``, or ``history_bytes`` or ``store_bytes`` of a step."""

    subject: str
    figure: str
    points: dict[int, float]


@dataclass
class Outcome:
    """What an experiment found; and all samples behind it, by whatever names it likes."""

    findings: list[Finding] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    samples: dict[str, Any] = field(default_factory=dict)

    def found(
        self, what: str, measured: Measure, *, unit: str = "×", limit: float | None = None, at_least: bool = False
    ) -> None:
        """Add a line."""
        self.findings.append(Finding(what=what, measured=measured, unit=unit, limit=limit, at_least=at_least))

    def keep(self, name: str, contest: Contest) -> None:
        """Keep the samples of a contest."""
        self.samples[name] = {"samples": contest.samples, "failed": contest.failed}


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """``about``: what is done and how it is measured, a few sentences of Markdown."""

    name: str
    title: str
    about: str
    run: Callable[[Bench], Awaitable[Outcome]]


def exact(value: float) -> Spread:
    """What was counted, once."""
    return Spread.of([value])
