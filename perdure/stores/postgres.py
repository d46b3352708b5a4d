"""The SQL store's database on a PostgreSQL server: many writers, rows are locked."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from perdure.errors import InvalidInput
from perdure.stores.database import Database

# Of a pool: how many connections are kept, how many more may be opened for a moment, how many seconds to wait for one.
# patience: for how many seconds an operation is tried again while the server is away: long enough for a restart.
_NUMBERS: Mapping[str, float] = {"pool_size": 10, "max_overflow": 10, "pool_timeout": 30, "patience": 8}
# Of a connection, in libpq's words: a server that has vanished is noticed in seconds, not in a quarter of an hour.
_CONNECTION = {
    "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "15000", "application_name": "perdure",
}  # fmt: skip
_SCHEMA_LOCK = 0x70657264757265  # any number, the same for everybody: "perdure"

# Error codes of the server: https://www.postgresql.org/docs/current/errcodes-appendix.html
_PASSING = frozenset({"40001", "40P01", "53300", "57P01", "57P02", "57P03"})
_CONNECTION_LOST = "08"
_NO_TABLE = frozenset({"42P01", "3F000"})


def open_postgres(url: str) -> Database:
    """The database at ``postgresql://user:password@host/database?…``; nothing is asked of it until the first use.

    Besides libpq's own parameters the query may say ``pool_size`` (10), ``max_overflow`` (10), ``pool_timeout``
    (30 seconds) and ``patience`` (8 seconds). Raises InvalidInput for an URL that can't be read, and where the driver
    is not installed.
    """
    place, numbers = _read(url)
    try:
        engine = create_async_engine(
            place, pool_size=int(numbers["pool_size"]), max_overflow=int(numbers["max_overflow"]),
            pool_timeout=numbers["pool_timeout"],
        )  # fmt: skip
    except ImportError as error:
        raise InvalidInput(
            f"PostgreSQL needs a driver that is not installed ({error}).", hint="pip install 'perdure[postgres]'."
        ) from error
    shown = place.set(drivername="postgresql", query={}).render_as_string(hide_password=True)
    return Database(engine, PostgresDialect(), shown, patience=numbers["patience"])


def _read(url: str) -> tuple[URL, dict[str, float]]:
    try:
        place = make_url(url).set(drivername="postgresql+psycopg")
        asked = {name: float(str(place.query[name])) for name in _NUMBERS.keys() & place.query.keys()}
    except (ArgumentError, ValueError) as error:
        raise InvalidInput(
            f"{_without_password(url)!r} names no database.", hint="Use postgresql://USER:PASSWORD@HOST/DATABASE."
        ) from error
    rest = {name: value for name, value in place.query.items() if name not in _NUMBERS}
    return place.set(query={**_CONNECTION, **rest}), {**_NUMBERS, **asked}


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class PostgresDialect:
    """See ``perdure.stores.database.Dialect``."""

    name = "postgresql"
    reads: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}  # one query needs no BEGIN and no end

    def passing(self, error: DBAPIError) -> bool:
        code = getattr(error.orig, "sqlstate", None)
        if code is None:  # the connection was lost, or there is nobody to connect to
            return error.connection_invalidated or isinstance(error, OperationalError)
        return code in _PASSING or code.startswith(_CONNECTION_LOST)

    def outdated(self, error: DBAPIError) -> bool:
        return getattr(error.orig, "sqlstate", None) in _NO_TABLE

    def writes(self, durable: bool) -> Mapping[str, Any]:
        return {}

    async def harden(self, connection: AsyncConnection) -> None:
        await connection.exec_driver_sql(
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )

    async def lock_schema(self, connection: AsyncConnection) -> None:
        await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    async def partitions(self, connection: AsyncConnection) -> int | None:
        count = "SELECT count(*) FROM pg_inherits WHERE inhparent = to_regclass('checkpoints')"
        return int((await connection.exec_driver_sql(count)).scalar_one())

    async def cautions(self, connection: AsyncConnection) -> list[str]:
        said = {
            name: (await connection.exec_driver_sql(f"SHOW {name}")).scalar_one()
            for name in ("fsync", "full_page_writes", "synchronous_commit")
        }
        lost = {
            "fsync": "a crash of its machine can destroy the whole database.",
            "full_page_writes": "a crash of its machine can destroy pages of the database.",
            "synchronous_commit": "a crash of the server can lose the commits of the last moments (Temporal's retries "
            "write them again), but no claim of an irreversible effect.",
        }
        return [f"PostgreSQL runs with {name}=off: {what}" for name, what in lost.items() if said[name] == "off"]

    async def bytes(self, connection: AsyncConnection, tables: Sequence[str]) -> int:
        total = 0
        for table in tables:
            parts = f"SELECT inhrelid FROM pg_inherits WHERE inhparent = '{table}'::regclass"
            every = f"SELECT '{table}'::regclass AS part UNION ALL ({parts})"
            size = f"SELECT sum(pg_total_relation_size(part)) FROM ({every}) AS parts"
            total += int((await connection.exec_driver_sql(size)).scalar_one())
        return total
