"""Perdure: durable AI agents on Temporal. This is the public door; names are imported when first used."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perdure.agent import Agent
    from perdure.app import App
    from perdure.approvals.declared import Approval, Escalation
    from perdure.budget import Budget
    from perdure.context import ToolContext
    from perdure.contracts import END, START
    from perdure.errors import PerdureError, ToolError
    from perdure.graph import Graph
    from perdure.graphs.cache import Cache
    from perdure.graphs.choice import Command, Send
    from perdure.graphs.functions import NodeContext
    from perdure.graphs.human import Ask
    from perdure.graphs.nodes import NodeFailure, Retry
    from perdure.message import Message, Remove
    from perdure.onetime import OneTime
    from perdure.outcome import Outcome
    from perdure.starters.client import Client
    from perdure.state import (
        Ephemeral,
        Overwrite,
        Sensitive,
        State,
        add,
        append,
        maximum,
        merge,
        messages,
        minimum,
        overwrite,
        union,
        upcast,
    )
    from perdure.tool import Tool, tool

__version__ = "0.1.0"

_HOMES = {
    "perdure.agent": ("Agent",),
    "perdure.app": ("App",),
    "perdure.approvals.declared": ("Approval", "Escalation"),
    "perdure.budget": ("Budget",),
    "perdure.graphs.cache": ("Cache",),
    "perdure.graphs.choice": ("Command", "Send"),
    "perdure.context": ("ToolContext",),
    "perdure.contracts": ("END", "START"),
    "perdure.errors": ("PerdureError", "ToolError"),
    "perdure.graphs.functions": ("NodeContext",),
    "perdure.graph": ("Graph",),
    "perdure.graphs.human": ("Ask",),
    "perdure.message": ("Message", "Remove"),
    "perdure.graphs.nodes": ("NodeFailure", "Retry"),
    "perdure.onetime": ("OneTime",),
    "perdure.outcome": ("Outcome",),
    "perdure.starters.client": ("Client",),
    "perdure.state": (
        "Ephemeral", "Overwrite", "Sensitive", "State", "add", "append", "maximum", "merge", "messages", "minimum",
        "overwrite", "union", "upcast",
    ),
    "perdure.tool": ("Tool", "tool"),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "END", "START", "Agent", "App", "Approval", "Ask", "Budget", "Cache", "Client", "Command", "Ephemeral",
    "Escalation", "Graph", "Message", "NodeContext", "NodeFailure", "OneTime", "Outcome", "Overwrite", "PerdureError",
    "Remove", "Retry", "Send", "Sensitive", "State", "Tool", "ToolContext", "ToolError", "add", "append", "maximum",
    "merge", "messages", "minimum", "overwrite", "tool", "union", "upcast",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # `perdure --help` must not pay for the workflow engine, nor a tool author for the client.
    if name not in _HOME_OF:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


class _Door(ModuleType):
    """This module. Python sets a submodule that was imported as an attribute of its package, so the first import of
    ``perdure.tool`` would hide the decorator of that name: the decorator takes its place."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.tool if name == "tool" and isinstance(value, ModuleType) else value)


sys.modules[__name__].__class__ = _Door
