"""The public door: which names it offers, and what it costs to walk through."""

import subprocess
import sys
from importlib import import_module

import pytest

import perdure

NAMES = {
    "END", "START", "Agent", "App", "Approval", "Ask", "Budget", "Cache", "Client", "Command", "Ephemeral",
    "Escalation", "Graph", "Message", "NodeContext", "NodeFailure", "OneTime", "Outcome", "Overwrite", "PerdureError",
    "Remove", "Retry", "Send", "Sensitive", "State", "Tool", "ToolContext", "ToolError", "add", "append", "maximum",
    "merge", "messages", "minimum", "overwrite", "tool", "union", "upcast",
}  # fmt: skip
TESTING = {
    "Call", "ControlledServer", "Conversation", "LocalServer", "ModelCall", "ModelFault", "ModelServer", "NoAnswer",
    "Reply", "Rule", "Script", "ScriptError", "Trouble", "call", "refuse", "result", "run_as_process", "say",
    "together",
}  # fmt: skip
HEAVY = {"httpx2", "openai", "psycopg", "rich", "sqlite3", "starlette", "temporalio", "typer", "uvicorn"}


@pytest.mark.parametrize(
    ("module", "names"), [("perdure", NAMES), ("perdure.testing", TESTING), ("perdure.stores", {"Store", "open_store"})]
)
def test_the_public_names_are_pinned(module: str, names: set[str]) -> None:
    """A name that comes or goes is a decision: it is written down here, and every one of them can be imported."""
    door = import_module(module)
    assert set(door.__all__) == names
    assert len(door.__all__) == len(names)
    for name in names:
        assert getattr(door, name) is not None


def test_a_name_is_the_thing_itself() -> None:
    """A lazy name is the object of its module, and no submodule hides one; another name is an AttributeError."""
    from perdure import Agent, messages, tool
    from perdure.agent import Agent as DefinedAgent
    from perdure.state import messages as reducer
    from perdure.tool import tool as decorator

    assert (Agent, messages, tool) == (DefinedAgent, reducer, decorator)
    assert perdure.tool is decorator
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = perdure.nothing


@pytest.mark.parametrize(
    ("program", "spared"),
    [
        ("import perdure", HEAVY),
        ("from perdure import Agent, App, Approval, Budget, State, ToolContext, ToolError, append, tool", HEAVY),
        ("import perdure.stores; perdure.stores.open_store", HEAVY),
        ("import perdure.activities, perdure.workflows, perdure.starters, perdure.workers", HEAVY),
    ],
)
def test_importing_is_cheap(program: str, spared: set[str]) -> None:
    """Who defines an agent doesn't pay for the engine that runs it: no Temporal, no database, no model client."""
    seen = f"{program}\nimport sys\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True, timeout=60)
    assert spared.isdisjoint(ran.stdout.split())
