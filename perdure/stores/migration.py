"""The schema of a SQL store: which migrations ran, and running those that have not."""

from perdure.errors import Refused, StoreOutdated
from perdure.stores.database import Database, Transaction
from perdure.stores.queries import migrations
from perdure.stores.rows import now

_MARK = "/* PARTITION BY "


async def migrate(database: Database, partitions: int) -> list[str]:
    """Run what is missing, in one transaction; the names. Workers that start at once wait for one another.

    Raises Refused where the tables are there already and spread over another number of partitions.
    """

    async def work(tx: Transaction) -> list[str]:
        await database.engine.lock_schema(tx)
        await tx.plain("CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)")
        missing = await _missing(tx, database.engine.name)
        for name in missing:
            for statement in migrations(database.engine.name)[name]:
                for part in _spread(statement, partitions):
                    await tx.plain(part)
            await tx.plain(f"INSERT INTO schema_migrations VALUES ('{name}', '{now()}')")
        there = await database.engine.partitions(tx)
        if partitions and there not in (None, partitions):
            raise Refused(
                f"The store {database.url} has {there or 'no'} partitions; that can't be changed to {partitions}.",
                hint="The number is chosen when the tables are made.",
            )
        return missing

    return await database.write(work)


async def missing_migrations(database: Database) -> list[str]:
    """The migrations that have not run yet, oldest first."""
    try:
        return await database.read(lambda tx: _missing(tx, database.engine.name))
    except StoreOutdated:
        return list(migrations(database.engine.name))


async def _missing(tx: Transaction, dialect: str) -> list[str]:
    applied = {row["name"] for row in await tx.plain("SELECT name FROM schema_migrations")}
    return [name for name in migrations(dialect) if name not in applied]


def _spread(statement: str, partitions: int) -> list[str]:
    """A statement, and those that make the partitions of the table that it makes."""
    if not partitions or _MARK not in statement:
        return [statement]
    table = statement.removeprefix("CREATE TABLE ").partition(" ")[0]
    parts = [
        f"CREATE TABLE {table}_{number} PARTITION OF {table} FOR VALUES WITH (MODULUS {partitions}, REMAINDER {number})"
        for number in range(partitions)
    ]
    return [statement.replace("/*", "").replace("*/", ""), *parts]
