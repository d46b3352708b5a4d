"""A small app for tests that run `perdure` as a process, and what its model says."""

from pathlib import Path

from perdure.testing import Rule, Script, call, say

_APP = '''
import asyncio
import logging
from pathlib import Path

import structlog

from perdure import Agent, App, Approval, ToolContext, tool


@tool(effect="idempotent", timeout="60s")
async def hold(ctx: ToolContext) -> str:
    """Wait until the file `go` is there."""
    with Path("attempts").open("a") as file:
        file.write(f"{ctx.idempotency_key}\\n")
    structlog.get_logger("desk").info("holding")
    logging.getLogger("desk").warning("holding since attempt %d", ctx.attempt)
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    return "held"


@tool(effect="idempotent", approval=Approval(approvers=["finance"]))
async def pay(ctx: ToolContext, amount: float) -> str:
    """Pay."""
    with Path("paid").open("a") as file:
        file.write(f"{ctx.idempotency_key}\\n")
    return f"paid {amount}"


app = App(agents=[Agent(name="orders", model="m", instructions="Help.", tools=[hold, pay])])
'''

APP = "desk:app"
SCRIPT = Script(
    rules=[
        Rule(when="hold", replies=[call("hold"), say("Held.")]),
        Rule(when="pay", replies=[call("pay", amount=250), say("Paid.")]),
    ],
    fallback=say("Hello."),
)


def write_app(folder: Path) -> None:
    """Put the app into the folder, as ``desk:app``."""
    (folder / "desk.py").write_text(_APP)


def lines(path: Path) -> list[str]:
    """The lines of a file; none where there is no file."""
    return path.read_text().splitlines() if path.exists() else []
