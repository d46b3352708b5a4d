"""Activities that travel in time: fork a thread, move its head back, write to its state between turns."""

from contextlib import suppress
from typing import Any

from temporalio import activity

from perdure.activities.runtime import Runtime
from perdure.activities.steps import Extra, Updates, next_frontier, write
from perdure.activities.turns import found, resumed
from perdure.canonical import Json
from perdure.checkpoint import Frontier
from perdure.checkpointer import Change, Position
from perdure.contracts import (
    FORK_THREAD,
    PLAN_REWIND,
    REWIND_HEAD,
    WRITE_STATE,
    Committed,
    Ended,
    ForkThread,
    Found,
    PlanRewind,
    ResumedTurn,
    RewindHead,
    RewindPlan,
    UpdateState,
    WriteState,
)
from perdure.delta import Delta
from perdure.errors import (
    ConcurrentModification,
    Conflict,
    InvalidInput,
    NodeGone,
    PerdureError,
    Refused,
    ThreadNotFound,
)
from perdure.message import open_calls
from perdure.state import Overwrite
from perdure.states.schema import Opened
from perdure.stores.base import ThreadRow
from perdure.travel import rewind_plan, way_back


class TravelActivities:
    """What moves a thread without a turn."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @activity.defn(name=FORK_THREAD.name)
    async def fork_thread(self, task: ForkThread) -> Found:
        """Make a thread whose first checkpoint has its parent in another thread.

        Raises ThreadNotFound, CheckpointNotFound, InvalidInput where a value doesn't fit, or Conflict where the thread
        exists; then nothing was written.
        """
        store, commit, origin = self._runtime.store, task.commit, task.origin
        row = await store.thread(origin.thread_id)
        if row is None:
            raise ThreadNotFound(f"There is no thread {origin.thread_id} to fork.")
        if row.dry_run and not origin.dry_run:
            raise Refused(
                f"{origin.thread_id} is a dry run: what it tells was never done.",
                hint="Fork it with --dry-run, or promote it.",
            )
        try:
            head, delta = await self._fork(task, row)
        except ConcurrentModification as there:
            if await store.checkpoint(commit.thread_id, commit.id) is not None:  # made by code that has changed since
                return await self._found(commit.thread_id, commit.id)
            raise Conflict(f"There is a thread {commit.thread_id} already.", hint="Choose another id.") from there
        made = row.model_copy(update={"branch": 0, "lease": "", "dry_run": origin.dry_run})
        going_on = await self._going_on(made, head) if origin.go_on and head.next.tasks else None
        return found(made, head, delta, going_on)

    async def _fork(self, task: ForkThread, row: ThreadRow) -> tuple[Position, Delta]:
        """Commit the first checkpoint; where an earlier attempt has done so, it is the same one."""
        commit, origin = task.commit, task.origin
        parent = await self._runtime.checkpointer.load(origin.thread_id, origin.checkpoint_id)
        opened = self._runtime.opened(row.agent, parent)
        updates = opened.given({"The fork": {name: Overwrite(value) for name, value in origin.state.items()}})
        change = Change(
            thread_id=commit.thread_id, checkpoint_id=commit.id, source="fork", turn=parent.turn,
            schema_version=opened.schema_version, next=parent.next, metadata=origin.metadata,
            facts=origin.facts(), delta=opened.merge(updates, step=parent.ref.step + 1),
        )  # fmt: skip
        head = await self._runtime.checkpointer.commit(
            parent, change, agent=row.agent, tenant=row.tenant, lineage=row.lineage, dry_run=origin.dry_run
        )
        return head, change.delta

    async def _going_on(self, row: ThreadRow, head: Position) -> ResumedTurn | None:
        """What follows a head; None where it can't run: the workflow tries it by itself then, and tells why."""
        with suppress(PerdureError):
            return await resumed(self._runtime, row.agent, head, row.branch)
        return None

    @activity.defn(name=WRITE_STATE.name)
    async def write_state(self, task: WriteState) -> Committed:
        """Commit an update. Raises InvalidInput, NodeGone, ConcurrentModification; then nothing was written."""
        runtime, commit = self._runtime, task.commit
        if (earlier := await runtime.earlier(commit)) is not None:
            return earlier
        opened = await runtime.open(commit, task.agent)
        assert opened.position is not None, "an update extends a head"
        updates = opened.given(_written(task.update))
        delta, after = opened.after(updates, step=opened.position.ref.step + 1)
        merged = await write(
            runtime, commit, opened, delta, source="update",
            nodes=(task.update.as_node,) if task.update.as_node else (),
            next=await self._following(task, opened.position, after),
            extra=Extra(facts=_said(task.update.by, task.update.reason), metadata=task.update.metadata),
        )  # fmt: skip
        return merged.told()

    async def _following(self, task: WriteState, head: Position, after: Opened) -> Frontier:
        """What follows an update: what followed its head, or what follows the node in whose place it was made."""
        if not (name := task.update.as_node):
            return head.next
        definition = await self._runtime.publish(task.agent)
        node = definition.spec.nodes.get(name)
        if node is None:
            raise NodeGone(f"{task.agent} has no node {name!r}.", hint=f"Nodes: {', '.join(definition.spec.nodes)}.")
        outcome = "done"
        if node.kind == "model":
            outcome = "tool_calls" if open_calls(after.values.get(node.channel, [])) else "answer"
        ended = (Ended(node=name, outcome=outcome),)
        before = Frontier(arrived=head.next.arrived)
        return await next_frontier(self._runtime.app.graph(task.agent), definition.spec, before, ended, {}, after)

    @activity.defn(name=PLAN_REWIND.name)
    async def plan_rewind(self, task: PlanRewind) -> RewindPlan:
        """What a rewind would do. Raises CheckpointNotFound, InvalidInput where the target isn't on the head's line."""
        way = await way_back(self._runtime.store, task.thread_id, task.head.id, task.to)
        effects = [row.entry for row in await self._runtime.store.effects(task.thread_id)]
        plan = rewind_plan(effects, way)
        known = self._runtime.app.tools
        involved = (*plan.undo, *plan.unsettled)
        wanted = {name for e in involved for name in (e.tool, e.compensation, e.reconcile)} & known.keys()
        return plan.model_copy(update={"tools": {name: known[name].spec for name in sorted(wanted)}})

    @activity.defn(name=REWIND_HEAD.name)
    async def rewind_head(self, task: RewindHead) -> Found:
        """Commit the checkpoint whose parent is the target of the rewind: it is the head of a new branch.

        Raises ConcurrentModification where the head has moved.
        """
        runtime, commit, rewind = self._runtime, task.commit, task.rewind
        assert commit.head is not None, "a thread that is rewound has a head"
        if await runtime.store.checkpoint(commit.thread_id, commit.id) is None:
            target = await runtime.checkpointer.load(commit.thread_id, rewind.to)
            opened = runtime.opened(task.agent, target)
            change = Change(
                thread_id=commit.thread_id, checkpoint_id=commit.id, source="rewind", turn=target.turn,
                schema_version=opened.schema_version, next=target.next, metadata=rewind.metadata,
                facts={"from": commit.head.id, **_said(rewind.by, rewind.reason)},
                delta=opened.merge({}, step=target.ref.step + 1),
            )  # fmt: skip
            await runtime.checkpointer.commit(target, change, replaces=commit.head.id, branch=task.branch)
        return await self._found(commit.thread_id, commit.id)

    async def _found(self, thread_id: str, checkpoint_id: str) -> Found:
        """The thread as it is after its head was committed here."""
        store = self._runtime.store
        row, head = await store.thread(thread_id), await store.checkpoint(thread_id, checkpoint_id)
        assert row is not None and head is not None, "both were committed"
        return found(row, await self._runtime.checkpointer.load(thread_id, checkpoint_id), head.delta)


def _written(update: UpdateState) -> Updates:
    writer = f"The update by {update.by}" if update.by else "The update"
    if stray := set(update.overwrite) - update.state.keys():
        raise InvalidInput(f"{writer} overwrites {', '.join(sorted(stray))} but gives no value.")
    values: dict[str, Any] = {
        name: Overwrite(value) if name in update.overwrite else value for name, value in update.state.items()
    }
    return {writer: values}


def _said(by: str, reason: str) -> dict[str, Json]:
    return {name: text for name, text in (("by", by), ("reason", reason)) if text}
