"""Time travel: the way back from a thread's head, what going back would do outside, and what names a checkpoint."""

import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from perdure.checkpoint import Checkpoint
from perdure.contracts import RewindPlan
from perdure.effects import Effect, to_undo
from perdure.errors import AmbiguousCheckpoint, CheckpointNotFound, InvalidInput

if TYPE_CHECKING:
    from perdure.stores.base import Store, ThreadRow

LOOKED_BACK = 1_000  # checkpoints among which a part of an id is looked for
PAGE = 200  # checkpoints read at once on the way back from a head
MIN_PART = 4  # characters of an id; fewer would say nothing
_CANDIDATES = 5  # that an error names
_WHAT_NAMES = "An id or the end of one, a step, head~N, turn:N or good; `perdure history` lists them."


# ── the way back ─────────────────────────────────────────────────────────────────────────────────────────────────


async def line(
    store: "Store", thread_id: str, checkpoint_id: str, *, down_to: int = 0, page: int = PAGE
) -> AsyncGenerator[Checkpoint, None]:
    """A checkpoint and its ancestors down to a step, newest first, across forks; one query for each page."""
    while True:
        found = await store.path(thread_id, checkpoint_id, limit=page)
        for checkpoint in found:
            yield checkpoint
            if checkpoint.step <= down_to or checkpoint.cut or checkpoint.parent_id is None:
                return
        if not found:
            return
        thread_id, checkpoint_id = found[-1].parent_thread or found[-1].thread_id, found[-1].parent_id or ""


async def way_back(store: "Store", thread_id: str, head: str, to: str) -> list[Checkpoint]:
    """The checkpoints from the head back to another of the thread's own, newest first, both included.

    Raises as ``check_target``.
    """
    step = await check_target(store, thread_id, head, to)
    return [checkpoint async for checkpoint in line(store, thread_id, head, down_to=step)]


async def check_target(store: "Store", thread_id: str, head: str, to: str) -> int:
    """The step of the checkpoint that a rewind goes back to.

    Raises CheckpointNotFound, or InvalidInput where it isn't on the way back from the head, or is the head.
    """
    target = await store.checkpoint(thread_id, to)
    if target is None:
        raise CheckpointNotFound(
            f"Thread {thread_id} has no checkpoint {to}.", hint="One of the thread it was forked from can be forked."
        )
    if to == head:
        raise InvalidInput(f"Checkpoint {to} is the head already.")
    if not await _is_on_line(store, thread_id, head, target):
        raise InvalidInput(
            f"Checkpoint {to} is not on the way back from the head.", hint="`perdure fork` goes on from it."
        )
    return target.step


def gone_on_from(way: Iterable[Checkpoint]) -> set[str]:
    """Those of the checkpoints whose calls the thread went on from: not those that a rewind came back to."""
    seen = list(way)
    return {checkpoint.id for checkpoint in seen} - {newer.parent_id for newer in seen if newer.source == "rewind"}


async def still_held(store: "Store", thread_id: str, effects: Sequence[Effect]) -> list[Effect]:
    """Those of a thread's effects that no rewind has left behind: what it left was undone then, or kept on purpose."""
    row = await store.thread(thread_id)
    if row is None or row.branch == 0:  # never rewound: there is one line only
        return list(effects)
    oldest = min((effect.step for effect in effects), default=0)
    passed = gone_on_from([step async for step in line(store, thread_id, row.head_id, down_to=oldest)])
    return [effect for effect in effects if effect.checkpoint_id in passed]


def rewind_plan(effects: Iterable[Effect], way: Sequence[Checkpoint]) -> RewindPlan:
    """What a rewind would undo, keep, or can't undo; ``way`` is the way back, both ends included.

    What was kept at an earlier rewind lies on the branch that was left then: nobody is asked about it twice.
    """
    passed = gone_on_from(way)
    met = [effect for effect in effects if effect.checkpoint_id in passed]
    done = [effect for effect in met if effect.status == "done"]
    return RewindPlan(
        undo=tuple(to_undo(met)),
        keep=tuple(effect for effect in done if effect.effect in ("read", "idempotent")),
        impossible=tuple(effect for effect in done if effect.effect == "irreversible"),
        unsettled=tuple(effect for effect in met if effect.status in ("registered", "attempted", "in_doubt")),
        steps=max(len(way) - 1, 0),
    )


# ── what names a checkpoint ──────────────────────────────────────────────────────────────────────────────────────


