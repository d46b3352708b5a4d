"""A socket in front of a server that loses an answer: the command was carried out, and who sent it can't know."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any


class Proxy:
    """Passes everything on, until it is told what to lose the answer to; then it cuts that connection."""

    def __init__(self, server: Path, socket: Path) -> None:
        self.socket = socket
        self.lost = 0
        self._server = server
        self._losing: bytes | None = None
        self._listening: asyncio.Server | None = None

    async def __aenter__(self) -> "Proxy":
        self._listening = await asyncio.start_unix_server(self._serve, self.socket)
        return self

    async def __aexit__(self, *_: Any) -> None:
        assert self._listening is not None, "it was entered"
        self._listening.close()

    def lose(self, command: str) -> None:
        """Lose the answer to the next command that has this in it."""
        self._losing = command.encode()

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, commands = await asyncio.open_unix_connection(self._server)
        back = asyncio.create_task(_pass_on(server, answers))
        with suppress(ConnectionError):
            while data := await client.read(2**16):
                if self._losing is None or self._losing not in data:
                    commands.write(data)
                    continue
                self._losing = None
                back.cancel()
                await asyncio.wait([back])
                commands.write(data)
                await server.read(1)  # it has been carried out
                self.lost += 1
                break
        for writer in (answers, commands):
            writer.close()
        back.cancel()


async def _pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(2**16):
            target.write(data)
