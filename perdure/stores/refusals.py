"""What stores refuse, in one wording: every backend says the same to the same mistake."""

from perdure.errors import CheckpointNotFound, ConcurrentModification, Conflict, ThreadNotFound, TokenSpent
from perdure.stores.base import Step


def head_moved(step: Step, actual: str) -> ConcurrentModification:
    """The step extends a head that is not the head."""
    checkpoint, expected = step.checkpoint, step.extends or ""
    return ConcurrentModification(
        f"Step {checkpoint.step} of {checkpoint.thread_id} extends {expected or 'nothing'}, "
        f"but the head is {actual or 'nothing'}.",
        expected=expected, actual=actual,
    )  # fmt: skip


def other_content(step: Step, actual: str) -> ConcurrentModification:
    """The step's checkpoint exists, with another digest."""
    checkpoint = step.checkpoint
    return ConcurrentModification(
        f"Checkpoint {checkpoint.id} of {checkpoint.thread_id} was committed with other content; "
        f"the step extends {step.extends or 'nothing'}, and the head is {actual or 'nothing'}.",
        expected=step.extends or "", actual=actual,
    )  # fmt: skip


def too_late(thread_id: str, expected: str, actual: str) -> ConcurrentModification:
    """A call reports to a head that is no longer the head."""
    return ConcurrentModification(
        f"A call of {thread_id} on {expected} comes too late: the head is {actual or 'nothing'}.",
        expected=expected, actual=actual,
    )  # fmt: skip


def token_spent(thread_id: str, key: str, other_thread: str, other_key: str) -> TokenSpent:
    """A call needs a one-time token that another call has used."""
    return TokenSpent(
        f"The call {key} of {thread_id} needs a one-time token that {other_key} of {other_thread} has used.",
        hint="A token is for one call, also on other branches and in forks. Get a new one.",
    )


def no_parent(step: Step) -> CheckpointNotFound:
    """The step's parent isn't there."""
    checkpoint = step.checkpoint
    return CheckpointNotFound(
        f"Thread {checkpoint.parent_thread or checkpoint.thread_id} has no checkpoint {checkpoint.parent_id}, "
        f"the parent of {checkpoint.id}."
    )


def no_checkpoint(thread_id: str, checkpoint_id: str) -> CheckpointNotFound:
    """The checkpoint isn't there."""
    return CheckpointNotFound(f"Thread {thread_id} has no checkpoint {checkpoint_id}.")


def no_thread(thread_id: str) -> ThreadNotFound:
    """The thread isn't there."""
    return ThreadNotFound(f"The store has no thread {thread_id}.")


def thread_exists(thread_id: str) -> Conflict:
    """The target of a copy is there already."""
    return Conflict(f"Thread {thread_id} exists already.")


def forked(thread_id: str, fork: str) -> Conflict:
    """What is to be removed is where another thread begins."""
    return Conflict(f"Thread {fork} was forked from what would be removed of {thread_id}.")


def still_needed(thread_id: str, checkpoint_id: str, child: str) -> Conflict:
    """What is to be removed has a child that stays and was not given a state to stand on."""
    return Conflict(
        f"Checkpoint {checkpoint_id} of {thread_id} can't be removed: {child} goes back to it.",
        hint="Somebody may have written meanwhile: try again.",
    )
