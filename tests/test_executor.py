"""Where workflow tasks run: in the loop of their worker, in its turn, and never inside of another task; how few
threads a worker has; and that it lets go of the workflows that are evicted."""

import asyncio
import os
import subprocess
import sys
import threading
from contextvars import ContextVar

import pytest

from perdure.workers.executor import InLoop
from tests.clerk import app, script
from tests.conftest import MakeWorld

_ASIDE: ContextVar[str] = ContextVar("_ASIDE", default="nothing")


async def test_work_is_done_in_the_loop_when_it_has_its_turn() -> None:
    """Not at once, not in a thread, and not in the context of whoever asked; errors are told; the loop stays."""
    _ASIDE.set("something")
    executor, loop = InLoop(), asyncio.get_running_loop()
    seen: list[object] = []

    def work(number: int, *, fails: bool = False) -> int:
        seen.append((threading.current_thread(), _ASIDE.get(), asyncio.current_task()))
        asyncio._set_running_loop(None)  # as a workflow's own loop does
        return number // (not fails)

    done = loop.run_in_executor(executor, work, 7)
    assert seen == []
    assert await done == 7
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(executor, lambda: work(7, fails=True))
    assert asyncio.get_running_loop() is loop
    given_up = executor.submit(work, 7)
    assert given_up.cancel()
    await asyncio.sleep(0)
    assert seen == [(threading.current_thread(), "nothing", None)] * 2


async def test_a_worker_needs_no_thread_for_its_workflows(make_world: MakeWorld) -> None:
    """The SDK has them for workflow code that never ends, and there is none of that."""
    async with make_world(app, script) as world:
        thread, message = await world.begin("clerk", "pay 50")
        assert (await world.ended(thread, message)).answer == "Paid."
        assert not [one.name for one in threading.enumerate() if "workflow" in one.name.lower()]


# A process that is prepared, and has the core's runtime: how many threads that has.
COUNTS = """
from pathlib import Path
from perdure.workers.tuning import prepare
prepare()
from temporalio.runtime import Runtime
Runtime.default()
print(len(list(Path("/proc/self/task").iterdir())) - 1)  # without Python's own
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize(("wanted", "threads"), [({}, 1), ({"TOKIO_WORKER_THREADS": "3"}, 3)])
def test_the_sdks_core_has_one_thread(wanted: dict[str, str], threads: int) -> None:
    """Whatever the machine has, unless the environment says how many."""
    environment = {name: value for name, value in os.environ.items() if name != "TOKIO_WORKER_THREADS"}
    ran = subprocess.run(
        [sys.executable, "-c", COUNTS], env=environment | wanted, capture_output=True, text=True, timeout=60
    )
    assert (ran.stdout.strip(), ran.stderr) == (str(threads), "")


# A process that is prepared, in which things in cycles have become old and are dropped: how many are still there once
# others have been made.
LETS_GO = """
import gc, weakref
from perdure.workers.tuning import prepare, settle
class Evicted:
    def __init__(self):
        self.itself = self
prepare()
settle()
evicted = [Evicted() for _ in range(300)]
left = weakref.WeakSet(evicted)
gc.collect()
del evicted
others = [[] for _ in range(300_000)]
print(len(left))
"""


def test_what_is_evicted_is_soon_let_go() -> None:
    """Though it had become old. With Python's own thresholds all would be there, after three times as many too."""
    ran = subprocess.run([sys.executable, "-c", LETS_GO], capture_output=True, text=True, timeout=60)
    assert (ran.stdout.strip(), ran.stderr) == ("0", "")
