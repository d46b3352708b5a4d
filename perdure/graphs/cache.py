"""Cache policies of nodes: when a function need not run again because its result is known."""

import typing
from collections.abc import Callable
from copy import copy
from typing import Any, Literal

from perdure.canonical import Json
from perdure.duration import Duration, seconds
from perdure.errors import DefinitionError
from perdure.graphs.functions import as_json, check_called, seen_as
from perdure.state import State

Key = Callable[[Any, Any], Any]
NodeScope = Literal["lineage", "global"]


class Cache:
    """A node whose function need not run twice for the same request.

    ``key`` makes from state and argument what counts as the same; by default that is all of both. What its function
    does isn't part of it: a function that changes needs another key. In the scope ``lineage`` a thread shares results
    with its forks, in ``global`` all threads do. ``ttl`` is how long a result is good; by default for ever.
    """

    def __init__(self, *, ttl: Duration | None = None, key: Key | None = None, scope: NodeScope = "lineage") -> None:
        """Raises DefinitionError."""
        if scope not in typing.get_args(NodeScope):
            raise DefinitionError(f"{scope!r} is no scope of a node's cache.", hint="It is 'lineage' or 'global'.")
        if key is not None:
            check_called(key, "state", "arg")
        self.ttl = 0.0 if ttl is None else seconds(ttl)  # seconds; 0 is for ever
        self.scope = scope
        self._key = key
        self._function = ""
        self._state: type[State] = State

    def of(self, function: Callable[..., Any], state: type[State]) -> "Cache":
        """The policy for a function of a graph with this state."""
        mine = copy(self)
        mine._function, mine._state = f"{function.__module__}.{function.__qualname__}", state
        return mine

    def request(self, node: str, state: State, arg: Json) -> Json:
        """What a result is kept under. Raises InvalidInput where the key is no JSON."""
        seen = seen_as(self._state, state)
        key = [seen, arg] if self._key is None else self._key(seen, arg)
        return {"node": node, "function": self._function, "key": as_json(key, f"The cache of {node} makes a key of")}
