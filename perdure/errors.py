"""Every error of Perdure, in one tree.

    PerdureError                   anything Perdure raises on purpose
    ├── UsageError          (2)    what was asked can't be right: mend the call
    │   ├── DefinitionError        an app, agent, tool or state is defined wrongly
    │   └── InvalidInput           a value doesn't fit its type or its bounds
    ├── NotFound            (3)    the named thing doesn't exist
    │   ├── AgentNotFound          the app has no such agent
    │   ├── ThreadNotFound         neither Temporal nor the store has such a thread
    │   ├── CheckpointNotFound     the thread has no such checkpoint
    │   ├── RequestNotFound        the thread has no such approval request, or question
    │   └── EffectNotFound         the thread has no such effect
    ├── Conflict            (4)    somebody else was first, or the call is ambiguous
    │   ├── ConcurrentModification the head moved; names both versions
    │   ├── AmbiguousRequest       several approvals are open and none was named
    │   └── AmbiguousCheckpoint    several checkpoints fit the part of an id that was given
    ├── Refused             (5)    the rules say no; nothing was changed
    │   ├── DecisionRefused        a decision that does not count
    │   ├── ThreadClosed           the thread takes no more messages
    │   ├── ThreadBusy             the thread takes no message now
    │   ├── LeaseHeld              somebody else writes to the thread alone for now
    │   ├── Irrevocable            a rewind would leave behind what can't be undone
    │   ├── TokenSpent             a one-time token was used by another call
    │   └── ApprovalVoid           what approved a call no longer counts
    ├── Unreachable         (6)    try again when it is back
    │   ├── TemporalUnreachable    no Temporal server, or no worker that answers
    │   ├── StoreUnreachable       the checkpoint store doesn't answer
    │   └── ModelUnavailable       the model doesn't answer now
    └── Failed              (1)    it was tried and did not work
        ├── IntegrityError         a stored row doesn't match its digest
        ├── Unprovable             a checkpoint can't be made again from the history
        ├── StoreOutdated          the store's schema is not the one this version needs
        ├── SchemaTooNew           a checkpoint was written by newer code than this
        ├── SchemaTooOld           a checkpoint is older than the upcasters reach
        ├── UpcastFailed           an upcaster raised, or made a state that doesn't fit
        ├── KeyMissing             a sealed value names a key that the settings don't have
        ├── NotSetUp               the Temporal namespace lacks something that threads need
        ├── ModelError             the model refused the request for good
        ├── ToolError              a tool says clearly that it did not do it
        ├── ToolGone               a pending call names a tool that no longer exists
        ├── NodeGone               what follows names a node that the graph no longer has
        ├── NotSimulated           a dry run came to a call that it can't answer
        ├── InDoubt                an effect was attempted and nobody knows how it ended
        ├── AuditUnwritten         the audit can't be written to, so the call that follows was not begun
        ├── Caution                `perdure doctor` found something that threads can do without
        └── TurnFailed             a turn ended without an answer

The number is the exit code of the CLI. ``retry`` tells whether the same call may succeed later, unchanged.
Across Temporal an error travels as an ``ApplicationError`` whose ``type`` is the class name
(``perdure.failures`` maps both ways).
"""

from typing import ClassVar


class PerdureError(Exception):
    """Base of all errors: what happened, to what, and (``hint``) what to do about it."""

    exit_code: ClassVar[int] = 1
    retry: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class UsageError(PerdureError):
    """What was asked can't be right."""

    exit_code = 2


class DefinitionError(UsageError):
    """An app, agent, tool or state is defined wrongly; the message names the place."""


class InvalidInput(UsageError):
    """A value doesn't fit its type or its bounds; nothing was written."""


class NotFound(PerdureError):
    """The named thing doesn't exist."""

    exit_code = 3


class AgentNotFound(NotFound):
    """The app has no agent of this name."""


class ThreadNotFound(NotFound):
    """Neither Temporal nor the store knows the thread."""


class CheckpointNotFound(NotFound):
    """The thread has no such checkpoint."""


class RequestNotFound(NotFound):
    """The thread has no approval request of this id."""


class EffectNotFound(NotFound):
    """The thread has no effect under this key."""


class Conflict(PerdureError):
    """Somebody else was first, or the call is ambiguous."""

    exit_code = 4


