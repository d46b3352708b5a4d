"""Choices: what functions of nodes and routers say about where to go on."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.canonical import Json
from perdure.checkpoint import Task
from perdure.errors import InvalidInput
from perdure.graphs.functions import as_json, failing, seen_as
from perdure.state import State


@dataclass(frozen=True)
class Send:
    """Run a node with an argument of its own. Several of them run it several times side by side: map, then reduce."""

    node: str
    arg: Json = None


Goto = str | Send | Sequence[str | Send]


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a node returns that writes to channels and says itself where to go on, in place of its edges."""

    update: Mapping[str, Any] | None = None
    goto: Goto | None = None


@dataclass(frozen=True)
class Target:
    """What a name stands for in the compiled graph; ``takes_arg``: somebody there reads what a ``Send`` gives."""

    nodes: tuple[str, ...]
    takes_arg: bool = False


Targets = Mapping[str, Target]


@dataclass(frozen=True, kw_only=True)
class Router:
    """A function that chooses, looking at the state after a step."""

    place: str
    pick: Callable[[Any], Any]
    targets: Targets
    state: type[State]

    async def choose(self, state: State) -> tuple[Task, ...]:
        """The tasks that follow. Raises InvalidInput where the function fails, or chose what is no target."""
        with failing(self.place):
            chosen = self.pick(seen_as(self.state, state))
            if inspect.isawaitable(chosen):
                chosen = await chosen
        return tasks_of(chosen, self.targets, self.place)


def tasks_of(goto: Any, targets: Targets, place: str) -> tuple[Task, ...]:
    """What was chosen, as tasks. Raises InvalidInput that names who chose, and what."""
    tasks: list[Task] = []
    for item in goto if isinstance(goto, list | tuple) else [goto]:
        name, arg = (item.node, item.arg) if isinstance(item, Send) else (item, None)
        if not isinstance(name, str) or name not in targets:
            raise InvalidInput(f"{place} chose {name!r}.", hint=f"Its targets: {', '.join(targets) or 'none'}.")
        if arg is not None and not targets[name].takes_arg:
            raise InvalidInput(f"{place} sends something to {name}, which takes no argument.")
        given = None if arg is None else as_json(arg, f"{place} sends to {name}")
        tasks += [Task(node=node, arg=given) for node in targets[name].nodes]
    if not tasks:
        raise InvalidInput(f"{place} chose nothing.", hint="Choose END where nothing is to follow.")
    return tuple(tasks)
