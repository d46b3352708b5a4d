"""DBOS: a workflow of steps, each recorded in the database as soon as it is done, as its documentation sets it up.

https://docs.dbos.dev/python/programming-guide ("Workflows and Steps"): functions under ``@DBOS.workflow`` and
``@DBOS.step``, ``DBOS.launch``, and the workflow called like any function. What a step returns is in the database
before the next one begins. The database is the place's store: PostgreSQL is what the documentation recommends for
production, SQLite what it starts with. Settings are the default ones; functions are synchronous, as in the guide.
"""

import asyncio
import json
from typing import Any, TypedDict

from dbos import DBOS, DBOSConfig

from benchmarks import workload
from benchmarks.peer import timed, versions
from benchmarks.sizes import store_bytes
from benchmarks.subject import Place, serve


class Call(TypedDict):
    """What the model asks for: a tool call, in the form of OpenAI's protocol."""

    id: str
    name: str
    arguments: str


@DBOS.step()
def ask(step: int, steps: int) -> Call | str:
    """The model: answers at once, with a call or with its answer."""
    if step == steps:
        return workload.ANSWER
    return Call(id=workload.call_id(step), name=workload.TOOL, arguments=workload.arguments(step))


@DBOS.step()
def look(arguments: str) -> str:
    """The tool."""
    return workload.result(json.loads(arguments)["step"])


@DBOS.workflow()
def loop(steps: int) -> str:
    """To the model's answer."""
    conversation: list[Call | str] = [workload.ASKED]
    while True:
        said = ask(len(conversation) // 2, steps)
        if isinstance(said, str):
            return said
        conversation += [said, look(said["arguments"])]


class Dbos:
    """The workflow as a subject."""

    async def start(self, place: Place) -> dict[str, str]:
        """See Subject."""
        self._store = place.store
        DBOS(config=DBOSConfig(name="loop", system_database_url=place.store))
        await asyncio.to_thread(DBOS.launch)
        return versions("dbos")

    async def do(self, verb: str, **given: Any) -> dict[str, Any]:
        """See Subject: ``loop``."""
        return await {"loop": self._loop}[verb](**given)

    async def stop(self) -> None:
        """See Subject."""
        await asyncio.to_thread(DBOS.destroy)

    async def _loop(self, steps: int, agents: int = 1) -> dict[str, Any]:
        before = store_bytes(self._store)
        told = await timed([asyncio.to_thread(loop, steps) for _ in range(agents)])
        seconds = told["seconds"]
        kept = store_bytes(self._store) - before
        return told | {"span_seconds": seconds, "step_seconds": seconds / steps, "store_bytes": kept}


if __name__ == "__main__":
    from benchmarks.subjects.dbos import Dbos as Imported  # its functions are registered under the module's own name

    serve(Imported())
