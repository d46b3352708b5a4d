"""The life of a thread: idle and resumed, closed, busy, out of budget, very long; and what a step merges.

Long: one claim a turn of events.
"""

import asyncio
from datetime import timedelta
from statistics import median
from typing import Annotated, Any, cast

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHistory
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from perdure import Agent, App, Approval, Budget, State, ToolContext, add, append, merge, tool
from perdure.contracts import Accepted, CheckpointAnswer, ThreadResult, TurnResult
from perdure.errors import (
    AgentNotFound,
    Conflict,
    InvalidInput,
    NotFound,
    PerdureError,
    Refused,
    ThreadBusy,
    ThreadClosed,
    ThreadNotFound,
    TurnFailed,
)
from perdure.testing import Conversation, ModelFault, Reply, Rule, call, say, together
from perdure.tool import MAX_OUTPUT
from perdure.view import BOUND
from tests.conftest import MakeWorld
from tests.witness import Doorkeeper, Holds, Listener, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()


class Notes(State):
    """What the agents of these tests remember."""

    notes: Annotated[list[str], append] = []
    title: str = ""
    count: Annotated[int, add] = 10
    places: Annotated[dict[str, Any], merge] = {}


@tool(effect="compensable", compensate="strike")
async def jot(ctx: ToolContext, text: str) -> str:
    """Write a note, and count it."""
    witness.saw(ctx, f"jot {text}")
    if text == "slowly":
        await holds[ctx.thread_id].wait()
    if text == "a number":
        ctx.update(count="many")
    elif text == "a stranger":
        ctx.update(colour="red")
    else:
        ctx.update(notes=[text], count=1, places={text: {"step": ctx.step}})
    return f"noted {text}"


@tool(effect="idempotent", hidden=True)
async def strike(ctx: ToolContext, text: str) -> None:
    """Take a note back outside."""
    witness.saw(ctx, f"strike {text}")


@tool(effect="idempotent")
async def rename(ctx: ToolContext, title: str) -> str:
    """Give the thread a title."""
    witness.saw(ctx, f"rename {title}")
    ctx.update(title=title)
    return "renamed"


@tool
async def meet(ctx: ToolContext, who: str) -> str:
    """Wait for all who meet here; who comes later may be first to go."""
    meeting = meetings.setdefault(ctx.thread_id, asyncio.Barrier(3))
    async with asyncio.timeout(10):
        await meeting.wait()
    for _ in range({"ann": 30, "bob": 20, "cid": 10}[who]):
        await asyncio.sleep(0)
    witness.saw(ctx, f"met {who}")
    return f"met {who}"


meetings: dict[str, asyncio.Barrier] = {}


@tool
async def print_out(pages: int) -> str:
    """A long text."""
    return "".join(f"page {page:06}\n" for page in range(pages))


@tool
async def tick(n: int) -> int:
    """Count on."""
    return n


@tool(effect="idempotent", approval=Approval(approvers=["ann"]))
async def ask_first(ctx: ToolContext, what: str) -> str:
    """Do something that somebody must allow."""
    witness.saw(ctx, f"did {what}")
    return "done"


TOOLS = [jot, rename, meet, print_out, ask_first]
app = App(
    agents=[
        Agent(name="scribe", model="m", state=Notes, tools=TOOLS),
        Agent(name="strict", model="m", state=Notes, tools=TOOLS, on_busy="reject"),
        Agent(name="hasty", model="m", state=Notes, tools=TOOLS, on_busy="interrupt"),
        Agent(name="careful", model="m", state=Notes, tools=TOOLS, on_busy="rollback"),
        Agent(name="frugal", model="m", state=Notes, tools=TOOLS, budget=Budget(steps=2)),
        Agent(name="sparing", model="m", state=Notes, tools=TOOLS, budget=Budget(steps=None, tokens=100)),
        Agent(name="patient", model="m", tools=[ask_first], idle="30d"),
        Agent(name="counter", model="m", tools=[tick], budget=Budget(steps=5000), context_tokens=600),
    ],
    tools=[strike],
)


class Talker(Listener):
    """A model that counts to a number it is told, and otherwise follows rules."""

    def reply(self, conversation: Conversation) -> Reply:
        """See base class."""
        asked = conversation.user.split()
        if asked[:2] != ["count", "to"]:
            return super().reply(conversation)
        after = conversation.messages[conversation.asked + 1 :]
        last = int(after[-1].text) if after and after[-1].role == "tool" else 0
        return call("tick", n=last + 1) if last < int(asked[2]) else say(f"Counted to {last}.")


def talker(*replies: Reply) -> Talker:
    """A model that says these things after "go", and always answers "hello"."""
    return Talker(rules=[Rule(when="go", replies=replies), Rule(when="hello", replies=[say("Hi."), say("Hi again.")])])


