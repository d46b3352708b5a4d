"""Activities as the workflow knows them: a name, an input type, an output type."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from perdure.audit import AuditHead
from perdure.contracts.base import NODE_PREFIX, RECONCILE_PREFIX, TOOL_PREFIX, UNDO_PREFIX
from perdure.contracts.tasks import (
    AppendAudit,
    CallModel,
    CallTool,
    CheckDecision,
    CheckedDecision,
    CloseThread,
    Committed,
    ForkThread,
    Found,
    InspectEffect,
    KeepLease,
    Known,
    LookUp,
    MergeStep,
    ModelDone,
    NodeDone,
    Notify,
    OpenedTurn,
    OpenTurn,
    PlanRewind,
    PromoteFork,
    Promotion,
    Reconcile,
    ResumedTurn,
    ResumeTurn,
    RewindHead,
    RewindPlan,
    RunNode,
    Saga,
    SagaQuery,
    Settle,
    TakeAnswer,
    ToolDone,
    Undo,
    WriteState,
)
from perdure.effects import Effect
from perdure.questions import Question

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out")


@dataclass(frozen=True)
class Stub(Generic[In, Out]):
    """An activity as the workflow knows it: its name and its types."""

    name: str
    takes: type[In]
    gives: type[Out]


LOOK_UP = Stub("look_up", LookUp, Found)
OPEN_TURN = Stub("open_turn", OpenTurn, OpenedTurn)
CALL_MODEL = Stub("call_model", CallModel, ModelDone)
MERGE_STEP = Stub("merge_step", MergeStep, Committed)
INSPECT_EFFECT = Stub("inspect_effect", InspectEffect, Known)
LOAD_SAGA = Stub("load_saga", SagaQuery, Saga)
SETTLE_EFFECT = Stub("settle_effect", Settle, Effect)
CLOSE_THREAD = Stub("close_thread", CloseThread, bool)
RESUME_TURN = Stub("resume_turn", ResumeTurn, ResumedTurn)
FORK_THREAD = Stub("fork_thread", ForkThread, Found)
WRITE_STATE = Stub("write_state", WriteState, Committed)
PLAN_REWIND = Stub("plan_rewind", PlanRewind, RewindPlan)
REWIND_HEAD = Stub("rewind_head", RewindHead, Found)
TAKE_ANSWER = Stub("take_answer", TakeAnswer, NodeDone)
ASK = Stub("ask", RunNode, Question)
CHECK_DECISION = Stub("check_decision", CheckDecision, CheckedDecision)
APPEND_AUDIT = Stub("append_audit", AppendAudit, AuditHead)
NOTIFY = Stub("notify", Notify, bool)
PROMOTE_FORK = Stub("promote_fork", PromoteFork, Promotion)
KEEP_LEASE = Stub("keep_lease", KeepLease, bool)


def tool_stub(tool: str) -> Stub[CallTool, ToolDone]:
    """The activity that runs a tool; its type carries the tool's name."""
    return Stub(TOOL_PREFIX + tool, CallTool, ToolDone)


def node_stub(node: str) -> Stub[RunNode, NodeDone]:
    """The activity that runs the function of a node; its type carries the node's name."""
    return Stub(NODE_PREFIX + node, RunNode, NodeDone)


def reconcile_stub(hook: str) -> Stub[Reconcile, Known]:
    """The activity that asks a hook how an effect ended; its type carries the hook's name."""
    return Stub(RECONCILE_PREFIX + hook, Reconcile, Known)


def undo_stub(compensation: str) -> Stub[Undo, Effect]:
    """The activity that compensates an effect; its type carries the compensation's name."""
    return Stub(UNDO_PREFIX + compensation, Undo, Effect)