class ConcurrentModification(Conflict):
    """A commit named a head that is no longer the head: ``expected`` is the one it named, ``actual`` the one there."""

    def __init__(self, message: str, *, hint: str = "", expected: str = "", actual: str = "") -> None:
        super().__init__(message, hint=hint)
        self.expected = expected
        self.actual = actual


class AmbiguousRequest(Conflict):
    """Several approval requests, or questions, are open and none was named."""


class AmbiguousCheckpoint(Conflict):
    """Several checkpoints fit the part of an id that was given; the message names them."""


class Refused(PerdureError):
    """The rules say no; nothing was changed."""

    exit_code = 5


class DecisionRefused(Refused):
    """A decision that does not count; the reason is in the message and in the thread's record.

    ``code``: undecodable, malformed, unknown_request, expired, closed, wrong_digest, not_an_approver, repeated,
    separation (of duties), invalid_edit, unchecked; and where decisions are signed: unsigned, unknown_key, forged,
    stale, replayed.
    """

    def __init__(self, message: str, *, hint: str = "", code: str = "refused") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class ThreadClosed(Refused):
    """The thread was closed and takes no more messages."""


class ThreadBusy(Refused):
    """The thread doesn't take this message now."""


class LeaseHeld(Refused):
    """Somebody else has the exclusive right to write to the thread for now."""


class Irrevocable(Refused):
    """A rewind would leave behind what can't be undone."""


class TokenSpent(Refused):
    """A one-time token was used by another call of the thread, or of one that it shares a past with."""


class ApprovalVoid(Refused):
    """A call was approved, and what approved it no longer counts: a key was withdrawn, or signatures are needed now."""


class Unreachable(PerdureError):
    """Something outside doesn't answer; the same call may work later."""

    exit_code = 6
    retry = True


class TemporalUnreachable(Unreachable):
    """No Temporal server, or no worker that answers."""


class StoreUnreachable(Unreachable):
    """The checkpoint store doesn't answer."""


class ModelUnavailable(Unreachable):
    """The model doesn't answer now: overloaded, out of reach, or cut off."""


class Failed(PerdureError):
    """It was tried and did not work."""


class IntegrityError(Failed):
    """A stored row can't be read, or doesn't match its digest; ``table`` and ``row`` name it where they are known."""

    def __init__(self, message: str, *, hint: str = "", table: str = "", row: str = "") -> None:
        super().__init__(message, hint=hint)
        self.table = table
        self.row = row


class Unprovable(Failed):
    """A checkpoint can't be made again: no digest proves what the history tells of it."""


class StoreOutdated(Failed):
    """The store's schema is not the one this version needs."""


class SchemaTooNew(Failed):
    """A checkpoint was written with a newer version of the state than this code has."""


class SchemaTooOld(Failed):
    """A checkpoint was written with a version of the state that no upcaster leads away from."""


class UpcastFailed(Failed):
    """An upcaster raised, or made a state that doesn't fit; the message names it, and the checkpoint."""


class KeyMissing(Failed):
    """A value is sealed with a key that the settings don't have."""


class NotSetUp(Failed):
    """The Temporal namespace, or a search attribute in it, is missing; the hint is the command that makes it."""


class ModelError(Failed):
    """The model refused the request for good."""


class ToolError(Failed):
    """Raised by a tool: it did not do what was asked, and nothing has changed outside.

    It speaks of the call, not of one attempt of it: an earlier one may have been made under the same key.
    This is the *clear* failure. The message goes back to the model (or, with ``on_error="rollback"``, ends the
    turn). Any other exception is unclear: the call is tried again under the same key.
    """


class ToolGone(Failed):
    """A pending call names a tool that the app no longer has."""


class NodeGone(Failed):
    """What follows names a node that the graph no longer has, or has as another kind."""


class NotSimulated(Failed):
    """A dry run came to a call that has no recorded receipt and no ``simulate`` function; nothing was done outside."""


class InDoubt(Failed):
    """An effect was attempted and nobody knows how it ended."""


class AuditUnwritten(Failed):
    """The audit could not be written to, so the call that follows from its lines was not begun."""


class Caution(Failed):
    """Something that `perdure doctor` found: worth knowing, but threads may run all the same."""


class TurnFailed(Failed):
    """A turn ended without an answer."""
