"""The tasks of a step that aren't calls of tools: ask a model, run a node's function, ask a person.

Each runs to its end and never raises: how it ended, or None where the turn is told to stop.
"""

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from perdure.contracts import (
    ASK,
    CALL_MODEL,
    TAKE_ANSWER,
    Answer,
    Answered,
    CallModel,
    Commit,
    Committed,
    Common,
    Ended,
    ModelDone,
    NodeDone,
    NodeSpec,
    Part,
    Recorded,
    RunNode,
    TakeAnswer,
    ToolPlan,
    node_stub,
    whole,
    whole_answer,
)
from perdure.failures import describe, root
from perdure.questions import Question
from perdure.workflows.calls import error_type, give_up, start_node, store_call
from perdure.workflows.display import Display
from perdure.workflows.record import Record, Stop, Stopped, Turn


class NodeTask:
    """What the tasks share."""

    def __init__(
        self, record: Record, turn: Turn, display: Display, commit: Commit, number: int, node: str, *, alone: bool
    ) -> None:
        self.record = record
        self.turn = turn
        self.display = display
        self.commit = commit
        self.number = number
        self.node = node
        self.alone = alone
        self.spec: NodeSpec = turn.spec.nodes[node]
        self.committed: Committed | None = None
        self.key = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the task brings to the merge of its step."""
        return (Part(task=self.number, node=self.node, key=self.key),) if self.key else ()

    def unmergeable(self, why: str) -> None:
        """The step can't be committed; nothing of it was done outside."""

    async def run(self) -> Ended | None:
        """To its end."""
        try:
            return Ended(node=self.node, outcome=await self.work())
        except Stopped:
            return None
        except ActivityError as error:
            return self.failed(describe(root(error)), error_type(error))

    async def work(self) -> str:
        """The outcome. Raises Stopped, ActivityError."""
        raise NotImplementedError

    def failed(self, why: str, kind: str) -> Ended | None:
        """The node's error route, if it has one; else the turn fails."""
        self.record.note(f"{self.node} failed: {why}")
        if "error" in self.spec.routes:
            return Ended(node=self.node, outcome="error", error=why, error_type=kind)
        if self.record.stop is None:
            what = "the model call" if self.spec.kind == "model" else f"node {self.node}"
            self.record.stop = Stop(kind="failed", reason=f"{what} failed: {why}", error_type=kind)
        return None

    async def unless_stopped(self, handle: Any) -> Any:
        """The result of an activity that may be given up. Raises Stopped, ActivityError."""
        await workflow.wait_condition(lambda: handle.done() or self.record.stop is not None)
        if not handle.done():
            give_up(handle)
            raise Stopped
        return await handle

    def run_node(self) -> RunNode:
        """The node's run, as an activity takes it."""
        return RunNode(
            commit=self.commit, agent=self.record.agent, spec=self.turn.spec.digest, node=self.node, task=self.number,
            alone=self.alone, branch=self.record.branch, dry_run=self.record.dry_run,
        )  # fmt: skip

    def common(self, channel: str = "") -> Common:
        """What the activity knows too of the step that it commits."""
        assert self.commit.head is not None, "a task runs on a head"
        commit, head = self.commit, self.commit.head
        return Common(
            head=head, id=commit.id, node=self.node, turn=commit.turn, routes=self.spec.routes, channel=channel
        )

    def summary(self, what: str) -> str:
        """One line for the timeline in Temporal's UI."""
        return f"turn {self.turn.number}, step {self.turn.steps + 1}: {what}"


