"""What follows a step: from how its tasks ended to the tasks of the next one. Pure; found where a step is committed."""

from collections.abc import Mapping, Sequence

from perdure.checkpoint import Frontier, Task
from perdure.contracts import END, AgentSpec, Ended

Chosen = Mapping[int, tuple[Task, ...]]
CHOOSING = frozenset({"done", "answer"})  # outcomes after which a router, or the node itself, may choose


def first(spec: AgentSpec, chosen: tuple[Task, ...] | None = None) -> Frontier:
    """The first step of a turn: where the start leads, or what its router has chosen."""
    tasks = chosen if chosen is not None else tuple(Task(node=node) for node in spec.start)
    return _frontier([task for task in tasks if task.node != END], {})


def following(spec: AgentSpec, before: Frontier, ended: Sequence[Ended], chosen: Chosen) -> Frontier:
    """The frontier after a step.

    ``chosen`` are, by number of the task, the tasks that a router chose or the node asked for, in place of its routes.
    A join runs once all that it waits for have finished, in whichever steps; a turn in which nothing else is left to do
    ends, though a join may still wait.
    """
    tasks: list[Task] = []
    arrived = {node: set(sources) for node, sources in before.arrived.items()}
    for number, end in enumerate(ended):
        for task in chosen[number] if number in chosen else _routed(spec, end):
            joins = () if task.node == END else spec.nodes[task.node].joins
            if end.node in joins:
                arrived.setdefault(task.node, set()).add(end.node)
                if arrived[task.node] == set(joins):
                    del arrived[task.node]
                    tasks.append(task)
            elif task.node != END:
                tasks.append(task)
    return _frontier(tasks, {node: tuple(sorted(sources)) for node, sources in arrived.items()})


def _routed(spec: AgentSpec, end: Ended) -> list[Task]:
    error = {"node": end.node, "type": end.error_type, "message": end.error} if end.outcome == "error" else None
    return [Task(node=node, arg=error) for node in spec.nodes[end.node].routes.get(end.outcome, ())]


def _frontier(tasks: Sequence[Task], arrived: dict[str, tuple[str, ...]]) -> Frontier:
    """Several ways that lead to one node in one step run it once; but each ``Send`` is a task of its own."""
    once: list[Task] = []
    for task in tasks:
        if task.arg is not None or task not in once:
            once.append(task)
    return Frontier(tasks=tuple(once), arrived=arrived) if once else Frontier()
