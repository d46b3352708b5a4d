"""What the SQL stores send to their databases, on its way."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from perdure.stores.postgres import PostgresTransaction
from perdure.stores.sqlite import SqliteTransaction


@contextmanager
def before_each(told: Callable[[str], None]) -> Iterator[None]:
    """Meanwhile who is about to send a statement tells it first, also the beginning and the end of a transaction."""
    sqlite, postgres = SqliteTransaction.execute, PostgresTransaction.execute

    def execute(tx: SqliteTransaction, sql: str, values: Mapping[str, Any] | tuple[()] = ()) -> Any:
        told(sql)
        return sqlite(tx, sql, values)

    async def execute_there(tx: PostgresTransaction, sql: str, values: Mapping[str, Any] | None) -> Any:
        told(sql)
        return await postgres(tx, sql, values)

    with (
        patch.object(SqliteTransaction, "execute", execute),
        patch.object(PostgresTransaction, "execute", execute_there),
    ):
        yield


@contextmanager
def statements() -> Iterator[list[str]]:
    """What is sent meanwhile, by whatever store."""
    sent: list[str] = []
    with before_each(sent.append):
        yield sent


@contextmanager
def at_each_end(asked: str) -> Iterator[list[Any]]:
    """Meanwhile this is asked of the database in each transaction, as the last thing before it is made good: the
    answers, of which each is a single value."""
    answers: list[Any] = []
    sqlite, postgres = SqliteTransaction.commit, PostgresTransaction.commit

    def commit(tx: SqliteTransaction) -> None:
        answers.append(tx.execute(asked).fetchone()[0])
        sqlite(tx)

    async def commit_there(tx: PostgresTransaction) -> None:
        (row,) = await tx.plain(asked)
        answers.extend(dict(row).values())
        await postgres(tx)

    with patch.object(SqliteTransaction, "commit", commit), patch.object(PostgresTransaction, "commit", commit_there):
        yield answers


@contextmanager
def exchanges() -> Iterator[list[int]]:
    """The messages to PostgreSQL meanwhile: how many statements are in each. Each is waited for."""
    sent: list[int] = []
    send = PostgresTransaction._send

    async def told(tx: PostgresTransaction) -> Any:
        sent.append(len(tx._waiting))
        return await send(tx)

    with patch.object(PostgresTransaction, "_send", told):
        yield sent
