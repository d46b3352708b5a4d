"""Running the function of a node, asking the question of a human one, and taking the answer in."""

from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio import activity

from perdure.activities.invoke import invoke
from perdure.activities.locks import KeyedLocks
from perdure.activities.once import once
from perdure.activities.records import Record
from perdure.activities.runtime import Runtime
from perdure.activities.steps import Extra, commit_step
from perdure.approvals import stamp
from perdure.canonical import canonical, digest
from perdure.checkpoint import Ref
from perdure.contracts import ASK, TAKE_ANSWER, Common, Ended, NodeDone, RunNode, TakeAnswer
from perdure.effects import task_key
from perdure.errors import InvalidInput, NodeGone
from perdure.graphs.nodes import FunctionNode, HumanNode, NodeContext, Returned
from perdure.questions import MAX_QUESTION, Question
from perdure.states.schema import Opened
from perdure.stores.base import CachedResult, Receipt


class NodeActivities:
    """Nodes that are people's code."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._running = KeyedLocks()

    async def run(self, task: RunNode) -> NodeDone:
        """Run a node's function once more than it is recorded: never again what is already there."""
        return await once(lambda: self._earlier(task), lambda: self._attempt(task), by_key=not task.alone)

    @activity.defn(name=ASK.name)
    async def ask(self, task: RunNode) -> Question:
        """The question of a human node, made from the state. Raises InvalidInput where it is too long."""
        opened = await self._runtime.open(task.commit, task.agent)
        question = await self._human(task.agent, task.node).ask(opened.state())
        if (size := len(canonical(question.model_dump(mode="json")))) > MAX_QUESTION:
            raise InvalidInput(f"The question of {task.node} has {size} bytes, more than {MAX_QUESTION}.")
        return question

    @activity.defn(name=TAKE_ANSWER.name)
    async def take_answer(self, task: TakeAnswer) -> NodeDone:
        """Check an answer and record what it writes. Raises InvalidInput; then nothing was written."""
        opened = await self._runtime.open(task.commit, task.agent)
        updates = self._human(task.agent, task.node).updates(opened.state(), task.answer.value)
        opened.given({task.node: updates})
        record = self._record(task.node, opened, Returned(updates=updates, goto=None))
        return await self._keep(task, record)

    async def _earlier(self, task: RunNode) -> NodeDone | None:
        """What another attempt recorded and could not report."""
        thread_id = task.commit.thread_id
        if not task.alone:
            key = _key(task)
            return NodeDone(key=key) if await self._runtime.store.receipts(thread_id, [key]) else None
        done = await self._runtime.found(task.commit)
        return NodeDone(committed=done.brief(await self._common(task))) if done else None

    async def _attempt(self, task: RunNode) -> NodeDone:
        opened = await self._runtime.open(task.commit, task.agent)
        common = await self._common(task)
        record, cached = await self._result(task, opened)
        if not task.alone:
            return (await self._keep(task, record)).model_copy(update={"cached": cached})
        spec = (await self._runtime.definition(task.spec)).spec
        merged = await commit_step(
            self._runtime, spec, task.commit, opened, {task.node: record.updates},
            ended=(Ended(node=task.node, outcome="done"),), asked={} if record.goto is None else {0: record.goto},
            extra=Extra(facts={"cached": True} if cached else {}),
        )  # fmt: skip
        return NodeDone(committed=merged.brief(common), cached=cached)

    async def _common(self, task: RunNode) -> Common:
        spec = (await self._runtime.definition(task.spec)).spec
        return await self._runtime.common(task.commit, spec, task.node)

    async def _result(self, task: RunNode, opened: Opened) -> tuple[Record, bool]:
        """What the node comes to, and whether that was known: by its cache policy, if it has one."""
        node = self._function(task.agent, task.node)
        if node.cache is None:
            return await self._call(task, node, opened), False
        store, scope = self._runtime.store, f"{node.cache.scope}:node"
        if node.cache.scope == "lineage":
            scope = f"lineage:{await self._runtime.lineage(task.commit.thread_id)}"
        key = digest(canonical(node.cache.request(task.node, opened.state(), _arg(task, opened))))
        async with self._running.hold(f"{scope}/{key}"):  # the second of two at once finds the first's result
            hit = await store.result(scope, key)
            if hit is not None and hit.value is not None:
                return Record.read(hit.value), True
            record = await self._call(task, node, opened)
            expires = stamp(datetime.now(UTC) + timedelta(seconds=node.cache.ttl)) if node.cache.ttl else ""
            if not task.dry_run:  # it may have answered as nothing but a dry run should
                await store.put_result(CachedResult(scope=scope, key=key, value=record.dump(), expires_at=expires))
            return record, False

    async def _call(self, task: RunNode, node: FunctionNode, opened: Opened) -> Record:
        definition = await self._runtime.definition(task.spec)
        context = NodeContext(
            thread_id=task.commit.thread_id, turn=task.commit.turn, step=_head(task).step, idempotency_key=_key(task),
            attempt=activity.info().attempt, node=task.node, arg=_arg(task, opened), dry_run=task.dry_run,
        )  # fmt: skip
        kwargs = node.bind(opened.state(), context)
        returned = await invoke(node.function, kwargs, definition.spec.nodes[task.node].timeout)
        return self._record(task.node, opened, node.returned(returned))

    def _record(self, node: str, opened: Opened, returned: Returned) -> Record:
        """Validated at the node's boundary: an update that doesn't fit fails this node, not the step."""
        updates = opened.recorded(returned.updates)
        opened.merge({node: updates}, step=opened.position.ref.step + 1 if opened.position else 0)
        return Record(ok=True, content="", updates=updates, goto=returned.goto)

    async def _keep(self, task: RunNode | TakeAnswer, record: Record) -> NodeDone:
        receipt = Receipt(key=_key(task), result=record.dump())
        await self._runtime.store.put_receipt(task.commit.thread_id, receipt, head=_head(task).id)
        return NodeDone(key=receipt.key)

    def _function(self, agent: str, name: str) -> FunctionNode:
        node = self._runtime.app.graph(agent).node(name)
        if not isinstance(node, FunctionNode):
            raise NodeGone(f"The node {name} of {agent} is no longer a function.", hint="Deploy it again.")
        return node

    def _human(self, agent: str, name: str) -> HumanNode:
        node = self._runtime.app.graph(agent).node(name)
        if not isinstance(node, HumanNode):
            raise NodeGone(f"The node {name} of {agent} no longer asks anybody.", hint="Deploy it again.")
        return node


def _head(task: RunNode | TakeAnswer) -> Ref:
    assert task.commit.head is not None, "a node runs on a head"
    return task.commit.head


def _arg(task: RunNode, opened: Opened) -> Any:
    """What a ``Send`` gave the task, or the error that led to it: it stands in the checkpoint, not in the history."""
    tasks = opened.position.next.tasks if opened.position else ()
    return tasks[task.task].arg if task.task < len(tasks) else None


def _key(task: RunNode | TakeAnswer) -> str:
    commit = task.commit
    return task_key(commit.thread_id, task.branch, commit.turn, _head(task).step, task.task, task.node)
