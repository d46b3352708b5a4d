"""Options that several commands take, and what is typed as KEY=VALUE."""

import json
from typing import Annotated, Any

import typer

from perdure.canonical import Json
from perdure.errors import UsageError

Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=JSON", show_default=False,
        help="A channel of the state and its new value, as JSON. May be given several times.",
    ),
]  # fmt: skip
Editing = Annotated[
    list[str] | None,
    typer.Option(
        "--edit", metavar="NAME=JSON", show_default=False,
        help="Another value for this argument, as JSON. May be given several times.",
    ),
]  # fmt: skip
AgentFilter = Annotated[str, typer.Option("--agent", metavar="AGENT", help="Only of this agent.", show_default=False)]
TenantFilter = Annotated[str, typer.Option("--tenant", metavar="NAME", help="Only of this tenant.", show_default=False)]
Adding = Annotated[
    list[str] | None,
    typer.Option(
        "--append", metavar="KEY=JSON", show_default=False,
        help="A channel of the state and what goes through its reducer, as JSON. May be given several times.",
    ),
]  # fmt: skip
Meta = Annotated[
    list[str] | None,
    typer.Option(
        "--meta", metavar="KEY=VALUE", show_default=False,
        help="An entry of the checkpoint's metadata, to be found by. May be given several times.",
    ),
]  # fmt: skip


def parsed(text: str) -> Json:
    """JSON as it is typed. Raises ValueError, also for NaN and infinities, which are Python's own."""

    def refuse(constant: str) -> Json:
        raise ValueError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def channels(given: list[str] | None, option: str) -> dict[str, Any]:
    """Channels with their values, which are JSON. Raises UsageError."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, value = _split(text, option)
        try:
            found[name] = parsed(value)
        except ValueError as error:
            hint = f"A text has quotes of its own: {option} '{name}={json.dumps(value, ensure_ascii=False)}'."
            raise UsageError(f"{option} {text!r}: the value is no JSON.", hint=hint) from error
    return found


def entries(given: list[str] | None, option: str) -> dict[str, Json]:
    """Entries of metadata: what is JSON is taken as that (``n=3``, ``ok=true``), anything else as text.

    Raises UsageError.
    """
    found: dict[str, Json] = {}
    for text in given or ():
        name, value = _split(text, option)
        try:
            found[name] = parsed(value)
        except ValueError:
            found[name] = value
    return found


def _split(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{option} {text!r} is not of the form KEY=VALUE.")
    return name, value
