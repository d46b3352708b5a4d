"""What the parts of the store have in common: the server, the keys, and whether there is a schema."""

import asyncio
import random
from typing import Any

from perdure.errors import StoreOutdated
from perdure.stores.redis.keys import Keys
from perdure.stores.redis.server import Argument, Command, Server

SCHEMA = ("0001_spine",)
ATTEMPTS = 20  # one for each time that somebody else is quicker
_PAUSE = 0.005  # seconds


class Part:
    """Every method raises StoreUnreachable, and StoreOutdated where the schema isn't the one it needs."""

    def __init__(self, server: Server, prefix: str) -> None:
        self._server = server
        self._keys = Keys(prefix)
        self._is_ready = False

    async def _applied(self) -> set[str]:
        """The migrations that ran. Raises StoreOutdated where one of them is newer than this code."""
        found = {name.decode() for name in await self._server.ask("HKEYS", self._keys.schema)}
        if unknown := sorted(found - set(SCHEMA)):
            raise StoreOutdated(f"The store {self._server.url} has the schema {unknown[-1]}, newer than this code.")
        return found

    async def _ready(self) -> Server:
        """The server, once it is known to have the schema: that is asked once."""
        if not self._is_ready:
            if await self._applied() != set(SCHEMA):
                url = self._server.url
                raise StoreOutdated(f"The store {url} has no schema yet.", hint="Run `perdure db migrate`.")
            self._is_ready = True
        return self._server

    async def _ask(self, *command: Argument) -> Any:
        return await (await self._ready()).ask(*command)

    async def _ask_all(self, commands: list[Command]) -> list[Any]:
        return await (await self._ready()).ask_all(commands)

    async def _tell(self, *commands: Command) -> list[Any]:
        return await (await self._ready()).tell_all(commands)

    async def _run(self, name: str, thread_id: str, *arguments: Argument) -> Any:
        """Run a script on a thread."""
        return await (await self._ready()).run(name, self._keys.thread(thread_id), *arguments)


async def pause(attempt: int) -> None:
    """Before all attempts but the first: the longer the more there were, by chance, so that two writers who hinder each
    other fall out of step."""
    if attempt:
        await asyncio.sleep(random.uniform(0, _PAUSE * attempt))


def pairs(flat: Any) -> dict[str, bytes]:
    """A hash from its answer: a flat list from a script, a table from the driver."""
    if not isinstance(flat, dict):
        flat = dict(zip(flat[::2], flat[1::2], strict=True))
    return {name.decode(): value for name, value in flat.items()}
