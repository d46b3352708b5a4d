"""Connections to a server, opened as they are needed and kept for the next who needs one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from perdure.stores.database import Failed

Connection = AsyncConnection[dict[str, Any]]


class Pool:
    """Keeps ``size`` connections and opens up to ``more`` besides; who would wait longer than ``patience`` seconds for
    one is told so.

    Unlike psycopg's own pool it connects on behalf of whoever asks, and they learn at once why that fails.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], *, size: int, more: int, patience: float) -> None:
        self._connect = connect
        self._size = size
        self._most = size + more
        self._patience = patience
        self._free = asyncio.Semaphore(self._most)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection that nobody else has. Raises Failed where all of them are in use for too long."""
        await self._turn()
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                await self._put_back(connection)
        finally:
            self._free.release()

    async def _turn(self) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise Failed(f"all of {self._most} connections are in use (pool_size and max_overflow)") from None

    async def _put_back(self, connection: Connection) -> None:
        if connection.closed:  # the server has gone away, and the others that nobody uses have lost it too
            await self.close()
        elif len(self._idle) < self._size and connection.info.transaction_status == TransactionStatus.IDLE:
            self._idle.append(connection)
            return
        await connection.close()

    async def close(self) -> None:
        """Close those that nobody uses."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()
