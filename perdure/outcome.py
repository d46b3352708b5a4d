"""What a ``reconcile`` hook tells: whether a call whose answer was lost was done."""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Outcome:
    """How a call ended, as far as the world outside can tell."""

    known: Literal["done", "not_done", "unknown"]
    result: Any = None

    @staticmethod
    def done(result: Any = None) -> "Outcome":
        """It was done. ``result`` is what the tool would have returned: its compensation gets it as the receipt."""
        return Outcome("done", result)

    @staticmethod
    def not_done() -> "Outcome":
        """It was not done, and no attempt of it is still under way."""
        return Outcome("not_done")

    @staticmethod
    def unknown() -> "Outcome":
        """Nobody can tell: a person settles it."""
        return Outcome("unknown")
