"""What a call or a node came to, as recorded under its key until (and for effects: after) its step is committed."""

from typing import Any

from perdure.budget import Usage
from perdure.canonical import Json, canonical
from perdure.checkpoint import Task
from perdure.message import Message
from perdure.values import Value


class Record(Value):
    """``content`` is what the model is told; ``returned`` is the tool's own result, for its compensation.

    ``updates`` are as they are recorded: JSON, with what is sensitive sealed. ``goto`` is where a node itself wants to
    go on. ``invalid`` says why a result can't be committed though its effect is done.
    """

    ok: bool
    content: str
    updates: dict[str, Any] = {}
    goto: tuple[Task, ...] | None = None
    usage: Usage = Usage()
    returned: Any = None
    invalid: str = ""

    def dump(self) -> bytes:
        """As stored."""
        return canonical(self.model_dump(mode="json", exclude_defaults=True))

    @staticmethod
    def read(data: bytes) -> "Record":
        """From the store."""
        return Record.model_validate_json(data)


def tool_message(call_id: str, record: Record) -> Message:
    """The message that answers a call."""
    return Message(role="tool", content=record.content, tool_call_id=call_id, note="" if record.ok else "error")


def text_of(returned: Json) -> str:
    """A result as the model reads it: text as it is, anything else as JSON."""
    return returned if isinstance(returned, str) else canonical(returned).decode()
