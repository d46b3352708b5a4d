"""The graph an agent is interpreted by: nodes, and the routes between them."""

from collections.abc import Mapping

from perdure.contracts import END, NodeSpec


def agent_nodes(has_tools: bool) -> dict[str, NodeSpec]:
    """The loop of an agent: the model answers or calls tools; after the tools it is the model's turn again."""
    if not has_tools:
        return {"model": NodeSpec(kind="model", routes={"answer": END})}
    return {
        "model": NodeSpec(kind="model", routes={"answer": END, "tool_calls": "tools"}),
        "tools": NodeSpec(kind="tools", routes={"done": "model"}),
    }


def mermaid(nodes: Mapping[str, NodeSpec], start: str) -> str:
    """The graph as a Mermaid flowchart."""
    lines = ["flowchart TD", f"    start([start]) --> {start}"]
    for name, node in nodes.items():
        lines.append(f'    {name}["{name} ({node.kind})"]')
        for route, target in node.routes.items():
            lines.append(f"    {name} -->|{route.replace('_', ' ')}| {'finish([end])' if target == END else target}")
    return "\n".join(lines)
