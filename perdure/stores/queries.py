"""Loads the SQL files: queries by name, migrations in order."""

from functools import cache
from importlib.resources import files
from typing import NamedTuple

from sqlalchemy import TextClause, bindparam, text

_MARK = "-- name: "


class Query(NamedTuple):
    """A statement, and the names of the values that it takes."""

    statement: TextClause
    names: frozenset[str]


@cache
def query(name: str, dialect: str) -> tuple[Query, ...]:
    """The statements of this name in ``sql/queries.sql``, as the dialect needs them; ``IN :keys`` takes a list."""
    source = _queries().get(f"{name}/{dialect}") or _queries()[name]
    return tuple(_query(part) for part in source.split(";\n"))


def _query(source: str) -> Query:
    clause = text(source)
    names = frozenset(clause.compile().params)
    return Query(clause.bindparams(bindparam("keys", expanding=True)) if "keys" in names else clause, names)


@cache
def _queries() -> dict[str, str]:
    lines = files("perdure.stores").joinpath("sql/queries.sql").read_text("utf-8").splitlines()
    source = "\n".join(line for line in lines if line.startswith(_MARK) or not line.startswith("--"))
    sections = source.split(_MARK)[1:]
    return {name.strip(): body.strip() for name, _, body in (section.partition("\n") for section in sections)}


@cache
def migrations(dialect: str) -> dict[str, list[str]]:
    """Migration name -> its statements, in the order of the names."""
    folder = files("perdure.stores").joinpath("migrations", dialect)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return {name.removesuffix(".sql"): _statements(folder.joinpath(name).read_text("utf-8")) for name in names}


def _statements(source: str) -> list[str]:
    lines = (line.partition(" -- ")[0] for line in source.splitlines() if not line.startswith("--"))
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]