async def named(store: "Store", thread: "ThreadRow", name: str) -> Checkpoint:
    """The checkpoint that a person means.

    ``head`` (or nothing); ``head~N``: N before it; a number: the step on the head's line; ``turn:N``: where turn N
    ended; ``good``: the last good state; an id, or the beginning or the end of one. It may belong to a thread that this
    one was forked from: ``thread_id`` tells. Raises CheckpointNotFound, AmbiguousCheckpoint that names the candidates.
    """
    head = await store.checkpoint(thread.thread_id, thread.head_id)
    if head is None:
        raise CheckpointNotFound(f"The head of thread {thread.thread_id} is missing.", hint="Run `perdure db verify`.")
    if name in ("", "head"):
        return head
    if name == "good":
        return await _good(store, head)
    if match := re.fullmatch(r"turn:([0-9]+)", name):
        return await _end_of_turn(store, head, int(match[1]))
    if match := re.fullmatch(r"head~([0-9]+)", name):
        return await _at_step(store, head, head.step - int(match[1]), name)
    if re.fullmatch(r"0|[1-9][0-9]*", name) and (int(name) <= head.step or len(name) < MIN_PART):
        return await _at_step(store, head, int(name), name)
    return await _of_id(store, thread, head, name.lower())


async def _at_step(store: "Store", head: Checkpoint, step: int, name: str) -> Checkpoint:
    if not 0 <= step <= head.step:
        raise _unknown(head, name, f"Its head is step {head.step}.")
    found = await store.ancestor(head.thread_id, head.id, step)
    if found is None:
        raise _unknown(head, name, "Its oldest checkpoints were removed.")
    return found


async def _end_of_turn(store: "Store", head: Checkpoint, turn: int) -> Checkpoint:
    """Turns follow one another on a line, so the end of one is found by halving."""
    low, high = -1, head.step  # the end is after ``low`` and not after ``high``
    last: Checkpoint | None = None
    while low < high:
        middle = (low + high + 1) // 2
        found = await store.ancestor(head.thread_id, head.id, middle)
        if found is None or found.turn <= turn:
            low, last = middle, found
        else:
            high = middle - 1
    if last is None or last.turn != turn:
        raise _unknown(head, f"turn:{turn}", f"Its latest turn is {head.turn}.")
    if last.id == head.id and head.next.tasks:
        raise _unknown(head, f"turn:{turn}", "That turn has not ended.")
    return last


async def _good(store: "Store", head: Checkpoint) -> Checkpoint:
    """The newest checkpoint at which a turn had ended with an answer, and nothing done before it was undone since.

    One that only goes back to it, and changed nothing, is as good.
    """
    effects = [row.entry for row in await store.effects(head.thread_id)]
    undone = {effect.checkpoint_id for effect in effects if effect.status == "undone"}
    same: Checkpoint | None = None  # the newest of those that have the state of the one that comes next
    async with aclosing(line(store, head.thread_id, head.id)) as checkpoints:
        async for checkpoint in checkpoints:
            if _has_answered(checkpoint) and not await _rests_on(store, checkpoint, undone):
                return same or checkpoint
            unchanged = checkpoint.source in ("rewind", "fork") and not checkpoint.delta
            same = (same or checkpoint) if unchanged else None
    raise _unknown(head, "good", "No turn of it has ended with an answer that still holds.")


def _has_answered(checkpoint: Checkpoint) -> bool:
    return checkpoint.source in ("step", "import") and not checkpoint.next.tasks


async def _rests_on(store: "Store", checkpoint: Checkpoint, made_on: set[str]) -> bool:
    """Whether one of the calls that were made on these checkpoints led to this one."""
    for name in made_on:
        place = await store.checkpoint(checkpoint.thread_id, name)
        if place is None or place.step >= checkpoint.step:
            continue
        if await _is_on_line(store, checkpoint.thread_id, checkpoint.id, place):
            return True
    return False


async def _of_id(store: "Store", thread: "ThreadRow", head: Checkpoint, name: str) -> Checkpoint:
    """By its id, or a part of one: on the head's line, or else on another branch of the thread."""
    if found := await store.checkpoint(thread.thread_id, name):
        return found
    if len(name) < MIN_PART:
        raise _unknown(head, name, _WHAT_NAMES)
    fitting = [c for c in await store.path(thread.thread_id, head.id, limit=LOOKED_BACK) if _fits(c, name)]
    if not fitting:
        fitting = [c async for c in store.walk(thread.thread_id) if _fits(c, name)]
    if not fitting:
        raise _unknown(head, name, _WHAT_NAMES)
    if len(fitting) > 1:
        names = ", ".join(f"{c.id} (step {c.step})" for c in fitting[:_CANDIDATES])
        more = f" and {len(fitting) - _CANDIDATES} more" if len(fitting) > _CANDIDATES else ""
        raise AmbiguousCheckpoint(f"{name!r} fits {names}{more}.", hint="Give more of it; ends differ most.")
    return fitting[0]


def _fits(checkpoint: Checkpoint, part: str) -> bool:
    return checkpoint.id.startswith(part) or checkpoint.id.endswith(part)


async def _is_on_line(store: "Store", thread_id: str, head: str, checkpoint: Checkpoint) -> bool:
    there = await store.ancestor(thread_id, head, checkpoint.step)
    return there is not None and there.id == checkpoint.id


def _unknown(head: Checkpoint, name: str, hint: str) -> CheckpointNotFound:
    return CheckpointNotFound(f"Thread {head.thread_id} has no checkpoint {name!r}.", hint=hint)
