"""What a tool is told about its call, and what it can say beyond its result."""

from collections.abc import Callable
from typing import Any

from perdure.state import State


class ToolContext:
    """What a tool is told about its call. Declare a parameter ``ctx: ToolContext`` to receive it."""

    def __init__(
        self, *, thread_id: str, turn: int, step: int, idempotency_key: str, attempt: int = 1,
        approved_by: tuple[str, ...] = (), dry_run: bool = False, state: Callable[[], State] = State,
    ) -> None:  # fmt: skip
        self.thread_id = thread_id
        self.turn = turn
        self.step = step
        self.idempotency_key = idempotency_key
        self.attempt = attempt
        self.approved_by = approved_by
        self.dry_run = dry_run
        self.updates: dict[str, Any] = {}
        self.joined = ""
        self._state = state

    @property
    def state(self) -> State:
        """The state before this step, as the agent's own class. Changing it changes nothing: use ``update``."""
        return self._state()

    def update(self, **channels: Any) -> None:
        """Write to channels of the state; merged by their reducers and committed together with the tool's result."""
        self.updates.update(channels)

    def saga(self, name: str) -> None:
        """Let this call belong to the saga of this name, which may span turns: what is in it is undone together."""
        self.joined = name
