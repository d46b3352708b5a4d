"""The URL of a PostgreSQL database: what libpq is told, what the pool is told, and what people may see of it."""

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from perdure.errors import InvalidInput

# Of a pool: how many connections are kept, how many more may be opened for a moment, how many seconds to wait for one.
# patience: for how many seconds an operation is tried again while the server is away: long enough for a restart.
_NUMBERS: Mapping[str, float] = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 30, "patience": 8}
# Of a connection, in libpq's words: a server that has vanished is noticed in seconds, not in a quarter of an hour.
_CONNECTION = {
    "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "15000", "application_name": "perdure",
}  # fmt: skip


class PostgresUrl(NamedTuple):
    """``connection`` is for libpq; ``shown`` is the URL without password and query."""

    connection: Mapping[str, str]
    pool_size: int
    max_overflow: int
    pool_timeout: float
    patience: float
    shown: str


def read_url(url: str) -> PostgresUrl:
    """Take an URL apart. Raises InvalidInput where it can't be read."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        numbers = {**_NUMBERS, **{name: float(value) for name, value in query if name in _NUMBERS}}
        for_libpq = urlencode([(name, value) for name, value in query if name not in _NUMBERS])
        said = conninfo_to_dict(parts._replace(scheme="postgresql", query=for_libpq).geturl())
        named = {name: str(value) for name, value in said.items() if value is not None}
        if not all(port.isdigit() for port in named.get("port", "0").split(",") if port):
            raise ValueError("a port is a number")
        return PostgresUrl(
            {**_CONNECTION, **named}, int(numbers["pool_size"]), int(numbers["max_overflow"]),
            numbers["pool_timeout"], numbers["patience"], _shown(parts.netloc, parts.path),
        )  # fmt: skip
    except (ProgrammingError, ValueError) as error:
        raise InvalidInput(
            f"{_without_password(url)!r} names no database.", hint="Use postgresql://USER:PASSWORD@HOST/DATABASE."
        ) from error


def _shown(place: str, path: str) -> str:
    who, mark, host = place.rpartition("@")
    user, secret, _ = who.partition(":")
    return f"postgresql://{user}{':***' if secret else ''}{mark}{host}{path}"


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
