"""A thread's audit as people read it: when, what, who, why."""

from collections.abc import Sequence

from rich.console import RenderableType

from perdure.audit import AuditRow
from perdure.canonical import Json
from perdure.starters.cli.render.tables import moment, table

_WHO = ("approver", "by")
_WHY = ("why", "reason", "error")


def audit(rows: Sequence[AuditRow]) -> RenderableType:
    """The lines, oldest first."""
    shown = [
        (row.number, moment(row.entry.at), row.entry.kind.replace(".", " ").replace("_", " "), _what(row), _who(row),
         _why(row))
        for row in rows
    ]  # fmt: skip
    return table(("line", "time (UTC)", "event", "what", "who", "why"), shown, empty="Nothing was written down.")


def _what(row: AuditRow) -> str:
    body = row.entry.body
    parts = [body.get("request"), body.get("summary"), body.get("key"), body.get("fork"), body.get("to")]
    if row.entry.kind == "request.edited":
        parts.append(_changes(body.get("changes")))
    if row.entry.kind in ("decision.counted", "decision.refused"):
        parts.append(body.get("verdict"))
    return " ".join(str(part) for part in parts if part)


def _changes(changed: Json) -> str:
    pairs = changed.items() if isinstance(changed, dict) else ()
    return ", ".join(f"{name} {pair[0]!r} → {pair[1]!r}" for name, pair in pairs if isinstance(pair, list))


def _who(row: AuditRow) -> str:
    body = row.entry.body
    named = _first(body, _WHO)
    if named:
        return f"{named} (signed)" if body.get("signature") else named
    if row.entry.kind in ("request.opened", "request.escalated", "request.reminded"):
        asked = body.get("approvers")
        people = [str(name) for name in asked] if isinstance(asked, list) else []
        return f"asks {' or '.join(people) or 'anyone'}"
    return ""


def _why(row: AuditRow) -> str:
    body = row.entry.body
    if row.entry.kind == "decision.refused":
        return f"{body.get('code')}: {body.get('why')} It said: {body.get('said')}"
    if row.entry.kind == "saga.rolled_back":
        return f"{body.get('why')}. {_residue(body)}"
    told = [
        str(body[name]) for name in ("outcome", "status") if body.get(name) and row.entry.kind != "decision.counted"
    ]
    return ": ".join(filter(None, [" ".join(told), _first(body, _WHY)]))


def _residue(body: dict[str, Json]) -> str:
    from perdure.effects import Residue

    return " ".join(Residue.model_validate({name: body.get(name) or () for name in Residue.model_fields}).lines())


def _first(body: dict[str, Json], names: Sequence[str]) -> str:
    return next((str(body[name]) for name in names if body.get(name)), "")
