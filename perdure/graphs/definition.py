"""The definition of an agent or a graph as data: what a turn is interpreted from, in the store under its digest."""

from typing import Any, Literal

from pydantic import Field

from perdure.contracts import AgentSpec, Wire

CacheScope = Literal["lineage", "global", "off"]


class ModelDefinition(Wire):
    """What a model node tells its model. ``tools`` are schemas; ``channel`` is its conversation."""

    model: str = Field(min_length=1)
    instructions: str = ""
    parameters: dict[str, Any] = {}
    tools: tuple[dict[str, Any], ...] = ()
    context_tokens: int = Field(default=100_000, ge=1)
    cache: CacheScope = "lineage"
    stream: bool = False
    channel: str = "messages"

    def offered(self) -> set[str]:
        """The names of its tools."""
        return {tool["function"]["name"] for tool in self.tools}


class Definition(Wire):
    """Everything that a turn is interpreted from: the workflow's part, and by node what its model is told."""

    spec: AgentSpec
    models: dict[str, ModelDefinition] = {}
