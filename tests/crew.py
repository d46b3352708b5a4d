"""Tools that do and undo as their arguments say, in a world outside that keeps its own ledger; and looks at threads."""

from collections import Counter
from typing import Any

from perdure import Tool, ToolContext, ToolError, tool
from perdure.audit import AuditKind
from perdure.canonical import Json
from perdure.contracts import TurnResult
from perdure.testing import Reply, Rule, call, say
from tests.witness import Holds, Listener, Witness
from tests.world import World, eventually

witness = Witness()
holds = Holds()  # by thread and name
mended: set[str] = set()  # threads in which what is stuck can be undone after all
undone: Counter[str] = Counter()  # by the key of the compensation: what the world outside was told to undo


def deed(name: str, **declared: Any) -> Tool:
    """A tool that does something which ``un{name}`` undoes. ``how="late"``: not before it is let go."""

    async def act(ctx: ToolContext, how: str = "") -> str:
        if how == "late":
            await holds[f"{ctx.thread_id}/{name}"].wait()
        witness.saw(ctx, name)
        return f"{name} of {ctx.thread_id}"

    act.__doc__ = f"Do the {name}."
    return tool(name=name, effect="compensable", compensate=f"un{name}", **declared)(act)


def undoing(name: str, **declared: Any) -> Tool:
    """Its compensation. ``how="held"``: not before it is let go; ``how="stuck"``: not unless it is mended."""

    async def act(ctx: ToolContext, receipt: str, how: str) -> None:
        if how == "held":
            await holds[f"{ctx.thread_id}/un{name}"].wait()
        if how == "broken" and ctx.attempt == 1:
            await holds[f"{ctx.thread_id}/un{name}"].wait()
            raise ConnectionError("the line broke")
        if how == "stuck" and ctx.thread_id not in mended:
            witness.saw(ctx, f"{name} is stuck")
            raise ToolError("It is stuck.")
        assert receipt == f"{name} of {ctx.thread_id}"
        witness.saw(ctx, f"un{name}")
        undone[ctx.idempotency_key] += 1

    act.__doc__ = f"Undo the {name}."
    return tool(name=f"un{name}", effect="idempotent", hidden=True, **declared)(act)


def both(name: str, **declared: Any) -> tuple[Tool, Tool]:
    """A tool and its compensation."""
    return deed(name, **declared), undoing(name)


@tool(on_error="rollback")
async def collapse() -> str:
    """End the turn, and have it undone."""
    raise ToolError("It has collapsed.")


def told(**said: list[Reply]) -> Listener:
    """A model that says these things after a message with the word, and after "more" that all is well."""
    rules = [Rule(when=word, replies=replies) for word, replies in said.items()]
    return Listener(rules=[*rules, Rule(when="more", replies=[say("All is well.")])])


def calls(*names: str) -> list[Reply]:
    """Calls one after the other; ``name:how`` says how."""
    return [call(name, **({"how": how} if how else {})) for name, _, how in (given.partition(":") for given in names)]


async def turn(world: World, thread: str, message: str) -> TurnResult:
    """One more turn of a thread, to its end."""
    accepted = await world.client.send(thread, message)
    return await world.ended(thread, accepted.message_id)


async def first_turn(world: World, agent: str, message: str) -> tuple[str, TurnResult]:
    """A new thread after its first turn."""
    thread, message_id = await world.begin(agent, message)
    return thread, await world.ended(thread, message_id)


async def statuses(world: World, thread: str) -> list[tuple[str, str]]:
    """Tool and status of each effect, oldest first."""
    return [(effect.tool, effect.status) for effect in await world.client.effects(thread)]


async def audit(world: World, thread: str, kind: AuditKind, count: int = 1) -> list[dict[str, Json]]:
    """The lines of a kind that the audit has, once it has so many: they are written beside what they tell of."""

    async def look() -> list[dict[str, Json]]:
        return [row.entry.body for row in await world.store.audit(thread) if row.entry.kind == kind]

    return await eventually(look, lambda found: len(found) >= count)
