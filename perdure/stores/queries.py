"""Loads the SQL files: queries by name, migrations in order."""

from functools import cache
from importlib.resources import files

from sqlalchemy import TextClause, bindparam, text

_MARK = "-- name: "


@cache
def query(name: str) -> TextClause:
    """The query of this name in ``sql/queries.sql``; ``IN :keys`` takes a list."""
    clause = text(_queries()[name])
    return clause.bindparams(bindparam("keys", expanding=True)) if ":keys" in clause.text else clause


@cache
def _queries() -> dict[str, str]:
    source = files("perdure.stores").joinpath("sql/queries.sql").read_text("utf-8")
    sections = source.split(_MARK)[1:]
    return {name.strip(): body.strip() for name, _, body in (section.partition("\n") for section in sections)}


@cache
def migrations() -> dict[str, list[str]]:
    """Migration name -> its statements, in the order of the names."""
    folder = files("perdure.stores").joinpath("migrations")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {name.removesuffix(".sql"): _statements(folder.joinpath(name).read_text("utf-8")) for name in names}


def _statements(source: str) -> list[str]:
    lines = (line for line in source.splitlines() if not line.startswith("--"))
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