class ModelTask(NodeTask):
    """Ask the model of a node."""

    calls: tuple[ToolPlan, ...] = ()

    async def work(self) -> str:
        """The model's answer, or its calls."""
        turn, record = self.turn, self.record
        task = CallModel(
            commit=self.commit, spec=turn.spec.digest, node=self.node, task=self.number, alone=self.alone,
            branch=record.branch, recorded=self._planned(),
        )  # fmt: skip
        handle = start_node(
            CALL_MODEL, task, self.spec, summary=self.summary(f"ask {self.spec.model}"), limits=turn.spec.limits
        )
        told: ModelDone = await self.unless_stopped(handle)
        done = whole_answer(told, self.common(self.spec.channel))
        self.committed, self.key = done.committed, done.key
        turn.usage = turn.usage.plus(done.usage)
        self.calls = done.calls
        if done.calls:
            turn.answer = turn.note = ""
        else:
            turn.answer, turn.note = done.answer, done.note
        self._follow(done)
        asked = ", ".join(call.summary for call in done.calls)
        how = " (planned)" if not done.usage.calls else " (cached)" if done.usage.cached else ""
        record.note(f"{self.node}{how}: {asked or done.answer[:80]}")
        return "tool_calls" if done.calls else "answer"

    def _planned(self) -> Recorded | None:
        """The next answer of the plan that the turn follows, while it can be followed."""
        plan = self.turn.plan
        return Recorded(thread_id=plan.fork, checkpoint_id=plan.answers[0]) if plan and plan.answers else None

    def _follow(self, done: Answered) -> None:
        """One answer of the plan was taken. Where a model was asked (and a call was used for that) the plan is over."""
        if plan := self.turn.plan:
            rest = plan.answers[1:]
            if done.usage.calls and plan.answers:
                self.record.note(f"the plan of {plan.fork} no longer fits")
            self.turn.plan = plan.model_copy(update={"answers": rest}) if rest and not done.usage.calls else None


class FunctionTask(NodeTask):
    """Run the function of a node."""

    async def work(self) -> str:
        """It is done once its function has returned what fits."""
        stub = node_stub(self.node)
        handle = start_node(
            stub, self.run_node(), self.spec, summary=self.summary(self.node), limits=self.turn.spec.limits
        )
        done: NodeDone = await self.unless_stopped(handle)
        self.committed, self.key = whole(done.committed, self.common()) if done.committed else None, done.key
        self.record.note(f"{self.node}{' (cached)' if done.cached else ''}: done")
        return "done"


class HumanTask(NodeTask):
    """Ask a person, and wait as long as the question stands. Nothing is run again when the answer comes."""

    async def work(self) -> str:
        """``done`` once a fitting answer has come, ``expired`` where none did. Raises Stopped, ActivityError."""
        record, book = self.record, self.record.questions
        question = book.ask(await self._question(), self.node, self.spec.deadline, workflow.now())
        record.asking[question.id] = self
        record.note(question.waits_for())
        self.display.refresh()

        def answered() -> bool:
            return record.stop is not None or book.questions[question.id].outcome != "open"

        try:
            await workflow.wait_condition(
                answered, timeout=self.spec.deadline, timeout_summary=f"waits for {question.waits_for()}"
            )
        except TimeoutError:
            book.close(question.id, "expired")
        finally:
            record.asking.pop(question.id, None)
        outcome = book.questions[question.id].outcome
        if outcome == "open":
            book.close(question.id, "withdrawn")
            raise Stopped
        record.note(f"question {question.id}: {outcome} {book.questions[question.id].answered_by}".rstrip())
        self.display.refresh()
        if record.stop:
            raise Stopped
        return "done" if outcome == "answered" else self._expired()

    async def _question(self) -> Question:
        if not self.spec.asks:
            return Question(text=self.spec.question, answer_schema=self.spec.answer_schema)
        # What is asked is the author's code on the state: it has the same time as any short look at the store.
        question: Question = await self.unless_stopped(
            start_node(
                ASK, self.run_node(), NodeSpec(kind="human", timeout=60.0, deadline=600.0),
                summary=self.summary(f"what does {self.node} ask?"), limits=self.turn.spec.limits,
            )
        )  # fmt: skip
        return question

    def _expired(self) -> str:
        if "expired" not in self.spec.routes and self.record.stop is None:
            why = f"nobody answered {self.node} in time"
            self.record.stop = Stop(kind="failed", reason=why, error_type="Refused")
            raise Stopped
        return "expired"

    async def take(self, answer: Answer) -> None:
        """Check an answer by the node's type, and record it. Raises ActivityError where it doesn't fit."""
        task = TakeAnswer(
            commit=self.commit, agent=self.record.agent, spec=self.turn.spec.digest, node=self.node, task=self.number,
            branch=self.record.branch, answer=answer,
        )  # fmt: skip
        summary = f"{answer.by} answers {answer.question_id}"
        done = await store_call(TAKE_ANSWER, task, summary=summary, limits=self.turn.spec.limits)
        self.key = done.key
