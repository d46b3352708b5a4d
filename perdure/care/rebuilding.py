"""Making a checkpoint again from what a history tells of it: its digest proves that it is the one that was there.

The history tells the nodes of the next step, not what a ``Send`` gave them and not which joins wait. What follows a
step is found again by the rules that it was found by, as far as they need nobody's code.
"""

from collections.abc import Iterator, Sequence

from perdure.canonical import canonical
from perdure.care.chronicle import Written
from perdure.checkpoint import Checkpoint, Frontier, Task
from perdure.checkpointer import Position, digest_of
from perdure.contracts import NODE_OUTCOMES, AgentSpec, Ended
from perdure.errors import Unprovable
from perdure.graphs.frontier import Chosen, first, following


def rebuild(thread_id: str, written: Written, parent: Position | None) -> Checkpoint:
    """The checkpoint that was committed on this parent. Raises Unprovable."""
    if written.delta is None:
        raise Unprovable("What it changed was too long for the history.")
    before = parent.next if parent else Frontier()
    for frontier in _frontiers(written, before):
        draft = Checkpoint(
            thread_id=thread_id, id=written.ref.id, parent_id=written.parent, parent_thread=written.parent_thread,
            step=written.ref.step, source=written.source, nodes=_nodes(written, before), turn=written.turn,
            schema_version=written.schema_version, next=frontier, metadata=written.metadata, facts=written.facts,
            delta=written.delta, created_at=written.at, size=len(canonical(written.delta)), digest=written.ref.digest,
        )  # fmt: skip
        if digest_of(parent.ref.digest if parent else "", draft) == draft.digest:
            return draft
    lacking = f" It lacks what a Send gave to {', '.join(written.next)}, or what joins." if written.next else ""
    raise Unprovable(f"What the history tells doesn't come to its digest.{lacking}")


def _nodes(written: Written, before: Frontier) -> tuple[str, ...]:
    if written.source == "step":
        return before.nodes
    return (written.as_node,) if written.as_node else ()


def _frontiers(written: Written, before: Frontier) -> Iterator[Frontier]:
    """What may have followed, the most likely first."""
    for frontier in _candidates(written, before):
        if frontier.nodes == written.next:
            yield frontier
    plain = tuple(Task(node=node) for node in written.next)
    yield Frontier(tasks=plain)
    yield Frontier(tasks=plain, arrived=before.arrived)


def _candidates(written: Written, before: Frontier) -> Iterator[Frontier]:
    yield before  # a fork, a rewind or an update leaves standing what followed
    spec = written.spec
    if spec is None:
        return
    if written.source == "input":
        yield first(spec)
    elif written.source == "step":
        yield from _after(
            spec, before, [_ended(spec, written, n, task) for n, task in enumerate(before.tasks)], written
        )
    elif written.as_node in spec.nodes:
        waiting = Frontier(arrived=before.arrived)
        for outcome in NODE_OUTCOMES[spec.nodes[written.as_node].kind]:
            yield from _after(spec, waiting, [Ended(node=written.as_node, outcome=outcome)], written)


def _ended(spec: AgentSpec, written: Written, number: int, task: Task) -> Ended:
    """How a task ended: of a person's answer that was not taken the history tells nothing."""
    if number in written.ended:
        return written.ended[number]
    human = task.node in spec.nodes and spec.nodes[task.node].kind == "human"
    return Ended(node=task.node, outcome="expired" if human else "done")


def _after(spec: AgentSpec, before: Frontier, ended: Sequence[Ended], written: Written) -> Iterator[Frontier]:
    """By the routes alone, and with what a router or a node itself may have chosen."""
    if not {*(end.node for end in ended), *written.next} <= spec.nodes.keys():
        return  # the turn was interpreted from another specification
    yield following(spec, before, ended, {})
    chosen: Chosen = {
        number: tuple(Task(node=node) for node in written.next if node in spec.nodes[end.node].chooses)
        for number, end in enumerate(ended)
        if spec.nodes[end.node].chooses
    }
    yield following(spec, before, ended, chosen)
