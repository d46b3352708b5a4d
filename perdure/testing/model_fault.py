"""What can go wrong with a model's service."""

from typing import Literal

from pydantic import Field, NonNegativeFloat

from perdure.testing.conversation import Conversation
from perdure.testing.faults import Trouble


class ModelFault(Trouble):
    """One kind of trouble, for requests whose latest user message contains ``when``.

    - ``status``: answer with that HTTP ``status``, the ``message`` and, if given, ``retry_after`` in seconds
    - ``delay``: answer after ``seconds``
    - ``hang``: answer once released
    - ``hang_midway``: send a part of the answer, the rest once released
    - ``cut``: close the connection instead of answering
    - ``cut_midway``: send a part of the answer, then close the connection
    - ``malformed``: answer with tool arguments that are no JSON
    """

    mode: Literal["status", "delay", "hang", "hang_midway", "cut", "cut_midway", "malformed"]
    when: str = ""
    status: int = Field(default=500, ge=400, le=599)
    retry_after: NonNegativeFloat | None = None
    message: str = "A fault was asked for."
    seconds: NonNegativeFloat = 1.0

    def hits(self, conversation: Conversation) -> bool:
        """Whether the fault is meant for this request."""
        return self.when in conversation.user
