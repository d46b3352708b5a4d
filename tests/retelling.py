"""A thread that is committed as the engine does it, and a history of it as Temporal keeps it: all without Temporal."""

import json
from collections.abc import Sequence
from typing import Any

from perdure.budget import Usage
from perdure.canonical import canonical
from perdure.care.chronicle import Call, Chronicle, Run, chronicle
from perdure.checkpoint import Frontier, Ref, Task
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.contracts import (
    CALL_MODEL,
    FORK_THREAD,
    INLINE,
    MERGE_STEP,
    OPEN_TURN,
    REWIND_HEAD,
    WRITE_STATE,
    AgentSpec,
    Answered,
    CallModel,
    CallTool,
    Commit,
    Committed,
    Common,
    Ended,
    ForkThread,
    Found,
    MergeStep,
    ModelDone,
    NodeDone,
    NodeSpec,
    OpenedTurn,
    OpenTurn,
    Origin,
    Part,
    Rewind,
    RewindHead,
    RunNode,
    Send,
    ThreadInput,
    ToolDone,
    ToolPlan,
    UpdateState,
    Wire,
    WriteState,
    brief,
    brief_answer,
    lean,
    node_stub,
    tool_stub,
)
from perdure.delta import Delta
from perdure.stores import Store
from perdure.view import StateView
from tests import threads

AT = "2026-01-02T03:04:05.678+00:00"
SPEC = AgentSpec(
    name="desk", digest="d" * 64, start=("model",),
    nodes={
        "model": NodeSpec(kind="model", routes={"answer": ("end",), "tool_calls": ("tools",)}),
        "tools": NodeSpec(kind="tools", routes={"done": ("model",)}),
        "split": NodeSpec(kind="function", routes={"done": ("left", "right")}, chooses=("left", "split")),
        "left": NodeSpec(kind="function", routes={"done": ("join",), "error": ("mend",)}),
        "right": NodeSpec(kind="human", routes={"done": ("join",), "expired": ("mend",)}),
        "join": NodeSpec(kind="function", routes={"done": ("end",)}, joins=("left", "right")),
        "mend": NodeSpec(kind="function", routes={"done": ("end",)}),
    },
)  # fmt: skip


def says(text: str, role: str = "assistant") -> Delta:
    """A message, and a text that is overwritten each time: so there are snapshots where it is long."""
    message = {"role": role, "content": text[:20], "id": threads.checkpoint_id()}
    return {"messages": {"op": "messages", "put": [message]}, "text": {"op": "set", "value": text}}


def to(*nodes: str) -> Frontier:
    """What follows: these nodes."""
    return Frontier(tasks=tuple(Task(node=node) for node in nodes))


def _common(commit: Commit, node: str, *, channel: str = "messages", call_id: str = "") -> Common:
    """What workflow and activity know of a step."""
    assert commit.head is not None
    return Common(
        head=commit.head, id=commit.id, node=node, turn=commit.turn, routes=SPEC.nodes[node].routes, channel=channel,
        call_id=call_id,
    )  # fmt: skip


