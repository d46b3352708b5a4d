"""What answers a call in a dry run: the receipt of the same call where it was forked from, or a simulation.

A tool that only reads has no receipt and changes nothing: without a simulation it runs, unless people would have to be
asked for that.
"""

import inspect
from collections.abc import Collection
from contextlib import aclosing

from pydantic import BaseModel

from perdure.activities.invoke import invoke
from perdure.activities.records import Record
from perdure.activities.runtime import Runtime
from perdure.canonical import Json
from perdure.checkpoint import Ref
from perdure.context import ToolContext
from perdure.effects import EffectStatus
from perdure.errors import InvalidInput, NotSimulated
from perdure.message import ToolCall
from perdure.stores.base import EffectRow, Store, ThreadRow
from perdure.tool import Tool
from perdure.travel import line

_MADE: frozenset[EffectStatus] = frozenset({"done", "undone", "needs_attention"})


def is_made(tool: Tool, arguments: BaseModel) -> bool:
    """Whether a call is made also in a dry run: it changes nothing, and nobody would have to approve it."""
    return tool.spec.effect == "read" and tool.simulate is None and not _is_gated(tool, arguments)


def gate(runtime: Runtime, tool: Tool, arguments: BaseModel) -> str:
    """Who would be asked to approve the call; empty where nobody would."""
    if not _is_gated(tool, arguments):
        return ""
    policy = runtime.app.policies[tool.name]
    who = ", ".join(policy.approvers) or "anyone"
    return who if policy.quorum == 1 else f"{policy.quorum} of {who}"


def _is_gated(tool: Tool, arguments: BaseModel) -> bool:
    return tool.approval is not None and tool.approval.required(arguments) is not None


# ── what is recorded ─────────────────────────────────────────────────────────────────────────────────────────────────


async def recorded(
    store: Store, thread_id: str, head: Ref, tool: str, digest: str, number: int
) -> tuple[str, Record] | None:
    """The key and the record of the same call where the dry run comes from.

    One made after the fork comes before others, one of a nearer thread before one of a thread that this was forked
    from, and none answers twice on one line. ``number``: of the same calls of this step, which one it is; so calls side
    by side, and attempts of one call, agree on who gets which.
    """
    thread = await store.thread(thread_id)
    if thread is None:
        return None
    made = await _made(store, thread, tool, digest)
    used = await _used(store, thread, head, {row.entry.key for row, _ in made})
    fitting = [(row.entry.key, record) for row, record in made if row.entry.key not in used]
    return fitting[number] if number < len(fitting) else None


def which_of_the_same(tool: Tool, digest: str, calls: Collection[ToolCall]) -> int:
    """How many of these calls, which are asked for before it in the same answer, are the same call."""
    return sum(call.name == tool.name and _digest(tool, call) == digest for call in calls)


def _digest(tool: Tool, call: ToolCall) -> str:
    try:
        return tool.digest(tool.parse(call.arguments))
    except InvalidInput:  # it isn't made at all
        return ""


async def _made(store: Store, thread: ThreadRow, tool: str, digest: str) -> list[tuple[EffectRow, Record]]:
    """The same calls in all threads that this one comes from, in the order in which they are taken for answers."""
    found: list[tuple[EffectRow, Record]] = []
    name, at = thread.origin_thread, thread.origin_id
    while name:
        point = await store.checkpoint(name, at)
        step = point.step if point else 0
        rows = [row for row in await store.effects(name) if (row.entry.tool, row.arguments_digest) == (tool, digest)]
        rows.sort(key=lambda row: (row.entry.step < step, row.entry.finished_at))
        found += [(row, record) for row in rows if (record := _record(row))]
        origin = await store.thread(name)
        name, at = (origin.origin_thread, origin.origin_id) if origin else ("", "")
    return found


def _record(row: EffectRow) -> Record | None:
    """What a call came to, as the model would be told; None where it isn't known to have been made."""
    if row.entry.status not in _MADE or row.receipt is None:
        return None
    record = Record.read(row.receipt)
    return None if record.invalid else record


async def _used(store: Store, thread: ThreadRow, head: Ref, keys: Collection[str]) -> set[str]:
    """Those of the receipts that have answered on the way to the head: in this dry run, or in one that it was forked
    from."""
    places: dict[tuple[str, str], set[str]] = {}
    dry: set[str] = set()
    run: ThreadRow | None = thread
    while run is not None and run.dry_run:
        dry.add(run.thread_id)
        for row in await store.effects(run.thread_id):
            if row.entry.source in keys:
                places.setdefault((run.thread_id, row.entry.checkpoint_id), set()).add(row.entry.source)
        run = await store.thread(run.origin_thread)
    used: set[str] = set()
    if not places:
        return used
    async with aclosing(line(store, thread.thread_id, head.id)) as way:
        async for checkpoint in way:
            if checkpoint.thread_id not in dry:
                break
            if checkpoint.source != "rewind":  # that doesn't follow from calls made on its parent
                used |= places.get((checkpoint.thread_id, checkpoint.parent_id or ""), set())
    return used


# ── what is simulated ────────────────────────────────────────────────────────────────────────────────────────────────


async def simulated(tool: Tool, arguments: BaseModel, context: ToolContext) -> Json:
    """What the tool's own simulation returns. Raises NotSimulated where it has none."""
    if tool.simulate is None:
        what = "no recorded receipt for this call" if tool.spec.effect != "read" else "to be approved before it reads"
        raise NotSimulated(f"{tool.name} has {what}, and no `simulate` function: give it one, and try again.")
    offered = tool.bind(context, {name: getattr(arguments, name) for name in tool.parameters})
    wanted = {name: offered[name] for name in inspect.signature(tool.simulate).parameters}
    return await invoke(tool.simulate, wanted, tool.spec.timeout)