async def status_of(world: World, thread: str) -> WorkflowExecutionStatus | None:
    """What Temporal says of the thread's latest run."""
    return (await world.handle(thread).describe()).status


async def say_hello(world: World, thread: str) -> TurnResult:
    """One more turn, that must be answered."""
    accepted = await world.client.send(thread, "hello")
    result = await world.ended(thread, accepted.message_id)
    assert (result.outcome, result.answer) == ("answered", "Hi.")
    return result


# ── idle and resumed ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_idle_thread_completes_and_is_resumed_by_a_message(make_world: MakeWorld) -> None:
    """After an hour its workflow completes; the next message starts it again from its head checkpoint."""
    said = talker(call("jot", text="a"), say("Noted."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("scribe", "go")
        await world.ended(thread, message_id)
        before = await world.client.checkpoint(thread)
        assert before.head is not None
        await world.completes(thread)
        assert await status_of(world, thread) == WorkflowExecutionStatus.COMPLETED
        result = await world.temporal.get_workflow_handle(thread, result_type=ThreadResult).result()
        assert result == ThreadResult(status="idle", head=before.head, turn=1)
        assert await world.client.checkpoint(thread) == before  # a completed thread still answers

        await say_hello(world, thread)
        after = await world.client.checkpoint(thread)
        assert after.head is not None
        assert (after.turn, after.head.step, after.agent) == (2, before.head.step + 2, "scribe")
        assert [m.get("content", "") for m in after.state["messages"]] == [
            "go",
            "",
            "noted a",
            "Noted.",
            "hello",
            "Hi.",
        ]
        assert said.told() == [
            ("user", "go"),
            ("assistant", ""),
            ("tool", "noted a"),
            ("assistant", "Noted."),
            ("user", "hello"),
        ]
        checkpoints = await world.client.history(thread)
        assert [c.parent_id for c in checkpoints[:-1]] == [c.id for c in checkpoints[1:]]
        assert (await world.client.threads(agent="scribe"))[0].thread_id == thread


async def test_a_thread_lives_on_in_the_store(make_world: MakeWorld) -> None:
    """With its history deleted a thread is resumed whole from the store; a closed one stays closed."""
    async with make_world(app, talker(call("jot", text="a"), say("Noted."))) as world:
        threads = []
        for _ in range(2):
            thread, message_id = await world.begin("scribe", "go")
            await world.ended(thread, message_id)
            threads.append(thread)
        idle, closed = threads
        await world.client.close_thread(closed)
        await world.completes(idle)
        await asyncio.gather(*map(world.forget, threads))

        with pytest.raises(Conflict, match="already"):
            await world.client.start("scribe", "hello", thread=idle)
        with pytest.raises(ThreadClosed):
            await world.client.send(closed, "hello")
        with pytest.raises(ThreadClosed):
            await world.client.compensate(closed)
        with pytest.raises(RPCError, match="not found"):  # nothing was started only to be refused
            await world.handle(closed).describe()

        await say_hello(world, idle)
        answer = await world.client.checkpoint(idle)
        assert (answer.turn, answer.state["notes"], answer.state["count"]) == (2, ["a"], 11)
        assert answer.state == await world.client.state(idle)
        assert (await world.client.compensate(idle)).undone == ('jot(text="a")',)


async def test_a_message_to_nobody_starts_nothing(make_world: MakeWorld) -> None:
    """A thread that never existed is not found, by anyone, and no workflow begins."""
    async with make_world(app, talker()) as world:
        client, nobody = world.client, "nobody-was-ever-here"
        calls: list[Any] = [
            lambda: client.send(nobody, "hello"), lambda: client.compensate(nobody), lambda: client.cancel(nobody),
            lambda: client.resolve(nobody, "k", done=True, by="ann"), lambda: client.close_thread(nobody),
            lambda: client.status(nobody), lambda: client.extend(nobody, steps=1), lambda: client.state(nobody),
        ]  # fmt: skip
        for ask in calls:
            with pytest.raises(ThreadNotFound):
                await ask()
        with pytest.raises(RPCError, match="not found"):
            await world.handle(nobody).describe()
        assert await world.store.threads() == []


@pytest.mark.parametrize(
    ("agent", "state", "kind", "why"),
    [
        ("nobody", {}, AgentNotFound, "There is no agent 'nobody'. Agents: scribe"),
        ("scribe", {"notes": "a text"}, InvalidInput, "Channel Notes.notes takes list"),
        ("scribe", {"colour": "red"}, InvalidInput, "Notes.colour, which doesn't exist"),
    ],
)
async def test_a_thread_that_cannot_begin_leaves_nothing(
    make_world: MakeWorld, agent: str, state: dict[str, Any], kind: type[PerdureError], why: str
) -> None:
    """The caller learns why, the workflow fails with the same reason, the store is empty, and the id is still free."""
    async with make_world(app, talker()) as world:
        thread = world.thread()
        with pytest.raises(kind, match=why):
            await world.client.start(agent, "hello", thread=thread, state=state)
        assert await world.store.threads() == []
        with pytest.raises(WorkflowFailureError) as failed:
            await world.handle(thread).result()
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == kind.__name__
        for wake in (world.client.compensate, world.client.close_thread):
            with pytest.raises(ThreadNotFound):
                await wake(thread)
        _, accepted = await world.client.start("scribe", "hello", thread=thread)
        assert (await world.ended(thread, accepted.message_id)).answer == "Hi."


async def test_an_invalid_message_to_a_thread_changes_nothing(make_world: MakeWorld) -> None:
    """Its sender learns why; head and state stay, and the next message is answered."""
    async with make_world(app, talker()) as world:
        thread, message_id = await world.begin("scribe", "hello")
        await world.ended(thread, message_id)
        before = await world.client.checkpoint(thread)
        with pytest.raises(InvalidInput, match=r"Notes\.count"):
            await world.client.send(thread, "hello", state={"count": "many"})
        after = await world.client.checkpoint(thread)
        assert (after.head, after.state, after.status) == (before.head, before.state, "idle")
        assert (await say_hello(world, thread)).turn == 2


async def test_a_started_thread_is_started_once(make_world: MakeWorld) -> None:
    """A second start under the same id is a conflict: at the same moment, while the first one runs, and later."""
    async with make_world(app, talker()) as world:
        thread = world.thread()
        starts = (world.client.start("scribe", "hello", thread=thread) for _ in range(3))
        answers = await asyncio.gather(*starts, return_exceptions=True)
        assert sorted(type(answer).__name__ for answer in answers) == ["Conflict", "Conflict", "tuple"]
        (message_id,) = [answer[1].message_id for answer in answers if isinstance(answer, tuple)]
        with pytest.raises(Conflict, match=thread):
            await world.client.start("scribe", "hello", thread=thread)
        await world.ended(thread, message_id)
        await world.completes(thread)
        with pytest.raises(Conflict, match=thread):
            await world.client.start("scribe", "hello", thread=thread)
        assert len(await world.runs(thread)) == 1


# ── closed ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_closed_thread_takes_no_more(make_world: MakeWorld) -> None:
    """The running turn and what is queued are finished first; then nothing is taken, and the record can be read."""
    async with make_world(app, talker()) as world:
        world.model.add_fault(ModelFault(mode="hang"))
        thread, first = await world.begin("scribe", "hello")
        await world.model.held()
        second = (await world.client.send(thread, "hello")).message_id
        await world.client.close_thread(thread)
        events = await world.length(thread)
        with pytest.raises(ThreadClosed):
            await world.client.send(thread, "hello")
        assert await world.length(thread) == events
        world.model.release()
        assert [(await world.ended(thread, m)).outcome for m in (first, second)] == ["answered"] * 2
        await eventually(lambda: status_of(world, thread), lambda s: s == WorkflowExecutionStatus.COMPLETED)
        assert (await world.client.status(thread)).status == "closed"
        assert (await world.client.checkpoint(thread)).turn == 2
        for _ in range(2):
            with pytest.raises(ThreadClosed):
                await world.client.send(thread, "hello")
        with pytest.raises(ThreadClosed):
            await world.client.close_thread(thread)
        with pytest.raises(ThreadClosed):
            await world.client.compensate(thread)
        row = await world.store.thread(thread)
        assert row is not None and row.closed
        assert len(await world.runs(thread)) == 1


async def test_a_thread_that_has_completed_can_be_closed(make_world: MakeWorld) -> None:
    """It is woken for that, and what it answers afterwards is what it was."""
    async with make_world(app, talker()) as world:
        thread, message_id = await world.begin("scribe", "hello")
        await world.ended(thread, message_id)
        before = await world.client.checkpoint(thread)
        await world.completes(thread)
        await world.client.close_thread(thread)
        await eventually(lambda: status_of(world, thread), lambda s: s == WorkflowExecutionStatus.COMPLETED)
        after = await world.client.checkpoint(thread)
        assert (after.status, after.head, after.parent_id, after.state, after.agent) == (
            "closed", before.head, before.parent_id, before.state, "scribe",
        )  # fmt: skip
        with pytest.raises(ThreadClosed):
            await world.client.send(thread, "hello")


# ── messages during a turn ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_repeated_message_is_one_message(make_world: MakeWorld) -> None:
    """By its id: during its turn, after it, and after the thread had completed and was resumed."""
    async with make_world(app, talker()) as world:
        world.model.add_fault(ModelFault(mode="hang"))
        thread = world.thread()
        await world.client.start("scribe", "hello", thread=thread, message_id="m1")
        assert await world.client.send(thread, "hello", message_id="m1") == Accepted(message_id="m1", repeated=True)
        await world.model.held()
        await world.handle(thread).signal("send", {"id": "m1", "content": "hello"})
        world.model.release()
        await world.ended(thread, "m1")
        assert (await world.client.send(thread, "hello", message_id="m1")).repeated
        await world.completes(thread)
        assert (await world.client.send(thread, "hello", message_id="m1")).repeated
        await world.completes(thread)
        await world.client.send(thread, "hello", message_id="m2")
        await world.ended(thread, "m2")
        assert (await world.client.send(thread, "hello", message_id="m1")).repeated
        assert [c.turn for c in await world.client.history(thread)] == [2, 2, 1, 1]


async def test_whoever_waits_is_never_left_waiting(make_world: MakeWorld) -> None:
    """For a message that the thread doesn't remember, or whose workflow was terminated in the middle of its turn."""
    async with make_world(app, talker()) as world:
        thread, message_id = await world.begin("scribe", "hello")
        await world.ended(thread, message_id)
        with pytest.raises(NotFound, match="no result of message m7"):
            await world.client.wait(thread, "m7")
        world.model.add_fault(ModelFault(mode="hang"))
        accepted = await world.client.send(thread, "hello")
        await world.model.held()
        await world.handle(thread).terminate()
        with pytest.raises(TurnFailed, match="ended in the middle of a turn"):
            await world.client.wait(thread, accepted.message_id)
        world.model.release()
        assert (await say_hello(world, thread)).turn == 3


async def test_messages_wait_in_line(make_world: MakeWorld) -> None:
    """`enqueue`: each gets a turn of its own, in order; its sender learns how many come before."""
    said = talker()
    async with make_world(app, said) as world:
        world.model.add_fault(ModelFault(mode="hang"))
        thread, first = await world.begin("scribe", "hello one")
        await world.model.held()
        accepted = [await world.client.send(thread, f"hello {which}") for which in ("two", "three")]
        assert [a.queued for a in accepted] == [1, 2]
        assert (await world.client.status(thread)).queued == 2
        world.model.release()
        results = [await world.ended(thread, m) for m in (first, *(a.message_id for a in accepted))]
        assert [(r.turn, r.outcome) for r in results] == [(1, "answered"), (2, "answered"), (3, "answered")]
        assert [text for role, text in said.told() if role == "user"] == ["hello one", "hello two", "hello three"]


async def test_a_message_in_line_may_turn_out_invalid(make_world: MakeWorld) -> None:
    """Its turn is refused when it comes; whoever waits for it learns why, and the next message is answered."""
    async with make_world(app, talker()) as world:
        world.model.add_fault(ModelFault(mode="hang"))
        thread, _ = await world.begin("scribe", "hello")
        await world.model.held()
        bad = await world.client.send(thread, "hello", state={"count": "many"})
        good = await world.client.send(thread, "hello")
        world.model.release()
        refused = await world.ended(thread, bad.message_id)
        assert (refused.outcome, refused.error_type, "Notes.count" in refused.error) == (
            "refused",
            "InvalidInput",
            True,
        )
        answered = await world.ended(thread, good.message_id)
        assert (answered.outcome, answered.turn) == ("answered", 2)


async def test_a_turn_can_be_cancelled_before_it_has_begun(make_world: MakeWorld) -> None:
    """A cancel that comes while its message is being committed counts: the model is never asked."""
    said, keeper = talker(), Doorkeeper("open_turn")
    async with make_world(app, said, serve=False) as world:
        async with world.worker():
            thread, message_id = await world.begin("scribe", "hello")
            await world.ended(thread, message_id)
        async with world.worker(interceptors=[keeper]):
            await world.handle(thread).signal("send", {"id": "m2", "content": "hello"})
            await keeper.hold.arrived()
            await world.client.cancel(thread, by="ann")
            keeper.hold.let_go()
            assert (await world.ended(thread, "m2")).error == "cancelled by ann"
            assert len(said.heard) == 1
            await say_hello(world, thread)


async def test_temporal_s_cancel_tells_everyone_who_waits(make_world: MakeWorld) -> None:
    """The turn that is being opened ends as cancelled, the messages in line are refused; the thread can be resumed."""
    keeper = Doorkeeper("open_turn")
    async with make_world(app, talker(), serve=False) as world, world.worker(interceptors=[keeper]):
        thread = world.thread()
        beginning = asyncio.create_task(world.client.start("scribe", "hello", thread=thread, message_id="m1"))
        await keeper.hold.arrived()
        await world.handle(thread).signal("send", {"id": "m2", "content": "hello"})
        await world.handle(thread).cancel()
        keeper.hold.let_go()
        await beginning
        await eventually(lambda: status_of(world, thread), lambda s: s == WorkflowExecutionStatus.CANCELED)
        first, second = [await world.ended(thread, message_id) for message_id in ("m1", "m2")]
        assert (first.outcome, first.error) == ("cancelled", "the workflow was cancelled")
        assert (second.outcome, "was cancelled" in second.error) == ("refused", True)
        assert (await say_hello(world, thread)).turn == 2


async def test_a_terminated_thread_is_taken_up_again(make_world: MakeWorld) -> None:
    """The hard button in the Temporal UI, while a call waits for approval: the next message is answered anyway."""
    said = talker(call("ask_first", what="a"))
    async with make_world(app, said) as world:
        thread, _ = await world.begin("scribe", "go")
        await world.opened(thread)
        await world.handle(thread).terminate()
        await say_hello(world, thread)
        assert [role for role, _ in said.told()] == ["user", "assistant", "tool", "user"]
        assert witness.of(thread) == []


@pytest.mark.parametrize("task", [1, 2, 3])
async def test_a_thread_that_temporal_has_reset_goes_on_from_the_store(make_world: MakeWorld, task: int) -> None:
    """The reset button takes the workflow back, not the world: what is done again in vain is undone and told, and the
    next message is answered on top of all that was stored."""
    said = talker(call("jot", text="a"), say("Noted."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("scribe", "go")
        await world.ended(thread, message_id)
        stored = await world.client.history(thread)
        await reset(world, thread, task)
        await eventually(lambda: world.client.status(thread), lambda s: s.results != () and s.status != "compensating")
        await say_hello(world, thread)
        answer, checkpoints = await world.client.checkpoint(thread), await world.client.history(thread)
        assert [c.id for c in checkpoints[-len(stored) :]] == [c.id for c in stored]
        assert [c.parent_id for c in checkpoints[:-1]] == [c.id for c in checkpoints[1:]]
        assert answer.head and answer.head.id == checkpoints[0].id
        assert answer.state == await world.client.state(thread)
        (effect,) = await world.client.effects(thread)
        assert (effect.status, witness.of(thread)) == ("undone", ["jot a", "strike a"])
        assert 'Undone: jot(text="a").' in said.told()[-2][1]


async def reset(world: World, thread: str, task: int) -> None:
    """Take the thread's workflow back to one of its workflow tasks."""
    kind = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    events = [event.event_id for event in (await world.fetch(thread)).events if event.event_type == kind]
    request = ResetWorkflowExecutionRequest(
        namespace=world.temporal.namespace, workflow_execution=WorkflowExecution(workflow_id=thread),
        workflow_task_finish_event_id=events[task], request_id=thread,
    )  # fmt: skip
    await world.temporal.workflow_service.reset_workflow_execution(request)


async def test_a_strict_thread_refuses_a_message_during_a_turn(make_world: MakeWorld) -> None:
    """`reject`: without a trace; when the turn has ended messages are welcome again."""
    async with make_world(app, talker()) as world:
        world.model.add_fault(ModelFault(mode="hang"))
        thread, first = await world.begin("strict", "hello")
        await world.model.held()
        events = await world.length(thread)
        with pytest.raises(ThreadBusy, match="Turn 1 is running"):
            await world.client.send(thread, "hello")
        assert await world.length(thread) == events
        world.model.release()
        await world.ended(thread, first)
        assert (await say_hello(world, thread)).turn == 2


@pytest.mark.parametrize(("agent", "undone"), [("hasty", False), ("careful", True)])
async def test_a_message_may_stop_the_turn(make_world: MakeWorld, agent: str, undone: bool) -> None:
    """`interrupt` keeps what the turn did, `rollback` undoes it; either way the new message gets the next turn."""
    said = talker(call("jot", text="a"), call("ask_first", what="b"))
    async with make_world(app, said) as world:
        thread, first = await world.begin(agent, "go")
        await world.opened(thread)
        second = (await world.client.send(thread, "hello")).message_id
        stopped, answered = [await world.ended(thread, m) for m in (first, second)]
        assert (stopped.outcome, stopped.error) == ("cancelled", "another message came")
        assert (answered.turn, answered.answer) == (2, "Hi.")
        assert witness.of(thread) == ["jot a", *(["strike a"] if undone else [])]
        assert [e.status for e in await world.client.effects(thread)] == ["undone" if undone else "done"]
        assert [entry.status for entry in world.model.log] == [200] * 3


async def test_the_unacknowledged_form_of_send(make_world: MakeWorld) -> None:
    """A signal carries a text or a message; what doesn't fit is told in the thread's log and changes nothing."""
    async with make_world(app, talker()) as world:
        thread, message_id = await world.begin("scribe", "hello")
        await world.ended(thread, message_id)
        handle = world.handle(thread)
        await handle.signal("send", "hello by signal")
        await eventually(lambda: world.client.status(thread), lambda s: len(s.results) == 2)
        await handle.signal("send", {"id": "m9", "content": "hello again"})
        await world.ended(thread, "m9")
        head = (await world.client.checkpoint(thread)).head
        for junk in (
            [],
            [1, 2],
            [{"content": 7}],
            [None],
            [[["content", "x"]]],
            [""],
            [{"id": "y" * 500, "content": "x"}],
        ):
            await handle.signal("send", args=cast("list[Any]", junk))
        status = await world.client.status(thread)
        assert len([entry for entry in status.log if entry.text.startswith("message refused")]) == 7
        assert (await world.client.checkpoint(thread)).head == head
        assert (status.queued, len(status.results)) == (0, 3)


# ── budgets ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("agent", "steps", "tokens"), [("frugal", 2, 0), ("sparing", 0, 100_000)])
async def test_a_turn_out_of_budget_waits_for_more(make_world: MakeWorld, agent: str, steps: int, tokens: int) -> None:
    """It stops in a state that a person can extend, for as long as that takes; then it goes on where it was."""
    said = talker(call("jot", text="a"), say("Noted."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin(agent, "go")
        status = await world.stands(thread, "out_of_budget")
        await world.forward(thread, timedelta(days=3))
        assert (await world.client.status(thread)).status == "out_of_budget"
        assert status.results == ()
        await world.client.extend(thread, steps=steps, tokens=tokens, by="ann")
        result = await world.ended(thread, message_id)
        assert (result.answer, result.steps) == ("Noted.", 3)
        with pytest.raises(Refused, match="No turn is running"):
            await world.client.extend(thread, steps=steps, tokens=tokens)


async def test_a_turn_out_of_budget_can_be_cancelled(make_world: MakeWorld) -> None:
    """Too little more leaves it waiting; a cancel ends it and undoes what it did."""
    async with make_world(app, talker(call("jot", text="a"), call("jot", text="b"), say("Noted."))) as world:
        thread, message_id = await world.begin("frugal", "go")
        await world.stands(thread, "out_of_budget")
        await world.client.extend(thread, steps=1)
        await eventually(
            lambda: world.client.status(thread), lambda s: (s.status, s.steps_used) == ("out_of_budget", 3)
        )
        await world.client.cancel(thread)
        assert (await world.ended(thread, message_id)).outcome == "cancelled"
        assert witness.of(thread) == ["jot a", "strike a"]
        assert (await world.client.status(thread)).status == "idle"
        await say_hello(world, thread)


# ── what a step merges ───────────────────────────────────────────────────────────────────────────────────────────


async def test_calls_of_one_answer_run_side_by_side(make_world: MakeWorld) -> None:
    """Three tools that wait for one another all run; their results stand in the order of the calls, in one step."""
    said = talker(together(*(call("meet", who=who) for who in ("ann", "bob", "cid"))), say("All met."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("scribe", "go")
        assert (await world.ended(thread, message_id)).answer == "All met."
        assert witness.of(thread) == ["met cid", "met bob", "met ann"]
        assert [text for role, text in said.told() if role == "tool"] == ["met ann", "met bob", "met cid"]
        assert [(c.step, c.nodes) for c in await world.client.history(thread)] == [
            (3, ("model",)), (2, ("tools",)), (1, ("model",)), (0, ()),
        ]  # fmt: skip
        assert (await world.store.sizes())["rows"]["receipts"] == 0


async def test_a_large_result_is_bounded_and_kept(make_world: MakeWorld) -> None:
    """The model and the state get its beginning and are told so; the whole of it is a blob in the store."""
    said = talker(call("print_out", pages=30_000), say("Long."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("scribe", "go")
        assert (await world.ended(thread, message_id)).answer == "Long."
        _, text = said.told()[-1]
        assert len(text) < MAX_OUTPUT + 200
        assert f"{360_000 - MAX_OUTPUT} of 360000 characters left out" in text
        assert (await world.client.blob(text.split()[-1].rstrip("]"))).decode() == await print_out(30_000)
        assert max(len(event.SerializeToString()) for event in (await world.fetch(thread)).events) < 40_000


async def test_tools_write_to_the_state_through_reducers(make_world: MakeWorld) -> None:
    """One after another and side by side: lists grow, numbers add up from their default, objects merge."""
    said = talker(call("jot", text="a"), together(call("jot", text="b"), call("jot", text="c")), say("Noted."))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("scribe", "go")
        await world.ended(thread, message_id)
        state = (await world.client.checkpoint(thread)).state
        assert (state["notes"], state["count"]) == (["a", "b", "c"], 13)
        assert state["places"] == {"a": {"step": 1}, "b": {"step": 3}, "c": {"step": 3}}
        assert state == await world.client.state(thread)


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("text", "why"), [("a number", "Notes.count"), ("a stranger", "Notes.colour")])
async def test_an_invalid_update_fails_the_step_and_is_undone(
    make_world: MakeWorld, text: str, why: str, beside: bool
) -> None:
    """The error names the channel; nothing of the update is written, and the effect, which was made, is undone."""
    calls = [call("jot", text=text), *([call("jot", text="fine")] if beside else [])]
    async with make_world(app, talker(together(*calls))) as world:
        thread, message_id = await world.begin("scribe", "go")
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.error_type) == ("failed", "InvalidInput")
        assert why in result.error
        assert sorted(witness.of(thread)) == sorted(
            [f"jot {text}", f"strike {text}", *(["jot fine", "strike fine"] if beside else [])]
        )
        assert {e.status for e in await world.client.effects(thread)} == {"undone"}
        state = (await world.client.checkpoint(thread)).state
        assert (state.get("count", 10) in (10, 11), "colour" in state) == (True, False)
        assert why in next(m["content"] for m in state["messages"] if m["role"] == "tool")
        await say_hello(world, thread)


async def test_two_writers_of_one_channel_are_an_error(make_world: MakeWorld) -> None:
    """Side by side on a channel that is overwritten: the error names both, nothing is written, the thread goes on."""
    said = talker(together(call("rename", title="x"), call("jot", text="a"), call("rename", title="y")))
    async with make_world(app, said) as world:
        thread, message_id = await world.begin("scribe", "go")
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.error_type) == ("failed", "InvalidInput")
        assert "rename (call 1) and rename (call 3) both overwrite Notes.title" in result.error
        state = (await world.client.checkpoint(thread)).state
        assert ("title" in state, "notes" in state) == (False, False)
        assert witness.of(thread)[-1] == "strike a"
        await say_hello(world, thread)
        tools = [text for role, text in said.told() if role == "tool"]
        assert len(tools) == 3
        assert all("both overwrite Notes.title" in text for text in tools)


# ── long threads ─────────────────────────────────────────────────────────────────────────────────────────────────


def bytes_by_step(history: WorkflowHistory) -> dict[int, int]:
    """How many bytes of history each step took: its events, up to the one that tells its checkpoint."""
    found: dict[int, int] = {}
    size = 0
    for event in history.events:
        size += len(event.SerializeToString())
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:  # each of them commits the next step
            found[len(found)] = size
            size = 0
    return found


def grown(sizes: dict[int, int], start: int, end: int) -> float:
    """How many bytes the store grew by each step between two steps, by the samples nearest to them."""
    first, last = (min(sizes, key=lambda step: abs(step - at)) for at in (start, end))
    return (sizes[last] - sizes[first]) / (last - first)


async def test_a_thousand_steps(make_world: MakeWorld) -> None:
    """A turn of a thousand steps continues as new on the way and goes on; the query `checkpoint` stays answerable and
    bounded; and a step costs the same at step 200 as at step 20, in Temporal's history and in the store."""
    async with make_world(app, talker(), history_events=1600) as world:
        thread, message_id = await world.begin("counter", "count to 500")
        first_run = (await world.handle(thread).describe()).run_id
        answers: list[CheckpointAnswer] = []
        sizes: dict[int, int] = {}
        while not (await world.client.status(thread)).results:
            stored = await world.store.sizes()  # with the steps that are in these very bytes, not those a moment ago
            sizes[stored["rows"]["checkpoints"]] = stored["bytes"]
            answers.append(await world.handle(thread).query("checkpoint", result_type=CheckpointAnswer))
            await asyncio.sleep(0.5)
        result = await world.ended(thread, message_id)
        assert (result.outcome, result.answer, result.steps) == ("answered", "Counted to 500.", 1001)
        answers.append(await world.handle(thread).query("checkpoint", result_type=CheckpointAnswer))
        assert max(len(answer.model_dump_json()) for answer in answers) < BOUND + 2_000
        assert answers[-1].truncated
        assert answers[-1].state["messages"][-1]["content"] == "Counted to 500."
        whole = await world.client.checkpoint(thread)
        assert (len(whole.state["messages"]), whole.truncated) == (1002, False)
        assert (await world.handle(thread).describe()).run_id != first_run
        begun, *_ = (await world.handle(thread).fetch_history()).events
        assert begun.ByteSize() < BOUND / 2, "what is carried is references, and a part of the view"

        steps = bytes_by_step(await world.handle(thread, first_run).fetch_history())
        early, late = (median(steps[step] for step in range(at - 5, at + 5)) for at in (20, 200))
        assert late == pytest.approx(early, rel=0.1), f"{early} bytes of history at step 20, {late} at step 200"
        growth = [grown(sizes, start, start + 400) for start in (100, 550)]
        assert growth[1] <= growth[0] * 1.1, f"bytes of the store a step, early and late: {growth}"
        rows = (await world.store.sizes())["rows"]
        assert (rows["checkpoints"], rows["snapshots"], rows["receipts"]) == (1002, 0, 0)
        assert rows["results"] == 501 + 1, "one for each answer, and one for the short name of the agent's definition"
        await say_hello(world, thread)


async def test_what_a_thread_takes_along_when_it_continues_as_new(make_world: MakeWorld) -> None:
    """Refused decisions, closed requests, ids of messages seen, the log, the parent of its head, how long it idles."""
    said = Talker(rules=[Rule(when="go", replies=[call("ask_first", what="a"), say("Done.")]), *talker().rules])
    async with make_world(app, said, history_events=50) as world:
        thread = world.thread()
        await world.client.start("patient", "go", thread=thread, message_id="m1")
        await world.opened(thread)
        await world.handle(thread).signal("approve", "junk")
        first = (await world.handle(thread).describe()).run_id
        await world.client.decide(thread, "approve", await world.client.request(thread), approver="ann")
        await world.ended(thread, "m1")
        before = await world.client.approvals(thread)
        lengths = []
        for number in range(6):
            await world.client.send(thread, "hello", message_id=f"h{number}")
            await world.ended(thread, f"h{number}")
            lengths.append(await eventually(lambda: world.length(thread), lambda length: length < 50))
            answer, newest = await world.client.checkpoint(thread), await world.client.history(thread, limit=2)
            assert (answer.head and answer.head.id, answer.parent_id) == (newest[0].id, newest[1].id)
        assert min(lengths) < 10, "between two turns"
        assert max(lengths) > 10, "in the middle of one"
        assert (await world.handle(thread).describe()).run_id != first
        assert await world.client.approvals(thread) == before
        assert [refusal.code for refusal in before.refused_decisions] == ["malformed"]
        assert [request.outcome for request in before.closed] == ["approved"]
        assert (await world.client.send(thread, "go", message_id="m1")).repeated
        answer = await world.handle(thread).query("checkpoint", result_type=CheckpointAnswer)
        assert not answer.truncated
        assert answer.state == await world.client.state(thread)
        await world.forward(thread, timedelta(days=29))
        assert await status_of(world, thread) == WorkflowExecutionStatus.RUNNING


async def test_a_close_is_not_forgotten_on_the_way(make_world: MakeWorld) -> None:
    """Given in the middle of a turn that continues as new: the turn is finished, then the thread closes."""
    async with make_world(app, talker(), history_events=50) as world:
        thread, message_id = await world.begin("counter", "count to 20")
        first = (await world.handle(thread).describe()).run_id
        await world.client.close_thread(thread)
        assert (await world.ended(thread, message_id)).answer == "Counted to 20."
        await eventually(lambda: status_of(world, thread), lambda s: s == WorkflowExecutionStatus.COMPLETED)
        assert (await world.handle(thread).describe()).run_id != first
        assert (await world.client.status(thread)).status == "closed"


async def test_an_earlier_turn_is_compensated_between_turns(make_world: MakeWorld) -> None:
    """Asked for while a long turn runs, it waits for that turn's end and doesn't keep it from going on."""
    said = talker(call("jot", text="a"), say("Noted."))
    both = App(agents=[Agent(name="both", model="m", state=Notes, tools=[jot, tick])], tools=[strike])
    async with make_world(both, said, history_events=50) as world:
        thread, message_id = await world.begin("both", "go")
        await world.ended(thread, message_id)
        world.model.add_fault(ModelFault(mode="hang"))
        accepted = await world.client.send(thread, "count to 15")
        await world.model.held()
        undoing = asyncio.create_task(world.client.compensate(thread, turn=1))
        await eventually(lambda: world.fetch(thread), _compensation_is_asked_for)
        world.model.release()
        assert (await world.ended(thread, accepted.message_id)).answer == "Counted to 15."
        assert (await undoing).undone == ('jot(text="a")',)
        assert witness.of(thread) == ["jot a", "strike a"]


def _compensation_is_asked_for(history: WorkflowHistory) -> bool:
    accepted = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    asked = [e.workflow_execution_update_accepted_event_attributes for e in history.events if e.event_type == accepted]
    return any(update.accepted_request.input.name == "compensate" for update in asked)
