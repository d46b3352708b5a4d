"""Between yes and act nothing changes: what is shown has the digest that is approved, and exactly that runs."""

import json
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from temporalio import workflow
from temporalio.client import WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from perdure import Agent, App, Approval, ToolContext, tool
from perdure.approvals import ApprovalRequest, CountedDecision, Evidence, stamp
from perdure.canonical import Json, canonical
from perdure.checkpoint import Ref
from perdure.contracts import CallTool, Commit, lean
from perdure.effects import arguments_digest
from perdure.failures import from_failure
from perdure.testing import Conversation, Reply, Rule, Script, call, say
from tests.ballot import KEYS, write_keys
from tests.conftest import MakeWorld
from tests.properties import few, texts, values, words
from tests.witness import Witness
from tests.world import World

witness = Witness()
ran: defaultdict[str, list[dict[str, Json]]] = defaultdict(list)  # by thread


@tool(effect="irreversible", approval=Approval())
async def act(
    ctx: ToolContext, text: str, amount: float = 0.5, tree: dict[str, Any] | None = None, names: list[str] | None = None
) -> str:
    """Do what was asked."""
    ran[ctx.thread_id].append({"text": text, "amount": amount, "tree": tree, "names": names})
    return "done"


@tool(effect="irreversible", approval=Approval(when=lambda args: args.amount > 100, approvers=["ann", "bob"], quorum=2))
async def pay(ctx: ToolContext, amount: float) -> str:
    """Pay."""
    witness.saw(ctx, f"paid {amount:g}")
    return "paid"


class Obedient(Script):
    """A model that calls ``act`` with the arguments that its message spells out."""

    def reply(self, conversation: Conversation) -> Reply:
        """See base class."""
        if conversation.answers_after(conversation.asked):
            return say("Done.")
        return call("act", **json.loads(conversation.user))


APP = App(agents=[Agent(name="clerk", model="m", tools=[act]), Agent(name="payer", model="m", tools=[pay])])
arguments = st.fixed_dictionaries(
    {"text": texts},
    optional={
        "amount": st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False),
        "tree": st.none() | st.dictionaries(words, values, max_size=3),
        "names": st.none() | st.lists(texts, max_size=3),
    },
)  # fmt: skip


@pytest.fixture
async def world(make_world: MakeWorld) -> AsyncIterator[World]:
    """The clerk, and a model that does what it is told."""
    async with make_world(APP, Obedient()) as made:
        yield made


@few
@given(asked=arguments, wanted=st.none() | arguments)
async def test_what_runs_is_what_was_shown(
    world: World, asked: dict[str, Json], wanted: dict[str, Json] | None
) -> None:
    """For any arguments, as the model asks for them or as a person changes them: those of the request have the digest
    that the decision names, and the tool gets exactly these, once."""
    thread, message = await world.begin("clerk", json.dumps(asked))
    [shown] = (await world.opened(thread)).open
    assert arguments_digest("act", canonical(shown.arguments)) == shown.digest
    assert {name: shown.arguments[name] for name in asked} == asked
    if wanted is not None and {**shown.arguments, **wanted} != shown.arguments:
        answer = await world.client.decide(thread, "approve", shown, approver="ann", arguments=wanted)
        [shown] = answer.closed
        assert {name: shown.arguments[name] for name in wanted} == wanted
        assert arguments_digest("act", canonical(shown.arguments)) == shown.digest == shown.decisions[0].digest
    else:
        await world.client.decide(thread, "approve", shown, approver="ann")
    await world.ended(thread, message)
    assert canonical(ran[thread]) == canonical([shown.arguments])


# ── tasks that nobody planned ────────────────────────────────────────────────────────────────────────────────────


@workflow.defn
class Stranger:
    """A workflow of somebody who can reach the task queue."""

    @workflow.run
    async def run(self, activity: str, task: dict[str, Any], queue: str) -> Any:
        """Put a task of his own on it."""
        return await workflow.execute_activity(
            activity, task, task_queue=queue, start_to_close_timeout=timedelta(seconds=30),
            retry_policy=RetryPolicy(maximum_attempts=1),
        )  # fmt: skip


