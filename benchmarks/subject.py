"""A subject as its own process sees it: one line of JSON asks, one answers, in turn.

The first line says where it runs (``Place``), each further one what it does: ``{"do": "loop", "steps": 50}``. Standard
output carries the answers and nothing else. At the end of the input the process ends.
"""

import asyncio
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TextIO

_LAST_CALLS = 0.2  # seconds; the SDK's own threads finish while there is still an interpreter to finish in


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a subject runs.

    ``address``: HOST:PORT of a Temporal server. ``store``: URL of an empty database, ``sqlite:///FILE`` or
    ``postgresql://…``. ``folder``: its own, empty at first. ``options``: which variety of the subject it is.
    """

    address: str = ""
    store: str = ""
    folder: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """As the first line of the protocol."""
        told = {"address": self.address, "store": self.store, "folder": str(self.folder), "options": self.options}
        return json.dumps(told)

    @classmethod
    def read(cls, line: str) -> "Place":
        """The place that the first line of the protocol tells."""
        told = json.loads(line)
        return cls(**{**told, "folder": Path(told["folder"])})


class Subject(Protocol):
    """What is measured."""

    async def start(self, place: Place) -> dict[str, str]:
        """Get ready: connect, start a worker. Returns the versions of what is measured."""
        ...

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """Do one thing and tell how it went: times in seconds, sizes in bytes. Whatever it raises is told, too."""
        ...

    async def stop(self) -> None:
        """Let go of everything."""
        ...


def serve(subject: Subject, loop: Callable[[Coroutine[Any, Any, int]], int] = asyncio.run) -> None:
    """Serve the protocol until the input ends; then the process ends. ``loop`` runs it."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    code = loop(_serve(subject, answers))
    sys.stderr.flush()
    os._exit(code)  # past the interpreter's own exit, where processes that used Temporal's SDK sometimes crash


async def _serve(subject: Subject, answers: TextIO) -> int:
    try:
        place = Place.read(await asyncio.to_thread(sys.stdin.readline))
        _tell(answers, {"ready": {"versions": await subject.start(place)}})
    except Exception:
        traceback.print_exc()
        return 1
    reading = _read()
    while line := await reading:
        reading, answering = _read(), asyncio.ensure_future(_answer(subject, json.loads(line)))
        reading.add_done_callback(partial(_end_if_deserted, answering))
        _tell(answers, await answering)
    await subject.stop()
    gc.collect()
    await asyncio.sleep(_LAST_CALLS)
    return 0


def _read() -> "asyncio.Future[str]":
    return asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))


def _end_if_deserted(answering: "asyncio.Future[Any]", reading: "asyncio.Future[str]") -> None:
    """End at once where the input ends in the middle of an answer: whoever asked is gone, and the servers with it."""
    if not answering.done() and not reading.result():
        os._exit(1)


async def _answer(subject: Subject, asked: dict[str, Any]) -> dict[str, Any]:
    verb = asked.pop("do")
    try:
        return await subject.do(verb, **asked)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


def _tell(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
