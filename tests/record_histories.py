"""Records the histories in ``tests/histories``, one for each behaviour, that ``tests/test_replay.py`` replays.

    python -m tests.record_histories

Record anew when the workflow's commands changed on purpose; every thread that runs at that moment notices such a
change. What tells of the machine (stack traces, host names, task queues) is left out: a replay doesn't look at it.
Each file is one run of a workflow, ``NAME.json.gz``; of a thread with several runs there are ``NAME-1``, ``NAME-2``.

Long: one scenario a behaviour.
"""

import asyncio
import gzip
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowHistory
from temporalio.testing import TimeSkippingConfig, WorkflowEnvironment

from perdure import (
    END,
    START,
    Agent,
    App,
    Approval,
    Budget,
    Graph,
    Send,
    State,
    ToolContext,
    ToolError,
    append,
    tool,
)
from perdure.errors import ConcurrentModification, InvalidInput
from perdure.testing import Rule, Script, call, say, together
from perdure.wire import data_converter
from tests import approval_scenes, dry_scenes, effect_scenes
from tests.conftest import SERVER
from tests.world import TEMPORAL, World, eventually, search_attributes, world

FOLDER = Path(__file__).parent / "histories"
_LOOKS = 8  # steps of the long turn: more than fit in one run of 60 events
_MACHINE = frozenset({"stackTrace", "identity", "workerVersion", "binaryChecksum"})
_QUEUES = frozenset({"TASK_QUEUE_KIND_NORMAL", "TASK_QUEUE_KIND_STICKY"})

Scene = Callable[[World, str], Awaitable[None]]


@tool
async def look(ctx: ToolContext, what: int) -> str:
    """Look something up."""
    return f"seen {what}"


@tool(beside=True)
async def glance(what: int) -> str:
    """Look at something for a moment."""
    return f"{what} is there"


@tool(effect="compensable", compensate="refund", approval=Approval(when=lambda args: args.amount > 100))
async def pay(ctx: ToolContext, amount: int) -> int:
    """Pay."""
    return amount


@tool(effect="idempotent", hidden=True)
async def refund(ctx: ToolContext, receipt: int) -> None:
    """Get it back."""


@tool(effect="compensable", compensate="recall", on_error="rollback")
async def ship(ctx: ToolContext, to: str) -> str:
    """Ship it, or take back the whole order."""
    raise ToolError(f"No courier goes to {to}.")


@tool(effect="idempotent", hidden=True)
async def recall(ctx: ToolContext, receipt: str) -> None:
    """Call it back."""


@tool(effect="irreversible")
async def wire(ctx: ToolContext, amount: int) -> str:
    """Send money. The line breaks, and nobody knows whether it went."""
    raise ConnectionError("the line broke")


class Board(State):
    """What the graph writes on."""

    lines: Annotated[list[str], append] = []
    approved: bool = False


async def write(arg: str) -> dict[str, Any]:
    """Write a line; the third can't be written."""
    if arg == "c":
        raise ToolError("There is no room.")
    return {"lines": [arg]}


async def mend(arg: dict[str, str]) -> dict[str, Any]:
    """Write what went wrong."""
    return {"lines": [arg["message"]]}


def spread(state: Board) -> list[Send]:
    """One task a line, and a person beside them."""
    return [*(Send("write", line) for line in state.lines), Send("review")]


board = Graph("board", state=Board)
board.node("write", write)
board.node("mend", mend)
board.human("review", lambda state: f"Are {len(state.lines)} lines enough?", answer=bool, into="approved")
board.node("helper", Agent(name="helper", model="m", tools=[look], state=Board))
board.router(START, spread, ["write", "review"])
board.edge("write", END)
board.edge("write", "mend", on="error")
board.edge("mend", END)
board.edge("review", "helper")
board.edge("helper", END)

_TOOLS = [look, glance, pay, ship, wire, *effect_scenes.TOOLS]
_APP = App(
    agents=[
        Agent(name="desk", model="m", tools=_TOOLS),
        Agent(name="frugal", model="m", tools=_TOOLS, budget=Budget(steps=1)),
        board,
        approval_scenes.OFFICE,
        dry_scenes.STAGE,
    ],
    tools=[refund, recall, *effect_scenes.HIDDEN],
)
_SCRIPT = Script(
    rules=[
        Rule(when="hello", replies=[say("Good day.")]),
        Rule(when="pay little", replies=[call("pay", amount=5), say("Paid.")]),
        Rule(when="pay much", replies=[call("pay", amount=500), say("Paid.")]),
        Rule(when="at once", replies=[together(call("look", what=1), call("pay", amount=5)), say("All.")]),
        Rule(when="pay and ship", replies=[call("pay", amount=5), call("ship", to="atlantis")]),
        Rule(
            when="glance",
            replies=[call("glance", what=1), together(call("glance", what=2), call("glance", what=3)), say("Seen.")],
        ),
        Rule(when="pay twice", replies=[call("pay", amount=5), call("pay", amount=500)]),
        Rule(when="wire", replies=[call("wire", amount=7), say("Settled.")]),
        Rule(when="board", replies=[call("look", what=1), say("Looked.")]),
        *effect_scenes.RULES,
        *approval_scenes.RULES,
        *dry_scenes.RULES,
        Rule(when="look around", replies=[*(call("look", what=n) for n in range(_LOOKS)), say("Seen.")]),
    ]
)  # fmt: skip


