"""One step: the tasks that run side by side, then one merge, then one checkpoint."""

from typing import Protocol

from temporalio.exceptions import FailureError

from perdure.contracts import MERGE_STEP, Committed, Ended, MergeStep, Part
from perdure.failures import describe, root
from perdure.workflows.batch import Batch
from perdure.workflows.calls import error_type, local_call, side_by_side
from perdure.workflows.display import Display
from perdure.workflows.record import Record, Stop, Stopped, Turn
from perdure.workflows.tasks import FunctionTask, HumanTask, ModelTask

_TASKS = {"model": ModelTask, "function": FunctionTask, "human": HumanTask}


class _Task(Protocol):
    """A task as its step sees it. ``committed``: it has committed the step itself."""

    committed: Committed | None

    @property
    def parts(self) -> tuple[Part, ...]: ...

    async def run(self) -> Ended | None: ...

    def unmergeable(self, why: str) -> None: ...


class Step:
    """Runs what the head says comes next."""

    def __init__(self, record: Record, turn: Turn, display: Display) -> None:
        self._record = record
        self._turn = turn
        self._display = display
        beside = all(self._is_beside(node) for node in record.next)
        self._commit = record.commit(beside=beside)
        self.checkpoint_id = self._commit.id
        alone = len(record.next) == 1
        self._tasks: list[_Task] = [self._task(number, node, alone) for number, node in enumerate(record.next)]
        self._merged = False

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the step's calls have come to; nothing once it is committed."""
        return () if self._merged else tuple(part for task in self._tasks for part in task.parts)

    def _is_beside(self, node: str) -> bool:
        """Whether all that is to be done there is done within this workflow task."""
        spec = self._turn.spec
        plans = self._turn.planned.get(spec.nodes[node].channel, ())
        return spec.nodes[node].kind == "tools" and all(p.error or spec.tools[p.tool].beside for p in plans)

    def _task(self, number: int, node: str, alone: bool) -> _Task:
        spec = self._turn.spec.nodes[node]
        place = (self._record, self._turn, self._display, self._commit, number, node)
        if spec.kind == "tools":
            return Batch(*place, self._turn.planned.get(spec.channel, ()), alone=alone)
        return _TASKS[spec.kind](*place, alone=alone and spec.kind != "human")

    async def run(self) -> None:
        """Run all tasks and commit the step. Raises Stopped, with ``parts`` telling what each call came to."""
        ended = await side_by_side([task.run() for task in self._tasks])
        if committed := self._tasks[0].committed:  # it is the head, also where the turn is to stop now
            self._advance(committed)
        if self._record.stop:
            raise Stopped
        self._check_conversations()
        if not committed:
            self._advance(await self._merge(tuple(end for end in ended if end is not None)))
        self._plan()

    def _advance(self, committed: Committed) -> None:
        self._record.advance(committed)
        self._merged = True

    def _check_conversations(self) -> None:
        """A call must be answered before anybody else speaks: of two models at once in one conversation one may call.

        Raises Stopped.
        """
        channels = [task.spec.channel for task in self._tasks if isinstance(task, ModelTask) and task.calls]
        if twice := {channel for channel in channels if channels.count(channel) > 1}:
            why = f"two models at once want to call tools in the conversation `{twice.pop()}`: give one its own channel"
            self._record.stop = Stop(kind="failed", reason=why, error_type="InvalidInput")
            raise Stopped

    def _plan(self) -> None:
        """Calls that were made now are planned no longer; those that were asked for now are."""
        nodes = self._turn.spec.nodes
        for task in self._tasks:
            if isinstance(task, Batch):
                self._turn.planned.pop(nodes[task.node].channel, None)
        for task in self._tasks:
            if isinstance(task, ModelTask) and task.calls:
                self._turn.planned[nodes[task.node].channel] = task.calls

    async def _merge(self, ended: tuple[Ended, ...]) -> Committed:
        merge = MergeStep(
            commit=self._commit, agent=self._record.agent, spec=self._turn.spec.digest, ended=ended, parts=self.parts
        )
        summary = f"merge {len(self.parts)} results"
        try:
            # A local activity is lost with its workflow task, and then done anew under the same id: that was made by an
            # earlier task where something was waited for, and else doesn't depend on when it was made.
            return await local_call(MERGE_STEP, merge, summary=summary)
        except FailureError as error:  # a local activity's own, not an ActivityError around it
            why = describe(root(error))
            if self._record.stop is None:
                self._record.stop = Stop(kind="failed", reason=why, error_type=error_type(error))
            for task in self._tasks:
                task.unmergeable(why)
            raise Stopped from error
