"""What an experiment has at hand: servers, databases, subjects. Everything that it started ends with it."""

import asyncio
import itertools
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Self, TypeVar, cast

from benchmarks import places
from benchmarks.process import SubjectProcess
from benchmarks.subject import Place

T = TypeVar("T")


class Bench:
    """The bench of one experiment, ``async with``. ``quick``: fewer rounds and fewer steps are asked for."""

    def __init__(self, folder: Path, *, quick: bool = False) -> None:
        self.quick = quick
        self.versions: dict[str, str] = {}
        self._folder = folder
        self._numbers = itertools.count(1)
        self._stack = AsyncExitStack()
        self._running: dict[str, Any] = {}
        self._subjects: list[SubjectProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(subject.end() for subject in self._subjects))
        for subject in self._subjects:
            self.versions.update(subject.versions)
        await self._stack.aclose()

    def pick(self, full: T, quick: T) -> T:
        """The one that applies."""
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """A folder that nobody uses yet; it isn't there yet."""
        return self._folder / f"{next(self._numbers)}-{name}"

    async def tuned(self) -> places.Server:
        """The server as `perdure dev` starts it; one for the whole experiment."""
        return await self._once("tuned", places.tuned)

    async def documented(self) -> places.Server:
        """`temporal server start-dev --db-filename FILE`; one for the whole experiment."""
        return await self._once("documented", places.documented)

    async def varied(self, **changes: Any) -> places.Server:
        """Another server, tuned with changes (see ``places.varied``)."""
        return await self._stack.enter_async_context(places.varied(self.folder("server"), **changes))

    async def database(self) -> str:
        """The URL of another empty PostgreSQL database."""
        server = await self._once("postgresql", lambda _: places.postgresql())
        return server.database()

    def subject(
        self, module: str, server: places.Server | None = None, *, store: str = "", name: str = "", **options: Any
    ) -> SubjectProcess:  # fmt: skip
        """A subject, which gets ready meanwhile. Its store is a SQLite file in its folder, where none is given; its
        options are its own."""
        folder = self.folder(name or module)
        place = Place(
            address=server.address if server else "", store=store or f"sqlite:///{folder / 'store.db'}", folder=folder,
            options=options,
        )  # fmt: skip
        process = SubjectProcess(module, place, name=name)
        process.begin()
        self._subjects.append(process)
        return process

    async def _once(self, name: str, make: Callable[[Path], AbstractAsyncContextManager[T]]) -> T:
        if name not in self._running:
            self._running[name] = await self._stack.enter_async_context(make(self.folder(name)))
        return cast("T", self._running[name])
