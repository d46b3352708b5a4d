"""The demo: two orders, a killed worker, a courier who refuses, and a shop whose own books tell what happened.

    perdure demo

It asks nothing, needs no network, and leaves nothing behind. Its exit code tells whether the books are right.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console

from perdure.errors import PerdureError, UsageError
from perdure.examples.orders.narration import Narrator, make_console
from perdure.examples.orders.parts import demo_home, open_parts
from perdure.examples.orders.processes import WorkerDied, WorkerProcess, last_words
from perdure.examples.orders.shop import Shop
from perdure.examples.orders.tale import Tale
from perdure.values import Value
from perdure.workers.connect import let_go

PAUSE, SLOW_PAUSE = 0.8, 3.0  # seconds before each step, so that a person can read the one before
_LONGEST, _LONGEST_REAL = 180.0, 900.0  # seconds; the scripted story takes less than twenty
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Options(Value):
    """How the demo runs. ``home`` is a new or empty folder; it is kept."""

    home: Path | None = None
    keep: bool = False
    pause: float = PAUSE
    real_model: bool = False


def main(options: Options) -> int:
    """The demo on standard output, to its end or to the first signal; the exit code.

    Raises UsageError for options that can't be.
    """
    return asyncio.run(_until_told(run(options, make_console())))


async def run(options: Options, console: Console, *, open_shop: Callable[[Path], Shop] = Shop) -> int:
    """The demo: 0 if the books are right, else 1. Raises UsageError for options that can't be."""
    narrator = Narrator(console, pause=options.pause)
    kept = options.keep or options.home is not None
    with demo_home(options.home, keep=kept) as home:
        right = await _told(home, options, narrator, open_shop)
        if kept:
            narrator.kept(home)
    return 0 if right else 1


async def _told(home: Path, options: Options, narrator: Narrator, open_shop: Callable[[Path], Shop]) -> bool:
    try:
        async with (
            asyncio.timeout(_LONGEST_REAL if options.real_model else _LONGEST),
            open_parts(home, real_model=options.real_model, open_shop=open_shop) as parts,
        ):
            return await _guarded(parts.worker, Tale(parts, narrator).tell())
    except asyncio.CancelledError:
        narrator.trouble("Stopped; nothing is left running.")
        raise
    except UsageError:
        raise
    except (WorkerDied, PerdureError, TimeoutError) as error:
        narrator.trouble(f"The demo failed: {str(error) or 'it took too long.'}", last_words(home / "worker.log"))
        return False


async def _guarded(worker: WorkerProcess, tale: Coroutine[Any, Any, bool]) -> bool:
    """The tale to its end. Raises WorkerDied as soon as the worker ends by itself: nobody would go on then."""
    telling, watching = asyncio.create_task(tale), asyncio.create_task(worker.watch())
    try:
        await asyncio.wait({telling, watching}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            await watching
        return await telling
    finally:
        for task in (telling, watching):
            task.cancel()
        await asyncio.gather(telling, watching, return_exceptions=True)


async def _until_told(demo: Coroutine[Any, Any, int]) -> int:
    """The demo, which the first signal cancels; later ones are too late to disturb its tidying up."""
    running = asyncio.create_task(demo)
    heard: list[int] = []

    def hear(number: int) -> None:
        if not heard:
            running.cancel()
        heard.append(number)

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            loop.add_signal_handler(number, hear, number)
    try:
        return await running
    except asyncio.CancelledError:
        return 128 + heard[0] if heard else 1
    finally:
        await let_go()
