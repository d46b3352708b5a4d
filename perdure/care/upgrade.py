"""Upgrade of a store in bulk: every thread at rest gets a checkpoint that has its state in the version of the code.

Nobody has to: a thread's next step does the same. But afterwards the upcasters of old versions can go.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from random import SystemRandom

from perdure.app import App
from perdure.care.verify import all_threads
from perdure.checkpoint import Frontier, new_id
from perdure.checkpointer import Change, Checkpointer, Position
from perdure.errors import ConcurrentModification, PerdureError, Unreachable
from perdure.lease import Lease
from perdure.security.keyring import Keyring
from perdure.states.schema import Opened, open_position
from perdure.stores.base import Store, ThreadRow
from perdure.values import Value

NODE = "upgrade"  # what such a checkpoint names as its writer

Progress = Callable[[int, int], None]  # threads that are done, of how many


class Left(Value):
    """A thread whose state is of another version still, and why."""

    thread_id: str
    agent: str
    version: int
    why: str


class Upgraded(Value):
    """What an upgrade came to, or (``dry_run``) would come to. ``left`` are upcast by their next step.

    ``others`` counts the threads of agents that the app doesn't have, by agent.
    """

    store: str
    dry_run: bool = False
    current: int = 0
    upgraded: int = 0
    left: tuple[Left, ...] = ()
    failed: tuple[Left, ...] = ()
    others: dict[str, int] = {}


class _Waits(Exception):
    """Why a thread is left alone."""


async def upgrade(
    store: Store, app: App, *, keyring: Keyring | None = None, agent: str = "", dry_run: bool = False,
    progress: Progress = lambda done, total: None,
) -> Upgraded:  # fmt: skip
    """Upgrade the threads of the app's agents, or of one. Resumable: what is done is up to date.

    Raises AgentNotFound, StoreUnreachable; what is wrong with one thread stands in the report.
    """
    names = [app.graph(agent).name] if agent else list(app.graphs)
    work = _Upgrade(store, app, keyring, dry_run)
    outdated = 0
    async for row in all_threads(store):
        outdated += work.sort(row, names)
    done = 0
    async for row in all_threads(store):
        if row.agent in names and row.schema_version != app.graph(row.agent).state.version:
            await work.upgrade(row)
            done += 1
            progress(done, max(done, outdated))
    return work.report()


class _Upgrade:
    """The threads that were looked at, and what came of them."""

    def __init__(self, store: Store, app: App, keyring: Keyring | None, dry_run: bool) -> None:
        self._store = store
        self._app = app
        self._keyring = keyring
        self._dry_run = dry_run
        self._checkpointer = Checkpointer(store, cache_bytes=0)  # each thread is read once
        self._current = self._upgraded = 0
        self._left: list[Left] = []
        self._failed: list[Left] = []
        self._others: dict[str, int] = {}

    def sort(self, row: ThreadRow, names: list[str]) -> bool:
        """Whether there is something to do for the thread; else it is counted."""
        if row.agent not in self._app.graphs:
            self._others[row.agent] = self._others.get(row.agent, 0) + 1
        elif row.agent in names:
            if row.schema_version != self._app.graph(row.agent).state.version:
                return True
            self._current += 1
        return False

    async def upgrade(self, row: ThreadRow) -> None:
        """One thread. Raises StoreUnreachable."""
        try:
            await self._upgrade(row)
            self._upgraded += 1
        except (_Waits, ConcurrentModification) as reason:
            self._left.append(_left(row, str(reason)))
        except Unreachable:
            raise
        except PerdureError as error:
            self._failed.append(_left(row, str(error)))

    async def _upgrade(self, row: ThreadRow) -> None:
        if row.lease and (lease := Lease.model_validate_json(row.lease)).holds(datetime.now(UTC)):
            raise _Waits(f"{lease.holder} holds its lease until {lease.until}.")
        head = await self._checkpointer.load(row.thread_id, row.head_id)
        opened = open_position(self._app.graph(row.agent).state, head, self._keyring)
        opened.state()  # raises where the upcast state doesn't fit
        if head.next.tasks:
            raise _Waits(f"It stands in the middle of a turn, before {', '.join(head.next.nodes)}.")
        change = _change(row, head, opened)
        if not self._dry_run:
            await self._checkpointer.commit(head, change)

    def report(self) -> Upgraded:
        """What came of it."""
        return Upgraded(
            store=self._store.url, dry_run=self._dry_run, current=self._current, upgraded=self._upgraded,
            left=tuple(self._left), failed=tuple(self._failed), others=self._others,
        )  # fmt: skip


def _change(row: ThreadRow, head: Position, opened: Opened) -> Change:
    """The upcast as data."""
    return Change(
        thread_id=row.thread_id, checkpoint_id=new_id(time.time_ns() // 1_000_000, SystemRandom()), source="update",
        nodes=(NODE,), turn=head.turn, schema_version=opened.schema_version, next=Frontier(),
        facts={"from_version": head.schema_version}, delta=opened.merge({}, step=head.ref.step + 1),
    )  # fmt: skip


def _left(row: ThreadRow, why: str) -> Left:
    return Left(thread_id=row.thread_id, agent=row.agent, version=row.schema_version, why=why)
