"""Committing a step: what it changes, what follows it, and whatever must become true with it, in one transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perdure.activities.runtime import Merged, Runtime
from perdure.canonical import Json
from perdure.checkpoint import Frontier, Source, Task
from perdure.checkpointer import Change
from perdure.contracts import START, AgentSpec, Commit, Ended
from perdure.delta import Delta
from perdure.errors import InvalidInput
from perdure.graphs.compiled import CompiledGraph
from perdure.graphs.frontier import CHOOSING, first, following
from perdure.states.schema import Opened
from perdure.stores.base import CachedResult, Receipt

Updates = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Extra:
    """What is committed together with a step."""

    facts: Mapping[str, Json] = field(default_factory=dict)
    metadata: Mapping[str, Json] = field(default_factory=dict)
    result: CachedResult | None = None
    receipt: Receipt | None = None
    clears: tuple[str, ...] = ()


async def commit_step(
    runtime: Runtime, spec: AgentSpec, commit: Commit, opened: Opened, updates: Updates, *,
    ended: Sequence[Ended], asked: Mapping[int, tuple[Task, ...]], extra: Extra,
) -> Merged:  # fmt: skip
    """Commit what the tasks of a step came to.

    ``asked`` are, by number of the task, the tasks that a node itself asked for. Raises InvalidInput where an update
    or a router's choice doesn't fit, ConcurrentModification where the head has moved; then nothing was written.
    """
    delta, after = opened.after(updates, step=_next_step(opened))
    graph = runtime.app.graph(spec.name)
    before = opened.position.next if opened.position else Frontier()
    return await write(
        runtime, commit, opened, delta, source="step", nodes=tuple(end.node for end in ended),
        next=await next_frontier(graph, spec, before, ended, asked, after), extra=extra,
    )  # fmt: skip


async def write(
    runtime: Runtime, commit: Commit, opened: Opened, delta: Delta, *, source: Source, nodes: tuple[str, ...] = (),
    next: Frontier, extra: Extra, agent: str = "", tenant: str = "",
) -> Merged:  # fmt: skip
    """Commit a delta on the head that was opened; agent and tenant are those of a new thread."""
    change = Change(
        thread_id=commit.thread_id, checkpoint_id=commit.id, source=source, nodes=nodes, turn=commit.turn,
        schema_version=opened.schema_version, next=next, metadata=extra.metadata, facts=extra.facts, delta=delta,
    )  # fmt: skip
    position = await runtime.checkpointer.commit(
        opened.position, change, agent=agent, tenant=tenant, result=extra.result, receipt=extra.receipt,
        clears=extra.clears,
    )  # fmt: skip
    return Merged(position=position, delta=delta)


async def next_frontier(
    graph: CompiledGraph, spec: AgentSpec, before: Frontier, ended: Sequence[Ended],
    asked: Mapping[int, tuple[Task, ...]], after: Opened,
) -> Frontier:  # fmt: skip
    """What follows tasks that ended so: their routes, what they asked for, what routers choose on the state after."""
    chosen = dict(asked) | await _chosen(graph, spec, ended, asked, after)
    return following(spec, before, ended, chosen)


async def first_frontier(graph: CompiledGraph, spec: AgentSpec, after: Opened) -> Frontier:
    """The first step of a turn."""
    if not spec.starts:
        return first(spec)
    if (tasks := await graph.choose(START, after.state())) is None:
        raise _gone(START)
    return first(spec, tasks)


async def _chosen(
    graph: CompiledGraph, spec: AgentSpec, ended: Sequence[Ended], asked: Mapping[int, tuple[Task, ...]], after: Opened
) -> dict[int, tuple[Task, ...]]:
    """What the routers choose; each looks at the state after the step."""
    chosen: dict[int, tuple[Task, ...]] = {}
    for number, end in enumerate(ended):
        if number in asked or end.outcome not in CHOOSING or not spec.nodes[end.node].chooses:
            continue
        if (tasks := await graph.choose(end.node, after.state())) is not None:
            chosen[number] = _known(end.node, tasks, spec)
        elif not spec.nodes[end.node].routes.get(end.outcome):
            raise _gone(end.node)
    return chosen


def _known(node: str, tasks: tuple[Task, ...], spec: AgentSpec) -> tuple[Task, ...]:
    """The code may be newer than the turn: what it chooses must be a node that the turn knows."""
    for task in tasks:
        if task.node not in spec.nodes and task.node not in spec.nodes[node].chooses:
            raise InvalidInput(f"The router of {node} chose {task.node!r}, which this turn doesn't know.")
    return tasks


def _gone(node: str) -> InvalidInput:
    return InvalidInput(f"The router of {node} is no longer part of the graph.", hint="Deploy it again.")


def _next_step(opened: Opened) -> int:
    return opened.position.ref.step + 1 if opened.position else 0
