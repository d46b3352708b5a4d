"""Budgets: what a turn may use before a person is asked."""

from perdure.values import Value


class Budget(Value):
    """Limits of one turn; None means no limit. A step is one pass of a node."""

    steps: int | None = 100
    tokens: int | None = None


class Usage(Value):
    """What a model call or a turn used. ``saved`` counts tokens answered from the result cache."""

    calls: int = 0
    cached: int = 0
    prompt: int = 0
    completion: int = 0
    saved: int = 0

    @property
    def tokens(self) -> int:
        """Tokens paid for."""
        return self.prompt + self.completion

    def plus(self, other: "Usage") -> "Usage":
        """The sum."""
        return Usage(
            calls=self.calls + other.calls,
            cached=self.cached + other.cached,
            prompt=self.prompt + other.prompt,
            completion=self.completion + other.completion,
            saved=self.saved + other.saved,
        )


def exceeded(budget: Budget, steps: int, usage: Usage) -> str:
    """Which limit has been reached, as a sentence; empty while there is room for one more step."""
    if budget.steps is not None and steps >= budget.steps:
        return f"{steps} of {budget.steps} steps used"
    if budget.tokens is not None and usage.tokens >= budget.tokens:
        return f"{usage.tokens} of {budget.tokens} tokens used"
    return ""


def extended(budget: Budget, *, steps: int = 0, tokens: int = 0) -> Budget:
    """The budget with more room; a limit that is off stays off."""
    return Budget(
        steps=None if budget.steps is None else budget.steps + steps,
        tokens=None if budget.tokens is None else budget.tokens + tokens,
    )
