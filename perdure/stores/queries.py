"""Loads the SQL files: queries by name, migrations in order."""

import re
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_MARK = "-- name: "
_LIST = "IN :keys"
_NAMED = re.compile(r"('[^']*')|(?<!:):(\w+)|(%)")  # a literal, the name of a value, or what psycopg would misread


class Query(NamedTuple):
    """A statement as its driver takes it, with values by name. ``lists``: one of them is a list, called ``keys``."""

    sql: str
    lists: bool


@cache
def query(name: str, dialect: str) -> tuple[Query, ...]:
    """The statements of this name in ``sql/queries.sql``, as the dialect needs them."""
    source = _queries().get(f"{name}/{dialect}") or _queries()[name]
    return tuple(Query(_written(part, dialect), _LIST in part) for part in source.split(";\n"))


def _written(source: str, dialect: str) -> str:
    """SQLite's driver takes ``:name``; a list is written out for as many values as there are, see ``listed``."""
    return for_postgres(source) if dialect == "postgresql" else source


def for_postgres(source: str) -> str:
    """A statement with its values as psycopg names them."""
    return _NAMED.sub(_for_psycopg, source.replace(_LIST, "= ANY(:keys)"))


def _for_psycopg(found: re.Match[str]) -> str:
    literal, name, _ = found.groups()
    return f"%({name})s" if name else (literal or "%").replace("%", "%%")


def listed(sql: str, count: int) -> str:
    """A statement that takes a list, for SQLite, which has no values that are lists: ``:key0``, ``:key1`` and so on."""
    return sql.replace(_LIST, f"IN ({','.join(f':key{number}' for number in range(count))})")


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
