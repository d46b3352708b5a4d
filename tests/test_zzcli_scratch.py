import asyncio
from perdure import Agent, App, Approval, ToolContext, tool, Budget, State, append
from typing import Annotated
from perdure.testing import Rule, Script, call, say, together
from tests.cli import Cli

class S(State):
    notes: Annotated[list[str], append] = []
    title: str = ""

@tool(effect="compensable", compensate="refund", approval=Approval(when=lambda args: args.amount > 100, approvers=["finance"], reason="Above 100."))
async def pay(ctx: ToolContext, to: str, amount: float) -> dict[str, float]:
    """Pay."""
    ctx.update(notes=[f"paid {amount}"])
    return {"paid": amount}

@tool(effect="idempotent", hidden=True)
async def refund(ctx: ToolContext, receipt: dict[str, float]) -> None:
    """Back."""

@tool(effect="irreversible", attempts=1)
async def launch(ctx: ToolContext, what: str) -> str:
    """Launch"""
    raise OSError("line cut")

app = App(agents=[Agent(name="clerk", model="m", state=S, tools=[pay, launch]), Agent(name="small", model="m", state=S, tools=[pay], budget=Budget(steps=1))], tools=[refund])
script = Script(rules=[
    Rule(when="pay 250", replies=[call("pay", to="x", amount=250), say("Paid.")]),
    Rule(when="pay two", replies=[together(call("pay", to="x", amount=250),call("pay", to="y\x1b[31m", amount=300)), say("Paid.")]),
    Rule(when="pay 50", replies=[call("pay", to="x", amount=50), say("Paid it.")]),
    Rule(when="launch", replies=[call("launch", what="r"), say("Launched.")]),
    Rule(when="hello", replies=[say("Hi there.")]),
])

async def test_x(make_world):
    async with make_world(app, script) as world:
        cli = Cli(world)
        async def show(*a, tty=None):
            d = await (cli(*a) if tty is None else cli.on_terminal(*a, types=tty))
            print("$ perdure", *a, "->", d.code); print(d.out, end=""); print("\n".join("  2> "+l for l in d.err.splitlines()))
            return d
        t = world.thread(); u = world.thread(); v = world.thread(); w = world.thread()
        await show("start", "clerk", "-m", "hello", "-t", t)
        await show("send", t, "-m", "hello", "--wait")
        await show("send", t, "-m", "pay two", "--wait")
        await show("approvals")
        await show("approvals", t)
        await show("approve", t, "--as", "finance")
        await show("approve", t, "a1", "--as", "bob")
        await show("approve", t, "a1", "--as", "finance", "--reason", "ok")
        await show("approve", t, "--as", "finance")
        await show("approve", t, "a2", "--as", "finance", tty="n\n")
        await show("approve", t, "--as", "finance", tty="y\n")
        await asyncio.sleep(1)
        await show("status", t)
        await show("state", t)
        await show("history", t)
        await show("effects", t)
        await show("compensate", t)
        await show("compensate", t, "--as", "me", tty="y\n")
        await show("effects", t)
        await show("start", "small", "-m", "pay 50", "-t", u, "--wait")
        await show("extend", u, "--steps", "5")
        await show("start", "clerk", "-m", "launch", "-t", v, "--wait")
        s = await world.client.status(v)
        key = s.attention[0].partition(":")[0]
        await show("cancel", v, "--no-compensate")
        await show("resolve", v, key, "--not-done", "--as", "me", "--reason", "looked")
        await show("status", v)
        await show("list")
        await show("list", "--status", "idle", "--agent", "clerk", "-o", "jsonl")
        await show("close", v)
        await show("send", v, "-m", "hello")
        await show("status", v, "-o", "json")
        await show("state", v, "-o", "json")
        await show("db", "verify")
        await show("db", "migrate")
        await show("graph", "clerk", "--app", "tests.test_zzcli_scratch:app")
        await show("start", "nobody", "-m", "x")
        await show("start", "clerk", "--input", '{"nope": 1}', "-t", w)
        await show("start", "clerk", "--input", '{"nope": 1}', "--app", "tests.test_zzcli_scratch:app")
        await show("watch", v)
