"""What all wire types share, and the names that both sides of the wire agree on."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

WORKFLOW = "AgentThread"
TASK_QUEUE = "perdure"
THREAD_ID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}"
SEARCH_ATTRIBUTES = {
    "PerdureAgent": "Keyword",
    "PerdureStatus": "Keyword",
    "PerdureTenant": "Keyword",
    "PerdureStep": "Int",
    "PerdurePending": "Int",
}
DRY_RUN = "PerdureDryRun"  # in the memo of a dry run: lists tell it by that
TOOL_PREFIX = "tool:"  # activity types: the UI's timeline then names the tool itself
UNDO_PREFIX = "undo:"
NODE_PREFIX = "node:"
RECONCILE_PREFIX = "reconcile:"
MAX_MESSAGE = 256_000  # bytes of one message with its state
MAX_QUEUE = 1_000_000  # bytes of all that wait: they are carried when a thread continues as new, within 2 MB a payload

Status = Literal[
    "idle", "running", "awaiting_approval", "awaiting_input", "compensating", "in_doubt", "needs_attention",
    "out_of_budget", "failed", "closed",
]  # fmt: skip
OnBusy = Literal["enqueue", "reject", "interrupt", "rollback"]


class Wire(BaseModel):
    """Base of the wire types."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)  # most of them no process ever uses


class Lean:
    """A wire type as it is written into history: without what equals its default, which reading restores."""

    __slots__ = ("value",)
    is_lean = True

    def __init__(self, value: BaseModel) -> None:
        self.value = value

    def json(self) -> bytes:
        """As bytes, in one go: this runs with every activity."""
        return self.value.__pydantic_serializer__.to_json(self.value, exclude_defaults=True)


def is_lean(value: object) -> bool:
    """Whether it is a ``Lean``, also one of the sandbox, which has a class of its own."""
    return getattr(type(value), "is_lean", False) is True


def lean(value: BaseModel) -> Any:
    """A wire type to be written into history (by ``perdure.wire``) as ``Lean`` says."""
    return Lean(value)