class Retelling:
    """One thread: every method commits, and enters in the history what Temporal would have of it."""

    def __init__(self, store: Store, thread_id: str = "", *, agent: str = "desk", tenant: str = "acme") -> None:
        self.store = store
        self.thread_id = thread_id or threads.name()
        self.given = ThreadInput(agent=agent, tenant=tenant)
        self.checkpointer = Checkpointer(store)
        self.positions: list[Position] = []
        self.calls: list[Call] = []
        self.turn = 0

    @property
    def head(self) -> Position | None:
        """Where the thread stands."""
        return self.positions[-1] if self.positions else None

    @property
    def ids(self) -> list[str]:
        """Its checkpoints in the order of their commits."""
        return [position.ref.id for position in self.positions]

    def told(self) -> Chronicle:
        """What the history tells."""
        return chronicle(self.thread_id, [Run(given=self.given, calls=tuple(self.calls))])

    # ── a turn ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def opens(self, text: str = "hello", *, next: Frontier | None = None, **metadata: Any) -> Position:
        """A message opens a turn."""
        self.turn += 1
        commit, message = self._commit(), Send(id=f"m{self.turn}", content=text, metadata=metadata)
        done, position = await self._done(
            commit, says(text, "user"), source="input", next=next or to("model"), metadata=metadata,
            facts={"message_id": message.id},
        )  # fmt: skip
        task = OpenTurn(commit=commit, agent="desk", tenant=self.given.tenant, message=message)
        self._ended(OPEN_TURN.name, task, OpenedTurn(spec=SPEC, committed=done))
        return position

    async def asks(self, text: str = "well", *, calls: int = 0) -> Position:
        """The model answers, or asks for so many calls, as the only task of its step."""
        used = Usage(calls=1, prompt=7, completion=3)
        commit = self._commit()
        done, position = await self._done(
            commit, says(text), nodes=("model",), next=to("tools") if calls else Frontier(),
            facts={"usage": used.model_dump(exclude_defaults=True)},
        )  # fmt: skip
        plans = tuple(ToolPlan(call_id=f"c{n}", tool="look", index=n, summary="look(…)") for n in range(calls))
        task = CallModel(commit=commit, spec=SPEC.digest, node="model")
        answered = Answered(done, plans, used, answer=text)
        self._ended(CALL_MODEL.name, task, brief_answer(answered, _common(commit, "model"), plain=True))
        return position

    async def calls_tool(self, text: str = "seen") -> Position:
        """The only call of a step."""
        commit = self._commit()
        done, position = await self._done(commit, says(text, "tool"), nodes=("tools",), next=to("model"))
        task = CallTool(commit=commit, spec=SPEC.digest, tool="look", key="k", digest="d")
        told = brief(done, _common(commit, "tools", call_id="c0"), plain=True)
        self._ended(tool_stub("look").name, task, ToolDone(committed=told))
        return position

    async def runs(self, node: str, *, next: Frontier) -> Position:
        """A function, as the only task of its step."""
        commit = self._commit()
        done, position = await self._done(commit, says(node), nodes=(node,), next=next, facts={"cached": True})
        task = RunNode(commit=commit, agent="desk", spec=SPEC.digest, node=node)
        told = brief(done, _common(commit, node, channel=""), plain=position.next.is_plain)
        self._ended(node_stub(node).name, task, NodeDone(committed=told, cached=True))
        return position

    async def merges(
        self, *, next: Frontier, ended: Sequence[Ended] = (), local: bool = True, used: int = 0,
        delta: Delta | None = None,
    ) -> Position:  # fmt: skip
        """Several tasks of a step, merged beside the workflow (``local``) or by an activity."""
        assert self.head is not None
        commit, nodes = self._commit(), self.head.next.nodes
        for number, end in enumerate(ended):
            self._task(commit, number, end, used)
        facts = {"usage": Usage(calls=1, prompt=used).model_dump(exclude_defaults=True)} if used else {}
        done, position = await self._done(commit, delta or says("merged"), nodes=nodes, next=next, facts=facts)
        task = MergeStep(commit=commit, agent="desk", spec=SPEC.digest, ended=tuple(ended), parts=(Part(key="k"),))
        self._ended(MERGE_STEP.name, None if local else task, done)
        return position

    def _task(self, commit: Commit, number: int, end: Ended, used: int) -> None:
        """What the history has of one task of a step that is merged; of a question that nobody answers, nothing."""
        if SPEC.nodes[end.node].kind == "function":
            task = RunNode(commit=commit, agent="desk", spec=SPEC.digest, node=end.node, task=number, alone=False)
            failed = {"error": end.error, "error_type": end.error_type} if end.outcome == "error" else {}
            self._ended(node_stub(end.node).name, task, None if failed else NodeDone(key="k"), **failed)
        elif SPEC.nodes[end.node].kind == "model":
            ask = CallModel(commit=commit, spec=SPEC.digest, node=end.node, task=number, alone=False)
            self._ended(CALL_MODEL.name, ask, ModelDone(key="k", usage=Usage(calls=1, prompt=used)))

    async def notes(self, text: str = "rolled back") -> Position:
        """A turn was stopped."""
        commit = self._commit()
        done, position = await self._done(commit, says(text), source="compensation", next=Frontier())
        self._ended(MERGE_STEP.name, MergeStep(commit=commit, source="compensation", agent="desk", say=text), done)
        return position

    # ── between turns ────────────────────────────────────────────────────────────────────────────────────────────

    async def updates(self, text: str = "better", *, as_node: str = "", next: Frontier | None = None) -> Position:
        """Somebody writes to the state."""
        assert self.head is not None
        commit = self._commit()
        update = UpdateState(state={"text": text}, as_node=as_node, metadata={"tag": text}, by="ann", reason="typo")
        done, position = await self._done(
            commit, {"text": {"op": "set", "value": text}}, source="update", nodes=(as_node,) if as_node else (),
            next=next or self.head.next, metadata={"tag": text}, facts={"by": "ann", "reason": "typo"},
        )  # fmt: skip
        self._ended(WRITE_STATE.name, WriteState(commit=commit, agent="desk", update=update), done)
        return position

    async def rewinds(self, target: Position, *, branch: int = 1) -> Position:
        """The head goes back."""
        assert self.head is not None
        commit = self._commit()
        position = await self.checkpointer.commit(
            target, self._change(
                commit, {}, source="rewind", turn=target.turn, next=target.next,
                facts={"from": self.head.ref.id, "by": "bob"},
            ), replaces=self.head.ref.id, branch=branch,
        )  # fmt: skip
        self.positions.append(position)
        self.turn = target.turn
        rewind = Rewind(to=target.ref.id, by="bob")
        task = RewindHead(commit=commit, agent="desk", branch=branch, rewind=rewind)
        self._ended(REWIND_HEAD.name, task, self._found(position, {}, branch))
        return position

    async def forks(self, origin: Position, *, lineage: str) -> Position:
        """This thread begins at a checkpoint of another."""
        commit, delta = self._commit(), {"text": {"op": "set", "value": "another way"}}
        change = self._change(commit, delta, source="fork", turn=origin.turn, next=origin.next, facts={"by": "eve"})
        position = await self.checkpointer.commit(origin, change, agent="desk", tenant="acme", lineage=lineage)
        self.positions.append(position)
        self.turn = origin.turn
        where = Origin(thread_id=origin.thread_id, checkpoint_id=origin.ref.id, by="eve")
        self._ended(FORK_THREAD.name, ForkThread(commit=commit, origin=where), self._found(position, delta, 0))
        return position

    # ── what they share ──────────────────────────────────────────────────────────────────────────────────────────

    def _commit(self) -> Commit:
        head: Ref | None = self.head.ref if self.head else None
        return Commit(id=threads.checkpoint_id(), head=head, turn=self.turn)

    def _change(self, commit: Commit, delta: Delta, **more: Any) -> Change:
        fields: dict[str, Any] = {"source": "step", "turn": commit.turn, **more}
        return Change(thread_id=self.thread_id, checkpoint_id=commit.id, delta=delta, **fields)

    async def _done(self, commit: Commit, delta: Delta, **more: Any) -> tuple[Committed, Position]:
        position = await self.checkpointer.commit(
            self.head, self._change(commit, delta, **more), agent="desk", tenant=self.given.tenant
        )
        self.positions.append(position)
        committed = Committed(
            head=position.ref, next=position.next.nodes, schema_version=position.schema_version,
            delta=delta if len(canonical(delta)) <= INLINE else None,
        )  # fmt: skip
        return committed, position

    def _found(self, position: Position, delta: Delta, branch: int) -> Found:
        return Found(
            agent="desk", tenant="acme", head=position.ref, parent_id=position.parent_id, next=position.next.nodes,
            turn=position.turn, branch=branch, view=StateView(), delta=delta,
        )  # fmt: skip

    def _ended(self, activity: str, task: Wire | None, result: Wire | None, **more: str) -> None:
        given, back = (json.loads(lean(one).json()) if one else None for one in (task, result))
        self.calls.append(Call(activity=activity, at=AT, task=given, result=back, **more))