class Forger:
    """Puts tasks for the call of a request on the world's queue, as the thread itself would, were it approved."""

    def __init__(self, world: World, thread: str, request: ApprovalRequest, head: Ref, queue: str) -> None:
        self._world, self._request, self._queue = world, request, queue
        spec = APP.graph("payer").definition(APP.tools, world.settings.limits()).spec.digest
        self._task = CallTool(
            commit=Commit(thread_id=thread, id="made-up", head=head, turn=1), spec=spec,
            node="tools", tool="pay", index=0, key=request.key, digest=request.digest,
            alone=False,
        )  # fmt: skip

    async def ends(self, *who: str, **more: Any) -> str:
        """The error with which such a task ends, on the word of these people; empty if it ran."""
        evidence = self.evidence(*who, **more) if who else None
        task = lean(self._task.model_copy(update={"approval": evidence}))
        try:
            await self._world.temporal.execute_workflow(
                Stranger.run, args=["tool:pay", task, self._world.settings.task_queue],
                id=f"stranger-{uuid.uuid4()}", task_queue=self._queue,
            )  # fmt: skip
        except WorkflowFailureError as failed:
            return type(from_failure(failed.cause)).__name__
        return ""

    def evidence(
        self, *who: str, digest: str = "", quorum: int = 2, approvers: tuple[str, ...] = ("ann", "bob")
    ) -> Evidence:
        """What the thread would hand over, had these people said yes."""
        name, at = digest or self._request.digest, stamp(self._request.opened_at)
        signature = KEYS["cid"].sign(b"something")
        said = tuple(
            CountedDecision(verdict="approve", approver=one, at=at, signed_at=at, digest=name, signature=signature)
            for one in who
        )
        return Evidence(
            request_id=self._request.id, digest=name, quorum=quorum, approvers=approvers, decisions=said
        )  # fmt: skip


@pytest.mark.parametrize("signed", [False, True])
async def test_a_task_that_a_stranger_queues_runs_nothing(make_world: MakeWorld, tmp_path: Path, signed: bool) -> None:
    """Without evidence; with one of other arguments, of too few, of the same person twice, of the wrong people. Where
    decisions are signed, also with one that says whatever it likes. The call itself waits on, unharmed."""
    keys = {"approver_keys": write_keys(tmp_path / "approvers")} if signed else {}
    script = Script(rules=[Rule(when="pay", replies=[call("pay", amount=250), say("Paid.")])])
    queue = f"stranger-{uuid.uuid4()}"
    async with AsyncExitStack() as stack:
        world = await stack.enter_async_context(make_world(APP, script, **keys))
        runner = UnsandboxedWorkflowRunner()
        stranger = Worker(world.temporal, task_queue=queue, workflows=[Stranger], workflow_runner=runner)
        await stack.enter_async_context(stranger)
        thread, message = await world.begin("payer", "pay")
        [request] = (await world.opened(thread)).open
        head = (await world.client.checkpoint(thread)).head
        assert head is not None
        forger = Forger(world, thread, request, head, queue)
        tried = [
            await forger.ends(),
            await forger.ends("ann", "bob", digest=arguments_digest("pay", canonical({"amount": 1.0}))),
            await forger.ends("ann"),
            await forger.ends("ann", "ann"),
            await forger.ends("eve", "mallory"),
        ]
        if signed:
            tried += [
                await forger.ends("ann", "bob"),
                await forger.ends("cid", quorum=1, approvers=("cid",)),
                await forger.ends("eve", quorum=0, approvers=()),
            ]
        assert set(tried) == {"ApprovalVoid"}
        assert (witness.of(thread), await world.store.effects(thread)) == ([], [])
        for who in ("ann", "bob"):
            key = KEYS[who] if signed else None
            await world.client.decide(thread, "approve", request, approver=who, key=key)
        await world.ended(thread, message)
        assert witness.of(thread) == ["paid 250"]