# ── the behaviours: each is told the world and the id of its thread ──────────────────────────────────────────────────


async def answered(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "hello"))


async def beside(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "glance"))


async def approved(world: World, thread: str) -> None:
    message = await _begin(world, thread, "pay much")
    (request,) = (await world.opened(thread)).open
    await world.client.signal_decision(thread, "approve", request, approver="ann")
    await _ended(world, thread, message)


async def rejected(world: World, thread: str) -> None:
    message = await _begin(world, thread, "pay much")
    (request,) = (await world.opened(thread)).open
    await world.client.decide(thread, "reject", request, approver="ann", reason="too much")
    await _ended(world, thread, message)


async def expired(world: World, thread: str) -> None:
    message = await _begin(world, thread, "pay much")
    await world.opened(thread)
    await world.forward(thread, timedelta(hours=25))
    await _ended(world, thread, message)
    assert [request.outcome for request in (await world.client.approvals(thread)).closed] == ["expired"]


async def refused_decisions(world: World, thread: str) -> None:
    message = await _begin(world, thread, "pay much")
    (request,) = (await world.opened(thread)).open
    await world.handle(thread).signal("approve", args=["one", "too many"])
    await world.handle(thread).signal("reject", {"request_id": request.id})
    other = {"request_id": request.id, "approver": "ann", "digest": "0" * 64, "reason": ""}
    await world.handle(thread).signal("approve", other)
    await world.client.decide(thread, "approve", request, approver="ann")
    await world.client.signal_decision(thread, "reject", request, approver="bob")
    await _ended(world, thread, message)
    refused = (await world.client.approvals(thread)).refused_decisions
    assert [refusal.code for refusal in refused][:3] == ["undecodable", "malformed", "wrong_digest"]


async def parallel(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "at once"))


async def rolled_back(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "pay and ship"), "failed")


async def cancelled(world: World, thread: str) -> None:
    message = await _begin(world, thread, "pay twice")
    await world.opened(thread)
    await world.client.cancel(thread, by="ann")
    await _ended(world, thread, message, "cancelled")
    assert sorted(effect.status for effect in await world.client.effects(thread)) == ["undone"]


async def compensated(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "pay little"))
    assert (await world.client.compensate(thread, by="ann")).undone


async def in_doubt(world: World, thread: str) -> None:
    message = await _begin(world, thread, "wire")
    await world.stands(thread, "in_doubt")
    (effect,) = await world.client.effects(thread)
    await world.client.resolve(thread, effect.key, done=True, by="ann")
    await _ended(world, thread, message)


async def out_of_budget(world: World, thread: str) -> None:
    message = await _begin(world, thread, "pay little", agent="frugal")
    await world.stands(thread, "out_of_budget")
    await world.client.extend(thread, steps=10, by="ann")
    await _ended(world, thread, message)


async def resumed(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "pay little"))
    await world.forward(thread, timedelta(hours=2))
    await eventually(world.handle(thread).describe, lambda run: run.status == WorkflowExecutionStatus.COMPLETED)
    await _ended(world, thread, (await world.client.send(thread, "hello")).message_id)


async def closed(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "hello"))
    await world.client.close_thread(thread)
    await eventually(world.handle(thread).describe, lambda run: run.status == WorkflowExecutionStatus.COMPLETED)


async def continued(world: World, thread: str) -> None:
    await _ended(world, thread, await _begin(world, thread, "look around"))


async def graph(world: World, thread: str) -> None:
    """Tasks side by side, one of which fails, and a person; a question is answered wrongly first."""
    _, accepted = await world.client.start("board", "board", state={"lines": ["a", "b", "c"]}, thread=thread)
    asked = await eventually(lambda: world.client.approvals(thread), lambda found: len(found.questions) == 1)
    await world.handle(thread).signal("answer", "yes?")
    with suppress(InvalidInput):
        await world.client.answer(thread, asked.questions[0].id, "perhaps", by="ann")
    await world.client.answer(thread, asked.questions[0].id, True, by="ann")
    await _ended(world, thread, accepted.message_id)
    assert (await world.client.state(thread))["lines"][3:] == ["a", "b", "There is no room."]


async def forked(world: World, thread: str) -> None:
    await _ended(world, f"{thread}-from", await _begin(world, f"{thread}-from", "at once"))
    middle = (await world.client.history(f"{thread}-from"))[-2].id
    await world.client.fork(f"{thread}-from", middle, thread=thread)
    await _at_rest(world, thread)


