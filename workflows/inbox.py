"""Messages on their way in: which are taken, which are refused and why."""

from collections.abc import Callable
from typing import Any

from temporalio import workflow

from perdure.contracts import MAX_QUEUE, Send
from perdure.errors import LeaseHeld, PerdureError, ThreadBusy, ThreadClosed
from perdure.lease import check_writer
from perdure.workflows.record import KEPT_SEEN, Record


class Inbox:
    """The thread's queue, with its rules. ``interrupt`` stops the running turn (True: and undoes it)."""

    def __init__(self, record: Record, interrupt: Callable[[bool], None]) -> None:
        self._record = record
        self._interrupt = interrupt

    def seen(self, message: Send) -> bool:
        """Whether this very message came before."""
        return message.id in self._record.seen

    def why_not(self, message: Send) -> PerdureError | None:
        """Why the thread doesn't take the message; None if it does."""
        record = self._record
        if record.closing or record.closed:
            return ThreadClosed(f"Thread {record.thread_id} is closed.", hint="Start a new one.")
        if record.leaving:
            return ThreadBusy("The workflow of this thread was cancelled and is ending.", hint="Send it again.")
        if fault := message.fault():
            return fault
        try:
            check_writer(record.lease, message.token, workflow.now())
        except LeaseHeld as held:
            return held
        if message.size() + sum(waiting.size() for waiting in record.queue) > MAX_QUEUE:
            return ThreadBusy(f"{len(record.queue)} messages wait already.", hint="Send it again later.")
        if record.turn and record.turn.spec.on_busy == "reject":
            return ThreadBusy(f"Turn {record.turn.number} is running.", hint="Send it again when it has ended.")
        return None

    def take(self, message: Send) -> None:
        """Queue a message; the thread's policy may make it stop the running turn."""
        record = self._record
        record.seen.append(message.id)
        del record.seen[:-KEPT_SEEN]
        record.queue.append(message)
        if record.turn and record.turn.spec.on_busy in ("interrupt", "rollback"):
            self._interrupt(record.turn.spec.on_busy == "rollback")

    def take_signal(self, said: Any) -> None:
        """Take what a signal brought: a text, or the fields of a message. A refusal is noted in the thread's log."""
        fields = {"content": said} if isinstance(said, str) else said
        if not isinstance(fields, dict):
            raise TypeError(f"a text or an object is expected, not {type(said).__name__}")
        message = Send.model_validate({"id": str(workflow.uuid4())} | fields)
        if problem := self.why_not(message):
            self._record.note(f"message refused: {problem.message}")
        elif not self.seen(message):
            self.take(message)
