"""An app: the agents, graphs and tools that a worker serves."""

import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from perdure.agent import Agent
from perdure.approvals import ApprovalPolicy
from perdure.contracts import Limits
from perdure.errors import AgentNotFound, DefinitionError, InvalidInput
from perdure.graph import Graph
from perdure.graphs.compiled import CompiledGraph
from perdure.tool import Tool

_OFFERED = {"receipt"}  # what a compensation may ask for besides the call's own arguments


class App:
    """Agents and graphs, and tools that no agent shows to its model (compensations). Checked when it is made.

    ``groups`` are the people by the names of groups, for the policies of approvals.

    Raises DefinitionError: duplicate names, a graph that isn't sound, an unknown compensation or hook, one that asks
    for what it won't get, or one that can't be retried; compensations that wait for one another; a quorum that can't be
    reached.
    """

    def __init__(
        self, *, agents: Sequence[Agent | Graph], tools: Sequence[Tool] = (),
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        self.graphs = _by_name(agents)
        self.tools = _tools(self.graphs.values(), tools)
        self.policies = _policies(self.tools.values(), groups or {})
        for item in self.tools.values():
            if item.spec.compensation:
                _check_compensation(item, self.tools)
            if item.spec.reconcile:
                _check_hook(item, self.tools)
        _check_order(self.tools)
        for graph in self.graphs.values():
            _check_definition(graph, self.tools)

    def graph(self, name: str) -> CompiledGraph:
        """The agent or graph of this name. Raises AgentNotFound that lists the names there are."""
        if name not in self.graphs:
            raise AgentNotFound(f"There is no agent {name!r}.", hint=f"Agents: {', '.join(self.graphs) or 'none'}.")
        return self.graphs[name]


def load_app(target: str) -> App:
    """Import an app named ``MODULE:ATTR`` (the attribute is ``app`` by default); the current folder is searched too.

    Raises DefinitionError that says what went wrong where.
    """
    module_name, _, attribute = target.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except DefinitionError:
        raise
    except Exception as error:  # the user's module: anything can go wrong in it, and the name says where
        what = f"{type(error).__name__}: {str(error).rstrip('.')}{_place(error)}"
        raise DefinitionError(f"The app {target!r} can't be imported: {what}.") from error
    app = getattr(module, attribute or "app", None)
    if not isinstance(app, App):
        raise DefinitionError(f"{target!r} is no App.", hint="Name it as MODULE:ATTR, for example my_orders:app.")
    return app


def _place(error: Exception) -> str:
    """The line of the user's code that an error comes from; empty where it comes from the import itself."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    return f" (line {frames[-1].lineno} of {frames[-1].filename})" if frames[2:] else ""


def _by_name(agents: Iterable[Agent | Graph]) -> dict[str, CompiledGraph]:
    found: dict[str, CompiledGraph] = {}
    for item in agents:
        if not isinstance(item, Agent | Graph):
            raise DefinitionError(f"{item!r} is no agent and no graph.")
        if item.name in found:
            raise DefinitionError(f"Two agents are named {item.name!r}.")
        found[item.name] = (item if isinstance(item, Graph) else item.graph()).compiled
    return found


def _tools(graphs: Iterable[CompiledGraph], extra: Sequence[Tool]) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    for item in [*extra, *(item for graph in graphs for item in graph.tools)]:
        if not isinstance(item, Tool):
            raise DefinitionError(f"{item!r} is no tool.", hint="Decorate it with @tool.")
        other = found.setdefault(item.name, item)
        if other is not item:
            raise DefinitionError(f"Two tools are named {item.name!r}: {other.place} and {item.place}.")
    return found


def _policies(tools: Iterable[Tool], groups: Mapping[str, Sequence[str]]) -> dict[str, ApprovalPolicy]:
    policies: dict[str, ApprovalPolicy] = {}
    for item in tools:
        try:
            if item.approval:
                policies[item.name] = item.approval.policy(groups)
        except DefinitionError as error:
            raise DefinitionError(f"Tool {item.place}: {error.message}", hint=error.hint) from error
    return policies


def _check_definition(graph: CompiledGraph, tools: dict[str, Tool]) -> None:
    try:
        graph.definition(tools, Limits())
    except InvalidInput as error:
        raise DefinitionError(f"{graph.title}: {error.message}") from error


def _check_compensation(item: Tool, tools: dict[str, Tool]) -> None:
    undo = tools.get(item.spec.compensation)
    if undo is None:
        raise DefinitionError(
            f"Tool {item.place}: its compensation {item.spec.compensation!r} is unknown.",
            hint="Add it to App(tools=[...]).",
        )
    if undo.spec.effect == "irreversible":
        raise DefinitionError(
            f"Tool {undo.place} compensates {item.name} and so must be safe to retry, not irreversible."
        )
    required = {name for name, field in undo.arguments.model_fields.items() if field.is_required()}
    if missing := required - _OFFERED - set(item.parameters):
        raise DefinitionError(
            f"Tool {undo.place} compensates {item.name} but needs {', '.join(sorted(missing))}, "
            f"which {item.name} doesn't have.",
            hint=f"A compensation may take receipt and {', '.join(item.parameters) or 'nothing else'}.",
        )


def _check_hook(item: Tool, tools: dict[str, Tool]) -> None:
    hook = tools.get(item.spec.reconcile)
    if hook is None:
        raise DefinitionError(
            f"Tool {item.place}: its hook {item.spec.reconcile!r} is unknown.", hint="Add it to App(tools=[...])."
        )
    if hook.spec.effect != "read":
        raise DefinitionError(f"Tool {hook.place} tells how {item.name} ended, and so must only read.")
    required = {name for name, field in hook.arguments.model_fields.items() if field.is_required()}
    if missing := required - set(item.parameters):
        raise DefinitionError(
            f"Tool {hook.place} tells how {item.name} ended but needs {', '.join(sorted(missing))}, "
            f"which {item.name} doesn't have."
        )


def _check_order(tools: dict[str, Tool]) -> None:
    """Compensations that wait for one another would wait for ever."""
    after = {name: item.spec.undo_after or () for name, item in tools.items()}
    for name, others in after.items():
        if unknown := set(others) - tools.keys():
            raise DefinitionError(f"Tool {tools[name].place}: `undo_after` names {unknown.pop()!r}, which is unknown.")
    try:
        TopologicalSorter(after).prepare()
    except CycleError as error:
        raise DefinitionError(f"Their compensations wait for one another: {' and '.join(error.args[1])}.") from error