async def rewound(world: World, thread: str) -> None:
    """Refused, then done while a turn runs, then taken up again."""
    await _ended(world, thread, await _begin(world, thread, "pay little"))
    start = (await world.client.history(thread))[-1].id
    await _begin_again(world, thread, "pay much")
    await world.opened(thread)
    with suppress(ConcurrentModification):
        await world.client.rewind(thread, start, expected_version=start)
    await world.client.rewind(thread, start, by="ann")
    await world.client.resume(thread)
    await _at_rest(world, thread)
    assert [effect.status for effect in await world.client.effects(thread)] == ["undone", "done"]


async def updated(world: World, thread: str) -> None:
    """Between turns, under a lease, in the place of a node; then it goes on."""
    await _ended(world, thread, await _begin(world, thread, "hello"))
    wanted = {"id": "x1", "name": "look", "arguments": '{"what": 9}'}
    async with world.client.lease(thread, holder="ann", seconds=3600):
        said = {"role": "assistant", "tool_calls": [wanted]}
        await world.client.update_state(thread, {"messages": [said]}, as_node="model", by="ann")
    await world.client.resume(thread)
    await _at_rest(world, thread)


_SCENES: Sequence[Scene] = (
    answered, beside, approved, rejected, expired, refused_decisions, parallel, rolled_back, cancelled, compensated,
    in_doubt, out_of_budget, closed, graph, forked, rewound, updated, *effect_scenes.SCENES,
    *approval_scenes.SCENES, *dry_scenes.SCENES,
)  # fmt: skip
# How many runs a thread has at least.
RUNS = {scene.__name__: 1 for scene in _SCENES} | {"resumed": 2, "continued": 2}


async def _begin(world: World, thread: str, message: str, agent: str = "desk") -> str:
    _, accepted = await world.client.start(agent, message, thread=thread)
    return accepted.message_id


async def _begin_again(world: World, thread: str, message: str) -> None:
    await world.client.send(thread, message)


async def _at_rest(world: World, thread: str) -> None:
    """Wait for the end of a turn that no message began."""
    await eventually(
        lambda: world.client.status(thread), lambda s: bool(s.results) and not s.node and s.status == "idle"
    )


async def _ended(world: World, thread: str, message_id: str, outcome: str = "answered") -> None:
    result = await world.ended(thread, message_id)
    assert result.outcome == outcome, f"{thread}: {result}"


# ── from a server into files ─────────────────────────────────────────────────────────────────────────────────────────


async def record(folder: Path) -> None:
    """Play every scene on a server of its own, and put the histories in the place of those in the folder."""
    async with await WorkflowEnvironment.start_time_skipping_v2(
        ts_config=TimeSkippingConfig(enabled=False),
        data_converter=data_converter,
        dev_server_existing_path=TEMPORAL,
        dev_server_extra_args=[part for pair in SERVER.items() for part in ("--dynamic-config-value", "=".join(pair))],
        search_attributes=search_attributes(),
    ) as environment:
        with tempfile.TemporaryDirectory() as place:
            found = await _play(environment, Path(place), [*_SCENES, resumed])
            found |= await _play(environment, Path(place), [continued], history_events=60)
    await asyncio.to_thread(_write, folder, found)


def _write(folder: Path, found: dict[str, WorkflowHistory]) -> None:
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json.gz"):
        old.unlink()
    for name, history in found.items():
        (folder / f"{name}.json.gz").write_bytes(pack(history))


async def _play(
    environment: WorkflowEnvironment, place: Path, scenes: Sequence[Scene], **settings: Any
) -> dict[str, WorkflowHistory]:
    """The histories of these scenes, which play side by side, by the names of their files."""
    found: dict[str, WorkflowHistory] = {}
    async with world(environment.client, place, _APP, _SCRIPT, **settings) as stage:
        stage.threads += [scene.__name__ for scene in scenes]
        await asyncio.gather(*(scene(stage, scene.__name__) for scene in scenes))
        for thread in stage.threads:
            runs = await _runs(stage, thread)
            names = [thread] if len(runs) == 1 else [f"{thread}-{number}" for number, _ in enumerate(runs, 1)]
            found |= zip(names, runs, strict=True)
    return found


async def _runs(stage: World, thread: str) -> list[WorkflowHistory]:
    """All runs of a thread; Temporal lists them a moment later."""
    return await eventually(lambda: stage.runs(thread), lambda runs: len(runs) >= RUNS[thread] and _is_last(runs[-1]))


def _is_last(run: WorkflowHistory) -> bool:
    return run.events[-1].event_type != EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW


def pack(history: WorkflowHistory) -> bytes:
    """A history as a file: the workflow's id, and the events without what tells of the machine."""
    written = {"workflowId": history.workflow_id, **_clean(json.loads(history.to_json()))}
    return gzip.compress(json.dumps(written, separators=(",", ":"), sort_keys=True).encode(), mtime=0)


def unpack(path: Path) -> WorkflowHistory:
    """The history in a file."""
    read = json.loads(gzip.decompress(path.read_bytes()))
    return WorkflowHistory.from_json(read.pop("workflowId"), read)


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _clean(item) for key, item in value.items() if key not in _MACHINE}
    return kept | {"name": "queue"} if kept.get("kind") in _QUEUES else kept


if __name__ == "__main__":
    asyncio.run(record(FOLDER))
