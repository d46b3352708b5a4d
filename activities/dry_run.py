"""What answers a call in a dry run: the receipt of the same call in the thread that it was forked from, or a simulation.

A tool that only reads has no receipt and changes nothing: without a simulation it runs.
"""

import inspect
from collections.abc import Iterable

from pydantic import BaseModel

from perdure.activities.invoke import invoke
from perdure.activities.records import Record
from perdure.activities.runtime import Runtime
from perdure.canonical import Json
from perdure.context import ToolContext
from perdure.effects import EffectStatus
from perdure.errors import NotSimulated
from perdure.stores.base import EffectRow
from perdure.tool import Tool

_MADE: frozenset[EffectStatus] = frozenset({"done", "undone", "needs_attention"})


async def recorded(runtime: Runtime, thread_id: str, tool: Tool, digest: str) -> tuple[str, Record] | None:
    """The key and the record of the same call where the dry run comes from: one made after the fork before others, and
    none twice."""
    row = await runtime.store.thread(thread_id)
    if row is None or not row.origin_thread:
        return None
    used = {effect.entry.source for effect in await runtime.store.effects(thread_id)}
    point = await runtime.store.checkpoint(row.origin_thread, row.origin_id)
    made = await runtime.store.effects(row.origin_thread)
    fitting = [effect for effect in _same(made, tool, digest) if effect.entry.key not in used]
    fitting.sort(key=lambda effect: (effect.entry.step < (point.step if point else 0), effect.entry.finished_at))
    if not fitting or fitting[0].receipt is None:
        return None
    return fitting[0].entry.key, Record.read(fitting[0].receipt)


async def simulated(tool: Tool, arguments: BaseModel, context: ToolContext) -> Json:
    """What the tool's own simulation returns. Raises NotSimulated where it has none."""
    if tool.simulate is None:
        raise NotSimulated(
            f"{tool.name} has no recorded receipt for this call, and no `simulate` function.",
            hint="Give the tool one, or make the dry run from a checkpoint before a call that is the same.",
        )
    offered = tool.bind(context, {name: getattr(arguments, name) for name in tool.parameters})
    wanted = {name: offered[name] for name in inspect.signature(tool.simulate).parameters}
    return await invoke(tool.simulate, wanted, tool.spec.timeout)


def _same(rows: Iterable[EffectRow], tool: Tool, digest: str) -> list[EffectRow]:
    return [
        row for row in rows
        if (row.entry.tool, row.arguments_digest) == (tool.name, digest) and row.entry.status in _MADE
    ]  # fmt: skip
