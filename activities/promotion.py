"""Making the plan of a dry run a turn of the thread that it was forked from."""

from collections.abc import Sequence

from temporalio import activity

from perdure.activities.planning import Place, open_plans
from perdure.activities.runtime import Runtime
from perdure.activities.steps import Extra, write
from perdure.activities.turns import requesters
from perdure.canonical import Json
from perdure.checkpoint import Checkpoint
from perdure.checkpointer import Position
from perdure.contracts import PROMOTE_FORK, AgentSpec, Committed, PromoteFork, Promotion
from perdure.delta import Delta, latest_message
from perdure.errors import ConcurrentModification, DefinitionError, Refused, ThreadNotFound
from perdure.stores.base import ThreadRow
from perdure.travel import line
from perdure.values import Value


class _Turn(Value):
    """The one turn of a dry run: what it was given, and the steps that it took from there, oldest first."""

    fork: ThreadRow
    given: tuple[Checkpoint, ...]
    steps: tuple[Checkpoint, ...]

    @property
    def begins(self) -> bool:
        """Whether it was given a message; else it went on with the turn in which its origin stood."""
        return any(checkpoint.source == "input" for checkpoint in self.given)

    @property
    def askers(self) -> list[str]:
        """Who wanted it."""
        return [str(c.facts[name]) for c in self.given for name in ("by", "sender") if name in c.facts]

    def answers(self) -> tuple[str, ...]:
        """The checkpoints of the answers up to the last one that asked for calls; what follows is asked anew, since it
        is said of what was only simulated."""
        said = [c for c in self.steps if "usage" in c.facts]
        asking = [number for number, c in enumerate(said) if _asks(c)]
        return tuple(c.id for c in said[: asking[-1] + 1]) if asking else ()


class PromotionActivities:
    """Promotions."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=PROMOTE_FORK.name)
    async def promote_fork(self, task: PromoteFork) -> Promotion:
        """Commit what the dry run was given on the thread's head; what its models asked for is the plan from there on.

        Raises ThreadNotFound, Refused where it is no dry run of this thread or has not come to an end by itself,
        DefinitionError where the agent has changed too much, and ConcurrentModification where the thread doesn't stand
        where the dry run began; then nothing was written.
        """
        runtime, commit = self._runtime, task.commit
        turn = await self._turn(task)
        definition = await runtime.publish(task.agent)
        asked = await self._askers(task, turn)
        if (done := await runtime.earlier(commit)) is None:
            done = await self._begin(task, turn, definition.spec, asked)
        after = await runtime.checkpointer.load(commit.thread_id, done.head.id)
        place = Place(thread_id=commit.thread_id, branch=task.branch, turn=after.turn, step=after.ref.step)
        return Promotion(
            spec=definition.spec, committed=done, turn=after.turn, begins=turn.begins, answers=turn.answers(),
            calls=open_plans(runtime, definition, runtime.opened(task.agent, after), after.next.nodes, place),
            requesters=asked, metadata=turn.given[-1].metadata,
        )  # fmt: skip

    async def _turn(self, task: PromoteFork) -> _Turn:
        row = await self._runtime.store.thread(task.promote.fork)
        if row is None:
            raise ThreadNotFound(f"There is no thread {task.promote.fork}.")
        if not row.dry_run or row.origin_thread != task.commit.thread_id:
            raise Refused(
                f"{row.thread_id} is no dry run of {task.commit.thread_id}.", hint="`perdure fork --dry-run` makes one."
            )
        way: list[Checkpoint] = []
        async for checkpoint in line(self._runtime.store, row.thread_id, row.head_id):
            if checkpoint.thread_id != row.thread_id:
                break
            way.append(checkpoint)
        return _parted(row, tuple(reversed(way)))

    async def _askers(self, task: PromoteFork, turn: _Turn) -> tuple[str, ...]:
        """People who asked for what will be done: none of them may pass for somebody else who approves it."""
        store, before = self._runtime.store, []
        if not turn.begins:
            origin = await self._runtime.checkpointer.load(turn.fork.origin_thread, turn.fork.origin_id)
            before = list(await requesters(store, origin))
        return tuple(dict.fromkeys(filter(None, [*before, *turn.askers, task.promote.by])))

    async def _begin(self, task: PromoteFork, turn: _Turn, spec: AgentSpec, asked: Sequence[str]) -> Committed:
        runtime, promote = self._runtime, task.promote
        head = await self._head(task, turn.fork)
        last = await runtime.checkpointer.load(turn.fork.thread_id, turn.given[-1].id)
        opened = runtime.opened(task.agent, head)
        gone = [node for node in last.next.nodes if node not in spec.nodes]
        if gone or last.schema_version != opened.schema_version:
            raise DefinitionError(
                f"The agent {task.agent} has changed since the dry run {turn.fork.thread_id} was made.",
                hint="Make the dry run again.",
            )
        said = (("by", promote.by), ("reason", promote.reason), ("asked", list(asked)))
        facts: dict[str, Json] = {"promoted": turn.fork.thread_id} | {name: value for name, value in said if value}
        merged = await write(
            runtime, task.commit.model_copy(update={"turn": head.turn + turn.begins}), opened,
            _delta(turn.given, last), source="input" if turn.begins else "update", next=last.next,
            extra=Extra(facts=facts, metadata=turn.given[-1].metadata),
        )  # fmt: skip
        return merged.told()

    async def _head(self, task: PromoteFork, row: ThreadRow) -> Position:
        """The thread's head, where its state is the one that the dry run began with."""
        head = await self._runtime.head(task.commit)
        origin = await self._runtime.checkpointer.load(row.origin_thread, row.origin_id)
        if (head.values, head.next, head.turn) != (origin.values, origin.next, origin.turn):
            raise ConcurrentModification(
                f"The dry run {row.thread_id} began at {origin.ref.id}, and the head of {row.origin_thread} is "
                f"{head.ref.id}, which is another state.",
                hint="Rewind the thread to where the dry run began, or make the dry run again.",
                expected=origin.ref.id, actual=head.ref.id,
            )  # fmt: skip
        return head


def _parted(row: ThreadRow, way: tuple[Checkpoint, ...]) -> _Turn:
    """Raises Refused."""
    number = next((n for n, c in enumerate(way) if c.source == "step"), len(way))
    given, steps = way[:number], way[number:]
    inputs = [c for c in given if c.source == "input"]
    if not steps or steps[-1].next.tasks or any(c.source != "step" for c in steps) or len(inputs) > 1:
        raise Refused(
            f"The dry run {row.thread_id} is not one turn that has come to its end by itself.",
            hint=f"`perdure history {row.thread_id}` shows how it went.",
        )
    if not given or given[0].source != "fork":
        raise Refused(f"The beginning of {row.thread_id} was removed.", hint="Make the dry run again.")
    if any(len(c.nodes) > 1 for c in steps):
        raise Refused(f"Nodes of {row.thread_id} ran side by side; such a plan can't be followed.")
    return _Turn(fork=row, given=given, steps=steps)


def _delta(given: Sequence[Checkpoint], last: Position) -> Delta:
    """What was given, as one change; ``last`` is the state after it."""
    delta: Delta = {}
    for checkpoint in given:
        for channel, operation in checkpoint.delta.items():
            whole = {"op": "set", "value": last.values.get(channel)}
            delta[channel] = whole if channel in delta else operation
    return delta


def _asks(checkpoint: Checkpoint) -> bool:
    message = latest_message(checkpoint.delta, str(checkpoint.facts.get("channel", "messages")))
    return bool(message and message.get("tool_calls"))
