"""Making the plan of a dry run a turn of the thread that it was forked from."""

from collections.abc import Sequence

from temporalio import activity

from perdure.activities.planning import Place, open_plans
from perdure.activities.runtime import Runtime
from perdure.activities.steps import Extra, write
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Position
from perdure.contracts import PROMOTE_FORK, Committed, PromoteFork, Promotion
from perdure.delta import Delta, latest_message
from perdure.errors import ConcurrentModification, Refused, ThreadNotFound
from perdure.stores.base import ThreadRow
from perdure.travel import line


class PromotionActivities:
    """Promotions."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=PROMOTE_FORK.name)
    async def promote_fork(self, task: PromoteFork) -> Promotion:
        """Commit what the dry run was given on the thread's head; what its models asked for is the plan from there on.

        Raises ThreadNotFound, Refused where it is no dry run of this thread or has not come to an end by itself, and
        ConcurrentModification where the thread doesn't stand where the dry run began; then nothing was written.
        """
        runtime, commit = self._runtime, task.commit
        row = await self._dry_run(task)
        way = [c async for c in line(runtime.store, row.thread_id, row.head_id) if c.thread_id == row.thread_id]
        given, steps = _parts(row, list(reversed(way)))
        definition = await runtime.publish(task.agent)
        begins = any(checkpoint.source == "input" for checkpoint in given)
        if (done := await runtime.earlier(commit)) is None:
            head = await self._head(task, row)
            done = await self._begin(task, row, head, given, head.turn + 1 if begins else head.turn)
        after = await runtime.checkpointer.load(commit.thread_id, done.head.id)
        place = Place(thread_id=commit.thread_id, branch=task.branch, turn=after.turn, step=after.ref.step)
        return Promotion(
            spec=definition.spec, committed=done, turn=after.turn, answers=_answers(steps),
            calls=open_plans(runtime, definition, runtime.opened(task.agent, after), after.next.nodes, place),
        )  # fmt: skip

    async def _dry_run(self, task: PromoteFork) -> ThreadRow:
        row = await self._runtime.store.thread(task.promote.fork)
        if row is None:
            raise ThreadNotFound(f"There is no thread {task.promote.fork}.")
        if not row.dry_run or row.origin_thread != task.commit.thread_id:
            raise Refused(
                f"{row.thread_id} is no dry run of {task.commit.thread_id}.", hint="`perdure fork --dry-run` makes one."
            )
        return row

    async def _head(self, task: PromoteFork, row: ThreadRow) -> Position:
        """The thread's head, where its state is the one that the dry run began with."""
        head = await self._runtime.head(task.commit)
        origin = await self._runtime.checkpointer.load(row.origin_thread, row.origin_id)
        if (head.values, head.next) != (origin.values, origin.next):
            raise ConcurrentModification(
                f"The dry run {row.thread_id} began at {origin.ref.id}, and the head of {row.origin_thread} is "
                f"{head.ref.id}, which is another state.",
                hint="Rewind the thread to where the dry run began, or make the dry run again.",
                expected=origin.ref.id, actual=head.ref.id,
            )  # fmt: skip
        return head

    async def _begin(
        self, task: PromoteFork, row: ThreadRow, head: Position, given: Sequence[Checkpoint], turn: int
    ) -> Committed:
        runtime, promote = self._runtime, task.promote
        last = await runtime.checkpointer.load(row.thread_id, given[-1].id)
        facts: dict[str, Json] = {"promoted": row.thread_id}
        facts |= {name: text for name, text in (("sender", promote.by), ("reason", promote.reason)) if text}
        merged = await write(
            runtime, task.commit.model_copy(update={"turn": turn}), runtime.opened(task.agent, head),
            _delta(head, last, given), source="input" if turn > head.turn else "update", next=last.next,
            extra=Extra(facts=facts, metadata=given[-1].metadata),
        )  # fmt: skip
        return merged.told()


def _parts(row: ThreadRow, way: list[Checkpoint]) -> tuple[list[Checkpoint], list[Checkpoint]]:
    """What the dry run was given, and the steps that it took from there, oldest first. Raises Refused."""
    number = next((n for n, c in enumerate(way) if c.source == "step"), len(way))
    given, steps = way[:number], way[number:]
    inputs = [c for c in given if c.source == "input"]
    if not steps or steps[-1].next.tasks or any(c.source != "step" for c in steps) or len(inputs) > 1:
        raise Refused(
            f"The dry run {row.thread_id} is not one turn that has come to its end by itself.",
            hint=f"`perdure history {row.thread_id}` shows how it went.",
        )
    if any(len(c.nodes) > 1 for c in steps):
        raise Refused(f"Nodes of {row.thread_id} ran side by side; such a plan can't be followed.")
    return given, steps


def _delta(head: Position, last: Position, given: Sequence[Checkpoint]) -> Delta:
    """What was given, as one change of the state that the dry run began with."""
    changing = [checkpoint.delta for checkpoint in given if checkpoint.delta]
    if len(changing) <= 1:
        return changing[0] if changing else {}
    return {
        name: {"op": "set", "value": value} for name, value in last.values.items() if head.values.get(name) != value
    }


def _answers(steps: Sequence[Checkpoint]) -> tuple[str, ...]:
    """The checkpoints of the answers up to the last one that asked for calls; what follows is asked anew, since it is
    said of what was only simulated."""
    said = [c for c in steps if "usage" in c.facts]
    asking = [number for number, c in enumerate(said) if _asks(c)]
    return tuple(c.id for c in said[: asking[-1] + 1]) if asking else ()


def _asks(checkpoint: Checkpoint) -> bool:
    message = latest_message(checkpoint.delta, str(checkpoint.facts.get("channel", "messages")))
    return bool(message and message.get("tool_calls"))
